"""Header addresses are read leniently and written strictly."""

import pytest

from TMDA.inject.addresses import encode_text, format_mailbox, parse


@pytest.mark.parametrize('value, expected', [
    (b'Bob <bob@example.org>', [('Bob', 'bob@example.org')]),
    (b'bob@example.org (Bob)', [('Bob', 'bob@example.org')]),
    (b'"C, D" <cd@x.org>, e@x.org', [('C, D', 'cd@x.org'), ('', 'e@x.org')]),
    (b'Team: a@x.org, b@x.org;', [('', 'a@x.org'), ('', 'b@x.org')]),
    (b'undisclosed-recipients:;, c@x.org', [('', 'c@x.org')]),
    (b'undisclosed-recipients:;', []),
    ('Ülm <u@x.org>'.encode('iso-8859-1'), [('Ülm', 'u@x.org')]),
    ('Ülm <u@x.org>'.encode('utf-8'), [('Ülm', 'u@x.org')]),
    (b'', []),
])
def test_parse(value, expected):
    assert parse(value) == expected


@pytest.mark.parametrize('name, address, expected', [
    ('', 'a@x.org', b'a@x.org'),
    ('Al', 'a@x.org', b'Al <a@x.org>'),
    ('Al B. C', 'a@x.org', b'"Al B. C" <a@x.org>'),
    ('a"b\\c', 'a@x.org', b'"a\\"b\\\\c" <a@x.org>'),
    ('Alíce', 'a@x.org', b'=?utf-8?b?QWzDrWNl?= <a@x.org>'),
    ('=?utf-8?q?Al?=', 'a@x.org', b'=?utf-8?q?Al?= <a@x.org>'),
    ('evil\r\nBcc: x@y', 'a@x.org', b'"evil Bcc: x@y" <a@x.org>'),
    ('n', 'a@x.org\r\nBcc: z', b'n <a@x.orgBcc: z>'),
])
def test_format_mailbox(name, address, expected):
    assert format_mailbox(name, address) == expected


def test_format_mailbox_is_read_back():
    for name in ('a', 'a, b', 'x "y" z', '\\', 'J. R.', '(c)'):
        assert parse(format_mailbox(name, 'a@x.org')) == [(name, 'a@x.org')]


def test_encode_text_long_text_stays_in_lines():
    encoded = encode_text('ä' * 200)
    assert max(map(len, encoded.split(b'\r\n'))) <= 78
