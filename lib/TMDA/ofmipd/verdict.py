# SPDX-License-Identifier: GPL-2.0-or-later
"""What a source of authentication is and what it answers.

A source is asked with the credentials of one login and answers YES, NO or UNSURE ("cannot tell":
a server is down, a program is missing).  UNSURE must never reach the client as a wrong password,
or its mail client forgets a right one.  sources.py asks several of them in turn.

Every source has

    name     for log lines; never holds a secret
    plain    True when it knows all passwords in plain, so that CRAM-MD5 may be offered
    scram    True when it can do SCRAM-SHA-256 for all its users
    check(credentials, client) -> Verdict

Credentials are sasl.Password, sasl.CramMD5 or sasl.Scram; `client` says who is connected, or is
None.

AskingSource is the base of all sources that pass name and password on to somebody else.  It
keeps three promises for them: what cannot be a password is never sent, the whole conversation
has one absolute deadline, and a failure on the way is UNSURE with its cause.
"""

from __future__ import annotations

import time
from typing import NamedTuple


YES = 'yes'
NO = 'no'
UNSURE = 'unsure'

CAUSE_LIMIT = 200  # characters of a foreign server's words that a log line keeps


class Verdict(NamedTuple):
    """A source's answer (YES, NO, UNSURE) and the cause for the log.

    server_signature is for SCRAM only (RFC 5802 section 3).  source is the name of the source
    that said YES, set by the chain.
    """

    answer: str
    cause: str = ''
    server_signature: bytes = b''
    source: str = ''


def octets(text: str) -> bytes:
    """A name or password as it came from the client (see sasl.py)."""
    return text.encode('utf-8', 'surrogateescape')


def unfit(user: bytes, password: bytes) -> str:
    """Why this name and password are wrong without asking anybody; '' when they may be sent.

    CR, LF and NUL would let a client write commands of its own into an IMAP or POP3 dialogue or
    shift the fields of checkpassword.  An empty password makes an LDAP bind anonymous, which
    succeeds (RFC 4513 section 5.1.2).
    """
    if not user or not password:
        return 'empty user name or password'
    if any(octet in user + password for octet in b'\r\n\0'):
        return 'CR, LF or NUL in user name or password'
    return ''


def brief(words: object) -> str:
    """A foreign text (str, bytes or exception) short enough for a log line; the log escapes it."""
    if isinstance(words, bytes):
        words = words.decode('utf-8', 'replace')
    return str(words)[:CAUSE_LIMIT]


def _reason(error: OSError) -> str:
    certificate = getattr(error, 'verify_message', '')  # of an ssl.SSLCertVerificationError
    if certificate:
        return brief(f'certificate not accepted: {certificate}')
    return brief(error.strerror or error)


class AskingSource:
    """A source that has to see the password.  Subclasses give ask()."""

    plain = False
    scram = False

    def __init__(self, name: str, seconds: float):
        """seconds is the most that one check() may take."""
        self.name = name
        self.seconds = seconds

    def check(self, credentials, client=None) -> Verdict:
        """Is this login right?  Never raises for what a server or program does."""
        from TMDA.ofmipd.sasl import Password
        if not isinstance(credentials, Password):
            return Verdict(NO, 'cannot check this mechanism without the password')
        user, password = octets(credentials.user), octets(credentials.password)
        why = unfit(user, password)
        if why:
            return Verdict(NO, why)
        try:
            return self.ask(user, password, client, time.monotonic() + self.seconds)
        except OSError as error:
            return Verdict(UNSURE, _reason(error))

    def ask(self, user: bytes, password: bytes, client, deadline: float) -> Verdict:
        """Asks until `deadline` (time.monotonic) at most; an OSError becomes UNSURE."""
        raise NotImplementedError
