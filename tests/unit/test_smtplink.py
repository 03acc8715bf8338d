# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections to an upstream server: TLS, login, settings; and its answers as replies of ours."""
import socket

import pytest

from support.deliveries import one, send, smtp_settings, two
from support.upstream import CERTIFICATE, Upstream, say
from TMDA.inject import pool, smtplink
from TMDA.inject.reply import ReplyError
from TMDA.inject.smtplink import Peer
from TMDA.inject.smtpreply import Answer, accepted_text, passed_on


@pytest.fixture(autouse=True)
def own_pool(monkeypatch):
    """Each test has a pool of its own."""
    own = pool.Pool()
    monkeypatch.setattr(pool, 'shared', own)
    yield own
    own.close()


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield server


@pytest.fixture
def not_loopback(monkeypatch):
    """Treat the test server as one elsewhere; trust nobody but it."""
    monkeypatch.setattr(smtplink, 'is_loopback', lambda sock: False)
    monkeypatch.setenv('SSL_CERT_FILE', CERTIFICATE)
    smtplink._tls_context.cache_clear()
    yield monkeypatch
    smtplink._tls_context.cache_clear()


@pytest.mark.parametrize('tls, setting', [('starttls', True), ('starttls', 'yes'),
                                          ('wrapper', 'wrapper')])
def test_tls(tls, setting):
    with Upstream(tls=tls) as upstream:
        for _time in range(2):
            assert send(upstream, *two(), SMTPSSL=setting).reply.code == 250
        assert [message.tls for message in upstream.messages] == [True] * 4
        assert upstream.connections == 2


@pytest.mark.parametrize('tls, setting', [('starttls', True), ('wrapper', 'wrapper')])
def test_tls_certificate_verified(not_loopback, tls, setting):
    with Upstream(tls=tls) as upstream:
        host = 'localhost:%d' % upstream.port
        assert send(upstream, *one(), SMTPSSL=setting, SMTPHOST=host).reply.code == 250
        not_loopback.setenv('SSL_CERT_FILE', '/dev/null')
        smtplink._tls_context.cache_clear()
        pool.shared.close()
        outcome = send(upstream, *one(), SMTPSSL=setting, SMTPHOST=host)
        assert outcome.reply[:2] == (451, '4.7.5')
        assert len(upstream.messages) == 1


def test_tls_certificate_for_another_name(not_loopback):
    with Upstream(tls='starttls', host='127.0.0.1') as upstream:
        not_loopback.setattr(smtplink.socket, 'create_connection',
                             lambda address, timeout: _connected(upstream.port, timeout))
        outcome = send('mail.example.com:%d' % upstream.port, *one(), SMTPSSL=True)
        assert outcome.reply[:2] == (451, '4.7.5')


def _connected(port, timeout):
    sock = socket.socket()
    sock.settimeout(timeout)
    sock.connect(('127.0.0.1', port))
    return sock


def test_tls_not_offered(upstream):
    outcome = send(upstream, *one(), SMTPSSL=True)
    assert outcome.reply[:2] == (451, '4.7.4')
    assert 'MAIL' not in upstream.verbs()


@pytest.mark.parametrize('text, enhanced', [('454 4.7.0 No', '4.7.4'), ('501 5.5.4 No', '4.7.4')])
def test_tls_refused(text, enhanced):
    with Upstream(tls='starttls') as upstream:
        upstream.on('STARTTLS', say(text))
        assert send(upstream, *one(), SMTPSSL=True).reply[:2] == (451, enhanced)
        assert 'MAIL' not in upstream.verbs()


def test_tls_response_injection():
    with Upstream(tls='starttls', logins={'joe': 'secret'}) as upstream:
        upstream.on('STARTTLS', say(b'220 Go\r\n250-injected\r\n250 AUTH PLAIN\r\n'))
        outcome = send(upstream, *one(), SMTPSSL=True, SMTPAUTH_USERNAME='joe',
                       SMTPAUTH_PASSWORD='secret')
        assert outcome.reply[:2] == (451, '4.4.1')
        assert upstream.verbs() == ['EHLO', 'STARTTLS']


def test_tls_bad_client_certificate(tmp_path):
    with Upstream(tls='starttls') as upstream:
        for path in (str(tmp_path / 'missing'), __file__):
            outcome = send(upstream, *one(), SMTPSSL=True, SMTPSSL_CERTFILE=path)
            assert outcome.reply[:2] == (451, '4.3.5')


@pytest.mark.parametrize('mechanisms', ['PLAIN', 'LOGIN', 'CRAM-MD5', 'CRAM-MD5 PLAIN LOGIN'])
def test_login(mechanisms):
    with Upstream(logins={'joe': 'secret'}, mechanisms=mechanisms) as upstream:
        outcome = send(upstream, *one(), SMTPAUTH_USERNAME='joe', SMTPAUTH_PASSWORD='secret')
        assert outcome.reply.code == 250
        assert upstream.messages[0].login == 'joe'


@pytest.mark.parametrize('password', ['wr0ngpass', 'wröng'])
@pytest.mark.parametrize('logins, mechanisms', [
    ({'joe': 'secret'}, 'PLAIN LOGIN'), ({'joe': 'secret'}, 'CRAM-MD5'), ({}, ''),
    ({'joe': 'secret'}, 'GSSAPI')])
def test_login_failed(password, logins, mechanisms):
    with Upstream(logins=logins, mechanisms=mechanisms) as upstream:
        outcome = send(upstream, *one(), SMTPAUTH_USERNAME='joe', SMTPAUTH_PASSWORD=password)
        assert outcome.reply[:2] == (451, '4.3.5')
        assert password not in repr(outcome) and upstream.messages == []


def test_login_connections_are_not_shared():
    with Upstream(logins={'joe': 'secret', 'ann': 'other'}) as upstream:
        for user, password in (('joe', 'secret'), ('ann', 'other'), ('joe', 'secret')):
            send(upstream, *one(), SMTPAUTH_USERNAME=user, SMTPAUTH_PASSWORD=password)
        assert [message.login for message in upstream.messages] == ['joe', 'ann', 'joe']
        assert upstream.connections == 2
        assert send(upstream, *one(), SMTPAUTH_USERNAME='joe',
                    SMTPAUTH_PASSWORD='guess').reply.code == 451


# Values.

@pytest.mark.parametrize('host, tls, expected', [
    ('localhost', False, ('localhost', 25, '')),
    ('mail.example.com:587', True, ('mail.example.com', 587, 'starttls')),
    ('mail.example.com', 'wrapper', ('mail.example.com', 465, 'wrapper')),
    ('[::1]:2525', False, ('::1', 2525, '')),
    ('[::1]', False, ('::1', 25, '')),
])
def test_peer_of_settings(host, tls, expected):
    assert Peer.of(smtp_settings(host, SMTPSSL=tls))[:3] == expected


@pytest.mark.parametrize('host', ['', 'a b', 'host:', 'host:x', 'host:70000', '::1', '[::1',
                                  'a\r\nb', 'host:25\n'])
def test_peer_of_broken_settings(host):
    with pytest.raises(ReplyError) as caught:
        Peer.of(smtp_settings(host))
    assert caught.value.reply[:2] == (451, '4.3.5')


def test_peer_hides_its_password():
    peer = Peer('h', 25, '', 'joe', 'secret')
    assert 'secret' not in repr(peer) + str(peer)


def test_peer_over_ipv6():
    with Upstream(host='::1') as upstream:
        assert send(upstream, *one(), SMTPHOST='[::1]:%d' % upstream.port).reply.code == 250


@pytest.mark.parametrize('code, lines, expected', [
    (550, (b'5.1.1 No such user',), (550, '5.1.1', ('No such user',), False)),
    (550, (b'No such user',), (550, '5.0.0', ('No such user',), False)),
    (450, (b'4.2.0 one', b'4.2.0 two'), (450, '4.2.0', ('one', 'two'), False)),
    (421, (b'4.7.0 Slow down',), (451, '4.7.0', ('Slow down',), False)),
    (421, (b'Bye',), (451, '4.3.2', ('Bye',), False)),
    (550, (b'4.1.1 wrong class',), (550, '5.0.0', ('wrong class',), False)),
    (552, (b'',), (552, '5.0.0', ('',), False)),
])
def test_passed_on(code, lines, expected):
    assert passed_on(Answer(code, lines)) == expected


def test_passed_on_is_bounded():
    refusal = passed_on(Answer(550, tuple([b'x' * 5000] * 100)))
    assert len(refusal.to_bytes()) < 5000


def test_passed_on_is_sanitized():
    raw = passed_on(Answer(550, ('5.1.1 ü\x1b[2J\u2028'.encode(),))).to_bytes()
    assert raw.startswith(b'550 5.1.1 ') and raw.count(b'\n') == 1 and b'\x1b' not in raw


@pytest.mark.parametrize('text, expected', [
    (b'2.0.0 Ok: queued as 12', 'Ok: queued as 12'), (b'OK id=1a', 'Ok: id=1a'), (b'ok', 'Ok'),
    (b'', 'Ok'), (b'2.6.0 <x@y> Queued mail', 'Ok: <x@y> Queued mail'),
])
def test_accepted_text(text, expected):
    assert accepted_text(Answer(250, (text,))) == expected
