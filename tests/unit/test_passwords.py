# SPDX-License-Identifier: GPL-2.0-or-later
"""The password file: its rules at start and later, kinds of entries, mechanisms, time."""
import base64
import hashlib
import hmac
import os
import pwd
import random
import statistics
import time
from pathlib import Path

import pytest

from TMDA.Errors import ConfigError
from TMDA.ofmipd import passwordhashes, passwords
from TMDA.ofmipd.passwords import PasswordFile
from TMDA.ofmipd.sasl import CramMD5, Password, Scram
from TMDA.ofmipd.verdict import NO, UNSURE, YES

HOWTO = '''\
bobby:FooBar
chloe:baz_bap
johndoe:8i9/hjuy+33
'''

# "pencil", made by `doveadm pw -s SCRAM-SHA-256 -p pencil`
DOVEADM = ('{SCRAM-SHA-256}4096,CqFHwfU/QcfAE3Ozc9rdrg==,'
           'vWQ/mdCNn9k6Vr+TrXL6NP6pBW3PttF9iOviPQpj4zs=,'
           '32Oly91vwFRbxTj7rk7MKJxm5UBVaEUNYLSQL8ko6xU=')
# "Hello world!", made by glibc's crypt(3)
CRYPT_5 = '$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5'
CRYPT_6 = ('$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdc'
           'bYEdFCoEOfaS35inz1')
CRYPT_ROUNDS = '$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA'

needs_libcrypt = pytest.mark.skipif(passwordhashes._crypt_r() is None, reason='no libcrypt')


@pytest.fixture
def file(tmp_path):
    """A function that makes a password file of mode 600 with this content."""
    def make(content, mode=0o600):
        path = tmp_path / 'tofmipd'
        if isinstance(content, str):
            content = content.encode('utf-8')
        path.write_bytes(content)
        path.chmod(mode)
        return str(path)
    return make


def answer(path, user, password):
    """YES or NO for a password, or UNSURE."""
    return PasswordFile(path).check(Password(user, password)).answer


def cram(user, password, challenge=b'<1896.697170952@postoffice.reston.mci.net>'):
    """CRAM-MD5 credentials."""
    digest = hmac.new(password.encode(), challenge, 'md5').hexdigest()
    return CramMD5(user, challenge, digest)


def scram(source, user, password):
    """SCRAM-SHA-256 credentials as a client makes them (RFC 5802 section 3), and its ServerKey."""
    salt, iterations = source.scram_start(user)
    salted = hashlib.pbkdf2_hmac('sha256', password.encode(), salt, iterations)
    client_key = hmac.digest(salted, b'Client Key', 'sha256')
    message = b'n=bob,r=abc,r=abcdef,s=...,i=4096,c=biws,r=abcdef'
    signature = hmac.digest(hashlib.sha256(client_key).digest(), message, 'sha256')
    proof = bytes(one ^ other for one, other in zip(client_key, signature))
    return Scram(user, message, proof), hmac.digest(salted, b'Server Key', 'sha256')


# Content

@pytest.mark.parametrize('user, password, expected', [
    ('bobby', 'FooBar', YES),
    ('BOBBY', 'FooBar', YES),
    (' bobby ', 'FooBar', YES),
    ('bobby', 'foobar', NO),
    ('bobby', 'FooBar ', NO),
    ('bobby', '', NO),
    ('johndoe', '8i9/hjuy+33', YES),
    ('nobody', 'FooBar', NO),
    ('', '', NO),
])
def test_howto_file(file, user, password, expected):
    assert answer(file(HOWTO), user, password) == expected


@pytest.mark.parametrize('line, user, password', [
    ('bob:secret', 'bob', 'secret'),
    ('  Bob \t:  se cret\t', 'bob', 'se cret'),
    ('bob:with:colon:', 'bob', 'with:colon:'),
    ('bob:#secret', 'bob', '#secret'),
    ('bob@example.org:secret', 'Bob@Example.Org', 'secret'),
    ('bob:secret\r', 'bob', 'secret'),
    ('\ufeffbob:secret', 'bob', 'secret'),
    ('b\xd6b:p\xe4ss', 'b\xf6b', 'p\xe4ss'),
    ('bob:{SSHA}abc', 'bob', '{SSHA}abc'),
    ('bob:$1$abc', 'bob', '$1$abc'),
    ('bob:old\nbob:new', 'bob', 'new'),
    ('# bob:other\n\n   \n  # x\nbob:secret\n\n', 'bob', 'secret'),
    ('bob:sec\x0bret\x85\u2028x', 'bob', 'sec\x0bret\x85\u2028x'),
])
def test_line_forms(file, line, user, password):
    assert answer(file(line), user, password) == YES


def test_password_in_another_character_set(file):
    password = b'p\xe4ss'.decode('utf-8', 'surrogateescape')
    assert answer(file(b'bob:p\xe4ss'), 'bob', password) == YES


@pytest.mark.parametrize('content', ['', '# nothing\n'])
def test_file_without_users(file, content):
    assert answer(file(content), 'bob', '') == NO


@pytest.mark.parametrize('line, word', [
    ('bob', 'no colon'),
    (':secret', 'no user'),
    ('  :secret', 'no user'),
    ('bob:', 'no password'),
    ('bob:   ', 'no password'),
    ('bob:{SCRAM-SHA-256}4096,abc', 'not a whole'),
    ('bob:{SCRAM-SHA-256}4096,a-b=,c,d', 'not a whole'),
    ('bob:' + DOVEADM.replace('4096', '0'), 'not a whole'),
    ('bob:' + DOVEADM.replace('4096', '999999999'), 'too costly'),
    ('bob:' + DOVEADM[:-5] + '=', 'not a whole'),
    ('bob:{SCRYPT}x', 'not a whole'),
    ('bob:{SCRYPT}ln=30,r=8,p=1$c2FsdA==$' + 'A' * 44, 'too costly'),
    ('bob:{SCRYPT}ln=0,r=8,p=1$c2FsdA==$' + 'A' * 44, 'not a whole'),
    ('bob:{SCRYPT}ln=4,r=8,p=1$c2FsdA==$AAAA', 'not a whole'),
    ('bob:$6$saltstring$short', 'not a whole'),
    ('bob:$5$', 'not a whole'),
    ('bob:' + CRYPT_ROUNDS.replace('10000', '900000000'), 'too costly'),
    ('bob:' + CRYPT_5 + '\xe4', 'not a whole'),
])
def test_malformed_line(file, line, word):
    path = file(f'alice:x\n{line}\n')
    with pytest.raises(ConfigError) as caught:
        PasswordFile(path)
    text = str(caught.value)
    assert text.startswith(f'{path}:2: ') and word in text and '\n' not in text
    assert 'secret' not in text[len(path):]


# Safety at start

@pytest.mark.parametrize('mode', [0o600, 0o400])
def test_mode_accepted(file, mode):
    assert answer(file(HOWTO, mode), 'bobby', 'FooBar') == YES


@pytest.mark.parametrize('mode', [0o640, 0o604, 0o644, 0o660, 0o700, 0o200, 0o000, 0o4600, 0o666])
def test_mode_refused(file, mode):
    path = file(HOWTO, mode)
    with pytest.raises(ConfigError) as caught:
        PasswordFile(path)
    assert str(caught.value).startswith(f'{path}: ')
    if mode & 0o400:  # otherwise nobody but root gets that far
        assert str(caught.value) == (f'{path}: mode is {mode:o}, must be 600 or 400: '
                                     f'chmod 600 {path}')


def test_owner_refused(file):
    path = file(HOWTO)
    me = pwd.getpwuid(os.geteuid()).pw_name
    with pytest.raises(ConfigError) as caught:
        PasswordFile(path, owners=(54321,))
    assert str(caught.value) == (f'{path}: belongs to {me}, must belong to 54321: '
                                 f'chown 54321 {path}')
    PasswordFile(path, owners=(54321, os.geteuid()))


def test_missing_file(tmp_path):
    path = str(tmp_path / 'none')
    with pytest.raises(ConfigError) as caught:
        PasswordFile(path)
    assert str(caught.value) == (f'{path}: no such file: write USER:PASSWORD lines into it, '
                                 f'then chmod 600 {path}')


@pytest.mark.parametrize('kind', ['directory', 'pipe', 'loop'])
def test_not_a_regular_file(tmp_path, kind):
    path = tmp_path / 'odd'
    {'directory': path.mkdir, 'pipe': lambda: os.mkfifo(path, 0o600),
     'loop': lambda: path.symlink_to(path)}[kind]()
    with pytest.raises(ConfigError) as caught:
        PasswordFile(str(path))
    assert str(caught.value).startswith(f'{path}: ') and '\n' not in str(caught.value)


def test_too_large_file(file, monkeypatch):
    monkeypatch.setattr(passwords, 'SIZE_LIMIT', 20)
    with pytest.raises(ConfigError):
        PasswordFile(file(HOWTO))


# Changes while the daemon runs

def ask(source, user, password):
    """YES or NO of a source that is in use already."""
    return source.check(Password(user, password)).answer


def test_changed_file_is_read_again(file):
    source = PasswordFile(file(HOWTO))
    assert ask(source, 'bobby', 'FooBar') == YES
    file('bobby:other1\n')
    assert (ask(source, 'bobby', 'FooBar'), ask(source, 'bobby', 'other1')) == (NO, YES)
    file('bobby:other2\n')  # same size, perhaps the same time stamp
    assert (ask(source, 'bobby', 'other1'), ask(source, 'bobby', 'other2')) == (NO, YES)


def spoil_mode(path):
    os.chmod(path, 0o644)


def spoil_content(path):
    Path(path).write_text('no colon\n', encoding='ascii')


@pytest.mark.parametrize('spoil', [os.unlink, spoil_mode, spoil_content])
def test_bad_new_version_is_logged_once_and_the_old_kept(file, spoil):
    said = []
    source = PasswordFile(file(HOWTO), log=said.append)
    spoil(source.path)
    for _ in range(3):
        assert ask(source, 'bobby', 'FooBar') == YES
    assert len(said) == 1
    assert said[0].startswith(source.path) and 'still using' in said[0]
    file('bobby:repaired\n')
    assert ask(source, 'bobby', 'repaired') == YES
    os.unlink(source.path)
    ask(source, 'bobby', 'repaired')
    assert len(said) == 2


def test_unchanged_file_is_not_read_again(file, monkeypatch):
    path = file(HOWTO)
    monkeypatch.setattr(passwords, 'SETTLED_SECONDS', -10)
    source = PasswordFile(path)
    monkeypatch.setattr(passwords, 'read_file', lambda *_: pytest.fail('read again'))
    assert ask(source, 'bobby', 'FooBar') == YES


def test_reload(file, monkeypatch):
    path = file(HOWTO)
    monkeypatch.setattr(passwords, 'SETTLED_SECONDS', -10)
    said = []
    source = PasswordFile(path, log=said.append)
    read = []
    monkeypatch.setattr(passwords, 'read_file', lambda *_: read.append(1) or ({}, ()))
    source.reload()
    assert read == [1] and not said


# Kinds of entries

@pytest.mark.parametrize('entry, password', [
    (DOVEADM, 'pencil'),
    pytest.param(CRYPT_5, 'Hello world!', marks=needs_libcrypt),
    pytest.param(CRYPT_6, 'Hello world!', marks=needs_libcrypt),
    pytest.param(CRYPT_ROUNDS, 'Hello world!', marks=needs_libcrypt),
    # RFC 7914 section 12: P = "password", S = "NaCl", N = 1024, r = 8, p = 16
    ('{SCRYPT}ln=10,r=8,p=16$TmFDbA==$' + base64.b64encode(bytes.fromhex(
        'fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162'
        '2eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640')).decode(), 'password'),
    (passwordhashes.make_scram('p\xe4ss', 4096), 'p\xe4ss'),
    (passwordhashes.make_scrypt('p\xe4ss', (4, 8, 1)), 'p\xe4ss'),
], ids=['doveadm', 'crypt5', 'crypt6', 'rounds', 'rfc7914', 'scram', 'scrypt'])
def test_hashed_entry(file, entry, password):
    path = file(f'bob: {entry} \n')
    assert answer(path, 'BOB', password) == YES
    assert answer(path, 'bob', password + 'x') == NO
    assert answer(path, 'bob', '') == NO
    assert answer(path, 'bob', 'nul\0') == NO
    assert answer(path, 'bob', entry) == NO
    assert answer(path, 'alice', password) == NO
    assert PasswordFile(path).check(cram('bob', password)).answer == NO


def test_entries_made_twice_differ():
    assert passwordhashes.make_scram('x') != passwordhashes.make_scram('x')
    assert passwordhashes.make_scrypt('x') != passwordhashes.make_scrypt('x')


def test_crypt_cannot_tell_without_libcrypt(file, monkeypatch):
    monkeypatch.setattr(passwordhashes, '_crypt_r', lambda: None)
    path = file(f'bob:{CRYPT_6}\n')
    assert answer(path, 'bob', 'Hello world!') == UNSURE
    assert answer(path, 'nobody', 'Hello world!') == UNSURE


def test_scrypt_cannot_tell_without_openssl(file, monkeypatch):
    path = file('bob:' + passwordhashes.make_scrypt('secret', (4, 8, 1)))
    monkeypatch.delattr(hashlib, 'scrypt')
    assert answer(path, 'bob', 'secret') == UNSURE


@needs_libcrypt
def test_crypt_password_of_any_length(file):
    assert answer(file(f'bob:{CRYPT_5}'), 'bob', 'x' * 100000) == NO


@pytest.mark.parametrize('entries, plain, scram_too', [
    (('x', 'y'), True, True),
    (('x', DOVEADM), False, True),
    ((DOVEADM,), False, True),
    (('x', CRYPT_5), False, False),
    ((DOVEADM, passwordhashes.make_scrypt('x', (4, 8, 1))), False, False),
], ids=['plain', 'plain and scram', 'scram', 'plain and crypt', 'scram and scrypt'])
def test_mechanisms_follow_the_entries(file, entries, plain, scram_too):
    lines = ''.join(f'user{number}:{entry}\n' for number, entry in enumerate(entries))
    source = PasswordFile(file(lines))
    assert (source.plain, source.scram) == (plain, scram_too)
    file('bob:plain\n')
    assert (source.plain, source.scram) == (True, True)


def test_no_repr_shows_a_secret(file):
    source = PasswordFile(file('bob:verysecret\nalice:' + DOVEADM))
    seen = repr(source) + repr(vars(source)) + repr(source._users.find('bob'))
    seen += repr(source._users.find('alice'))
    assert 'verysecret' not in seen and 'b\'' not in repr(source._users.find('alice'))


# CRAM-MD5

def test_cram_md5_example_of_rfc_2195(file):
    source = PasswordFile(file('tim:tanstaaftanstaaf'))
    credentials = CramMD5('tim', b'<1896.697170952@postoffice.reston.mci.net>',
                          'b913a602c7eda7a495b4e6e7334d3890')
    assert source.check(credentials).answer == YES


@pytest.mark.parametrize('user, password, expected', [
    ('Bobby', 'FooBar', YES), ('bobby', 'foobar', NO), ('nobody', 'FooBar', NO),
])
def test_cram_md5(file, user, password, expected):
    assert PasswordFile(file(HOWTO)).check(cram(user, password)).answer == expected


# SCRAM-SHA-256

def test_scram_example_of_rfc_7677(file):
    """Section 3: user "user", password "pencil"."""
    salt = base64.b64decode('W22ZaJ0SNY7soEsUEjb6gQ==')
    keys = passwordhashes.scram_keys('pencil', salt, 4096)
    text = [base64.b64encode(key).decode() for key in (salt, *keys)]
    source = PasswordFile(file('user:{SCRAM-SHA-256}4096,' + ','.join(text)))
    assert source.scram_start('user') == (salt, 4096)
    message = (b'n=user,r=rOprNGfwEbeRWgbNEkqO,'
               b'r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,'
               b's=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,'
               b'c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0')
    proof = base64.b64decode('dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=')
    verdict = source.check(Scram('user', message, proof))
    assert verdict.answer == YES
    assert base64.b64encode(verdict.server_signature) == (
        b'6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=')


@pytest.mark.parametrize('entry', ['pencil', DOVEADM, passwordhashes.make_scram('pencil', 5000)],
                         ids=['plain', 'doveadm', 'made'])
def test_scram(file, entry):
    source = PasswordFile(file(f'bob:{entry}\nalice:x'))
    credentials, server_key = scram(source, 'Bob', 'pencil')
    verdict = source.check(credentials)
    assert verdict.answer == YES
    assert verdict.server_signature == hmac.digest(server_key, credentials.auth_message, 'sha256')
    wrong = source.check(scram(source, 'bob', 'Pencil')[0])
    assert wrong.answer == NO and wrong.server_signature == b''
    assert source.check(scram(source, 'nobody', 'pencil')[0]).answer == NO


def test_scram_against_crypt_is_no(file):
    source = PasswordFile(file(f'bob:{CRYPT_5}'))
    assert source.check(Scram('bob', b'message', bytes(32))).answer == NO


@pytest.mark.parametrize('entry', ['plain', DOVEADM])
def test_scram_start_of_an_unknown_user_looks_like_any(file, entry):
    path = file(f'bob:{entry}\n')
    source, again = PasswordFile(path), PasswordFile(path)
    known, unknown = source.scram_start('bob'), source.scram_start('nobody')
    assert len(known[0]) == len(unknown[0]) and known[1] == unknown[1] and known[0] != unknown[0]
    assert source.scram_start(' NOBODY') == unknown
    assert source.scram_start('nobody2') != unknown
    if os.path.exists(passwords.MACHINE_ID):
        assert again.scram_start('nobody') == unknown


def test_scram_salt_without_machine_id(file, monkeypatch):
    monkeypatch.setattr(passwords, 'MACHINE_ID', '/nonexistent')
    path = file('bob:plain\n')
    one, other = PasswordFile(path), PasswordFile(path)
    assert one.scram_start('x') == one.scram_start('x') != other.scram_start('x')


@pytest.mark.parametrize('password, expected', [
    # RFC 4013 section 3
    ('I\xadX', 'IX'), ('user', 'user'), ('\xaa', 'a'), ('\u2168', 'IX'),
    ('a\xa0b', 'a b'),
])
def test_prepared(password, expected):
    assert passwordhashes.prepared(password) == expected


# Time

@pytest.mark.parametrize('entry', ['plain', passwordhashes.make_scram('x', 4096),
                                   passwordhashes.make_scrypt('x', (9, 8, 1))],
                         ids=['plain', 'scram', 'scrypt'])
def test_unknown_user_takes_the_same_time(file, entry):
    source = PasswordFile(file(f'bob:{entry}\n'))
    spent = {'bob': [], 'nobody': []}
    for _ in range(60):
        for user, times in spent.items():
            began = time.perf_counter()
            ask(source, user, 'wrong')
            times.append(time.perf_counter() - began)
    known, unknown = (statistics.median(times) for times in spent.values())
    assert abs(known - unknown) < 0.002 and unknown > known / 3


def test_unknown_user_is_checked_against_an_entry(file, monkeypatch):
    monkeypatch.setattr(passwords, 'SETTLED_SECONDS', -10)
    source = PasswordFile(file('bob:x\nalice:' + DOVEADM))
    checked = []
    for kind in (passwordhashes.Plain, passwordhashes.Scram):
        monkeypatch.setattr(kind, 'check', lambda self, password: checked.append(self) or True)
    for number in range(50):
        name = f'nobody{number}'
        assert ask(source, name, 'x') == ask(source, name, 'x') == NO
        assert checked[-1] is checked[-2]  # a name always looks like one kind
    assert len(checked) == 100 and len(set(map(id, checked))) == 2


def test_equal():
    assert passwordhashes.equal(b'', b'') and passwordhashes.equal(b'a', b'a')
    assert not passwordhashes.equal(b'a', b'ab') and not passwordhashes.equal(b'a', b'b')


def test_file_fuzzed(file):
    """Any octets are a file or a ConfigError of one line without what stands in it."""
    chance = random.Random(7)
    pieces = [b'bob', b':', b'secret', b'\n', b'#', b' ', b'\xff', b'\0', b'\r', DOVEADM.encode(),
              CRYPT_6.encode(), b'{SCRYPT}ln=4,r=8,p=1$', b'$5$', b',', b'$', b'=']
    for _ in range(5000):
        data = b''.join(chance.choice(pieces) for _ in range(chance.randrange(12)))
        try:
            passwords.parse_file('FILE', data)
        except ConfigError as error:
            assert '\n' not in str(error) and 'secret' not in str(error)
