# SPDX-License-Identifier: GPL-2.0-or-later
"""For programs that must not run as root."""
from __future__ import annotations

import os
import pwd
import sys


def become_nobody() -> None:
    """Where root has started this process: be the account nobody, for good.

    The interpreter and this tree must be within its reach, or the process ends with a message.
    """
    if os.geteuid():
        return
    account = pwd.getpwnam('nobody')
    os.setgroups([])
    os.setresgid(*[account.pw_gid] * 3)
    os.setresuid(*[account.pw_uid] * 3)
    os.chdir('/')
    if not (os.access(sys.executable, os.X_OK) and os.access(__file__, os.R_OK)):
        sys.exit('the account nobody can not run %s or read %s' % (sys.executable, __file__))
