# SPDX-License-Identifier: GPL-2.0-or-later
"""A mail client in a storm: numbered messages, and another try for what was not answered."""
from __future__ import annotations

import base64
import itertools
import random
import socket
import struct
import threading
import time

from chaos.flaky import body
from chaos.ledger import NONE, Ledger

ATTEMPTS = 12     # before a message is given up
SILENCE = 40      # seconds without a reply, or for a message, after which the client gives up
CUT_SHARE = 0.02  # of attempts in which the client itself goes away
RECIPIENTS = ('dated@example.org', 'sender@example.org', 'bare@example.org')

_serials = itertools.count(1)
_attempts = itertools.count(1)


class Client:
    """One client; run() returns when `ending` is set and its message is done."""

    def __init__(self, number: int, seed: int, port: int, ledger: Ledger, ending: threading.Event):
        self._chance = random.Random('client %d %d' % (number, seed))
        self._port = port
        self._ledger = ledger
        self._ending = ending
        self._sock: socket.socket | None = None
        self._file = None
        self._attempt = 0
        self._words = b''

    def run(self, user: str, password: str) -> None:
        """Send one message after the other."""
        self._secret = base64.b64encode(('\0%s\0%s' % (user, password)).encode()).decode()
        while not self._ending.is_set():
            serial = next(_serials)
            recipients = tuple(self._chance.sample(RECIPIENTS, self._chance.randint(1, 3)))
            self._ledger.sent(serial, recipients)
            self._send(serial, recipients)
        self._close()

    def _send(self, serial: int, recipients: tuple) -> None:
        attempts, patience = 0, time.monotonic() + SILENCE
        while attempts < ATTEMPTS and time.monotonic() < patience:
            code = self._try(serial, recipients)
            if code == -1:
                time.sleep(0.02)  # nobody is there: that is no attempt
                continue
            attempts += 1
            self._ledger.answered(serial, self._attempt, code)
            if 200 <= code < 300 or code >= 500:
                return
            time.sleep(self._chance.uniform(0, 0.05))
        self._ledger.count('given up')

    def _try(self, serial: int, recipients: tuple) -> int:
        """The code that the client saw for the message; -1 if it was not even offered."""
        try:
            self._begin()
        except (OSError, EOFError):
            self._close()
            return -1
        try:
            return self._submit(serial, recipients)
        except (OSError, EOFError):
            self._close()
            return NONE

    def _begin(self) -> None:
        """Have a session, greeted with the number of the attempt, and log in if it is new."""
        self._attempt = next(_attempts)
        if self._sock is None:
            self._sock = socket.create_connection(('127.0.0.1', self._port), SILENCE)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._file = self._sock.makefile('rb')
            self._expect(220)
            self._ask('EHLO a%d.client.example' % self._attempt, 250)
            self._ask('AUTH PLAIN ' + self._secret, 235)
        else:
            self._ask('EHLO a%d.client.example' % self._attempt, 250)

    def _submit(self, serial: int, recipients: tuple) -> int:
        commands = ['MAIL FROM:<bobby@example.net>']
        commands += ['RCPT TO:<%s>' % recipient for recipient in recipients] + ['DATA']
        for command in commands:
            code = self._ask(command)
            if code >= 400:
                return self._refused(code)
        text = (b'From: bobby@example.net\r\nSubject: serial %d\r\n\r\n' % serial
                + body(serial).replace(b'\r\n.', b'\r\n..').replace(b'.line', b'..line', 1)
                + b'.\r\n')
        if self._chance.random() < CUT_SHARE:
            return self._leave(text)
        self._sock.sendall(text)
        code = self._reply()
        if b'process of your session' in self._words:
            self._ledger.count('session processes killed')
            return NONE  # by its death the daemon has learned as little as the client
        return code if code < 400 else self._refused(code)

    def _refused(self, code: int) -> int:
        if code == 421:
            self._close()
            return 421
        return code

    def _leave(self, text: bytes) -> int:
        """Go away in the middle of the text, or right behind it."""
        self._ledger.count('clients that left')
        self._sock.sendall(text if self._chance.random() < 0.5 else text[:len(text) // 2])
        if self._chance.random() < 0.5:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self._close()
        return NONE

    def _ask(self, command: str, wanted: int = 0) -> int:
        self._sock.sendall(command.encode('ascii') + b'\r\n')
        return self._expect(wanted) if wanted else self._reply()

    def _expect(self, wanted: int) -> int:
        code = self._reply()
        if code != wanted:
            raise EOFError(code)
        return code

    def _reply(self) -> int:
        while True:
            line = self._file.readline()
            if not line.endswith(b'\r\n'):
                raise EOFError
            if line[3:4] == b' ':
                self._words = line
                return int(line[:3])

    def _close(self) -> None:
        if self._sock is not None:
            self._file.close()
            self._sock.close()
            self._sock = None
