# SPDX-License-Identifier: GPL-2.0-or-later
"""One connection to an upstream SMTP server, from connect() to QUIT.

smtplib does what comes before the first transaction (greeting, EHLO, STARTTLS, AUTH); its replies
are read by our own reader, which lets nothing stand behind an answer: octets that a man in the
middle put behind the 220 of STARTTLS end the connection (CVE-2021-38371).  Transactions are
written straight to the socket: commands in one write where the peer offers PIPELINING (RFC 2920),
one by one where it doesn't; the content with stuffed dots (RFC 5321 4.5.2), in blocks.

A Link is used by one thread at a time.  Whatever makes it unusable is raised as Lost, which is a
ReplyError: it carries what the client is to be told.  Passwords appear in no exception.
"""

from __future__ import annotations

import functools
import os
import re
import smtplib
import socket
import ssl
import struct
import time
from collections.abc import Iterable
from typing import NamedTuple

from TMDA.inject.reply import Reply, ReplyError, reply
from TMDA.inject.smtpreply import Answer, AnswerReader, BadAnswer, passed_on, timed_out
from TMDA.inject.smtpstream import PlainStream, TimedStream

DATA = b'DATA\r\n'
RSET = b'RSET\r\n'
BATCH = 100  # commands in flight, so that neither side blocks on full buffers (RFC 2920 3.1)
BLOCK = 65536  # octets of content gathered for one write

_HOST = re.compile(r'(?:\[([^][]+)\]|([^][:\s]+))(?::([0-9]{1,5}))?\Z')
_BARE_LINE_END = re.compile(rb'\r\n|\r|\n')
_LINGER_NOT = struct.pack('ii', 1, 0)  # close() resets the connection
_EHLO_NAME = re.compile(r'[A-Za-z0-9.-]+\Z')

# What may be done with a link: begin a transaction; RSET or DATA; nothing (answers outstanding, or
# inside DATA), for then only cutting the connection makes sure that nothing is delivered.
READY, OPEN, BUSY = 'ready', 'open', 'busy'


class Lost(ReplyError):
    """A connection that failed or could not be made.  timed_out tells a stall from a hang-up."""

    def __init__(self, answer: Reply, cause: str, timed_out: bool = False):
        super().__init__(answer, cause)
        self.timed_out = timed_out


class Peer(NamedTuple):
    """Whom to connect to and how; connections of equal peers may be shared.

    tls is '', 'starttls' or 'wrapper'; certfile and keyfile are the client's certificate or ''.
    """

    host: str
    port: int
    tls: str = ''
    username: str = ''
    password: str = ''
    certfile: str = ''
    keyfile: str = ''

    @classmethod
    def of(cls, settings) -> Peer:
        """The peer that SMTPHOST, SMTPSSL* and SMTPAUTH_* name.  ReplyError: SMTPHOST has none."""
        tls = settings.SMTPSSL and ('wrapper' if settings.SMTPSSL == 'wrapper' else 'starttls')
        host, port = _host_and_port(str(settings.SMTPHOST))
        return cls(host, port or (465 if tls == 'wrapper' else 25), tls or '',
                   settings.SMTPAUTH_USERNAME or '', settings.SMTPAUTH_PASSWORD or '',
                   *(path and settings.expand(path) or ''
                     for path in (settings.SMTPSSL_CERTFILE, settings.SMTPSSL_KEYFILE)))

    def __str__(self) -> str:
        return ('[%s]:%d' if ':' in self.host else '%s:%d') % (self.host, self.port)

    def __repr__(self) -> str:
        return 'Peer(%s, tls=%r, username=%r)' % (self, self.tls, self.username)


@functools.lru_cache(maxsize=64)
def _host_and_port(text: str) -> tuple[str, int]:
    """The host, and the port or 0 where text has none.  Raises ReplyError."""
    match = _HOST.match(text)
    if match is None or int(match.group(3) or 0) > 65535:
        raise ReplyError(reply(451, '4.3.5', 'Configuration error'),
                         'SMTPHOST %r is no host or host:port' % text)
    return match.group(1) or match.group(2), int(match.group(3) or 0)


def connect(peer: Peer, hostname: str, limits) -> Link:
    """A new connection, greeted, secured and logged in as peer says.

    hostname is our name in EHLO.  Raises Lost: 451 4.4.1 for a server that can't be reached, 451
    4.7.x for TLS that can't be had, 451 4.3.5 for a login that is refused, else the server's own
    refusal.
    """
    client = _Client(peer, hostname, limits)
    try:
        _prepare(client, peer)
    except BaseException as error:
        client.close()
        if isinstance(error, ReplyError) or not isinstance(error, (OSError, ValueError)):
            raise
        # `from None`: an error of the login may hold the password in one of its attributes.
        raise _unprepared(error, peer) from None
    return Link(peer, client, limits)


def _prepare(client: _Client, peer: Peer) -> None:
    """All that comes before the first transaction."""
    code, text = client.connect(peer.host, peer.port)
    if code != 220:
        raise smtplib.SMTPConnectError(code, text)
    client.introduce()
    if peer.tls == 'starttls':
        if not client.has_extn('starttls'):
            raise Lost(reply(451, '4.7.4', 'Upstream server offers no STARTTLS'),
                       '%s: STARTTLS is wanted and not offered' % (peer,))
        client.starttls(context=tls_context(client.sock, peer))
        client.introduce()
    if peer.username:
        try:
            client.login(peer.username, peer.password)
        except smtplib.SMTPServerDisconnected:
            raise
        except (smtplib.SMTPException, ValueError) as error:
            code = getattr(error, 'smtp_code', '')
            raise Lost(reply(451, '4.3.5', 'Upstream server refused our login'),
                       '%s: login failed: %s %s' % (peer, type(error).__name__, code)) from None


def _unprepared(error: Exception, peer: Peer) -> Lost:
    """What an error before the first transaction means."""
    if isinstance(error, smtplib.SMTPResponseException):
        text = error.smtp_error
        raw = text if isinstance(text, bytes) else str(text).encode('utf-8', 'replace')
        answer = Answer(error.smtp_code, tuple(raw.split(b'\n')))
        if isinstance(error, (smtplib.SMTPConnectError, smtplib.SMTPHeloError)):
            return Lost(passed_on(answer), '%s: greeting: %s' % (peer, answer))
        return Lost(reply(451, '4.7.4', 'Upstream server refused STARTTLS'),
                    '%s: STARTTLS: %s' % (peer, answer))
    if isinstance(error, ssl.SSLError):
        return Lost(reply(451, '4.7.5', 'No secure connection to the upstream server'),
                    '%s: TLS: %s' % (peer, error))
    return Lost(reply(451, '4.4.1', 'Upstream server cannot be reached'),
                '%s: %s' % (peer, error or type(error).__name__))


class _Client(smtplib.SMTP):
    """smtplib's client for what precedes the first transaction, with our socket and reader."""

    def __init__(self, peer: Peer, hostname: str, limits):
        name = hostname if _EHLO_NAME.match(hostname) else '[127.0.0.1]'
        super().__init__(local_hostname=name, timeout=limits.connect_seconds)
        self._host = peer.host  # the name that starttls() wants to see in the certificate
        self._peer = peer
        self._seconds = limits.upstream_seconds
        self.answers = AnswerReader()

    def _get_socket(self, host, port, timeout):
        sock = socket.create_connection((host, port), timeout)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._peer.tls == 'wrapper':
                return tls_context(sock, self._peer).wrap_socket(sock, server_hostname=host)
        except BaseException:
            sock.close()
            raise
        return sock

    def introduce(self) -> None:
        """EHLO, or HELO to a server that doesn't know EHLO (RFC 5321 3.2) and to no other."""
        code, text = self.ehlo()
        if code in (500, 502):
            code, text = self.helo()
        if code != 250:
            raise smtplib.SMTPHeloError(code, text)

    def getreply(self):
        answer = self.answers.read(TimedStream(self.sock), time.monotonic() + self._seconds)
        if self.answers.pending:
            raise BadAnswer('octets behind a reply that nobody had asked for')
        return answer.code, b'\n'.join(answer.lines)


def is_loopback(sock) -> bool:
    """True when the other end of sock is this machine."""
    address = sock.getpeername()[0]
    return address.startswith('127.') or address in ('::1', '::ffff:127.0.0.1')


def tls_context(sock, peer: Peer):
    """The TLS context for peer.  Its certificate is verified, unless it is on this machine.

    Raises Lost (451 4.3.5) if the client's certificate can't be used.
    """
    try:
        changed = tuple(os.stat(path).st_mtime_ns
                        for path in (peer.certfile, peer.keyfile) if path)
        return _tls_context(is_loopback(sock), peer.certfile, peer.keyfile, changed)
    except OSError as error:
        raise Lost(reply(451, '4.3.5', 'Configuration error'),
                   'SMTPSSL_CERTFILE or SMTPSSL_KEYFILE: %s' % error) from error


@functools.lru_cache(maxsize=16)
def _tls_context(loopback: bool, certfile: str, keyfile: str, _changed: tuple):
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if loopback:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certfile:
        context.load_cert_chain(certfile, keyfile or None)
    return context


class Link:
    """A prepared connection.

    features are those of the last EHLO (lower-case name -> parameters); state is READY, OPEN or
    BUSY; reused and answered serve to tell a connection that died while it was idle; messages
    counts those sent; idle_since is in terms of time.monotonic().
    """

    def __init__(self, peer: Peer, client: _Client, limits):
        self.peer = peer
        self.features = client.esmtp_features
        self.state = READY
        self.reused = False
        self.answered = False
        self.messages = 0
        self.idle_since = 0.0
        self._sock = client.sock
        self._stream = TimedStream(client.sock) if peer.tls else PlainStream(client.sock)
        self._answers = client.answers
        self._seconds = limits.upstream_seconds
        self._batch = BATCH if 'pipelining' in self.features else 1
        self._deadline = 0.0
        self._owed = 0  # answers to RSET that were not waited for
        self._commands: list[bytes] = []

    def start(self, commands: list[bytes]) -> None:
        """Send commands, or as many as the peer takes at a time.  Raises Lost."""
        self.state = BUSY
        self._commands = commands
        self._deadline = time.monotonic() + self._seconds
        if self._batch == 1:
            self._read_owed()
        self._write(b''.join(commands[:self._batch]))

    def finish(self) -> list[Answer]:
        """Send the rest of the commands; the answers in order.

        Ends behind the batch in which a command was refused, or where a server hung up that had
        refused one, so that there may be fewer answers than commands.  DATA is refused by anything
        but 354, others by anything but 2xx.  Leaves the link READY if all was refused, BUSY behind
        354 or a hang-up, else OPEN.  Raises Lost, for a 421 too.
        """
        self._read_owed()
        answers: list[Answer] = []
        commands = self._commands
        for start in range(0, len(commands), self._batch):
            if start:
                self._write(b''.join(commands[start:start + self._batch]))
            for _command in commands[start:start + self._batch]:
                try:
                    answers.append(self._read())
                except Lost:
                    if all(map(accepted, commands, answers)):
                        raise
                    return answers
                self.answered = True
            if not all(map(accepted, commands[start:], answers[start:])):
                break
        if answers[-1].code != 354:
            self.state = OPEN if any(map(accepted, commands, answers)) else READY
        return answers

    def send_content(self, header: bytes, chunks: Iterable[bytes]) -> None:
        """Send header and chunks, then the end of data.  Raises Lost, and what chunks raises."""
        if not header.count(b'\r\n') == header.count(b'\n') == header.count(b'\r'):
            header = _BARE_LINE_END.sub(b'\r\n', header)
        pieces = [_stuffed(header, True)]
        gathered, line_start = len(header), header[-1:] in (b'', b'\n')
        for chunk in chunks:
            pieces.append(_stuffed(chunk, line_start))
            gathered += len(chunk)
            line_start = chunk.endswith(b'\n')
            if gathered >= BLOCK:
                self._write(b''.join(pieces))
                pieces, gathered = [], 0
        pieces.append(b'.\r\n' if line_start else b'\r\n.\r\n')
        self._write(b''.join(pieces))

    def verdict(self) -> Answer:
        """The answer to the content.  Raises Lost."""
        answer = self._read()
        if answer.code // 100 != 3:
            self.state = READY
        self.messages += 1
        return answer

    def stale(self) -> bool:
        """True when an idle connection has ended, or says something unasked.  Asks nobody."""
        if self._owed:
            return False  # there is something to read: the answer to RSET
        return self._stream.readable() or self._answers.pending

    def settle(self) -> bool:
        """True if another transaction can follow; else the connection is closed now.

        An open transaction is given up with RSET, whose answer is read before the next one.  In an
        unknown state only cutting the connection is safe.
        """
        if self.state == OPEN:
            try:
                self._write(RSET)
                self._owed += 1
                self.state = READY
            except Lost:
                pass
        if self.state != READY:
            self.abort()
        return self.state == READY

    def quit(self) -> None:
        """Take leave without waiting for the answer, and close."""
        try:
            self._stream.send(b'QUIT\r\n', 1)
        except OSError:
            pass
        self._sock.close()

    def abort(self) -> None:
        """Cut the connection, so that a transaction that is under way delivers nothing."""
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        except OSError:
            pass
        self._sock.close()

    def _write(self, data: bytes) -> None:
        try:
            self._stream.send(data, self._seconds)
        except OSError as error:
            raise self._last_words(error) from error
        self._deadline = time.monotonic() + self._seconds

    def _last_words(self, error: OSError) -> Lost:
        """Why a write failed: what the server said before it hung up, if anything."""
        self.state = BUSY
        try:
            answer = self._answers.read(self._stream, 0)
        except OSError:
            return self._lost(error)
        return Lost(passed_on(answer), '%s: hung up: %s' % (self.peer, answer))

    def _read(self) -> Answer:
        try:
            answer = self._answers.read(self._stream, self._deadline)
        except OSError as error:
            self.state = BUSY
            raise self._lost(error) from error
        if answer.code == 421:
            self.state = BUSY
            raise Lost(passed_on(answer), '%s: %s' % (self.peer, answer))
        return answer

    def _read_owed(self) -> None:
        while self._owed:
            if not accepted(RSET, self._read()):
                raise self._lost(BadAnswer('RSET refused'))
            self._owed -= 1

    def _lost(self, error: OSError) -> Lost:
        if isinstance(error, BadAnswer):
            answer = reply(451, '4.5.0', 'Upstream server made no sense')
        else:
            answer = reply(451, '4.4.2', 'Connection to the upstream server was lost')
        return Lost(answer, '%s: %s' % (self.peer, error), timed_out(error))


def accepted(command: bytes, answer: Answer) -> bool:
    """True when answer lets the transaction go on after command."""
    return answer.code == 354 if command == DATA else answer.code < 300


def _stuffed(chunk: bytes, line_start: bool) -> bytes:
    """chunk with a dot before each dot that begins a line; line_start: it begins at one."""
    stuffed = chunk.replace(b'\n.', b'\n..')
    return b'.' + stuffed if line_start and chunk.startswith(b'.') else stuffed
