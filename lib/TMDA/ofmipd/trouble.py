# SPDX-License-Identifier: GPL-2.0-or-later
"""What the log says of an exception that nobody expected."""

from __future__ import annotations

import os


def fault(error: BaseException) -> dict:
    """The facts for a `session-failed` event: `cause`, the exception, and `where`, file:line."""
    facts = {'cause': '%s: %s' % (type(error).__name__, error), 'where': ''}
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None:
        name = os.path.basename(trace.tb_frame.f_code.co_filename)
        facts['where'] = '%s:%d' % (name, trace.tb_lineno)
    return facts
