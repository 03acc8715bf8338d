# SPDX-License-Identifier: GPL-2.0-or-later
"""Cookies: keys, formats, checking.  Recorded values are in test_cookie_vectors."""
from __future__ import annotations

import hashlib
import hmac
import os

import pytest

from TMDA import Cookie, Defaults, FileCache
from TMDA.Cookie import Cookies
from TMDA.Errors import BadCryptoError, ConfigError, ExpiredAddressError, IntervalError

KEY = '0123456789abcdef0123456789abcdef01234567'
OLD_KEY = 'fedcba98'
NOW = 1732252800


def write_key(path, text=KEY, mode=0o600):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def settings_for(home, config=''):
    path = home / 'config'
    path.write_text(f'USERNAME = "alice"\nHOSTNAME = "example.net"\n{config}')
    return Defaults.load({'HOME': str(home)}, str(path), os.devnull)


@pytest.fixture(name='make')
def fixture_make(tmp_path):
    """A function from the text of a configuration to Cookies with KEY."""
    write_key(tmp_path / '.tmda' / 'crypt_key')
    write_key(tmp_path / 'old', OLD_KEY)
    return lambda config='': Cookies(settings_for(tmp_path, config))


FAST = 'HMAC_ALGO = "p2sha256"\nHMAC_ROUNDS = 1\n'


# Keys

@pytest.mark.parametrize('mode, allow, accepted', [
    (0o400, False, True), (0o600, False, True), (0o640, False, False), (0o644, False, False),
    (0o660, False, False), (0o700, False, False), (0o4600, False, False),
    (0o400, True, True), (0o600, True, True), (0o640, True, True), (0o644, True, False),
    (0o440, True, False),
])
def test_key_mode(tmp_path, mode, allow, accepted):
    path = str(write_key(tmp_path / 'key', mode=mode))
    if accepted:
        assert Cookie.read_key(path, allow) == bytes.fromhex(KEY)
    else:
        with pytest.raises(ConfigError, match=f'^{path} must be chmod 400'):
            Cookie.read_key(path, allow)


def test_key_mode_640_by_configuration(tmp_path):
    write_key(tmp_path / '.tmda' / 'crypt_key', mode=0o640)
    Cookies(settings_for(tmp_path, 'ALLOW_MODE_640 = True'))


@pytest.mark.parametrize('text', [KEY + '\n', KEY.upper(), f' {KEY}\r\n', KEY[:2]])
def test_key_text_accepted(tmp_path, text):
    path = write_key(tmp_path / 'key', text)
    assert Cookie.read_key(str(path)) == bytes.fromhex(text.strip())


@pytest.mark.parametrize('text', ['', '\n', 'abc', 'secret', KEY + ' x', KEY + '\n' + KEY])
def test_key_text_refused_and_not_shown(tmp_path, text):
    path = write_key(tmp_path / 'key', text)
    with pytest.raises(ConfigError) as caught:
        Cookie.read_key(str(path))
    assert str(caught.value) == f'{path}: not a key; it must hold an even number of hex digits'


def test_key_missing(tmp_path):
    with pytest.raises(ConfigError) as caught:
        Cookies(settings_for(tmp_path))
    assert str(caught.value) == f"Can't find key file: {tmp_path}/.tmda/crypt_key"


def test_key_directory(tmp_path):
    tmp_path.chmod(0o600)
    with pytest.raises(ConfigError, match='must be chmod'):
        Cookie.read_key(str(tmp_path))
    tmp_path.chmod(0o700)


def test_key_below_a_file(tmp_path):
    path = write_key(tmp_path / 'key')
    with pytest.raises(ConfigError, match='Not a directory'):
        Cookie.read_key(str(path / 'key'))


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_key_unreadable(tmp_path):
    folder = tmp_path / 'folder'
    path = write_key(folder / 'key')
    folder.chmod(0)
    with pytest.raises(ConfigError, match='Permission denied'):
        Cookie.read_key(str(path))
    folder.chmod(0o700)


def test_key_is_cached_and_mode_still_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(FileCache, 'SETTLED_NS', 0)
    path = write_key(tmp_path / 'key')
    Cookie.read_key(str(path))
    with monkeypatch.context() as patched:
        patched.setattr(Cookie.binascii, 'unhexlify', None)
        assert Cookie.read_key(str(path)) == bytes.fromhex(KEY)
    path.chmod(0o644)
    with pytest.raises(ConfigError):
        Cookie.read_key(str(path))


def test_key_change_is_seen(tmp_path):
    path = write_key(tmp_path / 'key', 'aa')
    assert Cookie.read_key(str(path)) == b'\xaa'
    write_key(path, 'bb')
    assert Cookie.read_key(str(path)) == b'\xbb'


def test_key_is_in_no_repr(make):
    cookies = make()
    shown = repr(cookies) + repr(cookies.__dict__)
    assert KEY not in shown and repr(bytes.fromhex(KEY)) not in shown


# Making

def test_made_dated_in_1_1_is_hmac_sha1_in_hex(make):
    mac = hmac.new(bytes.fromhex(KEY), b'1732684800', hashlib.sha1).hexdigest()
    assert make().dated(NOW, '5d') == f'1732684800.{mac[:6]}'


def test_made_dated_takes_whole_seconds(make):
    assert make().dated(NOW + 0.999, '5d') == make().dated(NOW, '5d')


def test_made_dated_default_interval(make):
    assert make('DATED_TIMEOUT = "1h"').dated(NOW) == make().dated(NOW, '1h')


def test_made_dated_bad_interval(make):
    with pytest.raises(IntervalError):
        make().dated(NOW, 'soon')


@pytest.mark.parametrize('config, word, plain, in_address', [
    ('', 'Caf\xe9', 'Caf??', 'caf??'),
    (FAST, 'Caf\xe9', 'Caf?', 'Caf?'),
    ('', 'a.b c@d', 'a?b?c?d', 'a?b?c?d'),
    ('RECIPIENT_DELIMITER = "+"', 'A+b-c', 'A?b-c', 'a?b-c'),
    ('RECIPIENT_DELIMITER = "="', 'A=b-c', 'A?b-c', 'a?b-c'),
    (FAST, 'a\r\nb', 'a??b', 'a??b'),
])
def test_made_keyword_is_made_fit(make, config, word, plain, in_address):
    cookies = make(config)
    assert cookies.keyword(word).rpartition('.')[0] == plain
    assert cookies.keyword(word, for_address=True).rpartition('.')[0] == in_address


def test_made_keyword_of_1_3_ignores_case_in_the_mac(make):
    cookies = make(FAST)
    assert cookies.keyword('Word').split('.')[1] == cookies.keyword('word').split('.')[1]


def test_made_sender_with_bytes_beyond_ascii(make):
    # 1.1 lower-cased ASCII letters only, 1.3 all letters.
    assert make().sender('\xc9@X.example') == make().sender('\xc9@x.example')
    assert make().sender('\xc9@x.example') != make().sender('\xe9@x.example')
    assert make(FAST).sender('\xc9@X.example') == make(FAST).sender('\xe9@x.example')


def test_made_fingerprint_takes_text_and_octets(make):
    cookies = make()
    assert cookies.fingerprint(['\xe9', b'\xff']) == cookies.fingerprint([b'\xc3\xa9\xff'])
    assert cookies.fingerprint(['\udcff']) == cookies.fingerprint([b'\xff'])


def test_made_slow_mac_once_a_second(make, monkeypatch):
    calls = []

    def count(*arguments):
        calls.append(arguments)
        return bytes(32)
    monkeypatch.setattr(Cookie.hashlib, 'pbkdf2_hmac', count)
    Cookie._slow_digest.cache_clear()
    cookies = make('COOKIE_FORMAT = "1.3"')
    for _ in range(3):
        cookies.dated(NOW, '5d')
    cookies.dated(NOW + 1, '5d')
    assert [call[0] for call in calls] == ['sha256'] * 2
    assert calls[0][3] == 100000
    Cookie._slow_digest.cache_clear()


def test_made_compat_mac_never_looks_like_hex(make):
    cookies = make('HMAC_ALGO = "sha1"\nHMAC_BYTES = 1\nHMAC_ENCODING_COMPAT = True')
    for number in range(200):
        sender = f's{number}@example.org'
        cookies.check_sender(cookies.sender(sender), sender)


# Checking

def test_check_dated_last_second_is_valid(make):
    cookies = make()
    cookie = cookies.dated(NOW, '1h')
    assert cookies.check_dated(cookie, NOW + 3600) == NOW + 3600
    assert cookies.check_dated(cookie, NOW + 3600.9) == NOW + 3600
    with pytest.raises(ExpiredAddressError) as caught:
        cookies.check_dated(cookie, NOW + 3601)
    assert caught.value.expires == NOW + 3600
    assert str(caught.value) == 'Dated address has expired.'


def test_check_dated_forged_in_the_past_is_forged(make):
    # 1.1 said "expired" before it looked at the code.
    with pytest.raises(BadCryptoError, match='Invalid cryptographic tag.$'):
        make().check_dated('1000.abcdef', NOW)


@pytest.mark.parametrize('cookie', ['', '.', '1732684800', '1732684800.', '.621a29', 'x.621a29',
                                    '1732684800.621a29.', '-1.621a29', ' 1732684800.621a29',
                                    '1732684800.621a29\n', '1732684800.621a2', '1732684800.\xe9',
                                    '\u0661732684800.621a29', '9' * 5000 + '.621a29'])
def test_check_dated_malformed(make, cookie):
    with pytest.raises(BadCryptoError):
        make().check_dated(cookie, NOW)


@pytest.mark.parametrize('config', ['', FAST])
@pytest.mark.parametrize('made_for, sender, valid', [
    ('bob@example.org', 'bob@example.org', True),
    ('Bob@Example.ORG', 'bOB@example.org', True),
    ('example.org', 'bob@example.org', True),
    ('example.org', 'bob@a.b.example.org', True),
    ('b.example.org', 'bob@a.b.example.org', True),
    ('localhost', 'bob@localhost', True),
    ('org', 'bob@example.org', False),
    ('uk', 'bob@example.co.uk', False),
    ('ample.org', 'bob@example.org', False),
    ('bob@example.org', 'bob@a.example.org', False),
    ('', 'bob@example.org', False),
    ('', '', True),
    ('example.org', '', False),
])
def test_check_sender(make, config, made_for, sender, valid):
    cookies = make(config)
    mac = cookies.sender(made_for)
    if valid:
        cookies.check_sender(mac, sender)
    else:
        with pytest.raises(BadCryptoError):
            cookies.check_sender(mac, sender)


@pytest.mark.parametrize('config', ['', FAST])
@pytest.mark.parametrize('word', ['promo', 'PromoCode', 'v1.2', 'a-b', '', 'Caf\xe9'])
@pytest.mark.parametrize('for_address', [False, True])
def test_check_keyword_made_by_us(make, config, word, for_address):
    cookies = make(config)
    cookies.check_keyword(cookies.keyword(word, for_address))
    with pytest.raises(BadCryptoError):
        cookies.check_keyword('x' + cookies.keyword(word, for_address))


def test_check_keyword_without_dot(make):
    with pytest.raises(BadCryptoError, match='format'):
        make().check_keyword('promo')


@pytest.mark.parametrize('word, valid', [('accept', True), ('done', True), ('other', False),
                                         (None, False)])
def test_check_confirm(make, word, valid):
    cookies = make()
    cookie = cookies.confirm(NOW, 77, word)
    if valid:
        cookies.check_confirm(cookie)
    else:
        with pytest.raises(BadCryptoError):
            cookies.check_confirm(cookie)


def test_check_confirm_is_not_satisfied_by_a_dated_cookie(make):
    cookies = make()
    expiry, mac = cookies.dated(NOW, '5d').split('.')
    with pytest.raises(BadCryptoError):
        cookies.check_confirm(f'{expiry[:5]}.{expiry[5:]}.{mac}')


def test_check_uses_constant_time_comparison(make, monkeypatch):
    compared = []
    monkeypatch.setattr(Cookie.hmac, 'compare_digest',
                        lambda right, mac: compared.append((right, mac)) or right == mac)
    cookies = make()
    assert cookies.matches('621a29', '1732684800')
    assert compared == [(b'621a29', b'621a29')]


ROLLOVER = 'CRYPT_KEY_FILE_ROLLOVER = "~/old"\n'


@pytest.mark.parametrize('config', ['', FAST])
def test_rollover_in_both_formats(make, config):
    old = make(config + 'CRYPT_KEY_FILE = "~/old"\n')
    new = make(config + ROLLOVER)
    for cookies in (old, new):
        assert new.check_dated(cookies.dated(NOW, '5d'), NOW) == NOW + 432000
    assert new.dated(NOW, '5d') != old.dated(NOW, '5d')
    with pytest.raises(BadCryptoError):
        make(config).check_dated(old.dated(NOW, '5d'), NOW)


def test_rollover_expired_under_the_old_key(make):
    cookie = make('CRYPT_KEY_FILE = "~/old"\n').dated(NOW, '1s')
    with pytest.raises(ExpiredAddressError):
        make(ROLLOVER).check_dated(cookie, NOW + 2)


def test_rollover_key_missing_matters_only_when_checking(make):
    cookies = make('CRYPT_KEY_FILE_ROLLOVER = "~/none"')
    cookie = cookies.dated(NOW, '5d')
    with pytest.raises(ConfigError, match="Can't find key file"):
        cookies.check_dated(cookie[:-1] + 'x', NOW)
