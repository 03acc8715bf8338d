# SPDX-License-Identifier: GPL-2.0-or-later
"""An SMTP server that is hardly ever well: at every stage it may cut, refuse, stall or be late.

What it does is drawn from a seeded generator, weighted so that most messages get through in the
end.  What it has accepted it writes into a ledger before it says so.
"""
from __future__ import annotations

import random
import re
import socket
import socketserver
import struct
import threading

from chaos.ledger import Arrival, Ledger

STAGES = ('connect', 'EHLO', 'MAIL', 'RCPT', 'DATA', 'body', 'end', 'RSET')
# Share of commands at which each fault happens; the rest go well.
FAULTS = {'cut': 0.025, 'reset': 0.010, '421': 0.005, '4xx': 0.015, '5xx': 0.005, 'stall': 0.008,
          'late': 0.020}
LATE_SECONDS, STALL_SECONDS = 0.02, 0.5
SERIAL = re.compile(rb'^Subject: serial ([0-9]+)\r$', re.MULTILINE)
ATTEMPT = re.compile(rb'from a([0-9]+)\.client\.example')
_RESET = struct.pack('ii', 1, 0)


class Cut(Exception):
    """The connection is over."""


class FlakyServer(socketserver.ThreadingTCPServer):
    """Listens on a free port of 127.0.0.1.  well: no faults any more."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, ledger: Ledger, seed: int):
        super().__init__(('127.0.0.1', 0), _Handler)
        self.ledger = ledger
        self.well = False
        self.ending = threading.Event()
        self._chance = random.Random('flaky %d' % seed)
        self._lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server_address[1]

    def draw(self) -> str:
        """The fault to be had now, or ''."""
        with self._lock:
            value = self._chance.random()
        if self.well:
            return ''
        for fault, share in FAULTS.items():
            value -= share
            if value < 0:
                return fault
        return ''

    def close(self) -> None:
        """End."""
        self.ending.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """A client that is gone is what this is about."""


class _Handler(socketserver.StreamRequestHandler):
    timeout = 60
    disable_nagle_algorithm = True

    def handle(self) -> None:
        self.recipients: list[str] = []
        try:
            self._answer('connect', '220 upstream.example ESMTP')
            for line in self.rfile:
                self._command(line.decode('latin-1').strip())
        except (Cut, OSError):
            pass

    def _command(self, line: str) -> None:
        verb = line[:4].upper()
        if verb == 'QUIT':
            self._say('221 Bye')
            raise Cut
        if verb == 'EHLO':
            self._answer(verb, '250-upstream.example\r\n250-PIPELINING\r\n250 8BITMIME')
        elif verb == 'DATA':
            if not self.recipients:
                self._say('503 5.5.1 RCPT first')
            elif self._answer(verb, '354 Go ahead'):
                self._take_message()
        elif self._answer(verb if verb in STAGES else 'RSET', '250 2.0.0 Ok'):
            if verb == 'RCPT':
                self.recipients.append(line.partition('<')[2].partition('>')[0])
            else:
                self.recipients = []

    def _take_message(self) -> None:
        fault = self.server.draw()
        if fault in ('cut', 'reset', 'stall'):
            self.rfile.readline()
            self._do(fault, 'body')
        lines = []
        for line in self.rfile:
            if line == b'.\r\n':
                break
            lines.append(line[1:] if line.startswith(b'.') else line)
        else:
            raise Cut
        text = b''.join(lines)
        recipients, self.recipients = self.recipients, []
        fault = self.server.draw()
        if fault in ('4xx', '5xx', '421'):
            self._do(fault, 'end')
            return
        told = fault in ('', 'late')
        serial, attempt = int(SERIAL.search(text).group(1)), int(ATTEMPT.search(text).group(1))
        self.server.ledger.arrived(serial, recipients, Arrival(attempt, told),
                                   text.partition(b'\r\n\r\n')[2] == body(serial))
        if fault:
            self._do(fault, 'end')
        self._say('250 2.0.0 Ok: queued')

    def _answer(self, stage: str, usual: str) -> bool:
        """Say what is usual, unless there is a fault; whether it was said."""
        fault = self.server.draw()
        if fault and not self._do(fault, stage):
            return False
        self._say(usual)
        return True

    def _do(self, fault: str, stage: str) -> bool:
        """Have a fault; True if what is usual may follow."""
        count = self.server.ledger.count
        count('%s at %s' % (fault, stage))
        if fault == 'late':
            self.server.ending.wait(LATE_SECONDS)
            return True
        if fault in ('4xx', '5xx'):
            count('refusals')
            self._say('451 4.3.0 Not now' if fault == '4xx' else '550 5.7.1 Not you')
            return False
        count('cuts')
        if fault == 'stall':
            self.server.ending.wait(STALL_SECONDS)
        elif fault == '421':
            self._say('421 4.3.2 Going down')
        elif fault == 'reset':
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.connection.close()
        raise Cut

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode('ascii') + b'\r\n')


def body(serial: int) -> bytes:
    """The body of a message; every third is large."""
    size = 9000 if serial % 3 == 0 else serial % 7
    return b'.line %d\r\n' % serial + b'some text of message %d\r\n' % serial * size
