# SPDX-License-Identifier: GPL-2.0-or-later
"""The seam between the protocol and the policy: who may send, and what happens to a message.

A session knows its Backend by these protocols and by nothing else.  It opens one Channel when the
client first tries to log in, authenticates over it, submits over it, and closes it at the end (or
at STARTTLS, when all is forgotten).  An identity is bound to its channel.  Refusals are
ReplyErrors from whoever knows the reason; any other exception is an internal error, for which the
session answers 4xx.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from TMDA.inject.envelope import Envelope, Recipient
from TMDA.inject.reply import Outcome, reply
from TMDA.inject.spool import Spool
from TMDA.inject.user import User
from TMDA.ofmipd.client import Client

# The same words whether or not the user exists, whatever the mechanism.
WRONG_LOGIN = reply(535, '5.7.8', 'Authentication failed')
CANNOT_TELL = reply(454, '4.7.0', 'Temporary authentication failure')


class Identity(NamedTuple):
    """Who has logged in.  server_signature is for SCRAM only (RFC 5802 3)."""

    login: str
    user: User
    server_signature: bytes = b''


class Transaction:
    """One message on its way in: from MAIL to RSET or to the answer to DATA (RFC 5321 3.3).

    size is what MAIL declared, in octets.  Recipients are added by RCPT; spool and received (the
    value of the new Received field) are set when the text has been read, and the spool is closed
    when submit() has returned.
    """

    def __init__(self, sender: str, body: str = '', smtputf8: bool = False, ret: str = '',
                 envid: str = '', session: str = '', size: int = 0):
        self.sender = sender
        self.body = body
        self.smtputf8 = smtputf8
        self.ret = ret
        self.envid = envid
        self.session = session
        self.size = size
        self.recipients: list[Recipient] = []
        self.spool: Spool | None = None
        self.received = ''

    def envelope(self) -> Envelope:
        """The envelope as it stands now."""
        return Envelope(self.sender, tuple(self.recipients), self.body, self.smtputf8, self.ret,
                        self.envid)


class Channel(Protocol):
    """What one session may ask of the backend; used by that session's thread only."""

    def scram_start(self, user: str) -> tuple[bytes, int]:
        """(salt, iterations) for SCRAM; made up, and the same each time, for an unknown user."""

    def authenticate(self, credentials) -> Identity:
        """Who that is.  Raises ReplyError: WRONG_LOGIN, or CANNOT_TELL; may be tried again."""

    def submit(self, transaction: Transaction) -> Outcome:
        """Send a message for the identity.  The outcome's reply is the answer to DATA: 2xx only
        when the transport has taken the message for every recipient.  May raise ReplyError."""

    def close(self) -> None:
        """The session has no more to ask.  Never raises."""


class Backend(Protocol):
    """What all sessions share."""

    mechanisms: tuple[str, ...]  # of sasl.MECHANISMS, in the order to be offered

    def open(self, client: Client, session_id: str) -> Channel:
        """A channel for one session.  Raises ReplyError or OSError where none can be had."""
