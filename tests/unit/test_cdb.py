# SPDX-License-Identifier: GPL-2.0-or-later
"""Cdb files: what is written is read, in the published format; damaged files end in an error."""
from __future__ import annotations

import os
import random
import struct

import pytest

from TMDA import Cdb

# By hand from cdb.txt: one record, key "one" with data "Hello".
HASH_OF_ONE = ((((5381 * 33 ^ 0x6F) * 33) ^ 0x6E) * 33 ^ 0x65) & 0xFFFFFFFF
RECORD = struct.pack('<II', 3, 5) + b'one' + b'Hello'
TABLE = 2048 + len(RECORD)


def hand_made():
    """The file that has only "one"."""
    head = b''.join(
        struct.pack('<II', TABLE if number <= HASH_OF_ONE % 256 else TABLE + 16,
                    2 if number == HASH_OF_ONE % 256 else 0)
        for number in range(256))
    slots = [struct.pack('<II', 0, 0)] * 2
    slots[(HASH_OF_ONE >> 8) % 2] = struct.pack('<II', HASH_OF_ONE, 2048)
    return head + RECORD + b''.join(slots)


def get(path, key):
    with Cdb.read(str(path)) as database:
        return database.get(key)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'x.cdb'


def test_cdb_file_is_in_the_published_format(path):
    Cdb.write(str(path), [(b'one', b'Hello')])
    assert path.read_bytes() == hand_made()


def test_cdb_file_of_others_is_read(path):
    path.write_bytes(hand_made())
    assert get(path, b'one') == b'Hello'
    assert get(path, b'two') is None


@pytest.mark.parametrize('key, value', [(b'', 5381), (b'a', 5381 * 33 ^ 97)])
def test_cdb_hash(key, value):
    assert Cdb.hash_of(key) == value


def test_cdb_many_entries(path):
    entries = {b'user%d@example.org' % number: b'%d' % number for number in range(5000)}
    Cdb.write(str(path), entries.items())
    with Cdb.read(str(path)) as database:
        assert all(database.get(key) == data for key, data in entries.items())
        assert all(database.get(key + b'x') is None for key in entries)


@pytest.mark.parametrize('items', [
    [], [(b'', b'')], [(b'', b'data'), (b'key', b'')], [(b'\0\xff' * 1000, b'\0' * 100000)]])
def test_cdb_odd_entries(path, items):
    Cdb.write(str(path), items)
    for key, data in items:
        assert get(path, key) == data
    assert get(path, b'other') is None


def test_cdb_first_of_equal_keys(path):
    Cdb.write(str(path), [(b'k', b'first'), (b'k', b'second')])
    assert get(path, b'k') == b'first'


def test_cdb_write_sets_mode_and_replaces(path):
    Cdb.write(str(path), [(b'k', b'old')])
    with Cdb.read(str(path)) as before:
        Cdb.write(str(path), [(b'k', b'new')], 0o640)
        assert before.get(b'k') == b'old'
    assert get(path, b'k') == b'new'
    assert path.stat().st_mode & 0o777 == 0o640


def test_cdb_write_that_fails_leaves_nothing(path):
    Cdb.write(str(path), [(b'k', b'old')])

    def broken():
        yield b'k', b'new'
        raise OSError('the list can not be read')

    with pytest.raises(OSError, match='the list'):
        Cdb.write(str(path), broken())
    assert get(path, b'k') == b'old'
    assert os.listdir(path.parent) == ['x.cdb']


def test_cdb_write_too_much(path, monkeypatch):
    monkeypatch.setattr(Cdb, 'LARGEST', 3000)
    with pytest.raises(Cdb.CdbError, match='4 GiB'):
        Cdb.write(str(path), [(b'%d' % number, b'x' * 100) for number in range(20)])
    with pytest.raises(Cdb.CdbError, match='4 GiB'):
        Cdb.write(str(path), [(b'%d' % number, b'') for number in range(60)])
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize('content', [b'', b'x', b'\0' * 2047])
def test_cdb_too_short(path, content):
    path.write_bytes(content)
    with pytest.raises(Cdb.CdbError, match=f'{path}: not a cdb'):
        Cdb.read(str(path))


def test_cdb_missing(path):
    with pytest.raises(FileNotFoundError):
        Cdb.read(str(path))


def test_cdb_fifo_does_not_wait(path):
    os.mkfifo(path)
    with pytest.raises(Cdb.CdbError, match='not a regular file'):
        Cdb.read(str(path))


def test_cdb_directory(path):
    path.mkdir()
    with pytest.raises(Cdb.CdbError, match='not a regular file'):
        Cdb.read(str(path))


def with_numbers(content, position, *numbers):
    """content with 32-bit numbers in place of what is at position."""
    new = struct.pack(f'<{len(numbers)}I', *numbers)
    return content[:position] + new + content[position + len(new):]


@pytest.mark.parametrize('position, numbers, cause', [
    (HASH_OF_ONE % 256 * 8, (100, 2), 'hash table at 100'),
    (HASH_OF_ONE % 256 * 8, (TABLE, 3), 'hash table at'),
    (HASH_OF_ONE % 256 * 8, (0xFFFFFFFF, 0xFFFFFFFF), 'hash table at'),
    (2048, (3, 6 + 16), 'record at 2048'),
    (2048, (0xFFFFFFFF, 5), 'record at 2048'),
    (TABLE + (HASH_OF_ONE >> 8) % 2 * 8, (HASH_OF_ONE, 0xFFFFFFF0), 'expected'),
])
def test_cdb_positions_outside_the_file(path, position, numbers, cause):
    path.write_bytes(with_numbers(hand_made(), position, *numbers))
    with pytest.raises(Cdb.CdbError, match=cause):
        get(path, b'one')


def test_cdb_table_without_an_empty_slot_ends(path):
    path.write_bytes(with_numbers(hand_made(), TABLE, HASH_OF_ONE, 2048, HASH_OF_ONE, 2048))
    in_same_table = next(key for key in (b'%d' % number for number in range(10000))
                         if Cdb.hash_of(key) % 256 == HASH_OF_ONE % 256)
    assert get(path, b'one') == b'Hello'
    assert get(path, in_same_table) is None


def test_cdb_truncated_anywhere(path):
    Cdb.write(str(path), [(b'key%d' % number, b'data') for number in range(20)])
    content = path.read_bytes()
    for length in range(2048, len(content), 7):
        path.write_bytes(content[:length])
        with Cdb.read(str(path)) as database:
            for number in range(20):
                try:
                    assert database.get(b'key%d' % number) in (b'data', None)
                except Cdb.CdbError as error:
                    assert str(path) in str(error)


def test_cdb_damaged_at_random(path):
    Cdb.write(str(path), [(b'key%d' % number, b'data') for number in range(10)])
    content = path.read_bytes()
    chance = random.Random(1)
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(chance.randrange(1, 200)):
            damaged[chance.randrange(len(damaged))] = chance.choice((0, 1, 8, 0x7F, 0xFF))
        path.write_bytes(damaged)
        with Cdb.read(str(path)) as database:
            for number in range(10):
                try:
                    database.get(b'key%d' % number)
                except Cdb.CdbError:
                    pass


def test_cdb_closes_its_file(path):
    Cdb.write(str(path), [(b'k', b'')])
    before = len(os.listdir('/proc/self/fd'))
    get(path, b'k')
    path.write_bytes(b'short')
    with pytest.raises(Cdb.CdbError):
        Cdb.read(str(path))
    assert len(os.listdir('/proc/self/fd')) == before
