# SPDX-License-Identifier: GPL-2.0-or-later
"""Every recorded case of vectors/cookies.json, with the clock stopped at the case's `now`."""
from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from TMDA import Address, Defaults
from TMDA.Cookie import Cookies
from TMDA.Errors import AddressError, BadCryptoError, ExpiredAddressError, IntervalError
from TMDA.tools import address as address_tool

VECTORS = Path(__file__).parent.parent / 'vectors' / 'cookies.json'
CASES = json.loads(VECTORS.read_text(encoding='utf-8'))

# Cases that are answered differently on purpose: (series, name) -> (answer, reason).
DIFFERENT = {
    ('1.1', 'cookies/usual/verify-sender-top-level'):
        (BadCryptoError, 'a cookie for a top-level domain would let half the world in'),
}

# What is right where the recorded release is wrong (peer_bug).
RIGHT = {
    ('1.3', 'cookies/usual/verify-dated-valid'): 'valid',
    ('1.3', 'cookies/usual/verify-dated-last-second'): 'valid',
    ('1.3', 'cookies/usual/verify-dated-expired-by-a-second'): ExpiredAddressError,
    ('1.3', 'cookies/usual/verify-dated-forged-time'): BadCryptoError,
    ('1.3', 'cookies/usual/verify-dated-forged-mac'): BadCryptoError,
    ('1.1', 'cookies/create/verify-created-keyword-upper'): 'valid',
    ('1.3', 'cookies/wrong-key/verify-wrong-key-dated-valid'): BadCryptoError,
    ('1.3', 'cookies/rollover-new-address/verify-dated-valid'): 'valid',
    ('1.3', 'cookies/rollover-hex-address-of-1.1/verify-dated-valid'): 'valid',
    ('1.3', 'cookies/rollover-without-compat/verify-dated-valid'): BadCryptoError,
    ('1.3', 'cookies/no-rollover-key/verify-dated-valid'): BadCryptoError,
    ('1.3', 'cookies/compat-hex-same-key/verify-dated-valid'): 'valid',
    ('1.3', 'cookies/no-compat-hex-same-key/verify-dated-valid'): BadCryptoError,
    ('1.3', 'cookies/rollover-1.3-to-1.3/verify-dated-valid'): 'valid',
}

KIND_CLASSES = {'dated': 'DatedAddress', 'sender': 'SenderAddress', 'keyword': 'KeywordAddress',
                'confirm': 'ConfirmAddress', '': 'Address'}


def key_of(case):
    return case['series'], case['name']


def write_key(path, key):
    path.write_text(key)
    path.chmod(0o600)


@pytest.fixture(name='cookies_for')
def fixture_cookies_for(tmp_path):
    """A function that makes the Cookies of a case, with a home in tmp_path."""
    def make(case):
        data = tmp_path / '.tmda'
        data.mkdir()
        write_key(data / 'crypt_key', case['crypt_key'])
        if 'crypt_key_rollover' in case:
            write_key(data / 'crypt_key_rollover', case['crypt_key_rollover'])
        config = {'COOKIE_FORMAT': case['series'], **case['config']}
        (data / 'config').write_text(
            ''.join(f'{name} = {value!r}\n' for name, value in config.items()))
        environ = {'HOME': str(tmp_path), **case.get('env', {})}
        return Cookies(Defaults.load(environ, global_file=os.devnull))
    return make


def create(cookies, tag, base, rest, now):
    return address_tool.create(cookies, tag, base, rest[0], now)


def verify(cookies, address, now, sender=None):
    Address.verify(cookies, address, now, sender)
    return 'valid'


FUNCTIONS = {
    'dated_cookie': lambda c, now, time, timeout: c.dated(time, timeout),
    'dated_address': lambda c, now, address, time: Address.dated(c, address, time),
    'sender_cookie': lambda c, now, sender: c.sender(sender),
    'sender_address': lambda c, now, address, sender: Address.sender(c, address, sender),
    'keyword_cookie': lambda c, now, keyword: c.keyword(keyword),
    'keyword_address': lambda c, now, address, keyword: Address.keyword(c, address, keyword),
    'confirm_cookie': lambda c, now, time, pid, keyword: c.confirm(time, pid, keyword),
    'confirm_address': lambda c, now, address, time, pid, keyword:
        Address.confirm(c, address, time, pid, keyword),
    'fingerprint': lambda c, now, values: c.fingerprint(values),
    'seconds': lambda c, now, timeout: Defaults.interval_seconds(timeout),
    'kind': lambda c, now, address: KIND_CLASSES[Address.kind(c.settings, address)],
    'create': lambda c, now, tag, base, rest: create(c, tag, base, rest, now),
    'verify': lambda c, now, address, sender=None: verify(c, address, now, sender),
    'verify_mac': lambda c, now, kind, mac, items: c.matches(mac, *items),
}

ERROR_CLASSES = {
    'BadCryptoError': BadCryptoError,
    'ExpiredAddressError': ExpiredAddressError,
    'ValueError': (IntervalError, AddressError),
}


@pytest.mark.parametrize('case', CASES, ids=lambda case: f'{case["series"]}-{case["name"][8:]}')
def test_cookie_vector(case, cookies_for):
    cookies = cookies_for(case)
    if 'peer_bug' in case:
        expected = RIGHT[key_of(case)]
    elif key_of(case) in DIFFERENT:
        expected = DIFFERENT[key_of(case)][0]
    else:
        expected = case.get('expect')
        if 'expect_error' in case:
            expected = ERROR_CLASSES[case['expect_error_class']]
    function = FUNCTIONS[case['function']]
    if isinstance(expected, (type, tuple)):
        with pytest.raises(expected) as caught:
            function(cookies, case['now'], **case['args'])
        if expected is BadCryptoError and case.get('expect_error_class') == 'BadCryptoError':
            assert str(caught.value) == case['expect_error']
    else:
        assert function(cookies, case['now'], **case['args']) == expected


def test_cookie_vectors_are_complete():
    assert len(CASES) == 372
    names = {key_of(case) for case in CASES}
    bugs = {key_of(case) for case in CASES if 'peer_bug' in case}
    assert set(RIGHT) == bugs
    assert set(DIFFERENT) <= names - bugs
    assert len({reason for _, reason in DIFFERENT.values()}) <= 15
