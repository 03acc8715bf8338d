# SPDX-License-Identifier: GPL-2.0-or-later
"""The client's end of an SMTP connection, line by line, and sessions to talk to in a thread."""
from __future__ import annotations

import base64
import os
import socket
import ssl
import threading
from pathlib import Path

from TMDA.ofmipd.client import Client
from TMDA.ofmipd.session import Session
from TMDA.ofmipd.wire import Wire

CERTIFICATE = Path(__file__).parent / 'tls' / 'cert.pem'
KEY = Path(__file__).parent / 'tls' / 'key.pem'
PATIENCE = 10  # seconds that a test waits for anything


def server_context() -> ssl.SSLContext:
    """A context with the test certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)
    return context


def client_context() -> ssl.SSLContext:
    """A context that believes the test certificate and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(CERTIFICATE)
    return context


class Talk:
    """A connection to a server; sends octets, reads replies.  A context manager."""

    def __init__(self, sock: socket.socket):
        sock.settimeout(PATIENCE)
        self.sock = sock
        self._buffer = b''

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *unused) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def line(self) -> str:
        """The next line without its end; '' when the server has closed."""
        while b'\n' not in self._buffer:
            block = self.sock.recv(65536)
            if not block:
                return ''
            self._buffer += block
        line, _, self._buffer = self._buffer.partition(b'\n')
        assert line.endswith(b'\r'), line
        return line[:-1].decode('ascii')

    def reply(self) -> str:
        """All lines of the next reply, joined by LF."""
        lines = [self.line()]
        while lines[-1][3:4] == '-':
            lines.append(self.line())
        return '\n'.join(lines)

    def ask(self, command: str) -> str:
        """Send a command and return the reply."""
        self.send(command.encode('utf-8') + b'\r\n')
        return self.reply()

    def login(self, user: str = 'bobby', password: str = 'FooBar') -> None:
        """EHLO and AUTH PLAIN, after the greeting."""
        assert self.ask('EHLO client.example').startswith('250')
        secret = base64_text('\0%s\0%s' % (user, password))
        assert self.ask('AUTH PLAIN ' + secret).startswith('235')

    def start_tls(self) -> None:
        """Do the client's side of a handshake."""
        assert not self._buffer
        # An end without the closing alert is an error, so that tests see where it is missing.
        self.sock = client_context().wrap_socket(self.sock, server_hostname='localhost',
                                                 suppress_ragged_eofs=False)

    def at_end(self) -> bool:
        """True when the server has closed and all was read."""
        return not self._buffer and self.sock.recv(1) == b''

    def close(self) -> None:
        self.sock.close()


def base64_text(text: str) -> str:
    """text as base64 of its UTF-8."""
    return base64.b64encode(text.encode('utf-8')).decode('ascii')


class PipeSocket:
    """Two pipes that look like a connected socket."""

    def __init__(self, reader: int, writer: int):
        self._reader = os.fdopen(reader, 'rb', buffering=0)
        self._writer = os.fdopen(writer, 'wb', buffering=0)

    def settimeout(self, seconds) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        while data:
            data = data[self._writer.write(data):]

    def recv(self, size: int) -> bytes:
        return self._reader.read(size)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


class Running:
    """A session in a thread of its own, with `talk` at its other end.  A context manager.

    pipes: over a pair of pipes instead of a socket.
    """

    def __init__(self, service, client: Client | None = None, shutdown=None, pipes: bool = False):
        if pipes:
            their_input, our_output = os.pipe()
            our_input, their_output = os.pipe()
            wire = Wire.over_pipes(their_input, their_output, shutdown)
            self.talk = Talk(PipeSocket(our_input, our_output))
        else:
            ours, theirs = socket.socketpair()
            wire = Wire.over_socket(theirs, shutdown)
            self.talk = Talk(ours)
        self.session = Session(wire, client or Client('192.0.2.7', '', 4711), service)
        self._thread = threading.Thread(target=self.session.run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *unused) -> None:
        self.talk.close()
        self.join()

    def join(self) -> None:
        """Wait for the session's end."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
