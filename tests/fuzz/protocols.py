# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzz targets that speak: what clients, proxies, upstream servers and LDAP servers send."""
from __future__ import annotations

import re
import socket
import ssl
import threading
from time import monotonic

from fuzz.engine import Target
from support.endings import normalized, without_end
from support.fake_backend import FakeBackend, FakeLog, make_service
from support.talk import PATIENCE, client_context, server_context
from TMDA.inject.reply import ReplyError, reply
from TMDA.inject.smtpreply import AnswerReader, BadAnswer, accepted_text, passed_on
from TMDA.inject.spool import Spool
from TMDA.inject.transport import is_safe
from TMDA.ofmipd import grammar, ldap, proxyprotocol, sasl, verbs
from TMDA.ofmipd.client import Client
from TMDA.ofmipd.datareader import DataReader
from TMDA.ofmipd.session import Session
from TMDA.ofmipd.wire import Wire

REPLY_LINE = re.compile(rb'[2-5][0-9][0-9][ -][\x20-\x7e]*\r\n')
ACCEPTED = b'250 2.0.0 Message accepted\r\n'


class Broken(AssertionError):
    """A promise was not kept."""


def promise(kept: object, what: object = '') -> None:
    """Raise Broken unless kept; unlike assert it is there under -O as well."""
    if not kept:
        raise Broken(what)


# Command grammar

def check_grammar(line: bytes) -> object:
    """A line is split and read, or refused with a reply; an address that was read is harmless."""
    try:
        verb, argument = grammar.split_command(line)
        answer = verbs.refusal(verb, argument, verbs.READY, False, True)
        promise(answer is None or REPLY_LINE.fullmatch(answer.to_bytes()))
        if verb == 'MAIL':
            mail = grammar.parse_mail(argument, dsn=True)
            promise(not mail.sender or is_safe(mail.sender), mail)
            return verb, mail.smtputf8, mail.body, bool(mail.sender), mail.ret, bool(mail.envid)
        if verb == 'RCPT':
            recipient = grammar.parse_rcpt(argument, smtputf8=True, dsn=True)
            promise(is_safe(recipient.address), recipient)
            again = grammar.parse_rcpt(b'TO:<%s>' % recipient.address.encode('utf-8'), True)
            promise(again.address == recipient.address, recipient)
            return verb, '"' in recipient.address, bool(recipient.notify), bool(recipient.orcpt)
        return verb in verbs.VERBS, answer
    except ReplyError as error:
        promise(REPLY_LINE.fullmatch(error.reply.to_bytes()), error.reply)
        return error.reply


GRAMMAR = Target('grammar', check_grammar, (
    b'MAIL FROM:<a@example.org>\r\n', b'RCPT TO:<b@example.org>\r\n', b'EHLO client.example\r\n',
    b'MAIL FROM: <"a b"@[192.0.2.1]> SIZE=100 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x+2By\r\n',
    b'RCPT TO:<@a.example,@b.example:c@d.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a@b\r\n',
    b'MAIL FROM:<> AUTH=<>\r\n', b'RCPT TO: a@b\n',
), (b'MAIL FROM:', b'RCPT TO:', b'<', b'>', b'@', b'"', b'\\', b' ', b'\t', b'SIZE=', b'BODY=7BIT',
    b'SMTPUTF8', b'NOTIFY=NEVER', b'ORCPT=utf-8;', b'RET=FULL', b'ENVID=', b'AUTH=', b'\r', b'\n',
    b'\0', b'[', b']', b'IPv6:', b',', b':', b'\xc3\xbc', b'\xff', b'\xe2\x80\xa8', b'\xc2\x85',
    b'+', b'=', b'a' * 64, b'"' * 30, b'.'), 30000)


# The text of a message

def check_data(data: bytes) -> object:
    """However the octets are cut, the text is the one that the RFC's words give; CRLF only."""
    text = without_end(data)
    octets = text + b'\r\n.\r\nREST'
    results = []
    for size in (len(octets), 1 + len(octets) % 7):
        with Spool(64) as spool:
            reader = DataReader(spool, 1 << 20)
            end = next((start + size for start in range(0, len(octets), size)
                        if reader.feed(octets[start:start + size])), None)
            promise(end is not None, 'no end')
            results.append((b''.join(spool.chunks()), reader.rest + octets[end:]))
    promise(results[0] == results[1] == (normalized(text + b'\r\n'), b'REST'), results)
    kinds = (b'\r\n', b'\r', b'\n', b'\r\n.', b'\n.', b'\r.', b'\0')
    return tuple(kind in text for kind in kinds), min(len(text), 64) // 8


DATA = Target('data', check_data, (
    b'', b'.', b'text\r\n..\r\n', b'a\n.\nb', b'a\r.\rb', b'Subject: x\r\n\r\ntext\r\n'),
    (b'\r', b'\n', b'\r\n', b'.', b'..', b'\r\n.', b'\n.\r\n', b'\r\n.\r', b'\0',
    b'x' * 70), 15000)


# SASL

def check_sasl(case: bytes) -> object:
    """The first line is the mechanism, then the client's responses; only the two errors come."""
    name, *responses = case.split(b'\n')
    steps_of = list(sasl.MECHANISMS.values())
    start = steps_of[(name or b'\0')[0] % len(steps_of)]
    initial = responses.pop(0) if responses and responses[0] != b'-' else None
    steps = start(initial, 'mail.example.org')
    trail, answer = [start.__name__], None
    try:
        for _ in range(10):
            step = steps.send(answer)
            trail.append(type(step).__name__)
            answer = _sasl_answer(step, responses)
            if answer is None:
                return tuple(trail)
    except StopIteration:
        return tuple(trail), 'done'
    except (sasl.Malformed, sasl.Rejected) as error:
        return tuple(trail), str(error)
    raise Broken('an endless exchange')


class _Signed:
    server_signature = b'signature'


def _sasl_answer(step, responses):
    if isinstance(step, sasl.Lookup):
        promise(step.user.isprintable() or not re.search(r'[\x00-\x1f\x7f]', step.user))
        return b'salt', 4096
    if isinstance(step, sasl.Verify):
        promise(not re.search(r'[\x00-\x1f\x7f-\x9f]', step.credentials.user), step)
        promise('secret' not in repr(step.credentials) or 'secret' in step.credentials.user)
        return _Signed()
    return responses.pop(0) if responses else None


SASL = Target('sasl', check_sasl, (
    b'\0\n\0bobby\0secret', b'\0\nbobby\0bobby\0secret', b'\1\nbobby\nsecret',
    b'\1\n-\nbobby\nsecret',
    b'\2\n-\nbobby ' + b'0' * 32, b'\3\nn,,n=bobby,r=nonce\nc=biws,r=nonce,p=' + b'A' * 43 + b'=',
    b'\3\ny,a=bobby,n=bobby,r=nonce\nc=biws', b'\3\n-\nn,,n=a=2Cb,r=n',
), (b'\0', b'n,,', b'y,,', b'p=tls-unique,,', b'n=', b'r=', b'a=', b'c=biws', b'p=', b',', b'=2C',
    b'=3D', b'=', b'\xc3\xbc', b'\xff', b'\r', b'\x85', b'-', b' ', b'secret', b'A' * 4), 10000)


# PROXY protocol

def check_proxy(data: bytes) -> object:
    """A header is read whole or not at all; what is behind it does not matter."""
    try:
        header = proxyprotocol.parse(data)
    except proxyprotocol.ProxyError as error:
        return str(error)
    if header is None:
        promise(len(data) < proxyprotocol.BINARY_LIMIT + 16, 'wants more and more')
        return 'more'
    promise(0 < header.size <= len(data))
    promise(proxyprotocol.parse(data[:header.size]) == header)
    promise(proxyprotocol.parse(data[:header.size] + b'EHLO x\r\n') == header)
    promise(proxyprotocol.parse(data[:header.size - 1]) is None)
    if header.ends is not None:
        promise(re.fullmatch(r'[0-9A-Fa-f:.]+', header.ends.address), header)
    return data[:1], header.ends is None, header.size


PROXY = Target('proxy', check_proxy, (
    b'PROXY TCP4 192.0.2.7 198.51.100.1 4711 587\r\nEHLO x\r\n',
    b'PROXY TCP6 2001:db8::1 ::1 65535 0\r\n', b'PROXY UNKNOWN\r\n',
    b'PROXY UNKNOWN ffff:f...f:ffff 1 2\r\n',
    proxyprotocol.SIGNATURE + b'\x21\x11\0\x0c' + bytes(range(12)) + b'EHLO x\r\n',
    proxyprotocol.SIGNATURE + b'\x20\0\0\0',
    proxyprotocol.SIGNATURE + b'\x21\x21\0\x30' + b'x' * 48,
), (b'PROXY ', b'TCP4 ', b'TCP6 ', b'UNKNOWN', b' ', b'\r\n', b'\r', b'\n', b'::ffff:1.2.3.4',
    b'0',
    b'99999', b'-1', proxyprotocol.SIGNATURE, b'\x21', b'\x11', b'\x31', b'\0',
    b'\xff\xff'), 10000)


# LDAP

class _Octets:
    """A stream that holds some octets, as TimedSocket reads them."""

    def __init__(self, data: bytes):
        self._data = data
        self.asked = 0

    def read(self, size: int) -> bytes:
        self.asked += size
        data, self._data = self._data[:size], self._data[size:]
        return data

    def sendall(self, data: bytes) -> None:
        pass


class _Url:
    dn = 'uid=%s,dc=example'


def check_ldap(data: bytes) -> object:
    """Yes only for a whole bind response with result 0 to message 1; never more than the limit."""
    stream = _Octets(data)
    verdict = ldap.login(stream, b'bobby', b'secret', _Url)
    promise(stream.asked <= ldap.RESPONSE_LIMIT + 16, 'asked for %d octets' % stream.asked)
    if verdict.answer == 'yes':
        promise(re.match(rb'\x30.{1,5}\x02[\x01-\x04]\0*\x01\x61', data, re.DOTALL), data)
    promise(len(verdict.cause) < 300)
    return verdict.answer, verdict.cause[:40]


LDAP = Target('ldap', check_ldap, (
    b'\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00',
    b'\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x31\x04\x00\x04\x00',
    b'\x30\x84\x00\x00\x00\x10\x02\x01\x01\x61\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00',
    b'\x30\x82\x01\x00', b'\x30\x80\x02\x01\x01',
), (b'\x30', b'\x02\x01\x01', b'\x61', b'\x0a\x01\x00', b'\x04\x00', b'\x84', b'\x82\xff\xff',
    b'\x84\x7f\xff\xff\xff', b'\x80', b'\xa3\x03\x04\x01a'), 12000)


# Replies of the upstream server

class _Stream:
    """A stream (inject/smtpstream.py) that has some octets and then ends."""

    def __init__(self, data: bytes):
        self._data = data

    def receive(self, deadline: float) -> bytes:
        data, self._data = self._data[:7], self._data[7:]
        return data


def check_upstream(data: bytes) -> object:
    """Each answer becomes a reply that is fit for our client, or the connection is given up."""
    reader, stream = AnswerReader(), _Stream(data)
    seen = []
    try:
        while len(seen) < 20:
            answer = reader.read(stream, monotonic() + 10)
            octets = passed_on(answer, 'bob@example.org').to_bytes()
            for line in octets.splitlines(keepends=True):
                promise(REPLY_LINE.fullmatch(line) and line[:1] in b'45', line)
            promise(REPLY_LINE.fullmatch(reply(250, '2.0.0', accepted_text(answer)).to_bytes()))
            seen.append(answer.code)
    except BadAnswer as error:
        return tuple(seen), str(error)[:20]
    except ConnectionError:
        pass
    return tuple(seen)


UPSTREAM = Target('upstream', check_upstream, (
    b'250 2.0.0 Ok\r\n', b'250-a\r\n250-SIZE 100\r\n250 b\r\n', b'421 4.3.2 Bye\r\n',
    b'550 5.1.1 No such user\r\n', b'354 Go\r\n451-4.3.0 x\r\n451 4.3.0 y\r\n', b'220 x\n',
), (b'250', b'-', b' ', b'\r\n', b'\n', b'\r', b'5.1.1 ', b'4.7.0', b'999', b'\xff', b'\0',
    b'\x1b[31m',
    b'2' * 20, b'550-' + b'x' * 600), 10000)


# Whole dialogues

SECRET = b'AGJvYmJ5AEZvb0Jhcg=='
EHLO = b'EHLO client.example\r\n'
LOGIN = EHLO + b'AUTH PLAIN ' + SECRET + b'\r\n'
MESSAGE = (b'MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n'
           b'Subject: x\r\n\r\ntext\r\n.\r\n')
SWITCH = b'=TLS='  # in a case: here comes the handshake

DIALOGS = (
    LOGIN + MESSAGE + b'QUIT\r\n', LOGIN + MESSAGE + MESSAGE,
    EHLO + b'AUTH LOGIN\r\nYm9iYnk=\r\nRm9vQmFy\r\n' + MESSAGE,
    EHLO + b'AUTH CRAM-MD5\r\n*\r\nAUTH PLAIN\r\n' + SECRET + b'\r\nRSET\r\nQUIT\r\n',
    MESSAGE, b'HELO x\r\nHELP\r\nNOOP a\r\nVRFY b\r\n', EHLO + SWITCH + LOGIN + MESSAGE,
    LOGIN + SWITCH + MESSAGE,
)
WORDS = (b'EHLO x\r\n', b'HELO y\r\n', b'AUTH PLAIN ' + SECRET + b'\r\n', b'AUTH LOGIN\r\n',
         b'AUTH SCRAM-SHA-256 biwsbj1ib2JieSxyPW4=\r\n', b'AUTH CRAM-MD5\r\n', SECRET + b'\r\n',
         b'*\r\n',
         b'MAIL FROM:<a@b.c>\r\n', b'RCPT TO:<d@e.f>\r\n', b'DATA\r\n', b'.\r\n', b'\r\n.\r\n',
         b'\n.\n',
         b'RSET\r\n', b'NOOP\r\n', b'QUIT\r\n', b'STARTTLS\r\n', b'VRFY x\r\n', b'HELP\r\n',
         b'XYZZY\r\n',
         b'\r\n', b'\r', b'\n', b'\0', b'\xff', b'\x1b', b'A' * 3000, SWITCH, b' ', b'PROXY ',
         b'\x16\x03\x01', b'BDAT 10 LAST\r\n')
LIMITS = {'bad_commands': 30, 'message_size': 5000, 'recipients': 5, 'spool_memory': 100,
          'login_failures': 5}


def _service(tls_mode: str):
    return make_service(FakeBackend(('PLAIN', 'LOGIN', 'CRAM-MD5', 'SCRAM-SHA-256')), FakeLog(),
                        LIMITS, tls_mode=tls_mode, tls_context=_CONTEXT)


_SERVER_CONTEXT = server_context()
_CLIENT_CONTEXT = client_context()


def _CONTEXT():
    return _SERVER_CONTEXT


def _judge(service, octets: bytes) -> object:
    """What must hold of a dialogue, whatever the client sent."""
    lines = octets.splitlines(keepends=True)
    for line in lines:
        promise(REPLY_LINE.fullmatch(line), line)
    promise(not service.log.named('session-failed'), service.log.named('session-failed'))
    promise(service.backend.channels == [], 'a channel was left open')
    submitted = service.backend.submitted
    promise(octets.count(ACCEPTED) <= len(submitted), 'a message that nobody has')
    promise(not submitted or service.log.named('login'), 'a message without a login')
    for message in submitted:
        bare = message.text.replace(b'\r\n', b'')
        promise(b'\r' not in bare and b'\n' not in bare, message.text)
        promise(is_safe(message.envelope.sender) or not message.envelope.sender)
    codes = [line[:3] for line in lines if line[3:4] == b' ']
    return tuple(codes[:12]), len(submitted)


def check_plain(case: bytes) -> object:
    """In the clear: all that the client says is there at once."""
    service = _service('')
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(PATIENCE)
        ours.sendall(case)
        ours.shutdown(socket.SHUT_WR)
        Session(Wire.over_socket(theirs), Client('192.0.2.7'), service).run()
        return _judge(service, _rest(ours))


def _rest(sock: socket.socket) -> bytes:
    """What comes until the end."""
    pieces = []
    try:
        while True:
            piece = sock.recv(65536)
            if not piece:
                break
            pieces.append(piece)
    except (ConnectionError, ssl.SSLError):
        pass  # the other side had enough of us
    return b''.join(pieces)


class _Dialogue:
    """A session in a thread, and our end of it."""

    def __init__(self, tls_mode: str):
        self.service = _service(tls_mode)
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(PATIENCE)
        session = Session(Wire.over_socket(theirs), Client('192.0.2.7'), self.service)
        self._thread = threading.Thread(target=session.run)
        self._thread.start()

    def start_tls(self) -> None:
        self.sock = _CLIENT_CONTEXT.wrap_socket(self.sock, server_hostname='localhost')

    def read_to(self, words: bytes) -> bytes:
        """Octets up to and with a line that begins with words; less at the end."""
        data = b''
        while not re.search(rb'(?m)^' + words + rb'.*\n', data):
            try:
                piece = self.sock.recv(65536)
            except ConnectionError:
                break
            if not piece:
                break
            data += piece
        return data

    def say(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError:
            pass

    def end(self) -> bytes:
        """What comes until the end, which has to come."""
        try:
            if isinstance(self.sock, ssl.SSLSocket):
                self.sock = self.sock.unwrap()  # reads nothing but the other side's goodbye
            self.sock.shutdown(socket.SHUT_WR)
        except (OSError, ValueError):
            pass
        octets = _rest(self.sock)
        self.sock.close()
        self._thread.join(PATIENCE)
        promise(not self._thread.is_alive(), 'the session does not end')
        return octets


def check_starttls(case: bytes) -> object:
    """STARTTLS in the middle: what was said before is forgotten, with what came behind it."""
    before, _, after = case.partition(SWITCH)
    injected, after = after[:len(after) % 5 * 7], after
    dialogue = _Dialogue('optional')
    dialogue.say(before + b'\r\n.\r\n*\r\nRSET\r\nEHLO x\r\nSTARTTLS\r\n' + injected)
    octets = dialogue.read_to(rb'220 2\.0\.0 ')
    if b'\n220 2.0.0 ' not in octets:
        return _judge(dialogue.service, octets + dialogue.end())
    submitted = len(dialogue.service.backend.submitted)
    try:
        dialogue.start_tls()
    except (OSError, ValueError):
        dialogue.end()  # an alert may come, which is no line
        return _judge(dialogue.service, octets)
    dialogue.say(b'MAIL FROM:<a@b.c>\r\n')
    forgotten = dialogue.read_to(rb'[0-9]{3} ')
    promise(forgotten.startswith((b'530 ', b'503 ')), forgotten)
    promise(len(dialogue.service.backend.submitted) == submitted)
    return _in_tls(dialogue, after, octets + forgotten)


def check_tls(case: bytes) -> object:
    """TLS from the first octet; with SWITCH, garbage where the handshake belongs."""
    before, switch, after = case.partition(SWITCH)
    dialogue = _Dialogue('ssl')
    if switch:
        dialogue.say(before)
        dialogue.end()
        return _judge(dialogue.service, b'')
    dialogue.start_tls()
    return _in_tls(dialogue, before + after, dialogue.read_to(b'220 '))


def _in_tls(dialogue: _Dialogue, data: bytes, octets: bytes) -> object:
    """Say all of data, which the socket's buffer can hold, and read all that comes."""
    dialogue.say(data + b'\r\n.\r\n*\r\nQUIT\r\n')
    return _judge(dialogue.service, octets + _rest(dialogue.sock) + dialogue.end())


PLAIN = Target('dialog-plain', check_plain, DIALOGS, WORDS, 8000)
STARTTLS = Target('dialog-starttls', check_starttls, DIALOGS, WORDS, 1500)
TLS = Target('dialog-tls', check_tls, DIALOGS, WORDS, 1500)

TARGETS = (GRAMMAR, DATA, SASL, PROXY, LDAP, UPSTREAM, PLAIN, STARTTLS, TLS)
