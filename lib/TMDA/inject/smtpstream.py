# SPDX-License-Identifier: GPL-2.0-or-later
"""The octets of one upstream connection, with deadlines: over any socket, or faster without TLS.

Used by smtplink.  Both classes have the same methods.  TimedStream leaves the waiting to the
socket's own timeout; that serves TLS too, and smtplib, which uses the same socket before the first
transaction.  But each call then costs three system calls, one of them to set the timeout.
PlainStream asks the system to wait only where there is something to wait for.
"""

from __future__ import annotations

import select
import socket
import time

BLOCK = 65536  # octets asked for at a time


class TimedStream:
    """Over any socket, one with TLS too."""

    def __init__(self, sock):
        self._sock = sock

    def receive(self, deadline: float) -> bytes:
        """What has come, at least one octet; b'' at the end of the connection.

        deadline is in terms of time.monotonic(); what is there already is taken even when it is
        over.  Raises socket.timeout, other OSError.
        """
        self._sock.settimeout(max(deadline - time.monotonic(), 0.001))
        return self._sock.recv(BLOCK)

    def send(self, data: bytes, seconds: float) -> None:
        """Send all of data.  Raises socket.timeout after some seconds, other OSError."""
        self._sock.settimeout(seconds)
        self._sock.sendall(data)

    def readable(self) -> bool:
        """True when octets have come, or the connection has ended."""
        return bool(_poll(self._sock, select.POLLIN).poll(0))


class PlainStream:
    """Over a socket without TLS, which does not block from now on.  Methods as above."""

    def __init__(self, sock: socket.socket):
        sock.setblocking(False)
        self._sock = sock
        self._input = _poll(sock, select.POLLIN)
        self._output = _poll(sock, select.POLLOUT)

    def receive(self, deadline: float) -> bytes:
        while True:
            # An answer takes a round trip: it is never there at once, so waiting comes first.
            _wait(self._input, deadline)
            try:
                return self._sock.recv(BLOCK)
            except BlockingIOError:
                pass

    def send(self, data: bytes, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._sock.send(rest):]
            except BlockingIOError:
                _wait(self._output, deadline)

    def readable(self) -> bool:
        return bool(self._input.poll(0))


def _poll(sock, events: int):
    poll = select.poll()
    poll.register(sock, events)
    return poll


def _wait(poll, deadline: float) -> None:
    if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
        raise socket.timeout('timed out')
