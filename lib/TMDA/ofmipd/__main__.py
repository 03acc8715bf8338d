# SPDX-License-Identifier: GPL-2.0-or-later
"""python -m TMDA.ofmipd: the same as bin/tmda-ofmipd."""
from __future__ import annotations

import sys

from TMDA.ofmipd.main import main

if __name__ == '__main__':
    sys.exit(main())
