# SPDX-License-Identifier: GPL-2.0-or-later
"""The two things that carry a session: a connected socket, or a pair of pipes.

Used by wire.Wire only.  A stream has the descriptors `input` and `output` to poll, `receive(size)`
and `send(data)` that never block (BlockingIOError where they would), `finish_output()` and
`close()`.
"""

from __future__ import annotations

import os
import select
import socket

PIPE_BLOCK = 512  # POSIX _POSIX_PIPE_BUF: a pipe that polls as writable takes this much at once


class SocketStream:
    """A connected stream socket, which belongs to the stream from now on."""

    def __init__(self, sock: socket.socket):
        sock.setblocking(False)
        try:
            # Replies are gathered already; to wait for more (RFC 896) only delays a second one.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            pass  # not TCP
        self._socket = sock
        self.input = self.output = sock.fileno()
        self.receive = sock.recv
        self.send = sock.send

    def finish_output(self) -> None:
        """Let the peer see the end of what we send."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class PipeStream:
    """Two descriptors, as a program gets them from stunnel's exec; they belong to the stream.

    Their blocking mode is left alone, because other processes may share it: each call polls first.
    """

    def __init__(self, input_fd: int, output_fd: int):
        self.input = input_fd
        self.output = output_fd
        self._open = {input_fd, output_fd}
        self._writable = select.poll()
        self._writable.register(output_fd, select.POLLOUT)

    def receive(self, size: int) -> bytes:
        """At most size octets; b'' at the end.  The caller has polled."""
        return os.read(self.input, size)

    def send(self, data: bytes) -> int:
        """Write the beginning of data and return how much that was."""
        if not self._writable.poll(0):
            raise BlockingIOError
        return os.write(self.output, data[:PIPE_BLOCK])

    def finish_output(self) -> None:
        """Let the peer see the end of what we send."""
        if self.output != self.input:
            self._close(self.output)

    def close(self) -> None:
        """Close both descriptors."""
        self._close(self.output)
        self._close(self.input)

    def _close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.remove(descriptor)
            os.close(descriptor)
