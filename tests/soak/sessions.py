# SPDX-License-Identifier: GPL-2.0-or-later
"""The sessions of a soak: some greet, some send, some err, some use TLS, some vanish."""
from __future__ import annotations

import base64
import random
import socket
import ssl
import struct
import threading
import time

from support.proxy import PASSWORD, USER
from support.talk import client_context

SECRET = base64.b64encode(('\0%s\0%s' % (USER, PASSWORD)).encode()).decode('ascii')
WRONG = base64.b64encode(b'\0nobody\0nothing').decode('ascii')
PATIENCE = 60
CLIENTS = 6  # at the same time
_RESET = struct.pack('ii', 1, 0)


class Connection:
    """A client's end: connect, greeting, commands."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None,
                 source: str = '127.0.0.1'):
        started = time.monotonic()
        self.sock = socket.create_connection(('127.0.0.1', port), PATIENCE, (source, 0))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            self.sock = context.wrap_socket(self.sock, server_hostname='localhost')
        self._buffer = b''
        self.greeting = self.reply()
        self.seconds = time.monotonic() - started

    def reply(self) -> int:
        """The code of the next reply.  Raises EOFError."""
        while True:
            line, found, rest = self._buffer.partition(b'\n')
            if found:
                self._buffer = rest
                if line[3:4] == b' ':
                    return int(line[:3])
                continue
            block = self.sock.recv(4096)
            if not block:
                raise EOFError
            self._buffer += block

    def ask(self, *commands: str) -> list[int]:
        """Send commands at once; the codes of their replies."""
        self.sock.sendall(''.join(command + '\r\n' for command in commands).encode('ascii'))
        return [self.reply() for _ in commands]

    def close(self, reset: bool = False) -> None:
        """Hang up; with reset, without the ceremonies."""
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.sock.close()


class Sessions:
    """Threads that go through `number` sessions; errors are what went wrong, in words."""

    KINDS = (('greet',) * 11 + ('send',) * 4
             + ('send_over_tls', 'err', 'vanish', 'vanish', 'log_in'))

    def __init__(self, ports: tuple[int, int], number: int, seed: int):
        self.errors: list[str] = []
        self._plain, self._tls = ports
        self._left = number
        self._lock = threading.Lock()
        self._context = client_context()
        self._threads = [threading.Thread(target=self._run, args=(random.Random(
            'soak %d %d' % (seed, index)), '127.0.1.%d' % (index + 1)), daemon=True)
            for index in range(CLIENTS)]

    def run(self) -> None:
        """All of them, to the end."""
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()

    def _run(self, chance: random.Random, source: str) -> None:
        while self._take():
            kind = chance.choice(self.KINDS)
            try:
                getattr(self, '_' + kind)(source)
            except (OSError, EOFError, AssertionError) as error:
                self.errors.append('%s: %r' % (kind, error))
                if len(self.errors) > 100:
                    return

    def _take(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def _greet(self, source: str) -> None:
        connection = Connection(self._plain, source=source)
        assert connection.ask('EHLO x', 'QUIT') == [250, 221]
        connection.close()

    def _send(self, source: str, context: ssl.SSLContext | None = None) -> None:
        connection = Connection(self._tls if context else self._plain, context, source)
        codes = connection.ask('EHLO x', 'AUTH PLAIN ' + SECRET, 'MAIL FROM:<bobby@example.net>',
                               'RCPT TO:<a@example.org>', 'DATA')
        assert codes == [250, 235, 250, 250, 354], codes
        assert connection.ask('Subject: x\r\n\r\ntext\r\n.', 'QUIT') == [250, 221]
        connection.close()

    def _send_over_tls(self, source: str) -> None:
        self._send(source, self._context)

    def _err(self, source: str) -> None:
        connection = Connection(self._plain, source=source)
        codes = connection.ask('EHLO x', *['NONSENSE'] * 10)
        assert codes == [250] + [502] * 10, codes
        assert connection.reply() == 421
        connection.close()

    def _vanish(self, source: str) -> None:
        connection = Connection(self._plain, source=source)
        connection.sock.sendall(b'EHLO x\r\nMAIL FR')
        connection.close(reset=True)

    def _log_in(self, source: str) -> None:
        connection = Connection(self._plain, source=source)
        assert connection.ask('EHLO x', 'AUTH PLAIN ' + SECRET) == [250, 235]
        connection.close()
