# SPDX-License-Identifier: GPL-2.0-or-later
"""What strangers try before and during login, against the whole of personal mode."""
import base64
import hashlib

import pytest

from support.proxy import AUTHOR, Proxy, write_home
from support.upstream import Upstream
from TMDA.ofmipd import sasl
from TMDA.ofmipd.passwordhashes import make_scram

MESSAGE = ('MAIL FROM:<%s>' % AUTHOR, 'RCPT TO:<b@example.org>', 'DATA')


def plain(user, password):
    return base64.b64encode(('\0%s\0%s' % (user, password)).encode()).decode()


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield server


@pytest.fixture
def proxy(upstream, tmp_path):
    with Proxy(write_home(tmp_path, upstream.port), login_failures=1000) as running:
        yield running


# User enumeration

def try_plain(talk, user):
    return [talk.ask('AUTH PLAIN ' + plain(user, 'wrong'))]


def try_login(talk, user):
    return [talk.ask('AUTH LOGIN'), talk.ask(base64.b64encode(user.encode()).decode()),
            talk.ask(base64.b64encode(b'wrong').decode())]


def try_cram(talk, user):
    talk.ask('AUTH CRAM-MD5')  # the challenge differs each time
    return [talk.ask(base64.b64encode(user.encode() + b' ' + b'0' * 32).decode())]


def try_scram(talk, user):
    first = b'n,,n=%s,r=nonce' % user.encode()
    challenge = base64.b64decode(talk.ask('AUTH SCRAM-SHA-256 '
                                          + base64.b64encode(first).decode())[4:])
    nonce = challenge.split(b',')[0]
    proof = base64.b64encode(hashlib.sha256(b'x').digest())
    final = b'c=biws,%s,p=%s' % (nonce, proof)
    shown = b','.join(part[:2] for part in challenge.split(b','))
    return [shown, len(challenge), challenge.split(b',')[2],
            talk.ask(base64.b64encode(final).decode())]


@pytest.mark.parametrize('attempt', [try_plain, try_login, try_cram, try_scram])
def test_unknown_user_is_answered_like_a_wrong_password(proxy, attempt):
    answers = []
    for user in ('bobby', 'nobody', 'bobby', 'chloe'):
        with proxy.connect() as talk:
            talk.ask('EHLO x')
            answers.append(attempt(talk, user))
    assert answers[0] == answers[1] == answers[2] == answers[3]
    assert answers[0][-1] == '535 5.7.8 Authentication failed'


def test_salt_of_an_unknown_user_stays_the_same(upstream, tmp_path):
    home = write_home(tmp_path, upstream.port, passwords='bobby:%s\n' % make_scram('x', 4096))
    salts = {}
    with Proxy(home, login_failures=1000) as proxy:
        for user in ('bobby', 'nobody', 'nobody', 'bobby'):
            with proxy.connect() as talk:
                talk.ask('EHLO x')
                first = base64.b64encode(b'n,,n=%s,r=nonce' % user.encode()).decode()
                answer = sasl.decode_base64(talk.ask('AUTH SCRAM-SHA-256 ' + first)[4:].encode())
                salts.setdefault(user, set()).add(answer.split(b',', 1)[1])
    assert len(salts['bobby']) == len(salts['nobody']) == 1
    assert salts['bobby'] != salts['nobody']


# Whom nobody may be

@pytest.mark.parametrize('user', ['../bobby', '..', 'a/b', '-rf', '/etc', 'bobby\x00', 'b\x1bobby',
                                  'b\u2028obby', 'x' * 300])
def test_login_name_that_is_no_name_is_refused_before_235(upstream, tmp_path, user):
    """Although the password file has it, as far as a file can."""
    home = write_home(tmp_path, upstream.port, passwords='%s:FooBar\nbobby:FooBar\n' % user)
    with Proxy(home) as proxy, proxy.connect() as talk:
        talk.ask('EHLO x')
        answer = talk.ask('AUTH PLAIN ' + plain(user, 'FooBar'))
        assert answer.startswith(('535 5.7.8', '501 5.5.2'))


@pytest.mark.parametrize('command', [
    'XCLIENT ADDR=127.0.0.1 LOGIN=bobby', 'XFORWARD ADDR=127.0.0.1',
    'PROXY TCP4 127.0.0.1 127.0.0.1 1 2'])
def test_xclient_and_proxy_are_not_believed(proxy, command):
    with proxy.connect() as talk:
        assert talk.ask(command).startswith('502')
        talk.login()
        assert talk.ask(command).startswith('502')
        assert 'XCLIENT' not in talk.ask('EHLO x')
    assert {facts['client'] for facts in proxy.log.named('connect')} == {'127.0.0.1'}


# Messages that are hard to read

def send(talk, text):
    for command in MESSAGE:
        talk.ask(command)
    talk.send(text + b'\r\n.\r\n')
    return talk.reply()


NESTED = [
    b'From: ' + b'(' * 20000 + b')' * 20000 + b' bobby@example.net\r\n\r\nx',
    b'From: ' + b'<' * 20000 + b'\r\n\r\nx',
    b'From: ' + b'a:' * 20000 + b';' * 20000 + b'\r\n\r\nx',
    b'From: ' + b'"' * 20001 + b'\r\n\r\nx',
    b'To: ' + b'a@b, ' * 20000 + b'\r\n\r\nx',
    b'Subject: ' + b'=?utf-8?b?' * 10000 + b'\r\n\r\nx',
    b''.join(b'Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n' % (number, number)
             for number in range(5000)),
    b'X:' * 50000,
    b'\r\n ' * 50000 + b'x',
]


@pytest.mark.parametrize('text', NESTED, ids=range(len(NESTED)))
def test_depth_harms_nobody(proxy, upstream, text):
    """MIME is never parsed; addresses nested as deep as they like end in an answer."""
    with proxy.connect() as talk:
        talk.login()
        assert send(talk, text)[:3] in ('250', '451', '550')
        assert send(talk, b'From: bobby@example.net\r\n\r\nx').startswith('250')
    assert not proxy.log.named('session-failed')
