# SPDX-License-Identifier: GPL-2.0-or-later
"""The AUTH command of one session (RFC 4954): the exchange, its failures, and what they cost.

The session calls attempt() for each AUTH command and gets an Identity, or a ReplyError to answer
with.  The backend's channel is opened at the first attempt and stays open for submitting.

Against guessing, every failure counts, for the session (`failures`) and for the address
(guard.py), also one for which the sources could not tell: while a server is down, 454 would
otherwise let a guesser try at full speed what the other sources know.  The delay runs from the
moment the backend was asked, so the time of an answer does not show whether the user exists as
long as the source is faster than the delay.
"""

from __future__ import annotations

from time import monotonic

from TMDA.inject.reply import ReplyError, reply
from TMDA.ofmipd import sasl
from TMDA.ofmipd.backend import CANNOT_TELL, WRONG_LOGIN, Identity
from TMDA.ofmipd.client import Client
from TMDA.ofmipd.trouble import fault
from TMDA.ofmipd.wire import LineTooLong, Wire

_SYNTAX = reply(501, '5.5.4', 'Syntax: AUTH mechanism [initial-response]')
_NO_MECHANISM = reply(504, '5.5.4', 'Mechanism not supported')
_CANCELED = reply(501, '5.7.0', 'Authentication canceled')
_MALFORMED = reply(501, '5.5.2', 'Malformed authentication response')
_TOO_LONG = reply(500, '5.5.2', 'Line too long')


class Login:
    """All AUTH commands of one session.

    `channel` is the backend's, once opened.  `failures` counts wrong attempts.  `waited` sums the
    seconds that the backend and the delays took, for which the client cannot be blamed.
    """

    def __init__(self, wire: Wire, client: Client, service, session_id: str):
        self.channel = None
        self.failures = 0
        self.waited = 0.0
        self._wire = wire
        self._client = client
        self._service = service
        self._session = session_id
        self._mechanism = ''

    def mechanisms(self) -> list[str]:
        """What EHLO offers: what the backend can check and we can speak."""
        return [name for name in self._service.backend.mechanisms if name in sasl.MECHANISMS]

    def attempt(self, argument: bytes) -> Identity:
        """Do the exchange that `AUTH argument` begins.

        Raises ReplyError (500, 501, 504, 535, 454), and what the wire raises.
        """
        words = argument.split()
        if not 1 <= len(words) <= 2:
            raise ReplyError(_SYNTAX)
        self._mechanism = words[0].decode('ascii', 'replace').upper()
        if self._mechanism not in self.mechanisms():
            raise ReplyError(_NO_MECHANISM)
        try:
            identity = self._exchange(words[1] if len(words) == 2 else None)
        except sasl.Malformed as error:
            raise ReplyError(_MALFORMED, str(error)) from None
        except sasl.Rejected as error:
            raise self._failed('', ReplyError(WRONG_LOGIN, str(error)), monotonic()) from None
        self._service.guard.succeeded(self._client)
        self._log('login', identity.login)
        return identity

    def close(self) -> None:
        """Give the channel back, and with it whatever identity it has."""
        channel, self.channel = self.channel, None
        if channel is not None:
            channel.close()

    def _exchange(self, initial: bytes | None) -> Identity:
        """Drive the mechanism's steps to their end; initial is in base64, `=` for an empty one."""
        if initial is not None:
            initial = b'' if initial == b'=' else sasl.decode_base64(initial)
        steps = sasl.MECHANISMS[self._mechanism](initial, self._service.hostname)
        identity = answer = None
        try:
            while True:
                step = steps.send(answer)
                answer = self._answer(step)
                if isinstance(step, sasl.Verify):
                    identity = answer
        except StopIteration:
            return identity
        except Exception:
            if identity is not None:  # SCRAM: the client did not believe the server's signature
                self.close()
            raise

    def _answer(self, step):
        """What the mechanism is to be sent for this step."""
        if isinstance(step, sasl.Challenge):
            return self._challenge(step.data)
        if isinstance(step, sasl.Lookup):
            return self._consult('scram_start', step.user, step.user)
        return self._consult('authenticate', step.credentials, step.credentials.user)

    def _challenge(self, data: bytes) -> bytes:
        """Send a 334 and return the client's response, decoded (RFC 4954 4)."""
        line = b'334 ' + sasl.encode_base64(data) + b'\r\n'
        self._trace('S', line)
        self._wire.write(line)
        try:
            response = self._wire.read_line(self._service.limits.auth_line)
        except LineTooLong:
            raise ReplyError(_TOO_LONG) from None
        self._trace('C', response)
        response = response.rstrip(b'\r\n')
        if response == b'*':
            raise ReplyError(_CANCELED)
        return sasl.decode_base64(response)

    def _consult(self, method: str, argument, user: str):
        """Call the channel's method; whatever it raises counts as a failure of that user."""
        started = monotonic()
        try:
            if self.channel is None:
                self.channel = self._service.backend.open(self._client, self._session)
            answer = getattr(self.channel, method)(argument)
        except ReplyError as error:
            raise self._failed(user, error, started) from None
        except Exception as error:
            self._service.log.event('session-failed', session=self._session,
                                    client=self._client.address, user=user, **fault(error))
            raise self._failed(user, ReplyError(CANNOT_TELL, 'internal error'), started) from error
        self.waited += monotonic() - started
        return answer

    def _failed(self, user: str, refusal: ReplyError, started: float) -> ReplyError:
        """Log and count a failure, wait for what it costs, and return refusal to be raised."""
        guard = self._service.guard
        guard.failed(self._client)
        self.failures += 1
        event = 'login-unsure' if refusal.reply.temporary else 'login-failed'
        self._log(event, user, refusal.cause)
        remaining = started + guard.delay(self._client) - monotonic()
        if remaining > 0:
            self._wire.wait(remaining)
        self.waited += monotonic() - started
        return refusal

    def _log(self, event: str, user: str, cause: str = '') -> None:
        self._service.log.event(event, session=self._session, client=self._client.address,
                                user=user, mechanism=self._mechanism, cause=cause)

    def _trace(self, direction: str, line: bytes) -> None:
        if self._service.log.tracing:
            self._service.log.trace(self._session, direction, line, secret=True)
