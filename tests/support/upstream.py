# SPDX-License-Identifier: GPL-2.0-or-later
"""A scripted SMTP server for tests: takes mail, records it to the octet, misbehaves as told.

    with Upstream() as upstream:
        upstream.on('RCPT', say('550 5.1.1 No such user'), match='bob@')
        upstream.on('end', hang_up(), skip=1)         # the second message only
        ... send to 127.0.0.1, upstream.port ...
        assert upstream.messages[0].recipients == ['ann@example.com']

Stages for on(): connect (before the banner), EHLO HELO STARTTLS AUTH MAIL RCPT DATA RSET NOOP
QUIT (when the command has come), body (at the first octets of content), end (when the end of data
has come).  The latest rule that applies is taken.

It is strict where it counts: data ends at CRLF.CRLF and nowhere else, commands end with CRLF, and
content that comes with a bare CR or LF is recorded as it is.  Threads end with close().
"""
import base64
import hashlib
import hmac
import os
import re
import socket
import ssl
import threading
from dataclasses import dataclass, field

CERTIFICATE = os.path.join(os.path.dirname(__file__), 'localhost.pem')
FEATURES = ('PIPELINING', 'SIZE 52428800', '8BITMIME', 'SMTPUTF8', 'ENHANCEDSTATUSCODES', 'DSN')
CHALLENGE = b'<1.2@upstream.test>'

_PATH = re.compile(r'(?i)(?:FROM|TO):\s*<((?:"(?:[^"\\]|\\.)*")?[^>]*)>(.*)\Z', re.DOTALL)


@dataclass
class Message:
    """An accepted message.  data is without dot stuffing, raw as it came; neither has the end."""

    mail_from: str
    mail_params: list
    recipients: list
    rcpt_params: list
    connection: int
    login: str = ''
    tls: bool = False
    data: bytes = b''
    raw: bytes = b''
    size: int = 0
    digest: str = ''


@dataclass(frozen=True)
class Behavior:
    """What to do at a stage: say text, after a stall or drop by drop, and hang up or go on."""

    text: bytes = b''
    hangs_up: bool = False
    stalls: bool = False
    interval: float = 0.0


def say(text, then_hang_up=False):
    """Answer with text (str: CRLF is added; bytes: as it is)."""
    raw = text.encode('utf-8').replace(b'\n', b'\r\n') + b'\r\n' if isinstance(text, str) else text
    return Behavior(raw, hangs_up=then_hang_up)


def hang_up():
    """Close the connection without a word."""
    return Behavior(hangs_up=True)


def stall():
    """Say nothing until the client goes away."""
    return Behavior(stalls=True)


def drip(text, interval=0.02):
    """Answer with text, an octet at a time, with so many seconds between."""
    return Behavior(text.encode('utf-8') + b'\r\n', interval=interval)


@dataclass
class Rule:
    """Applies at stage to lines that contain match: not the first skip times, then times times."""

    stage: str
    behavior: Behavior
    match: str = ''
    skip: int = 0
    times: int = 10 ** 9


class Upstream:
    """The server.  messages, commands and reads may be looked at at any time.

    commands: (connection number, line without CRLF) of all command lines; reads: (connection
    number, octets) of what each recv() outside of content gave; connections: how many have come.
    tls is '', 'starttls' or 'wrapper'; logins maps users to passwords and makes AUTH offered.
    With keeps_data False only size and SHA-256 of the raw content are kept.
    """

    def __init__(self, features=FEATURES, tls='', logins=None, mechanisms='PLAIN LOGIN CRAM-MD5',
                 keeps_data=True, port=0, host='127.0.0.1'):
        self.features = list(features)
        self.tls = tls
        self.logins = dict(logins or {})
        self.mechanisms = mechanisms
        self.keeps_data = keeps_data
        self.messages = []
        self.commands = []
        self.reads = []
        self.connections = 0
        self.stopping = threading.Event()
        self._rules = []
        self._lock = threading.Lock()
        self._sessions = {}
        self._listener = socket.create_server((host, port), family=(
            socket.AF_INET6 if ':' in host else socket.AF_INET), backlog=1024)
        self.host, self.port = self._listener.getsockname()[:2]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def on(self, stage, behavior, **when):
        """Add a Rule; the keyword arguments are its match, skip, times.  Returns self."""
        with self._lock:
            self._rules.insert(0, Rule(stage, behavior, **when))
        return self

    def clear(self):
        """Forget all rules."""
        with self._lock:
            self._rules = []

    def verbs(self):
        """The first words of all commands, in the order in which they came."""
        return [line.split(b' ')[0].split(b':')[0].decode('latin-1').upper()
                for _connection, line in list(self.commands)]

    def delivered(self):
        """All recipients of all messages, sorted."""
        return sorted(recipient for message in list(self.messages)
                      for recipient in message.recipients)

    def open_sessions(self):
        """How many connections are open."""
        with self._lock:
            return len(self._sessions)

    def drop_connections(self):
        """Close all connections, as a server that is restarted; returns when they have ended."""
        with self._lock:
            sessions = dict(self._sessions)
        for sock in sessions.values():
            _shut(sock)
        for thread in sessions:
            thread.join(10)

    def close(self):
        """End everything."""
        self.stopping.set()
        _shut(self._listener)
        self._listener.close()
        self._thread.join(10)
        self.drop_connections()

    def behavior(self, stage, line):
        """The Behavior that a rule asks for now, or None."""
        with self._lock:
            for rule in self._rules:
                if rule.stage == stage and rule.match in line and rule.times > 0:
                    if rule.skip > 0:
                        rule.skip -= 1
                        continue
                    rule.times -= 1
                    return rule.behavior
        return None

    def _accept(self):
        while not self.stopping.is_set():
            try:
                sock, _address = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(sock, self.connections),
                                      daemon=True)
            with self._lock:
                self._sessions[thread] = sock
            thread.start()

    def _serve(self, sock, number):
        session = _Session(self, sock, number)
        try:
            session.run()
        except (OSError, _Gone):
            pass
        finally:
            session.sock.close()
            with self._lock:
                self._sessions.pop(threading.current_thread(), None)


class _Gone(Exception):
    """The session is over."""


@dataclass
class _Transaction:
    mail_from: str
    mail_params: list
    recipients: list = field(default_factory=list)
    rcpt_params: list = field(default_factory=list)


class _Content:
    """Octets of a message as they come; the first two that are added stand before it."""

    def __init__(self, keeps_data):
        self.keeps_data = keeps_data
        self.before = 2
        self.size = 0
        self.digest = hashlib.sha256()
        self.pieces = []

    def add(self, data):
        """data is part of the message."""
        data, self.before = data[self.before:], max(self.before - len(data), 0)
        self.size += len(data)
        self.digest.update(data)
        if self.keeps_data:
            self.pieces.append(data)

    def fill(self, message):
        """The message is complete."""
        message.size = self.size
        message.digest = self.digest.hexdigest()
        message.raw = b''.join(self.pieces)
        message.data = re.sub(rb'(\A|\r\n)\.', rb'\1', message.raw)


class _Session:
    """One connection."""

    def __init__(self, server, sock, number):
        self.server = server
        self.sock = sock
        self.number = number
        self.buffer = b''
        self.transaction = None
        self.is_tls = False
        self.login = ''

    def run(self):
        """Serve until one side has had enough."""
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.server.tls == 'wrapper':
            self.start_tls()
        self.answer('connect', '', '220 upstream.test ESMTP')
        while True:
            line = self.read_line()
            self.server.commands.append((self.number, line))
            verb, _blank, rest = line.decode('utf-8', 'replace').partition(' ')
            handler = getattr(self, 'do_' + verb.upper(), None)
            if handler is None:
                self.send(b'502 5.5.1 Unknown command\r\n')
            else:
                handler(rest)

    def do_EHLO(self, rest):
        features = list(self.server.features)
        if self.server.tls == 'starttls' and not self.is_tls:
            features.append('STARTTLS')
        if self.server.logins:
            features.append('AUTH ' + self.server.mechanisms)
        lines = ['upstream.test'] + features
        text = '\n'.join('250%s%s' % (' ' if number == len(lines) - 1 else '-', line)
                         for number, line in enumerate(lines))
        self.answer('EHLO', rest, text)

    def do_HELO(self, rest):
        self.answer('HELO', rest, '250 upstream.test')

    def do_STARTTLS(self, rest):
        if self.answer('STARTTLS', rest, '220 2.0.0 Go ahead'):
            self.start_tls()

    def do_AUTH(self, rest):
        mechanism, _blank, initial = rest.partition(' ')
        behavior = self.server.behavior('AUTH', rest)
        if behavior is not None:
            self.act(behavior)
            return
        user, is_right = getattr(self, 'auth_' + mechanism.replace('-', '_').lower())(initial)
        self.login = user if is_right else ''
        self.send(b'235 2.7.0 Welcome\r\n' if is_right else b'535 5.7.8 No\r\n')

    def auth_plain(self, initial):
        """(user, whether the password was right)"""
        answer = base64.b64decode(initial or self.challenge(b''))
        _authorization, user, password = answer.decode('utf-8').split('\0')
        return user, self.server.logins.get(user) == password

    def auth_login(self, initial):
        """(user, whether the password was right)"""
        user = base64.b64decode(initial or self.challenge(b'User Name')).decode('utf-8')
        password = base64.b64decode(self.challenge(b'Password')).decode('utf-8')
        return user, self.server.logins.get(user) == password

    def auth_cram_md5(self, _initial):
        """(user, whether the password was right)"""
        user, digest = base64.b64decode(self.challenge(CHALLENGE)).decode('utf-8').split(' ')
        password = self.server.logins.get(user, '').encode('utf-8')
        return user, hmac.new(password, CHALLENGE, 'md5').hexdigest() == digest

    def challenge(self, text):
        """Ask, and return the answer as it came."""
        self.send(b'334 ' + base64.b64encode(text) + b'\r\n')
        return self.read_line()

    def do_MAIL(self, rest):
        if self.transaction is not None:
            self.send(b'503 5.5.1 Nested MAIL\r\n')
        elif self.answer('MAIL', rest, '250 2.1.0 Ok'):
            address, parameters = _path(rest)
            self.transaction = _Transaction(address, parameters)

    def do_RCPT(self, rest):
        if self.transaction is None:
            self.send(b'503 5.5.1 Need MAIL\r\n')
        elif self.answer('RCPT', rest, '250 2.1.5 Ok'):
            address, parameters = _path(rest)
            self.transaction.recipients.append(address)
            self.transaction.rcpt_params.append(parameters)

    def do_DATA(self, rest):
        if self.transaction is None or not self.transaction.recipients:
            self.send(b'554 5.5.1 No valid recipients\r\n')
        elif self.answer('DATA', rest, '354 Go ahead'):
            message = Message(connection=self.number, login=self.login, tls=self.is_tls,
                              **vars(self.transaction))
            self.read_content(message)
            self.transaction = None
            queued = '250 2.0.0 Ok: queued as %d-%d' % (self.number, len(self.server.messages))
            self.answer('end', ' '.join(message.recipients), queued,
                        before=lambda: self.server.messages.append(message))

    def do_RSET(self, rest):
        self.transaction = None
        self.answer('RSET', rest, '250 2.0.0 Ok')

    def do_NOOP(self, rest):
        self.answer('NOOP', rest, '250 2.0.0 Ok')

    def do_QUIT(self, rest):
        self.answer('QUIT', rest, '221 2.0.0 Bye')
        raise _Gone

    def answer(self, stage, line, usual, before=None):
        """Do what the script or else usual says; True if the answer was positive.

        before() is called ahead of a positive answer.
        """
        behavior = self.server.behavior(stage, line) or say(usual)
        is_positive = behavior.text[:1] in (b'2', b'3') and not behavior.stalls
        if is_positive and before is not None:
            before()
        self.act(behavior)
        return is_positive

    def act(self, behavior):
        """Show behavior."""
        if behavior.stalls:
            while self.recv():
                pass
            raise _Gone
        if behavior.interval:
            for position in range(len(behavior.text)):
                self.send(behavior.text[position:position + 1])
                if self.server.stopping.wait(behavior.interval):
                    raise _Gone
        else:
            self.send(behavior.text)
        if behavior.hangs_up:
            _shut(self.sock)
            raise _Gone

    def read_content(self, message):
        """Fill in the content of message."""
        content = _Content(self.server.keeps_data)
        behavior = self.server.behavior('body', '')
        waiting = b'\r\n'  # a dot right at the start is the end of data too
        data, self.buffer = self.buffer, b''
        while True:
            data = data or self.recv()
            if not data:
                raise _Gone
            if behavior is not None:
                self.act(behavior)
                behavior = None
            waiting, data = waiting + data, b''
            end = waiting.find(b'\r\n.\r\n')
            if end >= 0:
                break
            content.add(waiting[:-4])
            waiting = waiting[-4:]
        content.add(waiting[:end + 2])
        self.buffer = waiting[end + 5:]
        content.fill(message)

    def read_line(self):
        """The next command line without its CRLF."""
        while b'\r\n' not in self.buffer:
            data = self.recv()
            if not data:
                raise _Gone
            self.server.reads.append((self.number, data))
            self.buffer += data
        line, _end, self.buffer = self.buffer.partition(b'\r\n')
        return line

    def recv(self):
        """What the client sends next."""
        return self.sock.recv(65536)

    def send(self, data):
        """Send data to the client."""
        self.sock.sendall(data)

    def start_tls(self):
        """Shake hands; what was read before is forgotten."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        self.sock = context.wrap_socket(self.sock, server_side=True)
        with self.server._lock:
            self.server._sessions[threading.current_thread()] = self.sock
        self.buffer = b''
        self.is_tls = True


def _path(rest):
    """(address, list of parameters) behind MAIL or RCPT."""
    match = _PATH.match(rest)
    assert match, rest
    return match.group(1), match.group(2).split()


def _shut(sock):
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
