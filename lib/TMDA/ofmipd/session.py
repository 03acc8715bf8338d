# SPDX-License-Identifier: GPL-2.0-or-later
"""One SMTP session: the state machine between a wire and a backend (RFC 5321, RFC 6409).

The server calls Session(wire, client, service).run() in the connection's thread; it returns when
the connection is closed, and raises nothing.  Three lifetimes, three objects: the Session is the
connection, forgotten in part at STARTTLS; an Identity begins with AUTH; a Transaction begins with
MAIL and ends with RSET or the answer to DATA.

The command table is verbs.VERBS.  A method do_... gets the argument of its command and returns a
Reply or raises ReplyError; that the command may be given at all was checked before.  Every line
from the client gets a reply, after an error of ours too: 451 with the session's id, and the cause
goes to the log.  A 421 ends the session, as it does that of a client that errs too often.

Log events: connect, tls, tls-failed, login, login-failed, login-unsure (from login.py), message,
session-failed, disconnect.
"""

from __future__ import annotations

import os
from time import monotonic
from typing import Callable, NamedTuple

from TMDA.inject import processor
from TMDA.inject.limits import Limits
from TMDA.inject.reply import Outcome, Reply, ReplyError, reply
from TMDA.inject.spool import Spool
from TMDA.ofmipd import received, verbs
from TMDA.ofmipd.backend import Backend, Identity, Transaction
from TMDA.ofmipd.client import Client
from TMDA.ofmipd.datareader import TOO_BIG, DataReader, read_data
from TMDA.ofmipd.guard import Guard
from TMDA.ofmipd.tally import code_label
from TMDA.ofmipd.trouble import fault
from TMDA.ofmipd.wire import Disconnected, Interrupted, LineTooLong, TimedOut, Wire, WireError

SESSION_ID_OCTETS = 4  # of chance, written as 8 hexadecimal digits
LARGE = 1 << 18  # octets of a message from which on it is more copying than computing
ERRORS = frozenset((500, 501, 502, 503, 504, 530, 555))  # replies that count as bad commands

OK = reply(250, '2.0.0', 'OK')
SENDER_OK = reply(250, '2.1.0', 'OK')
RECIPIENT_OK = reply(250, '2.1.5', 'OK')
GO_AHEAD = reply(354, '', 'End data with <CR><LF>.<CR><LF>')
AUTHENTICATED = reply(235, '2.7.0', 'Authentication successful')
BYE = reply(221, '', 'Bye', close=True)
START_TLS = reply(220, '2.0.0', 'Ready to start TLS')
HELP = reply(214, '2.0.0', 'Commands: ' + ' '.join(verbs.VERBS))
CANNOT_VERIFY = reply(252, '2.0.0', 'Cannot verify, but will try to deliver')
LINE_TOO_LONG = reply(500, '5.5.2', 'Line too long')
TOO_MANY_RECIPIENTS = reply(452, '4.5.3', 'Too many recipients')
AUTHENTICATED_ALREADY = reply(503, '5.5.1', 'Already authenticated')
TLS_NOT_OFFERED = reply(502, '5.5.1', 'TLS is not offered')
TLS_ALREADY = reply(503, '5.5.1', 'TLS is active already')
TLS_BROKEN = reply(454, '4.7.0', 'TLS is not available now')

# Replies that every message needs are encoded once.
_ENCODED = {answer: answer.to_bytes() for answer in (OK, SENDER_OK, RECIPIENT_OK, GO_AHEAD, BYE)}


class Service(NamedTuple):
    """What all sessions of a listener share.

    tls_mode is '', 'ssl' (TLS from the first octet), 'optional', 'localoptional' or 'on';
    tls_context() returns the ssl.SSLContext of the moment.  carries_dsn() says whether the
    transport would pass RFC 3461's parameters on now.  log is a logs.Log.
    """

    hostname: str
    backend: Backend
    limits: Limits
    guard: Guard
    log: object
    tls_mode: str = ''
    tls_context: Callable | None = None
    carries_dsn: Callable[[], bool] = bool  # which says no


class Session:
    """See the module.  The wire belongs to the session, which closes it in the end."""

    def __init__(self, wire: Wire, client: Client, service: Service):
        self.id = os.urandom(SESSION_ID_OCTETS).hex()
        self.identity: Identity | None = None
        self.transaction: Transaction | None = None
        self._wire = wire
        self._client = client
        self._service = service
        self._limits = service.limits
        self._helo = ''
        self._extended = False
        self._dsn = False  # offered in the last EHLO
        self._errors = 0
        self._ended = False
        self._linger = False
        self._started = monotonic()
        self._login = None  # a login.Login, after the greeting

    def run(self) -> None:
        """Serve the client until the connection is closed."""
        self._event('connect', port=self._client.port)
        cause = ''
        try:
            self._converse()
        except TimedOut:
            cause = 'timeout'
            self._end('4.4.2', 'timeout')
        except Interrupted:
            cause = 'shutdown'
            self._end('4.3.2', 'shutting down')
        except WireError as error:
            cause = str(error)
        except Exception as error:
            self._internal_error(error)
            cause = 'internal error'
            self._end('4.3.0', 'internal error, session %s' % self.id)
        self._finish()
        self._event('disconnect', cause=cause, seconds=round(monotonic() - self._started, 3))

    def _converse(self) -> None:
        self._wire.deadline = self._deadline()
        if self._service.tls_mode == 'ssl' and self._wire.tls is None:
            self._start_tls(self._service.tls_context())
        self._say(reply(220, '', '%s ESMTP tmda-ofmipd' % self._service.hostname))
        self._prepare()
        while not self._ended:
            self._serve_command()

    def _prepare(self) -> None:
        """Send the greeting, then load what commands need: with -1 clients wait for a start."""
        self._wire.flush()
        from TMDA.ofmipd import grammar  # noqa: F401
        from TMDA.ofmipd.login import Login
        self._login = Login(self._wire, self._client, self._service, self.id)

    def _finish(self) -> None:
        try:
            if self._login is not None:
                self._login.close()
        except Exception as error:
            self._internal_error(error)
        self._wire.finish(self._linger or bool(self._wire.buffered))

    # From a line to its reply

    def _serve_command(self) -> None:
        """Read a command and answer it: the one place where refusals and errors become replies."""
        from TMDA.ofmipd.grammar import split_command
        self._wire.deadline = self._deadline()
        try:
            answer = self._perform(*split_command(self._read_command()))
        except ReplyError as error:
            answer = error.reply
        except LineTooLong:
            answer = LINE_TOO_LONG
        except WireError:
            raise
        except Exception as error:
            answer = self._internal_error(error)
            self._errors += 1  # or a fault that comes back at once would come back for ever
        if answer is not None:
            self._say(answer)
            self._count_error(answer)

    def _deadline(self) -> float:
        """When the next command must be here; login_seconds count from the session's start."""
        deadline = monotonic() + self._limits.command_seconds
        if self.identity is not None:
            return deadline
        waited = self._login.waited if self._login is not None else 0
        return min(deadline, self._started + self._limits.login_seconds + waited)

    def _read_command(self) -> bytes:
        line = self._wire.read_line(self._limits.auth_line)
        if self._service.log.tracing:
            self._service.log.trace(self.id, 'C', line)
        if len(line) > self._limits.command_line and line[:5].upper() != b'AUTH ':
            raise LineTooLong
        return line

    def _perform(self, verb: str, argument: bytes) -> Reply | None:
        """Check the command and do it.  None: it has answered itself."""
        refusal = verbs.refusal(verb, argument, self._state(), self._tls_missing(),
                                self.identity is not None)
        if refusal is not None:
            return refusal
        return getattr(self, verbs.VERBS[verb].method)(argument)

    def _state(self) -> int:
        if self.transaction is not None:
            return verbs.RCPT if self.transaction.recipients else verbs.MAIL
        return verbs.READY if self._helo else verbs.START

    def _tls_missing(self) -> bool:
        mode = self._service.tls_mode
        if self._wire.tls is not None or mode not in ('on', 'localoptional'):
            return False
        return mode == 'on' or not self._client.loopback

    def _say(self, answer: Reply) -> None:
        octets = _ENCODED.get(answer) or answer.to_bytes()
        if self._service.log.tracing:
            self._service.log.trace(self.id, 'S', octets)
        if answer.code >= 400:
            self._service.log.count('refusals.' + code_label(answer.code))
        if answer.code == 421:
            self._ended = self._linger = True
        elif answer.close:
            self._ended = True
        self._wire.write(octets)

    def _end(self, enhanced: str, text: str) -> None:
        """Say 421, which is legal at any time (RFC 5321 3.8)."""
        try:
            self._say(reply(421, enhanced, '%s %s' % (self._service.hostname, text)))
        except WireError:
            pass  # the client does not take what was said before

    def _count_error(self, answer: Reply) -> None:
        """End the session of a client that errs, or guesses, too often."""
        if self._ended:
            return
        if self._login.failures >= self._limits.login_failures:
            self._end('4.7.0', 'too many failed logins')
            return
        if answer.code in ERRORS:
            self._errors += 1
        if self._errors >= self._limits.bad_commands:
            self._end('4.7.0', 'too many errors')

    def _internal_error(self, error: BaseException) -> Reply:
        """Log what went wrong; the client learns only where to look."""
        self._event('session-failed', **fault(error))
        return reply(451, '4.3.0', 'Internal error, session %s' % self.id)

    def _event(self, name: str, **facts: object) -> None:
        user = self.identity.login if self.identity is not None else ''
        self._service.log.event(name, session=self.id, client=self._client.address, user=user,
                                **facts)

    # Greeting, TLS and login

    def do_helo(self, argument: bytes) -> Reply:
        """RFC 5321 4.1.1.1: begins anew; a login stays."""
        self._greet(argument, False)
        self._dsn = False
        return reply(250, '', self._service.hostname)

    def do_ehlo(self, argument: bytes) -> Reply:
        """HELO with the list of what we can do now."""
        self._greet(argument, True)
        lines = [self._service.hostname, 'PIPELINING', 'SIZE %d' % self._limits.message_size,
                 '8BITMIME', 'SMTPUTF8', 'ENHANCEDSTATUSCODES']
        if self._starttls_refusal() is None:
            lines.append('STARTTLS')
        mechanisms = self._login.mechanisms()
        if mechanisms and not self._tls_missing():
            lines.append('AUTH ' + ' '.join(mechanisms))
        self._dsn = self._service.carries_dsn()
        if self._dsn:
            lines.append('DSN')
        return reply(250, '', *lines)

    def do_starttls(self, argument: bytes) -> Reply | None:
        """RFC 3207: answers before the handshake, which ends the session if it fails."""
        refusal = self._starttls_refusal()
        if refusal is not None:
            return refusal
        try:
            context = self._service.tls_context()
        except Exception as error:
            self._internal_error(error)
            return TLS_BROKEN
        self._say(START_TLS)
        # What came in the clear behind the command may be an attacker's (RFC 3207 6), and
        # everything learned before may be, too (4.2).
        self._wire.drop_input()
        self._login.close()
        self.identity = self.transaction = None
        self._helo = ''
        self._start_tls(context)
        return None

    def do_auth(self, argument: bytes) -> Reply:
        """RFC 4954; see login.py."""
        if self.identity is not None:
            return AUTHENTICATED_ALREADY
        self.identity = self._login.attempt(argument)
        return AUTHENTICATED

    def _greet(self, argument: bytes, extended: bool) -> None:
        self._helo = argument.decode('ascii', 'replace')
        self._extended = extended
        self.transaction = None

    def _starttls_refusal(self) -> Reply | None:
        if self._wire.tls is not None:
            return TLS_ALREADY
        return None if self._service.tls_mode else TLS_NOT_OFFERED

    def _start_tls(self, context) -> None:
        self._wire.deadline = min(monotonic() + self._limits.tls_seconds, self._deadline())
        try:
            self._wire.start_tls(context)
        except WireError as error:
            self._linger = True  # so that an alert arrives
            self._event('tls-failed', cause=str(error))
            raise Disconnected(str(error)) from None  # no 421 in the middle of a handshake
        self._event('tls', version=self._wire.tls.version, cipher=self._wire.tls.cipher)

    # A message

    def do_mail(self, argument: bytes) -> Reply:
        """RFC 5321 4.1.1.2; RFC 1870 6.1 for SIZE."""
        from TMDA.ofmipd.grammar import parse_mail
        mail = parse_mail(argument, self._dsn)
        if mail.size > self._limits.message_size:
            return TOO_BIG
        self.transaction = Transaction(mail.sender, mail.body, mail.smtputf8, mail.ret, mail.envid,
                                       session=self.id, size=mail.size)
        return SENDER_OK

    def do_rcpt(self, argument: bytes) -> Reply:
        """RFC 5321 4.1.1.3; 4.5.3.1.10 for too many."""
        from TMDA.ofmipd.grammar import parse_rcpt
        recipient = parse_rcpt(argument, self.transaction.smtputf8, self._dsn)
        if len(self.transaction.recipients) >= self._limits.recipients:
            return TOO_MANY_RECIPIENTS
        self.transaction.recipients.append(recipient)
        return RECIPIENT_OK

    def do_data(self, argument: bytes) -> Reply:
        """RFC 5321 4.1.1.4: the answer says who has the message now."""
        transaction, self.transaction = self.transaction, None
        self._say(GO_AHEAD)
        self._wire.interruptible = False
        try:
            with processor.Anywhere(transaction.size >= LARGE), \
                    Spool(self._limits.spool_memory) as spool:
                text = read_data(self._wire, spool, self._limits)
                received_at = monotonic()
                transaction.spool = spool
                outcome = self._submit(transaction, text)
        except WireError:
            raise
        except Exception as error:
            # How far the text was read is not known: what follows must not be taken for commands.
            return self._internal_error(error)._replace(close=True)
        finally:
            self._wire.interruptible = True
        self._report(transaction, text, outcome, monotonic() - received_at)
        if outcome.reply.success:
            self._errors = 0
        return outcome.reply

    def _submit(self, transaction: Transaction, text: DataReader) -> Outcome:
        """Hand the message to the backend.  Whatever happens there, there is an outcome."""
        if text.failure is not None:
            return Outcome(text.failure, {'cause': text.cause})
        tls = self._wire.tls
        protocol = received.protocol(self._extended, tls is not None, True, transaction.smtputf8)
        transaction.received = received.compose(self._client, self._helo, self._service.hostname,
                                                protocol, self.id, tls)
        try:
            return self._login.channel.submit(transaction)
        except ReplyError as error:
            return Outcome(error.reply, {'cause': error.cause})
        except BaseException as error:  # a user's code may raise anything, SystemExit included
            return Outcome(self._internal_error(error), {'cause': 'internal error'})

    def _report(self, transaction: Transaction, text: DataReader, outcome: Outcome,
                seconds: float) -> None:
        answer = outcome.reply
        facts = {'sender': transaction.sender, 'recipients': len(transaction.recipients),
                 'size': text.size,
                 'reply': '%d %s %s' % (answer.code, answer.enhanced, answer.text),
                 'milliseconds': round(seconds * 1000)}
        facts.update(outcome.facts)
        self._event('message', **facts)

    def do_rset(self, argument: bytes) -> Reply:
        """Forget the transaction."""
        self.transaction = None
        return OK

    # The rest

    def do_noop(self, argument: bytes) -> Reply:
        """Nothing."""
        return OK

    def do_vrfy(self, argument: bytes) -> Reply:
        """RFC 5321 3.5.3: who receives mail here is not ours to tell."""
        return CANNOT_VERIFY

    def do_help(self, argument: bytes) -> Reply:
        """The verbs."""
        return HELP

    def do_quit(self, argument: bytes) -> Reply:
        """RFC 5321 4.1.1.10."""
        return BYE
