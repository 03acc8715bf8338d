# SPDX-License-Identifier: GPL-2.0-or-later
"""Logging in to IMAP and POP3 servers, good and bad ones; -R values; deadlines."""
import shutil
import socket
import ssl
import time
from types import SimpleNamespace

import pytest
from support import mailservers
from support.mailservers import ScriptedServer, imap, pop3, saying

from TMDA.Errors import ConfigError
from TMDA.ofmipd import remoteurl, timedsocket
from TMDA.ofmipd.ipauthmap import IPAuthMap
from TMDA.ofmipd.remote import RemoteSource
from TMDA.ofmipd.sasl import CramMD5, Password
from TMDA.ofmipd.verdict import NO, UNSURE, YES

SECONDS = 10    # for servers that answer
SHORT = 0.3     # for servers that do not
GOOD = Password('bob', 'secret')


def ask(protocol, script, credentials=GOOD, seconds=SECONDS, **server_options):
    """The verdict of a fake server, and what it received."""
    with ScriptedServer(script, **server_options) as server:
        url = remoteurl.parse(f'{protocol}://127.0.0.1:{server.port}')
        verdict = RemoteSource(url, seconds).check(credentials)
    return verdict, server.received


# -R values

@pytest.mark.parametrize('text, protocol, host, port, dn, verify', [
    ('imap', 'imap', 'localhost', 143, '', True),
    ('imap://', 'imap', 'localhost', 143, '', True),
    ('IMAPS://mail.example.org', 'imaps', 'mail.example.org', 993, '', True),
    ('imap://mail.example.org/', 'imap', 'mail.example.org', 143, '', True),
    ('imaps://mail.example.org:1993?verify=no', 'imaps', 'mail.example.org', 1993, '', False),
    ('pop3://[::1]', 'pop3', '::1', 110, '', True),
    ('pop3s://[2001:db8::1]:1995', 'pop3s', '2001:db8::1', 1995, '', True),
    ('apop://0.0.0.0', 'apop', '0.0.0.0', 110, '', True),
    ('ldap:///uid=%s', 'ldap', 'localhost', 389, 'uid=%s', True),
    ('ldap://h/cn=%s,dc=host,dc=com', 'ldap', 'h', 389, 'cn=%s,dc=host,dc=com', True),
    ('ldaps://h:1/cn=%s, o=A/B?verify=no', 'ldaps', 'h', 1, 'cn=%s, o=A/B', False),
    ('ldaps://h/cn=%s,o=what?verify=yes', 'ldaps', 'h', 636, 'cn=%s,o=what', True),
])
def test_url_parts(text, protocol, host, port, dn, verify):
    assert remoteurl.parse(text) == (protocol, host, port, dn, verify)


@pytest.mark.parametrize('text, word', [
    ('', 'PROTO'),
    ('smtp://host', 'unknown protocol'),
    ('imap:/host', 'PROTO'),
    ('imap://user@host', 'PROTO'),
    ('imap://::1', 'brackets'),
    ('imap://host:0', 'port'),
    ('imap://host:65536', 'port'),
    ('imap://host:1234567', 'PROTO'),
    ('imap://host/cn=%s', 'nothing may follow'),
    ('imap://host?verify=perhaps', 'PROTO'),
    ('ldap', 'must contain %s'),
    ('ldap://host/', 'must contain %s'),
    ('ldaps://host/cn=bob,dc=example', 'must contain %s'),
])
def test_url_refused(text, word):
    with pytest.raises(ConfigError) as caught:
        remoteurl.parse(text)
    assert word in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('text, name', [
    ('imap', 'imap://localhost:143'),
    ('imaps://[::1]', 'imaps://[::1]:993'),
    ('ldap://h/cn=%s', 'ldap://h:389/cn=%s'),
])
def test_url_name(text, name):
    assert remoteurl.parse(text).name == name


@pytest.mark.parametrize('host, expected', [
    ('localhost', True), ('LocalHost', True), ('127.0.0.9', True), ('::1', True),
    ('localhost.example.org', False), ('10.0.0.1', False), ('', False),
])
def test_url_loopback(host, expected):
    assert remoteurl.loopback(host) is expected


# IMAP

@pytest.mark.parametrize('user, password', [
    ('bob', 'secret'),
    ('bob@example.org', 'with blank'),
    ('a"b\\c', 'p"q\\r" LOGOUT'),
    ('bob}', '{5}'),
    ('b\xf6b', 'secret'),
    ('bob', 'p\xe4ssw\xf6rd\u20ac'),
    ('bob', 'latin-1: \udce4'),
    ('bob', 'tab\tinside'),
])
def test_imap_login_accepted(user, password):
    octets = [text.encode('utf-8', 'surrogateescape') for text in (user, password)]
    verdict, received = ask('imap', imap(tuple(octets)), Password(user, password))
    assert verdict.answer == YES
    assert received.split(b'\r\n')[-2].endswith(b'LOGOUT')


def test_imap_login_wrong():
    verdict, _ = ask('imap', imap(), Password('bob', 'other'))
    assert verdict.answer == NO
    assert 'AUTHENTICATIONFAILED' in verdict.cause and 'other' not in verdict.cause


def test_imap_authenticate_wrong():
    assert ask('imap', imap(), Password('bob', '\xf6ther'))[0].answer == NO


@pytest.mark.parametrize('code', ['UNAVAILABLE', 'SERVERBUG', 'inuse', 'LIMIT', 'PRIVACYREQUIRED'])
@pytest.mark.parametrize('password', ['other', '\xf6ther'])
def test_imap_refusal_unrelated_to_password(code, password):
    refusal = b'NO [%s] not now' % code.encode()
    verdict, _ = ask('imap', imap(refusal=refusal), Password('bob', password))
    assert verdict.answer == UNSURE and 'not now' in verdict.cause


@pytest.mark.parametrize('answer, password', [
    (b'BAD what', 'other'), (b'BAD what', '\xf6ther'),
    (b'* BYE going down', 'other'), (b'* BYE going down', '\xf6ther'),
    (b'OKAY then', 'other'), (b'OKAY', 'other'), (b'OKAY', '\xf6ther'),
])
def test_imap_answer_is_no_refusal(answer, password):
    verdict, _ = ask('imap', imap(refusal=answer), Password('bob', password), SHORT)
    assert verdict.answer == UNSURE


def test_imap_logindisabled_needs_authenticate():
    verdict, received = ask('imap', imap(capabilities=b'IMAP4rev1 LOGINDISABLED AUTH=PLAIN'))
    assert verdict.answer == YES and b' LOGIN ' not in received


@pytest.mark.parametrize('capabilities, password', [
    (b'IMAP4rev1 LOGINDISABLED', 'secret'),
    (b'IMAP4rev1', 'p\xe4ssword'),
])
def test_imap_no_way_to_log_in(capabilities, password):
    verdict, received = ask('imap', imap(capabilities=capabilities), Password('bob', password))
    assert verdict.answer == UNSURE and 'AUTHENTICATE PLAIN' in verdict.cause
    assert b'LOGIN' not in received and b'AUTH' not in received


@pytest.mark.parametrize('logout', [b'', b'garbage\r\n'], ids=['cut', 'garbage'])
def test_imap_logout_does_not_matter(logout):
    script = imap(logout=logout + b'%.0s')
    assert ask('imap', script)[0].answer == YES


# POP3

@pytest.mark.parametrize('user, password', [
    ('bob', 'secret'), ('bob', 'with blank'), ('b\xf6b', 'p\xe4ss\u20ac'), ('bob', 'l1 \udce4'),
])
def test_pop3_login_accepted(user, password):
    octets = [text.encode('utf-8', 'surrogateescape') for text in (user, password)]
    verdict, received = ask('pop3', pop3(tuple(octets)), Password(user, password))
    assert verdict.answer == YES and received.endswith(b'QUIT\r\n')


def test_pop3_login_wrong():
    verdict, _ = ask('pop3', pop3(), Password('bob', 'other'))
    assert verdict.answer == NO and 'other' not in verdict.cause


def test_pop3_user_refused():
    script = pop3(user_answer=b'-ERR never heard of bob')
    assert ask('pop3', script)[0].answer == NO


@pytest.mark.parametrize('code', [b'SYS/TEMP', b'SYS/PERM', b'in-use', b'LOGIN-DELAY'])
def test_pop3_refusal_unrelated_to_password(code):
    script = pop3(refusal=b'-ERR [%s] not now' % code)
    verdict, _ = ask('pop3', script, Password('bob', 'other'))
    assert verdict.answer == UNSURE and 'not now' in verdict.cause


@pytest.mark.parametrize('greeting', [b'-ERR go away', b'220 smtp.example.org ESMTP', b'x' * 3000])
def test_pop3_greeting_is_no_answer(greeting):
    assert ask('pop3', pop3(greeting=greeting))[0].answer == UNSURE


def test_pop3_quit_does_not_matter():
    assert ask('pop3', pop3(quit_answer=b'-ERR what'))[0].answer == YES


def test_apop_digest_instead_of_password():
    script = pop3(greeting=b'+OK ready <1896.697170952@dbc.mtview.ca.us>')
    verdict, received = ask('apop', script, Password('mrose', 'tanstaaf'))
    assert verdict.answer == NO  # the script knows bob only
    # the example of RFC 1939 section 7
    assert received == b'APOP mrose c4c9334bac560ecc979e58001b3e22fb\r\n'
    assert ask('apop', script)[0].answer == YES


def test_apop_not_offered():
    verdict, received = ask('apop', pop3())
    assert verdict.answer == UNSURE and b'secret' not in received


# Any protocol

CUTS = {
    'at once': lambda peer: None,
    'hang': lambda peer: peer.hang(),
    'drip': lambda peer: peer.drip(b'* OK drip '),
    'endless': lambda peer: [peer.send(b'x' * 65536) for _ in range(1000)],
    'endless lines': lambda peer: [peer.send(b'* OK hello\r\n' * 1000) for _ in range(1000)],
    'literal': saying(b'* OK {999999999}\r\n'),
    'garbage': saying(bytes(range(256)) * 4 + b'\r\n'),
    'other protocol': saying(b'HTTP/1.0 400 Bad Request\r\n\r\n'),
    'preauth': saying(b'* PREAUTH welcome\r\n'),
}


@pytest.mark.parametrize('protocol', ['imap', 'pop3', 'apop', 'ldap'])
@pytest.mark.parametrize('case', CUTS)
def test_server_misbehaves(protocol, case):
    suffix = '/cn=%s' if protocol == 'ldap' else ''
    with ScriptedServer(CUTS[case]) as server:
        url = remoteurl.parse(f'{protocol}://127.0.0.1:{server.port}{suffix}')
        began = time.monotonic()
        verdict = RemoteSource(url, SHORT).check(GOOD)
        assert time.monotonic() - began < SHORT + 3
    assert verdict.answer == UNSURE and verdict.cause
    assert 'secret' not in verdict.cause and len(verdict.cause) <= 200


@pytest.mark.parametrize('protocol', ['imap', 'pop3', 'ldap'])
def test_server_is_down(protocol):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))  # bound, not listening
        suffix = '/cn=%s' if protocol == 'ldap' else ''
        port = probe.getsockname()[1]
        url = remoteurl.parse(f'{protocol}://127.0.0.1:{port}{suffix}')
        verdict = RemoteSource(url, SECONDS).check(GOOD)
    assert verdict.answer == UNSURE and 'refused' in verdict.cause


def test_server_has_no_address():
    verdict = RemoteSource(remoteurl.parse('imap://nowhere.invalid'), SECONDS).check(GOOD)
    assert verdict.answer == UNSURE


@pytest.mark.parametrize('protocol', ['imap', 'pop3', 'apop', 'ldap'])
@pytest.mark.parametrize('user, password', [
    ('bob', 'a\r\nb LOGOUT'), ('bob\n', 'secret'), ('bob', 'nul\0'), ('bob', ''), ('', 'secret'),
    ('bob', '\rx'),
])
def test_credentials_never_sent(protocol, user, password):
    suffix = '/cn=%s' if protocol == 'ldap' else ''
    with ScriptedServer(saying(b'')) as server:
        url = remoteurl.parse(f'{protocol}://127.0.0.1:{server.port}{suffix}')
        assert RemoteSource(url, SECONDS).check(Password(user, password)).answer == NO
    assert server.connections == 0


def test_cram_md5_is_no():
    source = RemoteSource(remoteurl.parse('imap'), SECONDS)
    assert not source.plain and not source.scram
    assert source.check(CramMD5('bob', b'<1@x>', '0' * 32)).answer == NO


# ipauthmap

def test_mapped_host(tmp_path):
    with ScriptedServer(imap()) as server:
        table = tmp_path / 'ipauthmap'
        table.write_text(f'192.0.2.1 127.0.0.1 {server.port}\n', encoding='ascii')
        source = RemoteSource(remoteurl.parse('imap://0.0.0.0'), SECONDS, IPAuthMap(str(table)))
        client = SimpleNamespace(local_address='192.0.2.1')
        assert source.check(GOOD, client).answer == YES


# TLS

@pytest.fixture(scope='module')
def contexts(tmp_path_factory):
    """name -> (certificate file, server context), for two host names."""
    if not shutil.which('openssl'):
        pytest.skip('openssl is not installed')
    made = {}
    for name in ('localhost', 'mail.example.org'):
        chain, key = mailservers.certificate(tmp_path_factory.mktemp('tls'), name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)
        made[name] = (chain, context)
    return made


@pytest.mark.parametrize('protocol, script', [('imaps', imap()), ('pop3s', pop3())])
def test_tls_login(contexts, protocol, script):
    tls = contexts['localhost'][1]
    assert ask(protocol, script, tls=tls)[0].answer == YES
    assert ask(protocol, script, Password('bob', 'no'), tls=tls)[0].answer == NO


@pytest.mark.parametrize('certificate, trusted, query, expected', [
    ('localhost', 'localhost', '', YES),
    ('localhost', '', '', UNSURE),
    ('localhost', '', '?verify=no', YES),
    ('mail.example.org', 'mail.example.org', '', UNSURE),
    ('mail.example.org', 'mail.example.org', '?verify=no', YES),
])
def test_tls_certificate(contexts, monkeypatch, certificate, trusted, query, expected):
    monkeypatch.setattr('TMDA.ofmipd.remote.loopback', lambda host: False)
    if trusted:
        monkeypatch.setenv('SSL_CERT_FILE', str(contexts[trusted][0]))
    with ScriptedServer(imap(), tls=contexts[certificate][1]) as server:
        url = remoteurl.parse(f'imaps://localhost:{server.port}{query}')
        verdict = RemoteSource(url, SECONDS).check(GOOD)
    assert verdict.answer == expected
    assert bool(verdict.cause.startswith('certificate not accepted')) == (expected == UNSURE)
    assert (b'secret' in server.received) == (expected == YES)


def test_tls_handshake_hangs():
    began = time.monotonic()
    verdict, _ = ask('imaps', lambda peer: peer.hang(), seconds=SHORT)
    assert verdict.answer == UNSURE and time.monotonic() - began < SHORT + 3


def test_tls_server_speaks_plain():
    assert ask('imaps', imap())[0].answer == UNSURE


# TimedSocket

@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    stream = timedsocket.TimedSocket(ours, time.monotonic() + SECONDS, 100)
    yield stream, theirs
    stream.close()
    theirs.close()


def test_timedsocket_lines(pair):
    stream, theirs = pair
    theirs.sendall(b'one\r\ntwo\nthree')
    theirs.close()
    assert stream.readline() == b'one\r\n'
    assert stream.readline(2) == b'tw'
    assert stream.readline(2) == b'o\n'
    assert stream.readline(4) == b'thre'
    assert stream.readline(4) == b'e'
    assert stream.readline() == b''


def test_timedsocket_read(pair):
    stream, theirs = pair
    theirs.sendall(b'abcdef')
    theirs.close()
    assert [stream.read(4), stream.read(4), stream.read(4)] == [b'abcd', b'ef', b'']


def test_timedsocket_amount_bounded(pair):
    stream, theirs = pair
    theirs.sendall(b'x' * 101)
    with pytest.raises(ConnectionError):
        stream.read(101)


@pytest.mark.parametrize('method, argument', [('readline', -1), ('read', 1), ('sendall', b'x')])
def test_timedsocket_deadline(pair, method, argument):
    stream, _ = pair
    stream.deadline = time.monotonic() - 1
    with pytest.raises(TimeoutError):
        getattr(stream, method)(argument)
