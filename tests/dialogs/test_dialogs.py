# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the dialogues in this folder; README.txt describes their form.

A transport is a class in TRANSPORTS: it starts a server with the dialogue's
settings, and connects to it as far as the greeting.
"""
import base64
import re
import socket
from pathlib import Path
from typing import NamedTuple

import pytest
from support.fake_backend import HOSTNAME, FakeBackend, make_service
from support.talk import Running, server_context

HERE = Path(__file__).parent
LINE = re.compile(r'([CRBSEHFM])(?:\[([a-z ]+)\])?:(?: (.*))?\Z')
REPEAT = re.compile(r'\{(\d+)\*(.)\}')
ALL = ('plain', 'tls', 'starttls', 'pipes')


class Step(NamedTuple):
    """One line of a dialogue: its kind (C, S ...), the transports it is for, its text."""

    number: int
    kind: str
    transports: tuple
    text: str


class Dialog(NamedTuple):
    """A file: settings (key -> text) and steps."""

    name: str
    settings: dict
    steps: list

    def transports(self):
        return self.settings.get('transports', ' '.join(ALL)).split()

    def values(self, key):
        """`name=value ...` as a dict; what looks like a number is one."""
        pairs = (pair.split('=') for pair in self.settings.get(key, '').split())
        return {name: int(value) if value.isdigit() else value for name, value in pairs}


def load(path):
    settings, steps = {}, []
    for number, line in enumerate(path.read_text(encoding='utf-8').split('\n'), 1):
        if not line or line.startswith('#'):
            continue
        if line.startswith('!'):
            key, _, value = line[1:].partition(':')
            settings[key.strip()] = value.strip()
            continue
        match = LINE.match(line)
        assert match, '%s:%d: %r' % (path.name, number, line)
        kind, transports, text = match.groups('')
        steps.append(Step(number, kind, tuple(transports.split()) or ALL, text))
    return Dialog(path.stem, settings, steps)


class Fake:
    """A session over a socket or pipes, in the clear, with the scripted backend."""

    host = HOSTNAME
    pipes = False
    tls_mode = ''

    def __init__(self, dialog):
        self.backend = FakeBackend()
        options = dialog.values('service')
        options['tls_mode'] = self.tls_mode or options.get('tls_mode', '')
        service = make_service(self.backend, limits=dialog.values('limits'),
                               tls_context=server_context, **options)
        self.running = Running(service, pipes=self.pipes)
        self.talk = self.running.talk

    def greeting(self):
        """Connect as far as the greeting, which is returned."""
        return self.talk.line()

    def close(self):
        self.talk.close()
        self.running.join()


class Pipes(Fake):
    pipes = True


class Tls(Fake):
    tls_mode = 'ssl'

    def greeting(self):
        self.talk.start_tls()
        return self.talk.line()


class StartTls(Fake):
    tls_mode = 'on'

    def greeting(self):
        greeting = self.talk.line()
        assert 'STARTTLS' in self.talk.ask('EHLO client.example')
        assert self.talk.ask('STARTTLS').startswith('220 ')
        self.talk.start_tls()
        return greeting


TRANSPORTS = {'plain': Fake, 'tls': Tls, 'starttls': StartTls, 'pipes': Pipes}


class Player:
    """Plays the client's part of a dialogue and compares the server's."""

    def __init__(self, dialog, transport, name):
        self._transport = transport
        self._talk = transport.talk
        self._steps = [step for step in dialog.steps if name in step.transports]
        self._name = dialog.name
        self._outgoing = b''

    def play(self):
        first = self._steps.pop(0)
        assert first.kind == 'S'
        self._compare(first, self._transport.greeting())
        message = []
        for step in self._steps:
            if step.kind in 'CRB':
                self._outgoing += octets(step)
                continue
            self._send()
            if step.kind == 'M':
                message.append(unescape(step.text) + b'\r\n')
            else:
                self._check_message(message)
                message = []
                getattr(self, '_step_' + step.kind)(step)
        self._check_message(message)

    def _send(self):
        if self._outgoing:
            self._talk.send(self._outgoing)
            self._outgoing = b''

    def _step_S(self, step):
        self._compare(step, self._talk.line())

    def _step_H(self, step):
        self._talk.sock.shutdown(socket.SHUT_WR)

    def _step_E(self, step):
        assert self._talk.at_end(), '%s:%d: more from the server' % (self._name, step.number)

    def _step_F(self, step):
        envelope = self._transport.backend.submitted[-1].envelope
        addresses = [envelope.sender, *(recipient.address for recipient in envelope.recipients)]
        assert step.text == ' '.join('<%s>' % address for address in addresses)

    def _check_message(self, lines):
        if lines:
            assert self._transport.backend.submitted[-1].text == b''.join(lines)

    def _compare(self, step, line):
        expected = step.text.replace('{host}', self._transport.host)
        pattern = '.*'.join(re.escape(part) for part in expected.split('...'))
        assert re.fullmatch(pattern, line), '%s:%d: expected %r, not %r' % (
            self._name, step.number, expected, line)


def octets(step):
    """What the client sends at this step."""
    if step.kind == 'C':
        return step.text.encode('utf-8') + b'\r\n'
    data = unescape(REPEAT.sub(lambda match: match.group(2) * int(match.group(1)), step.text))
    return data if step.kind == 'R' else base64.b64encode(data) + b'\r\n'


def unescape(text):
    return text.encode('ascii').decode('unicode_escape').encode('latin-1')


DIALOGS = [load(path) for path in sorted(HERE.glob('*.txt')) if path.name != 'README.txt']


@pytest.mark.parametrize('dialog, transport', [
    pytest.param(dialog, name, id='%s-%s' % (dialog.name, name))
    for dialog in DIALOGS for name in dialog.transports()])
def test_dialog(dialog, transport):
    connection = TRANSPORTS[transport](dialog)
    try:
        Player(dialog, connection, transport).play()
    finally:
        connection.close()


@pytest.mark.parametrize('dialog', DIALOGS, ids=lambda dialog: dialog.name)
def test_dialog_gives_the_same_in_single_octets(dialog):
    """Nothing may depend on how the network cuts what the client sends."""
    if 'plain' not in dialog.transports():
        pytest.skip('not in the clear')
    connection = TRANSPORTS['plain'](dialog)
    whole = connection.talk.send

    def drip(data):
        for position in range(len(data)):
            whole(data[position:position + 1])

    connection.talk.send = drip
    try:
        Player(dialog, connection, 'plain').play()
    finally:
        connection.close()
