# SPDX-License-Identifier: GPL-2.0-or-later
"""How many sessions each worker has, in memory that all workers share.

Mail programs keep their connections, so that a worker that happened to take most of them would be
busy for hours while another has nothing to do.  The server of a worker therefore looks here
before it takes a connection, and lets a worker that has fewer sessions try first.

Each worker writes its own number only, so nothing is locked.  A number that is a moment old, or
that of a worker that has just died, costs one connection a few milliseconds.
"""

from __future__ import annotations

import mmap


class Place:
    """One worker's number among those of all."""

    def __init__(self, counts, index: int):
        self._counts = counts
        self._index = index

    def record(self, sessions: int) -> None:
        """That many sessions does this worker have now."""
        self._counts[self._index] = sessions

    def yields(self) -> bool:
        """True if another worker has fewer sessions."""
        return self._counts[self._index] > min(self._counts)


class Balance:
    """Made by the parent of all workers before it forks them; place() is for each of them."""

    def __init__(self, workers: int):
        self._counts = memoryview(mmap.mmap(-1, 4 * workers)).cast('I')

    def place(self, index: int) -> Place:
        """The place of a worker that begins now: it has no sessions."""
        place = Place(self._counts, index)
        place.record(0)
        return place


def alone() -> Place:
    """The place of a process that shares its sockets with none."""
    return Place([0], 0)
