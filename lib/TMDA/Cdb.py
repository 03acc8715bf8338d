# SPDX-License-Identifier: GPL-2.0-or-later
"""Constant databases: read and write files in the cdb format.

The format is described in https://cr.yp.to/cdb/cdb.txt.  A file has three parts: a head of 256
pairs (position, slots), the records (key length, data length, key, data), and 256 hash tables of
(hash, position of the record) slots.  All numbers are 32-bit, little-endian, so no file may pass
4 GiB.  A key's hash chooses the table by its low 8 bits and the first slot by the rest; the search
goes on, slot by slot, to the first empty one.

Called by FilterDatabases for `to-cdb` and for lists with -autocdb.  Guaranteed:

- every position and length that a file holds is checked before it is used, and no search visits a
  slot twice, so a damaged or hostile file gives CdbError or a wrong answer, never a hang or a
  crash;
- the file is read with pread(2), not mapped, as a mapped file that somebody truncates kills
  the process;
- write() makes a file that appears complete or not at all.
"""
from __future__ import annotations

import os
import stat
import struct
from typing import Iterable, Optional, Tuple

from TMDA.Errors import TMDAError

TABLES = 256
HEAD_SIZE = TABLES * 8
LARGEST = 0xFFFFFFFF  # octets: the highest position that a file can name
BLOCK = 64  # slots read at once
_PAIR = struct.Struct('<II')


class CdbError(TMDAError):
    """A file is no cdb, is damaged, or would become too large."""


def hash_of(key: bytes) -> int:
    """The format's hash of key, 32 bits."""
    value = 5381
    for octet in key:
        value = (value * 33 & LARGEST) ^ octet
    return value


class Reader:
    """An open cdb.  Close it after use, or use it in a `with` statement.

    Several threads may ask the same reader.  A file that write() replaces meanwhile goes on being
    read as it was.
    """

    def __init__(self, path: str) -> None:
        """Open path.  Raises OSError, or CdbError if it can't be a cdb."""
        # O_NONBLOCK: a FIFO would otherwise wait for a writer.
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(self._file)
            self._path = path
            self._size = status.st_size
            if not stat.S_ISREG(status.st_mode):
                raise CdbError(f'{path}: not a regular file')
            if not HEAD_SIZE <= self._size <= LARGEST:
                raise CdbError(f'{path}: not a cdb: {self._size} octets')
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back.  Nothing may be asked afterwards."""
        os.close(self._file)

    def get(self, key: bytes) -> Optional[bytes]:
        """The data of the first record with key, or None.  Raises OSError and CdbError."""
        wanted = hash_of(key)
        table, slots = self._pair(wanted % TABLES * 8)
        if slots == 0:
            return None
        if table < HEAD_SIZE or table + slots * 8 > self._size:
            raise self._damaged(f'a hash table at {table} ends outside the file')
        start = (wanted >> 8) % slots
        for first, count in ((start, slots - start), (0, start)):
            for value, position in self._slots(table + first * 8, count):
                if position == 0:
                    return None
                if value == wanted:
                    data = self._record(position, key)
                    if data is not None:
                        return data
        return None

    def _slots(self, position: int, count: int) -> Iterable[Tuple[int, int]]:
        end = position + count * 8
        while position < end:
            block = self._read(position, min(BLOCK * 8, end - position))
            yield from _PAIR.iter_unpack(block)
            position += len(block)

    def _record(self, position: int, key: bytes) -> Optional[bytes]:
        key_size, data_size = self._pair(position)
        if position + 8 + key_size + data_size > self._size:
            raise self._damaged(f'the record at {position} ends outside the file')
        if key_size != len(key) or self._read(position + 8, key_size) != key:
            return None
        return self._read(position + 8 + key_size, data_size)

    def _pair(self, position: int) -> Tuple[int, int]:
        return _PAIR.unpack(self._read(position, 8))

    def _read(self, position: int, count: int) -> bytes:
        data = os.pread(self._file, count, position)
        if len(data) != count:
            raise self._damaged(f'{count} octets expected at {position}, {len(data)} there')
        return data

    def _damaged(self, text: str) -> CdbError:
        return CdbError(f'{self._path}: damaged cdb: {text}')


def read(path: str) -> Reader:
    """Open the cdb at path.  Raises OSError, or CdbError if it can't be one."""
    return Reader(path)


def write(path: str, items: Iterable[Tuple[bytes, bytes]], mode: int = 0o600) -> None:
    """Make a cdb of (key, data) pairs at path, in place of what is there.

    mode is the permission bits of the new file.  A key may occur more than once: get() finds the
    first.  items is read only after the directory was found writable.  Raises OSError, and
    CdbError for more than 4 GiB; then path stays as it was.
    """
    import tempfile
    directory, name = os.path.split(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f'.{name}.', dir=directory or '.')
    try:
        with open(descriptor, 'wb') as file:
            _write_records(file, items)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _write_records(file, items: Iterable[Tuple[bytes, bytes]]) -> None:
    tables = [[] for _ in range(TABLES)]
    position = HEAD_SIZE
    file.write(bytes(HEAD_SIZE))
    for key, data in items:
        size = 8 + len(key) + len(data)
        if position + size > LARGEST:
            raise CdbError('too much for one cdb: the format ends at 4 GiB')
        file.write(_PAIR.pack(len(key), len(data)) + key + data)
        value = hash_of(key)
        tables[value % TABLES].append((value, position))
        position += size
    head = bytearray()
    for entries in tables:
        slots = _table(entries)
        head += _PAIR.pack(position, len(slots))
        if position + len(slots) * 8 > LARGEST:
            raise CdbError('too much for one cdb: the format ends at 4 GiB')
        for slot in slots:
            file.write(_PAIR.pack(*slot))
        position += len(slots) * 8
    file.seek(0)
    file.write(head)


def _table(entries: list) -> list:
    """Twice as many slots as entries, each entry in the first free slot from its own on."""
    slots = [(0, 0)] * (2 * len(entries))
    for value, position in entries:
        place = (value >> 8) % len(slots)
        while slots[place] != (0, 0):
            place = (place + 1) % len(slots)
        slots[place] = (value, position)
    return slots
