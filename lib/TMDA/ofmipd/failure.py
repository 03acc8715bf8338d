# SPDX-License-Identifier: GPL-2.0-or-later
"""Why the daemon does not start.

Every part that takes part in the start raises StartError; main prints its text as one line and
exits with its status.  The numbers are those of sysexits(3), written out because scripts and
service managers know them by number.
"""

from __future__ import annotations

USAGE = 64         # the command line is wrong
UNAVAILABLE = 69   # this version or this machine lacks what was asked for
SOFTWARE = 70      # a fault of ours
OS_ERROR = 71      # the system refused a socket, a process or a file
TEMPORARY = 75     # the same command may work later: the address is in use
CONFIG = 78        # a file is missing, unsafe or broken


class StartError(Exception):
    """One line for the administrator and the exit status that goes with it."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


class UsageError(StartError):
    """The command line is wrong."""

    def __init__(self, text: str):
        super().__init__(USAGE, text)
