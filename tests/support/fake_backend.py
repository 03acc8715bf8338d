# SPDX-License-Identifier: GPL-2.0-or-later
"""A backend that does as it is told, for tests of the session and for dialogues.

Users are in PASSWORDS; `unsure` gets 454 and `broken` makes the backend raise.  What becomes of a
message is said by the local part of its recipients: `refuse-554-5.7.1@...` is answered with that
code, `raise@...` raises RuntimeError, `exit@...` SystemExit; all others are accepted.
"""
from __future__ import annotations

import threading
from typing import NamedTuple

from TMDA.inject.envelope import Envelope
from TMDA.inject.limits import Limits
from TMDA.inject.reply import Outcome, ReplyError, reply
from TMDA.inject.user import User
from TMDA.ofmipd import sasl
from TMDA.ofmipd.backend import CANNOT_TELL, WRONG_LOGIN, Identity
from TMDA.ofmipd.guard import Guard
from TMDA.ofmipd.session import Service

HOSTNAME = 'mail.example.org'
PASSWORDS = {'bobby': 'FooBar', 'chloe': 'baz_bap', 'ünal': 'pässword'}
SALT, ITERATIONS = b'0123456789abcdef', 4096


class Submitted(NamedTuple):
    """A message as the backend got it."""

    login: str
    envelope: Envelope
    received: str
    text: bytes


class FakeBackend:
    """`submitted` has all accepted messages; `channels` those that are open."""

    def __init__(self, mechanisms=('PLAIN', 'LOGIN', 'CRAM-MD5')):
        self.mechanisms = mechanisms
        self.submitted: list[Submitted] = []
        self.channels: list[FakeChannel] = []
        self.before_submit = threading.Event()  # cleared by a test that wants submit() to wait
        self.before_submit.set()

    def open(self, client, session_id):
        channel = FakeChannel(self)
        self.channels.append(channel)
        return channel


class FakeChannel:
    def __init__(self, backend: FakeBackend):
        self._backend = backend
        self._login = ''

    def scram_start(self, user):
        return SALT, ITERATIONS

    def authenticate(self, credentials):
        if credentials.user == 'unsure':
            raise ReplyError(CANNOT_TELL, 'server down')
        if credentials.user == 'broken':
            raise OSError(5, 'out of order')
        password = PASSWORDS.get(credentials.user)
        signature = b''
        if password is None:
            raise ReplyError(WRONG_LOGIN, 'no such user')
        if isinstance(credentials, sasl.Password):
            right = credentials.password == password
        elif isinstance(credentials, sasl.CramMD5):
            right = credentials.matches(password)
        else:
            stored_key, server_key = sasl.scram_keys(password, SALT, ITERATIONS)
            right = credentials.matches(stored_key)
            signature = credentials.server_signature(server_key)
        if not right:
            raise ReplyError(WRONG_LOGIN, 'wrong password')
        self._login = credentials.user
        return Identity(self._login, User(self._login, '/nonexistent', ''), signature)

    def submit(self, transaction):
        self._backend.before_submit.wait(10)
        for recipient in transaction.recipients:
            _obey(recipient.address.partition('@')[0])
        text = b''.join(transaction.spool.chunks())
        self._backend.submitted.append(
            Submitted(self._login, transaction.envelope(), transaction.received, text))
        return Outcome(reply(250, '2.0.0', 'Message accepted'), {'transactions': 1})

    def close(self):
        self._backend.channels.remove(self)


def _obey(local_part: str) -> None:
    if local_part.startswith('refuse-'):
        _refuse, code, enhanced = local_part.split('-')
        raise ReplyError(reply(int(code), enhanced, 'As you wish'), 'upstream')
    if local_part == 'raise':
        raise RuntimeError('secret detail')
    if local_part == 'exit':
        raise SystemExit(0)


class FakeLog:
    """Remembers events as (name, facts) and traces as (direction, octets, secret)."""

    def __init__(self, tracing=False):
        self.tracing = tracing
        self.events: list = []
        self.traces: list = []
        self.counted: dict = {}

    def event(self, name, session='', client='', user='', **facts):
        self.events.append((name, dict(facts, session=session, client=client, user=user)))

    def count(self, name, by=1):
        self.counted[name] = self.counted.get(name, 0) + by

    def trace(self, session, direction, data, secret=False):
        self.traces.append((direction, data, secret))

    def named(self, name):
        """The facts of all events of that name."""
        return [facts for have, facts in self.events if have == name]


def make_service(backend=None, log=None, limits=None, **options) -> Service:
    """A Service for tests; limits is a dict of what differs, without login delays by default.

    dsn: whether it says that the transport carries DSN.
    """
    dsn = bool(options.pop('dsn', False))
    options['carries_dsn'] = lambda: dsn
    values = Limits(**dict({'login_delay': 0}, **(limits or {})))
    return Service(HOSTNAME, backend or FakeBackend(), values, Guard(values), log or FakeLog(),
                   **options)
