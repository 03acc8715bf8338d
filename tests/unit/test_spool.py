"""A spool keeps small messages in memory and large ones in a file without a name."""

import os

import pytest

from TMDA.inject.spool import BLOCK, Spool


@pytest.mark.parametrize('memory_limit', [0, 10, 10 ** 6])
def test_spool_gives_back_what_was_written(memory_limit):
    data = bytes(range(256)) * 20
    with Spool(memory_limit) as spool:
        for start in range(0, len(data), 100):
            spool.write(data[start:start + 100])
        assert spool.size == len(data)
        assert b''.join(spool.chunks()) == data
        assert b''.join(spool.chunks(300)) == data[300:]
        assert spool.head(17) == data[:17]
        assert b''.join(spool.chunks()) == data


def test_spool_small_uses_no_file():
    with Spool(10) as spool:
        spool.write(b'0123456789')
        assert spool.fileno() is None
        spool.write(b'x')
        assert spool.fileno() is not None


def test_spool_file_has_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    with Spool(0) as spool:
        spool.write(b'secret')
        assert os.listdir(tmp_path) == []


def test_spool_reads_in_blocks():
    with Spool(0) as spool:
        spool.write(b'x' * (2 * BLOCK + 1))
        assert [len(chunk) for chunk in spool.chunks()] == [BLOCK, BLOCK, 1]


def test_spool_full_disk_is_an_os_error():
    with Spool(0) as spool:
        spool.write(b'x')
        real = spool._file
        spool._file = open('/dev/full', 'wb', buffering=0)
        real.close()
        with pytest.raises(OSError):
            spool.write(b'y')
