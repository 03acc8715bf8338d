# SPDX-License-Identifier: GPL-2.0-or-later
"""A small SMTP server that --demo uses as the mail system behind tmda-ofmipd.

It takes every message, keeps what it was given, and refuses recipients at one domain.  For
loopback and for showing only: no queue, no TLS, no login.
"""

from __future__ import annotations

import socketserver
import threading
from typing import NamedTuple

REFUSED_DOMAIN = 'refused.example'
REFUSAL = '550 5.1.1 No such user here'
IDLE_SECONDS = 600
KEPT = 1000  # messages; more are taken and forgotten


class Received(NamedTuple):
    """One transaction as it came: both envelope sides, and the text."""

    sender: str
    recipients: tuple[str, ...]
    text: bytes


class Upstream(socketserver.ThreadingTCPServer):
    """Listens on a free port of 127.0.0.1 from its start to close(); messages has what came."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(('127.0.0.1', 0), _Handler)
        self.messages: list[Received] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server_address[1]

    def close(self) -> None:
        """Stop listening."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """A client that has gone away is no news."""


class _Handler(socketserver.StreamRequestHandler):
    timeout = IDLE_SECONDS

    def handle(self) -> None:
        sender = ''
        recipients: list[str] = []
        self._say('220 upstream.example ESMTP')
        for line in self.rfile:
            words = line.decode('utf-8', 'replace').strip()
            verb = words[:4].upper()
            if verb == 'QUIT':
                self._say('221 2.0.0 Bye')
                return
            if verb == 'DATA' and recipients:
                self._say('354 End data with <CR><LF>.<CR><LF>')
                self._take(Received(sender, tuple(recipients), self._read_text()))
                recipients = []
                self._say('250 2.0.0 Taken')
            elif verb == 'EHLO':
                self._say('250-upstream.example', '250-PIPELINING', '250-8BITMIME', '250 SMTPUTF8')
            elif verb == 'RCPT' and _address(words).endswith('@' + REFUSED_DOMAIN):
                self._say(REFUSAL)
            else:
                if verb == 'MAIL':
                    sender, recipients = _address(words), []
                elif verb == 'RCPT':
                    recipients.append(_address(words))
                self._say('503 5.5.1 RCPT first' if verb == 'DATA' else '250 2.0.0 Ok')

    def _take(self, received: Received) -> None:
        messages = self.server.messages
        if len(messages) < KEPT:
            messages.append(received)

    def _say(self, *lines: str) -> None:
        self.wfile.write(''.join(line + '\r\n' for line in lines).encode('ascii'))

    def _read_text(self) -> bytes:
        lines = []
        for line in self.rfile:
            if line == b'.\r\n':
                break
            lines.append(line[1:] if line.startswith(b'.') else line)
        return b''.join(lines)


def _address(words: str) -> str:
    return words.partition('<')[2].partition('>')[0]
