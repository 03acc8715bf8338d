# SPDX-License-Identifier: GPL-2.0-or-later
"""Which processors a serving process uses.

Of the threads of a process only one runs Python at a time.  Where there are several processors,
the others wake up on them whenever that one enters the system, mostly in vain: this has cost half
of the messages that one process can send in a second.  So a process that serves many sessions keeps
to one processor.  What runs outside of Python's lock may have them all, inside of anywhere():
programs, the hashing of passwords, the copying of large messages.

Linux has what it takes (sched_setaffinity(2)); elsewhere all this does nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator

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


@contextlib.contextmanager
def anywhere(wanted: bool = True) -> Iterator[None]:
    """Inside of the with statement the calling thread, and processes it makes, use all processors.

    wanted=False changes nothing.
    """
    if not wanted or not _allowed:
        yield
        return
    ours = os.sched_getaffinity(0)
    _use(_allowed)
    try:
        yield
    finally:
        _use(ours)


def _use(processors: Collection[int]) -> None:
    with contextlib.suppress(OSError):  # forbidden, or they are gone: it is only about speed
        os.sched_setaffinity(0, processors)
