# SPDX-License-Identifier: GPL-2.0-or-later
"""An SMTP client that connects in each way and logs in by each mechanism.

WAYS are the listeners of a daemon (modes of -p) together with what the client does there.
"""
from __future__ import annotations

import base64
import hashlib
import hmac
import smtplib
from typing import NamedTuple

from support.talk import CERTIFICATE, KEY, PATIENCE, base64_text, client_context

CERTIFICATE_OPTIONS = ('--ssl-cert=%s' % CERTIFICATE, '--ssl-key=%s' % KEY)
MODES = ('plain', 'ssl', 'tls=optional', 'tls=localoptional', 'tls=on')


class Way(NamedTuple):
    """A mode of a listener, and whether the client uses STARTTLS there."""

    mode: str
    starttls: bool = False

    @property
    def name(self) -> str:
        """For test ids."""
        return self.mode + ('+starttls' if self.starttls else '')


WAYS = (Way('plain'), Way('ssl'), Way('tls=optional'), Way('tls=optional', True),
        Way('tls=localoptional'), Way('tls=localoptional', True), Way('tls=on', True))


def listeners() -> list[str]:
    """The options that make a daemon listen in all MODES, in this order."""
    return ['-plocalhost:0/' + mode for mode in MODES]


def connect(ports: list[int], way: Way, source: str = '127.0.0.1') -> smtplib.SMTP:
    """A client at a source address, after the greeting and STARTTLS."""
    where = {'host': '127.0.0.1', 'port': ports[MODES.index(way.mode)], 'timeout': PATIENCE * 3,
             'local_hostname': 'client.example', 'source_address': (source, 0)}
    if way.mode == 'ssl':
        return smtplib.SMTP_SSL(context=client_context(), **where)
    client = smtplib.SMTP(**where)
    if way.starttls:
        client.starttls(context=client_context())
    return client


def log_in(client: smtplib.SMTP, mechanism: str, user: str, password: str) -> str:
    """The server's last reply, as `code text`."""
    code, text = LOGINS[mechanism](client, user, password)
    return '%d %s' % (code, text.decode('ascii'))


def _plain(client, user, password):
    return client.docmd('AUTH', 'PLAIN ' + base64_text('\0%s\0%s' % (user, password)))


def _login(client, user, password):
    client.docmd('AUTH', 'LOGIN')
    client.docmd(base64_text(user))
    return client.docmd(base64_text(password))


def _cram_md5(client, user, password):
    challenge = base64.b64decode(client.docmd('AUTH', 'CRAM-MD5')[1])
    digest = hmac.new(password.encode(), challenge, hashlib.md5).hexdigest()
    return client.docmd(base64_text('%s %s' % (user, digest)))


def _scram(client, user, password):
    """RFC 5802 section 3 and RFC 7677, without channel binding."""
    first = 'n=%s,r=nonce' % user
    challenge = base64.b64decode(
        client.docmd('AUTH', 'SCRAM-SHA-256 ' + base64_text('n,,' + first))[1]).decode('ascii')
    nonce, salt, iterations = (field[2:] for field in challenge.split(','))
    final = 'c=biws,r=' + nonce
    salted = hashlib.pbkdf2_hmac('sha256', password.encode(), base64.b64decode(salt),
                                 int(iterations))
    key = hmac.digest(salted, b'Client Key', 'sha256')
    signature = hmac.digest(hashlib.sha256(key).digest(),
                            ('%s,%s,%s' % (first, challenge, final)).encode(), 'sha256')
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature))).decode('ascii')
    code, text = client.docmd(base64_text('%s,p=%s' % (final, proof)))
    return (code, text) if code != 334 else client.docmd('')


LOGINS = {'PLAIN': _plain, 'LOGIN': _login, 'CRAM-MD5': _cram_md5, 'SCRAM-SHA-256': _scram}
