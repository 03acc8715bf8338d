# SPDX-License-Identifier: GPL-2.0-or-later
"""The LDAP simple bind: escaping, BER, verdicts on scripted responses."""
import random

import pytest
from support.mailservers import ScriptedServer, ldap as answering

from TMDA.ofmipd import ldap, remoteurl
from TMDA.ofmipd.remote import RemoteSource
from TMDA.ofmipd.sasl import Password
from TMDA.ofmipd.verdict import NO, UNSURE, YES

SECONDS = 10
DN = 'uid=%s,ou=people,dc=example,dc=org'


def response(code=0, text=b'', message_id=1, tag=ldap.BIND_RESPONSE, matched=b'', more=b''):
    """A bind response in BER, or something like it."""
    result = (ldap.element(ldap.ENUMERATED, bytes((code,))) + ldap.element(4, matched)
              + ldap.element(4, text))
    return ldap.element(0x30, ldap.element(2, bytes((message_id,)))
                        + ldap.element(tag, result) + more)


def ask(answer, user='bob', password='secret', seconds=SECONDS):
    """The verdict on a server's octets, and what the server received."""
    with ScriptedServer(answering(answer)) as server:
        url = remoteurl.parse(f'ldap://127.0.0.1:{server.port}/{DN}')
        verdict = RemoteSource(url, seconds).check(Password(user, password))
    return verdict, server.received


# RFC 4514 section 2.4
@pytest.mark.parametrize('value, escaped', [
    (b'bob', b'bob'),
    (b'bob smith', b'bob smith'),
    (b' bob ', rb'\20bob\20'),
    (b'  ', rb'\20\20'),
    (b'bob,ou=admins', rb'bob\2Cou\3Dadmins'),
    (b'a+b"c\\d<e>f;g#h', rb'a\2Bb\22c\5Cd\3Ce\3Ef\3Bg\23h'),
    (b'#00', rb'\2300'),
    (b'nul\0lf\n', rb'nul\00lf\0A'),
    (b'%s', b'%s'),
    ('b\xf6b'.encode(), 'b\xf6b'.encode()),
])
def test_escape(value, escaped):
    assert ldap.escape(value) == escaped


def test_bind_request_octets():
    # Written out by hand from RFC 4511 section 4.2.
    assert ldap.bind_request(b'cn=bob', b'pw') == bytes.fromhex(
        '3014 020101 600f 020103 0406 636e3d626f62 8002 7077')


def test_bind_request_long_form():
    request = ldap.bind_request(b'cn=' + b'x' * 300, b'y' * 70000)
    assert request[:5] == bytes((0x30, 0x83)) + (len(request) - 5).to_bytes(3, 'big')


@pytest.mark.parametrize('dn, password', [(b'cn=bob', b''), (b'', b'secret')])
def test_bind_request_never_anonymous(dn, password):
    with pytest.raises(ValueError):
        ldap.bind_request(dn, password)


def test_login_sends_escaped_dn():
    verdict, received = ask(response(), 'bob,ou=admins', 'p\xe4ss')
    assert verdict.answer == YES
    assert received == ldap.bind_request(rb'uid=bob\2Cou\3Dadmins,ou=people,dc=example,dc=org',
                                         'p\xe4ss'.encode())


def test_login_empty_password_not_asked():
    with ScriptedServer(answering(response())) as server:  # says success to anything
        url = remoteurl.parse(f'ldap://127.0.0.1:{server.port}/{DN}')
        assert RemoteSource(url, SECONDS).check(Password('bob', '')).answer == NO
    assert server.connections == 0


@pytest.mark.parametrize('code, expected', [
    (0, YES), (49, NO), (32, NO), (34, NO), (48, NO), (50, NO),
    (1, UNSURE), (2, UNSURE), (8, UNSURE), (10, UNSURE), (13, UNSURE), (14, UNSURE),
    (51, UNSURE), (52, UNSURE), (53, UNSURE), (80, UNSURE), (127, UNSURE),
])
def test_login_result_codes(code, expected):
    verdict, _ = ask(response(code, b'words'))
    assert verdict.answer == expected
    assert (f'result {code}' in verdict.cause and 'words' in verdict.cause) == (code != 0)


GOOD = response()
WRONG = {
    'another message id': response(message_id=2),
    'notice of disconnection': response(52, message_id=0, tag=0x78),
    'search result': response(tag=0x65),
    'negative code': GOOD.replace(b'\x0a\x01\x00', b'\x0a\x01\xff'),
    'integer for enumerated': GOOD.replace(b'\x0a\x01\x00', b'\x02\x01\x00'),
    'empty code': ldap.element(0x30, ldap.element(2, b'\1') + ldap.element(
        0x61, ldap.element(10, b'') + ldap.element(4, b'') * 2)),
    'long code': ldap.element(0x30, ldap.element(2, b'\1') + ldap.element(
        0x61, ldap.element(10, bytes(5)) + ldap.element(4, b'') * 2)),
    'code only': ldap.element(0x30, ldap.element(2, b'\1') + ldap.element(
        0x61, ldap.element(10, b'\0'))),
    'no result': ldap.element(0x30, ldap.element(2, b'\1')),
    'nothing': ldap.element(0x30, b''),
    'indefinite length': b'\x30\x80' + GOOD[2:] + b'\0\0',
    'length of 5 octets': b'\x30\x85\0\0\0\0\x0c' + GOOD[2:],
    'huge length': b'\x30\x84\x7f\xff\xff\xff',
    'inner length too long': GOOD.replace(b'\x61\x07', b'\x61\x7f'),
    'another protocol': b'* OK ready\r\n' + b' ' * 60,
}


@pytest.mark.parametrize('case', WRONG)
def test_login_malformed_response(case):
    assert ask(WRONG[case], seconds=0.5)[0].answer == UNSURE


@pytest.mark.parametrize('size', range(len(GOOD)))
def test_response_cut_short(size):
    with pytest.raises(ldap.NotLdap):
        ldap.parse_response(GOOD[:size])


@pytest.mark.parametrize('data, expected', [
    (response(49, b'no'), (49, 'no')),
    (response(0, b'', matched=b'dc=example'), (0, '')),
    (response(0, b'x' * 200), (0, 'x' * 200)),
    (response(0, more=ldap.element(0xa0, ldap.element(0x30, b'control'))), (0, '')),
    (b'\x30\x82\x00\x0c' + GOOD[2:], (0, '')),  # a length may be longer than it needs to be
    (response(49, b'\xff\xfe'), (49, '\ufffd\ufffd')),
])
def test_response_parsed(data, expected):
    assert ldap.parse_response(data) == expected


def test_response_followed_by_more():
    with pytest.raises(ldap.NotLdap):
        ldap.parse_response(GOOD + b'\0')


def test_response_fuzzed():
    """Any octets are a Response or NotLdap, nothing else."""
    chance = random.Random(20)
    for _ in range(20000):
        data = bytearray(response(chance.choice((0, 49)), b'text'))
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)):]
        try:
            ldap.parse_response(bytes(data))
        except ldap.NotLdap:
            pass
