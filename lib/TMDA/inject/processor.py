# SPDX-License-Identifier: GPL-2.0-or-later
"""Which processors a serving process uses.

Of the threads of a process only one runs Python at a time.  Where there are several processors,
the others wake up on them whenever that one enters the system, mostly in vain: this has cost half
of the messages that one process can send in a second.  So a process that serves many sessions keeps
to one processor.  What runs outside of Python's lock may have them all, inside of Anywhere():
programs, the hashing of passwords, the copying of large messages.

Linux has what it takes (sched_setaffinity(2)); elsewhere all this does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Collection

_allowed: Collection[int] = ()  # processors the process had before it kept to one


def keep_to_one(number: int) -> None:
    """Use one of the processors that we may use: number, modulo how many they are, tells which.

    Threads and processes made later do the same.
    """
    global _allowed
    if not hasattr(os, 'sched_setaffinity'):
        return
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) > 1:
        _allowed = processors
        _use({processors[number % len(processors)]})


class Anywhere:
    """A context in which the calling thread, and processes it makes, use all processors.

    wanted=False changes nothing.
    """

    def __init__(self, wanted: bool = True):
        self._wanted = wanted
        self._before: Collection[int] = ()

    def __enter__(self) -> None:
        if self._wanted and _allowed:
            self._before = os.sched_getaffinity(0)
            _use(_allowed)

    def __exit__(self, *unused) -> None:
        if self._before:
            _use(self._before)


def _use(processors: Collection[int]) -> None:
    try:
        os.sched_setaffinity(0, processors)
    except OSError:
        pass  # forbidden, or they are gone: it is only about speed
