# SPDX-License-Identifier: GPL-2.0-or-later
import base64
import hmac
from types import SimpleNamespace

import pytest

from TMDA.ofmipd import sasl
from TMDA.ofmipd.sasl import (Challenge, CramMD5, Lookup, Malformed, Password, Rejected, Scram,
                              Verify)

HOST = 'mail.example.org'


def exchange(mechanism, initial, *answers):
    """All steps of a mechanism that is sent these answers."""
    steps = sasl.MECHANISMS[mechanism](initial, HOST)
    answers = [None, *answers]
    seen = []
    for answer in answers:
        try:
            seen.append(steps.send(answer))
        except StopIteration:
            seen.append('done')
    return seen


@pytest.mark.parametrize('initial, answers', [
    (b'\0bobby\0FooBar', ()), (None, (b'\0bobby\0FooBar',)), (b'bobby\0bobby\0FooBar', ()),
    (b'BOBBY\0bobby\0FooBar', ())])
def test_plain(initial, answers):
    steps = exchange('PLAIN', initial, *answers, 'identity')
    assert steps[-2:] == [Verify(Password('bobby', 'FooBar')), 'done']
    assert (steps[0] == Challenge(b'')) is (initial is None)


@pytest.mark.parametrize('mechanism, initial, answers, error', [
    ('PLAIN', b'', (), Malformed),
    ('PLAIN', b'bobby\0FooBar', (), Malformed),
    ('PLAIN', b'\0bobby\0Foo\0Bar', (), Malformed),
    ('PLAIN', b'root\0bobby\0FooBar', (), Rejected),
    ('PLAIN', b'\0bob\nby\0FooBar', (), Rejected),
    ('PLAIN', b'\0\xff\0FooBar', (), Rejected),
    ('LOGIN', b'bob\0by', (b'FooBar',), Rejected),
    ('CRAM-MD5', b'bobby', (), Malformed),
    ('CRAM-MD5', None, (b'bobby',), Malformed),
    ('CRAM-MD5', None, (b'bobby 0123',), Malformed),
    ('CRAM-MD5', None, (b'bobby ' + b'g' * 32,), Malformed),
    ('CRAM-MD5', None, (b'bob\rby ' + b'0' * 32,), Rejected),
    ('SCRAM-SHA-256', b'', (), Malformed),
    ('SCRAM-SHA-256', b'p=tls-unique,,n=user,r=abc', (), Malformed),
    ('SCRAM-SHA-256', b'n,,m=x,n=user,r=abc', (), Malformed),
    ('SCRAM-SHA-256', b'n,,n=user', (), Malformed),
    ('SCRAM-SHA-256', b'n,,n=user,r=', (), Malformed),
    ('SCRAM-SHA-256', b'n,,n=us=er,r=abc', (), Malformed),
    ('SCRAM-SHA-256', b'n,a=root,n=user,r=abc', (), Rejected),
    ('SCRAM-SHA-256', b'n,x=root,n=user,r=abc', (), Malformed),
    ('SCRAM-SHA-256', b'n,,n=us\0er,r=abc', (), Rejected),
    ('SCRAM-SHA-256', b'\xff', (), Malformed),
    ('SCRAM-SHA-256', b'n,,n=user,r=abc', ((b'salt', 1), b''), Rejected),
    ('SCRAM-SHA-256', b'n,,n=user,r=abc', ((b'salt', 1), b'c=eSws,r=abc,p='), Rejected),
    ('SCRAM-SHA-256', b'n,,n=user,r=abc', ((b'salt', 1), b'c=biws,r=abc,p=AAAA'), Rejected),
])
def test_responses_refused_without_asking(mechanism, initial, answers, error):
    with pytest.raises(error):
        steps = exchange(mechanism, initial, *answers)
        assert not any(isinstance(step, Verify) for step in steps)


def test_login():
    steps = exchange('LOGIN', None, b'bobby', b'FooBar', 'identity')
    assert steps == [Challenge(b'Username:'), Challenge(b'Password:'),
                     Verify(Password('bobby', 'FooBar')), 'done']
    assert base64.b64encode(steps[0].data) == b'VXNlcm5hbWU6'
    assert base64.b64encode(steps[1].data) == b'UGFzc3dvcmQ6'


def test_login_with_initial_response():
    assert exchange('LOGIN', b'bobby', b'FooBar')[1] == Verify(Password('bobby', 'FooBar'))


def test_password_that_is_not_utf8_keeps_its_octets():
    verify = exchange('PLAIN', b'\0bobby\0p\xe4ss')[0]
    assert verify.credentials.octets == b'p\xe4ss'


def test_cram_md5():
    steps = sasl.cram_md5(None, HOST)
    challenge = next(steps).data
    digest = hmac.new(b'FooBar', challenge, 'md5').hexdigest().upper()
    credentials = steps.send(b'bobby brown ' + digest.encode()).credentials
    assert credentials.user == 'bobby brown'
    assert credentials.matches('FooBar') and not credentials.matches('foobar')


def test_cram_md5_example_of_the_rfc():
    challenge = b'<1896.697170952@postoffice.reston.mci.net>'
    digest = 'b913a602c7eda7a495b4e6e7334d3890'
    assert CramMD5('tim', challenge, digest).matches('tanstaaftanstaaf')


def test_cram_md5_challenge_is_never_the_same():
    challenges = {next(sasl.cram_md5(None, HOST)).data for _ in range(100)}
    assert len(challenges) == 100
    for data in challenges:
        assert data.startswith(b'<') and data.endswith(b'@mail.example.org>')


def test_scram_example_of_the_rfc(monkeypatch):
    """RFC 7677 section 3: user `user`, password `pencil`."""
    monkeypatch.setattr(sasl, 'encode_base64', lambda data: (
        rb'%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0' if data == b'chance' else base64.b64encode(data)))
    monkeypatch.setattr(sasl.os, 'urandom', lambda size: b'chance')
    steps = sasl.scram_sha_256(b'n,,n=user,r=rOprNGfwEbeRWgbNEkqO', HOST)
    assert next(steps) == Lookup('user')
    salt = base64.b64decode('W22ZaJ0SNY7soEsUEjb6gQ==')
    assert steps.send((salt, 4096)).data == (
        b'r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096')
    verify = steps.send(b'c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,'
                        b'p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=')
    stored_key, server_key = sasl.scram_keys('pencil', salt, 4096)
    assert verify.credentials.matches(stored_key)
    assert not verify.credentials.matches(sasl.scram_keys('pen', salt, 4096)[0])
    signature = verify.credentials.server_signature(server_key)
    final = steps.send(SimpleNamespace(server_signature=signature))
    assert final.data == b'v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4='
    with pytest.raises(StopIteration):
        steps.send(b'')


def test_scram_name_is_unescaped():
    assert exchange('SCRAM-SHA-256', b'n,,n=a=2Cb=3Dc,r=abc')[0] == Lookup('a,b=c')
    assert exchange('SCRAM-SHA-256', b'y,a=a,n=a,r=abc')[0] == Lookup('a')


@pytest.mark.parametrize('data', [b'AA', b'AAA', b'A===', b'AA==AA==', b'A A=', b'\xff', b'AA=',
                                  b'*', b'AAAA\n', b'AAAA='])
def test_bad_base64(data):
    with pytest.raises(Malformed):
        sasl.decode_base64(data)


@pytest.mark.parametrize('data', [b'', b'a', b'ab', b'abc', b'\0\xff' * 50])
def test_good_base64(data):
    assert sasl.decode_base64(sasl.encode_base64(data)) == data


def test_no_repr_shows_a_secret():
    shown = repr([Verify(Password('bobby', 'FooBar')), CramMD5('bobby', b'challenge', 'digest'),
                  Scram('bobby', b'message', b'proof')])
    assert not any(word in shown for word in ('FooBar', 'challenge', 'digest', 'message', 'proof'))
