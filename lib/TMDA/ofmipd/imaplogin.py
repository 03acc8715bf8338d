# SPDX-License-Identifier: GPL-2.0-or-later
"""One IMAP login (RFC 3501), made with imaplib over a TimedSocket.

A name and password of printable ASCII go out as LOGIN with two quoted strings (imaplib's own
login() quotes only the password).  Anything else, and any login where the server advertises
LOGINDISABLED, needs AUTHENTICATE PLAIN, which carries UTF-8 (RFC 4616); a server without it
cannot tell.

NO is a wrong password unless its response code says that the server could not check it
(RFC 5530).  BAD, BYE, PREAUTH and what is no IMAP at all are UNSURE.
"""

from __future__ import annotations

import imaplib
import re
import time
from typing import Tuple

from TMDA.ofmipd.timedsocket import TimedSocket
from TMDA.ofmipd.verdict import NO, UNSURE, YES, Verdict, brief

LOGOUT_SECONDS = 2  # the answer to LOGOUT is not worth more

_PRINTABLE = re.compile(rb'[\x20-\x7e]+')
# RFC 5530 codes under which a refusal says nothing about the password
_NOT_CHECKED = re.compile(r'\s*\[(UNAVAILABLE|SERVERBUG|INUSE|LIMIT|PRIVACYREQUIRED)\b', re.I)


class _Client(imaplib.IMAP4):
    """imaplib on our own stream, through the methods that its manual lets a subclass replace."""

    def __init__(self, stream: TimedSocket):
        self._stream = stream
        super().__init__()

    def open(self, host='', port=143, timeout=None):
        """The stream is connected already."""

    def read(self, size):
        return self._stream.read(size)

    def readline(self):
        return self._stream.readline()

    def send(self, data):
        self._stream.sendall(data)

    def shutdown(self):
        self._stream.close()


class _Unable(Exception):
    """The server offers no way to log in with these credentials, or gives no known answer."""


def quoted(text: bytes) -> bytes:
    """An IMAP quoted string (RFC 3501 section 4.3) of printable ASCII."""
    return b'"' + re.sub(rb'(["\\])', rb'\\\1', text) + b'"'


def login(stream: TimedSocket, user: bytes, password: bytes, _url) -> Verdict:
    """Logs in and out again on a fresh connection."""
    try:
        client = _Client(stream)
        accepted, words = _try(client, user, password)
    except (imaplib.IMAP4.error, _Unable, ValueError) as error:
        return Verdict(UNSURE, brief(error))
    if accepted:
        _logout(client, stream)
        return Verdict(YES)
    return Verdict(UNSURE if _NOT_CHECKED.match(words) else NO, brief(words))


def _try(client: _Client, user: bytes, password: bytes) -> Tuple[bool, str]:
    """Whether the server said OK, and its words.  imaplib raises for everything but OK and NO."""
    enabled = 'LOGINDISABLED' not in client.capabilities
    if enabled and _PRINTABLE.fullmatch(user) and _PRINTABLE.fullmatch(password):
        status, data = client.xatom('LOGIN', quoted(user), quoted(password))
        if status not in ('OK', 'NO'):
            raise _Unable(f'answer {status} to LOGIN')
        return status == 'OK', brief(data[-1] or b'')
    if 'AUTH=PLAIN' not in client.capabilities:
        raise _Unable('server allows no LOGIN with this name and password, and no '
                      'AUTHENTICATE PLAIN')
    message = b'\0%s\0%s' % (user, password)
    try:
        client.authenticate('PLAIN', lambda challenge: message)
    except imaplib.IMAP4.abort:
        raise
    except imaplib.IMAP4.error as error:  # NO, or BAD with imaplib's own words before it
        if str(error).startswith('AUTHENTICATE command error'):
            raise
        return False, brief(error)
    return True, ''


def _logout(client: _Client, stream: TimedSocket) -> None:
    stream.deadline = min(stream.deadline, time.monotonic() + LOGOUT_SECONDS)
    try:
        client.logout()
    except (imaplib.IMAP4.error, OSError):
        pass  # the login is what was asked
