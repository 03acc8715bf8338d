# SPDX-License-Identifier: GPL-2.0-or-later
"""The octets of one session, buffered both ways, over a socket or a pair of pipes.

Session, login and data reader read and write through a Wire; nothing else touches the descriptors.

Time: `deadline` is absolute (time.monotonic()).  It bounds every wait, for input and for output,
and does not move when something arrives, so that a client cannot renew it drop by drop.
Output: write() gathers; everything gathered goes out in one system call before a read has to wait
for the client.  So the replies to pipelined commands share a packet (RFC 2920 3.2).
Shutdown: a Shutdown is shared by all wires of a process.  Once it has begun, a wire that waits (or
is asked) for a command raises Interrupted; while `interruptible` is False, as during DATA, it goes
on.  There is no race: the flag is set before a pipe becomes readable, and it stays readable.
TLS: start_tls() puts a TlsLayer between the buffers and the stream.
"""

from __future__ import annotations

import math
import os
import select
import socket
from time import monotonic
from typing import NamedTuple

from TMDA.ofmipd.streams import PipeStream, SocketStream

COMMAND_BLOCK = 8192  # octets asked for at a time when a command is awaited
DATA_BLOCK = 65536  # the same for a message
OUTPUT_BLOCK = 16384  # octets of replies gathered at most
CLOSING_SECONDS = 2  # for the last reply, and for the client to close its side
LONGEST_POLL = 3600.0  # seconds; poll() counts milliseconds in an int


class WireError(Exception):
    """The session can't go on reading.  str() is the cause for the log."""


class TimedOut(WireError):
    """The deadline has passed."""


class Disconnected(WireError):
    """The client is gone."""


class TlsFailed(Disconnected):
    """The TLS handshake or a TLS record was not valid."""


class Interrupted(WireError):
    """The daemon is shutting down."""


class LineTooLong(Exception):
    """A line beyond the limit was read and dropped."""


class TlsInfo(NamedTuple):
    """What protects the wire, as in ('TLSv1.3', 'TLS_AES_256_GCM_SHA384')."""

    version: str
    cipher: str


class Shutdown:
    """Tells all wires of a process that it is to end.  A signal handler may call begin()."""

    def __init__(self):
        self.begun = False
        self._reader, self._writer = os.pipe()

    def begin(self) -> None:
        """Wake every session that waits for a command, now or later."""
        if not self.begun:
            self.begun = True
            os.write(self._writer, b'.')

    def fileno(self) -> int:
        """A descriptor that is readable from begin() on."""
        return self._reader

    def close(self) -> None:
        """Close the pipe, when no wire uses it any more."""
        os.close(self._reader)
        os.close(self._writer)


class Wire:
    """See the module.  Make one with over_socket() or over_pipes()."""

    def __init__(self, stream: SocketStream | PipeStream, shutdown: Shutdown | None = None):
        self.deadline = math.inf
        self.interruptible = True
        self.tls: TlsInfo | None = None
        self._stream = stream
        self._layer = None
        self._input = b''
        self._at = 0  # what lies before was read
        self._output: list = []
        self._output_size = 0
        self._closed = False
        self._shutdown = shutdown
        self._input_poll = _poll(stream.input, select.POLLIN)
        self._output_poll = _poll(stream.output, select.POLLOUT)
        self._command_poll = self._input_poll
        if shutdown is not None:
            self._command_poll = _poll(stream.input, select.POLLIN)
            self._command_poll.register(shutdown.fileno(), select.POLLIN)

    @classmethod
    def over_socket(cls, sock: socket.socket, shutdown: Shutdown | None = None) -> Wire:
        """A wire over a connected socket, which it closes in the end."""
        return cls(SocketStream(sock), shutdown)

    @classmethod
    def over_pipes(cls, input_fd: int, output_fd: int, shutdown: Shutdown | None = None) -> Wire:
        """A wire over two descriptors, which it closes in the end."""
        return cls(PipeStream(input_fd, output_fd), shutdown)

    # Reading

    def read_line(self, limit: int) -> bytes:
        """The next line with its LF, at most limit octets.

        A longer line is read to its end and dropped, then LineTooLong is raised.  Raises TimedOut,
        Disconnected, and Interrupted once a shutdown has begun.
        """
        if self._shutdown is not None and self._shutdown.begun and self.interruptible:
            raise Interrupted('shutdown')
        end = self._input.find(b'\n', self._at) + 1
        if not end:
            end = self._receive_line(limit)
        line = self._input[self._at:end]
        self._at = end
        if len(line) > limit:
            raise LineTooLong
        return line

    def read_some(self) -> bytes:
        """What is there, at least one octet.  Raises TimedOut and Disconnected."""
        if self._at < len(self._input):
            data = self._input[self._at:]
            self.drop_input()
            return data
        self.flush()
        return self._receive(DATA_BLOCK)

    @property
    def buffered(self) -> bytes:
        """Octets that arrived and were not read yet."""
        return self._input[self._at:]

    def push_back(self, data: bytes) -> None:
        """Put octets back in front of what is read next."""
        self._input = data + self._input[self._at:]
        self._at = 0

    def drop_input(self) -> None:
        """Forget all octets that arrived and were not read yet."""
        self._input = b''
        self._at = 0

    def _receive_line(self, limit: int) -> int:
        """Receive until the buffer holds a whole line; return where it ends."""
        self._input = self._input[self._at:]
        self._at = 0
        too_long = False
        while True:
            self.flush()
            block = self._receive(COMMAND_BLOCK)
            end = block.find(b'\n') + 1
            if end:
                end += len(self._input)
                self._input += block
                if too_long:
                    self._at = end
                    raise LineTooLong
                return end
            too_long = too_long or len(self._input) + len(block) > limit
            self._input = b'' if too_long else self._input + block

    def _receive(self, size: int) -> bytes:
        """Octets from the client, decrypted where there is TLS; at least one."""
        if self._layer is None:
            return self._receive_raw(size)
        while True:
            try:
                data = self._layer.decrypt(size)
            except OSError as error:  # ssl.SSLError is one
                raise TlsFailed(str(error)) from None
            if data:
                return data
            if data is not None:
                raise Disconnected('closed by the client')
            self._send(self._layer.take())
            self._layer.feed(self._receive_raw(DATA_BLOCK))

    def _receive_raw(self, size: int) -> bytes:
        while True:
            self._await_input()
            try:
                data = self._stream.receive(size)
            except BlockingIOError:
                continue
            except OSError as error:
                raise Disconnected(error.strerror) from None
            if not data:
                raise Disconnected('closed by the client')
            return data

    # Writing

    def write(self, data: bytes) -> None:
        """Gather data; it leaves at the next read that has to wait, or at flush()."""
        self._output.append(data)
        self._output_size += len(data)
        if self._output_size > OUTPUT_BLOCK:
            self.flush()

    def flush(self) -> None:
        """Send what was gathered.  Raises TimedOut and Disconnected."""
        if not self._output:
            return
        data = b''.join(self._output)
        self._output = []
        self._output_size = 0
        self._send(data if self._layer is None else self._encrypt(data))

    def _encrypt(self, data: bytes) -> bytes:
        try:
            self._layer.encrypt(data)
        except OSError as error:  # ssl.SSLError is one
            raise TlsFailed(str(error)) from None
        return self._layer.take()

    def _send(self, data: bytes) -> None:
        while data:
            try:
                data = data[self._stream.send(data):]
            except BlockingIOError:
                self._await(self._output_poll)
            except OSError as error:
                raise Disconnected(error.strerror) from None

    # Waiting

    def wait(self, seconds: float) -> None:
        """Let time pass.  Raises Interrupted as soon as a shutdown has begun."""
        poll = select.poll()
        if self._shutdown is not None:
            poll.register(self._shutdown.fileno(), select.POLLIN)
        if poll.poll(seconds * 1000):
            raise Interrupted('shutdown')

    def _await_input(self) -> None:
        if not self.interruptible:
            self._await(self._input_poll)
            return
        for descriptor, _event in self._await(self._command_poll):
            if descriptor != self._stream.input:
                raise Interrupted('shutdown')

    def _await(self, poll: select.poll) -> list:
        while True:
            remaining = self.deadline - monotonic()
            if remaining <= 0:
                raise TimedOut('timeout')
            ready = poll.poll(min(remaining, LONGEST_POLL) * 1000)
            if ready:
                return ready

    # TLS and the end

    def start_tls(self, context) -> None:
        """Send what was gathered, then do the server's part of a TLS handshake in this context.

        What is buffered counts as the beginning of the handshake; after a STARTTLS command the
        caller has to drop_input() first.  Raises TlsFailed, TimedOut, Disconnected, Interrupted.
        """
        from TMDA.ofmipd.tlslayer import TlsLayer
        self.flush()
        layer = TlsLayer(context)
        layer.feed(self.buffered)
        self.drop_input()
        try:
            while not layer.handshake():
                self._send(layer.take())
                layer.feed(self._receive_raw(COMMAND_BLOCK))
        except OSError as error:  # ssl.SSLError is one
            self._send(layer.take())  # the alert that tells the client why
            raise TlsFailed(str(error)) from None
        self._send(layer.take())
        self._layer = layer
        self.tls = TlsInfo(layer.version, layer.cipher)

    def finish(self, linger: bool = False) -> None:
        """Send what was gathered, say goodbye and close.  Raises nothing that the peer can cause.

        linger: first read, for CLOSING_SECONDS at most, until the client has closed.  Closing a
        socket while octets are unread resets the connection, and the client may lose the replies.
        """
        if self._closed:
            return
        self.deadline = monotonic() + CLOSING_SECONDS
        self.interruptible = False
        try:
            self._say_goodbye()
            if linger:
                self._stream.finish_output()
                while True:
                    self._receive_raw(DATA_BLOCK)
        except WireError:
            pass
        finally:
            self.close()

    def _say_goodbye(self) -> None:
        if self._layer is None:
            self.flush()
            return
        data = self._encrypt(b''.join(self._output))
        self._layer.goodbye()
        self._send(data + self._layer.take())

    def close(self) -> None:
        """Close the descriptors; what was gathered is lost."""
        self._closed = True
        self._output = []
        self._stream.close()


def _poll(descriptor: int, events: int) -> select.poll:
    poll = select.poll()
    poll.register(descriptor, events)
    return poll
