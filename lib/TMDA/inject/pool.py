# SPDX-License-Identifier: GPL-2.0-or-later
"""Upstream connections kept between messages.

Used by smtpout, from any number of threads; a connection is in the pool or in one thread's hands.
The one that came back last is taken first, so that a quiet time lets the others grow old and be
closed.  Only connections of equal peers (host, port, TLS, login) are shared.  Before it is reused,
a connection is looked at without a round trip: one that the server has closed, or said 421 on, is
dropped; what this misses shows at the first command, and smtpout then takes a new connection.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing it takes smtplib along, which only the smtp transport needs
    from TMDA.inject.smtplink import Link, Peer


class Pool:
    """The idle connections of a process; how many and how long is for the callers' limits."""

    def __init__(self):
        self._lock = threading.Lock()
        self._idle: list[Link] = []  # in the order in which they came back

    @property
    def carries_dsn(self) -> bool:
        """True while there are idle connections and all their servers have offered DSN."""
        with self._lock:
            return bool(self._idle) and all('dsn' in link.features for link in self._idle)

    def take(self, peer: Peer) -> Link | None:
        """A connection to peer that is alive as far as can be seen, or None."""
        while True:
            link = self._pop(peer)
            if link is None or not link.stale():
                return link
            link.abort()

    def give(self, link: Link, limits, most_messages: int = 0) -> None:
        """Take link back: into the pool, or to its end.

        One that has carried most_messages messages (0: no limit) is closed.
        """
        if not link.settle():
            return
        if most_messages and link.messages >= most_messages:
            link.quit()
            return
        link.idle_since = time.monotonic()
        with self._lock:
            self._idle.append(link)
        self.expire(limits)

    def expire(self, limits) -> None:
        """Close what has been idle for too long, and the oldest beyond the number allowed."""
        oldest = time.monotonic() - limits.idle_seconds
        with self._lock:
            count = max(len(self._idle) - limits.idle_connections, 0)
            while count < len(self._idle) and self._idle[count].idle_since < oldest:
                count += 1
            old, self._idle = self._idle[:count], self._idle[count:]
        for link in old:
            link.quit()

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            old, self._idle = self._idle, []
        for link in old:
            link.quit()

    def _pop(self, peer: Peer) -> Link | None:
        with self._lock:
            for position in range(len(self._idle) - 1, -1, -1):
                if self._idle[position].peer == peer:
                    link = self._idle.pop(position)
                    link.reused, link.answered = True, False
                    return link
        return None


shared = Pool()  # that of the process: connections are worth sharing between all its sessions
