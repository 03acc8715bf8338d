# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes guessing passwords slow: remembers which addresses failed to log in, and how often.

One Guard serves all sessions of a process; login.py asks it.  Each failure doubles the delay for
that address up to a limit; a success or a quiet quarter of an hour ends it.  The session waits in
its own thread, so that nobody else is slowed down.  IPv6 clients count by their /64, which is what
one subscriber has.  Memory is bounded: the address that failed longest ago is forgotten first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from time import monotonic

from TMDA.inject.limits import Limits
from TMDA.ofmipd.client import Client, packed_address

QUIET_SECONDS = 900  # without a failure, after which an address starts anew
_NETWORK_OCTETS = 8  # of an IPv6 address


class Guard:
    """Thread-safe; clock returns seconds and never goes back."""

    def __init__(self, limits: Limits, clock=monotonic):
        self._first = limits.login_delay
        self._most = limits.login_delay_most
        self._capacity = limits.guess_addresses
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict = OrderedDict()  # key -> (count, time of the last)

    def failed(self, client: Client) -> None:
        """A login from there has failed."""
        key = _key(client)
        with self._lock:
            count = self._count(key) + 1
            self._failures[key] = (count, self._clock())
            self._failures.move_to_end(key)
            if len(self._failures) > self._capacity:
                self._failures.popitem(last=False)

    def succeeded(self, client: Client) -> None:
        """A login from there was right: what was before is forgiven."""
        with self._lock:
            self._failures.pop(_key(client), None)

    def delay(self, client: Client) -> float:
        """Seconds to wait before that client may learn that it failed; 0 if it never did."""
        with self._lock:
            count = self._count(_key(client))
        if not count:
            return 0
        return min(self._first * 2.0 ** min(count - 1, 30), self._most)

    def _count(self, key: bytes) -> int:
        count, last = self._failures.get(key, (0, 0.0))
        return count if self._clock() - last < QUIET_SECONDS else 0


def _key(client: Client) -> bytes:
    packed = packed_address(client.address)
    return packed[:_NETWORK_OCTETS] if len(packed) == 16 else packed
