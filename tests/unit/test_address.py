# SPDX-License-Identifier: GPL-2.0-or-later
"""Tagged addresses: built, recognized, verified.  Recorded ones are in test_cookie_vectors."""
from __future__ import annotations

import os

import pytest

from TMDA import Address, Defaults
from TMDA.Cookie import Cookies
from TMDA.Errors import AddressError, BadCryptoError, ExpiredAddressError, IntervalError

NOW = 1732252800
BASE = 'Alice.L@Example.NET'


@pytest.fixture(name='make')
def fixture_make(tmp_path):
    """A function from the text of a configuration to Cookies."""
    key = tmp_path / '.tmda' / 'crypt_key'
    key.parent.mkdir()
    key.write_text('0123456789abcdef')
    key.chmod(0o600)

    def make(config=''):
        path = tmp_path / 'config'
        path.write_text(config)
        return Cookies(Defaults.load({'HOME': str(tmp_path)}, str(path), os.devnull))
    return make


@pytest.mark.parametrize('address, parts', [
    ('a@b', ('a', 'b')), ('@b', ('', 'b')), ('a@', ('a', '')), ('A.B@C.d', ('A.B', 'C.d')),
])
def test_split(address, parts):
    assert Address.split(address) == parts


@pytest.mark.parametrize('address', ['', 'alice', '"a@b"@c', 'a@b@c'])
def test_split_refuses(address):
    with pytest.raises(AddressError, match='exactly one "@"'):
        Address.split(address)


def test_made_addresses_keep_the_case_of_the_base(make):
    cookies = make()
    made = [Address.dated(cookies, BASE, NOW), Address.sender(cookies, BASE, 'bob@example.org'),
            Address.keyword(cookies, BASE, 'Word'),
            Address.confirm(cookies, BASE, NOW, 9, 'accept'),
            Address.extension(cookies.settings, BASE, 'Ext')]
    tags = ['dated-', 'sender-', 'keyword-word.', 'confirm-1732252800.9.', 'Ext@']
    for address, tag in zip(made, tags):
        assert address.startswith('Alice.L-' + tag)
        assert address.endswith('@Example.NET')


@pytest.mark.parametrize('build', [
    lambda cookies: Address.dated(cookies, 'alice', NOW),
    lambda cookies: Address.sender(cookies, 'a@b@c', 'x'),
    lambda cookies: Address.keyword(cookies, '', 'x'),
    lambda cookies: Address.confirm(cookies, 'alice', NOW, 1),
    lambda cookies: Address.extension(cookies.settings, 'alice', 'x'),
    lambda cookies: Address.kind(cookies.settings, 'alice'),
    lambda cookies: Address.verify(cookies, 'alice', NOW),
])
def test_made_from_no_address(make, build):
    with pytest.raises(AddressError):
        build(make())


def test_made_dated_with_bad_interval(make):
    with pytest.raises(IntervalError):
        Address.dated(make(), BASE, NOW, '5x')


@pytest.mark.parametrize('config, address, expected', [
    ('', 'alice@example.net', ''),
    ('', 'alice-dated@example.net', ''),
    ('', 'alice-dated-1.a@example.net', 'dated'),
    ('', 'alice-b-DATED-1.a@example.net', 'dated'),
    ('', 'dated-1.a@example.net', ''),
    ('', '-dated-1.a@example.net', ''),
    ('', 'alice-sender-dated-1.a@example.net', 'dated'),
    ('', 'alice-keyword-x.a@example.net', 'keyword'),
    ('', 'alice-confirm-1.2.a@example.net', 'confirm'),
    ('', 'alice+dated+1.a@example.net', ''),
    ('RECIPIENT_DELIMITER = "+"', 'alice+dated+1.a@example.net', 'dated'),
    ('RECIPIENT_DELIMITER = "."', 'alice.dated.1.a@example.net', 'dated'),
    ('TAGS_DATED = ["d", "dated"]', 'alice-d-1.a@example.net', 'dated'),
    ('TAGS_DATED = ["d", "dated"]', 'alice-dated-1.a@example.net', 'dated'),
    ('TAGS_SENDER = ["S"]', 'alice-s-a@example.net', 'sender'),
    ('', '\u0130\u0130-dated-1.a@example.net', 'dated'),
])
def test_kind(make, config, address, expected):
    assert Address.kind(make(config).settings, address) == expected


CONFIGS = ['', 'RECIPIENT_DELIMITER = "+"', 'RECIPIENT_DELIMITER = "."',
           'TAGS_DATED = ["d"]\nTAGS_SENDER = ["S"]\nTAGS_KEYWORD = ["my-kw"]',
           'HMAC_ALGO = "p2sha256"\nHMAC_ROUNDS = 1', 'HMAC_ALGO = "sha512"\nHMAC_BYTES = 9']


@pytest.mark.parametrize('config', CONFIGS)
@pytest.mark.parametrize('base', ['alice@example.net', BASE, 'alice-dated-x@example.net'])
def test_verify_what_was_made(make, config, base):
    cookies = make(config)
    dated = Address.dated(cookies, base, NOW, '1h')
    assert Address.verify(cookies, dated, NOW) == NOW + 3600
    assert Address.verify(cookies, dated.upper(), NOW) == NOW + 3600
    with pytest.raises(ExpiredAddressError):
        Address.verify(cookies, dated, NOW + 3601)
    sender = Address.sender(cookies, base, 'Bob@example.org')
    assert Address.verify(cookies, sender, NOW, 'bob@EXAMPLE.org') is None
    assert Address.verify(cookies, sender.upper(), NOW, sender='bob@EXAMPLE.org') is None
    keyword = Address.keyword(cookies, base, 'Word')
    assert Address.verify(cookies, keyword, NOW) is None
    assert Address.verify(cookies, keyword.lower(), NOW) is None
    assert Address.verify(cookies, Address.confirm(cookies, base, NOW, 1, 'accept'), NOW) is None


@pytest.mark.parametrize('address, text', [
    ('alice@example.net', 'No cryptographic information in address.'),
    ('alice-dated@example.net', 'No cryptographic information in address.'),
    ('alice-dated-1732684800@example.net', 'Invalid cryptographic tag format.'),
    ('alice-dated-1732684800.abcdef@example.net', 'Invalid cryptographic tag.'),
    ('alice-dated-1732684800.abcdef.x@example.net', 'Invalid cryptographic tag.'),
    ('alice-confirm-1.2@example.net', 'Invalid cryptographic tag format.'),
    ('alice-keyword-x.abcdef@example.net', 'Invalid cryptographic tag.'),
    ('alice-sender-abcdef@example.net',
     'Sender addresses are verified together with the sender.'),
    ('alice-dated-@example.net', 'Invalid cryptographic tag format.'),
])
def test_verify_refuses(make, address, text):
    with pytest.raises(BadCryptoError) as caught:
        Address.verify(make(), address, NOW)
    assert str(caught.value) == text


def test_verify_sender_of_another(make):
    cookies = make()
    address = Address.sender(cookies, BASE, 'bob@example.org')
    with pytest.raises(BadCryptoError):
        Address.verify(cookies, address, NOW, 'mallory@example.org')
