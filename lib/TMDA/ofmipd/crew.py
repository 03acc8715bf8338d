# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads that serve one connection after the other.

A mail program that connects for each message would have us make a thread for each, which costs
about as much as its greeting and login.  So some threads that have nothing to do stay.
"""

from __future__ import annotations

import queue
import threading
from typing import Callable

MOST_IDLE = 16  # threads that wait for work


class Crew:
    """run() what there is to do; close() in the end.  Safe to be used by several threads."""

    def __init__(self):
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue = queue.SimpleQueue()
        self._idle = 0  # threads that wait, less the work that waits for them
        self._most = MOST_IDLE

    def run(self, work: Callable[[], None]) -> None:
        """Call work, which raises nothing, in a thread.  Raises RuntimeError if none can be had."""
        with self._lock:
            waiting = self._idle > 0
            self._idle -= waiting
        if waiting:
            self._work.put(work)
        else:
            threading.Thread(target=self._serve, args=(work,), daemon=True).start()

    def close(self) -> None:
        """Threads that wait end now, the others after their work."""
        with self._lock:
            idle, self._idle, self._most = self._idle, 0, 0
        for _ in range(idle):
            self._work.put(None)

    def _serve(self, work: Callable[[], None] | None) -> None:
        while work is not None:
            work()
            del work  # with all that belongs to the connection
            with self._lock:
                if self._idle >= self._most:
                    return
                self._idle += 1
            work = self._work.get()
