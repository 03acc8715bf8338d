# SPDX-License-Identifier: GPL-2.0-or-later
"""ipauthmap: line forms, look-ups, changes of the file."""
import os

import pytest

from TMDA.ofmipd.ipauthmap import IPAuthMap

TABLE = '''\
# clients of one address are checked at another
192.0.2.1 10.0.0.1
192.0.2.2   10.0.0.2\t1430     # with a port
192.0.2.3:10.0.0.3
192.0.2.4:10.0.0.4:1431
2001:db8::1 2001:db8::2
2001:db8:0:0::3 10.0.0.5 99
::ffff:192.0.2.6 10.0.0.6

192.0.2.1 10.0.0.99
'''


@pytest.fixture
def table(tmp_path):
    path = tmp_path / 'ipauthmap'
    path.write_text(TABLE, encoding='ascii')
    return IPAuthMap(str(path))


@pytest.mark.parametrize('local, expected', [
    ('192.0.2.1', ('10.0.0.1', 143)),
    ('192.0.2.2', ('10.0.0.2', 1430)),
    ('192.0.2.3', ('10.0.0.3', 143)),
    ('192.0.2.4', ('10.0.0.4', 1431)),
    ('2001:db8::1', ('2001:db8::2', 143)),
    ('2001:0DB8:0:0:0:0:0:1', ('2001:db8::2', 143)),
    ('2001:db8::3', ('10.0.0.5', 99)),
    ('2001:db8::3%eth0', ('10.0.0.5', 99)),
    ('192.0.2.6', ('10.0.0.6', 143)),
    ('::ffff:192.0.2.1', ('10.0.0.1', 143)),
    ('192.0.2.200', ('127.0.0.1', 143)),
    ('', ('127.0.0.1', 143)),
])
def test_lookup(table, local, expected):
    assert table.lookup(local, 143) == expected


@pytest.mark.parametrize('local, expected', [
    ('192.0.2.1', '192.0.2.1'), ('2001:db8::1', '2001:db8::1'), ('', '127.0.0.1'),
])
def test_lookup_without_file(tmp_path, local, expected):
    assert IPAuthMap(str(tmp_path / 'none')).lookup(local, 110) == (expected, 110)


@pytest.mark.parametrize('line', [
    '192.0.2.1', 'host 10.0.0.1', '192.0.2.1 host', '192.0.2.1 10.0.0.1 x', '192.0.2.1 10.0.0.1 0',
    '192.0.2.1 10.0.0.1 65536', '192.0.2.1 10.0.0.1 1 2', '::1:::2', '192.0.2.1:10.0.0.1:x',
    '192.0.2.1:10.0.0.1:1:2', '192.0.2.1:::1',
])
def test_bad_line_is_logged_and_skipped(tmp_path, line):
    path = tmp_path / 'ipauthmap'
    path.write_text(f'# comment\n{line}\n192.0.2.9 10.0.0.9\n', encoding='ascii')
    said = []
    table = IPAuthMap(str(path), said.append)
    assert table.lookup('192.0.2.1', 143) == ('127.0.0.1', 143)
    assert table.lookup('192.0.2.9', 143) == ('10.0.0.9', 143)
    assert len(said) == 1 and said[0].startswith(f'{path}: line 2 skipped: ')


def test_file_read_again_when_changed(table):
    assert table.lookup('192.0.2.1', 143) == ('10.0.0.1', 143)
    with open(table.path, 'w', encoding='ascii') as file:
        file.write('192.0.2.1 10.9.9.9\n')
    assert table.lookup('192.0.2.1', 143) == ('10.9.9.9', 143)
    os.unlink(table.path)
    assert table.lookup('192.0.2.1', 143) == ('192.0.2.1', 143)


def test_unreadable_file_raises(tmp_path):
    with pytest.raises(OSError):
        IPAuthMap(str(tmp_path)).lookup('192.0.2.1', 143)  # a directory
