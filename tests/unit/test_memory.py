# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory of what was delivered of messages that could not be delivered as a whole."""
import os
import threading

import pytest

from TMDA.inject import memory
from TMDA.inject.memory import LINE, SECONDS, Memory, Record

ANN, BOB, CAT = 'ann@example.com', 'bob@example.com', 'cat@example.com'
EVERYBODY = [ANN, BOB, CAT]


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now = 1_700_000_000

    def __call__(self):
        return self.now


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / memory.FILE_NAME)


def record(path, user='user', key=b'key', **options):
    """The record of a message, as a process that has just started has it."""
    return Record(Memory(path, **options), user, key)


def test_memory_nothing_remembered_asks_for_no_key(path):
    assert record(path, key=None).missing(EVERYBODY) == set(EVERYBODY)
    assert not os.path.exists(path)


def test_memory_survives_a_restart(path):
    record(path).add([ANN, CAT])
    assert record(path, key=lambda: b'key').missing(EVERYBODY) == {BOB}


def test_memory_of_other_users_and_messages(path):
    record(path).add([ANN])
    assert record(path, user='other').missing([ANN]) == {ANN}
    assert record(path, key=b'another').missing([ANN]) == {ANN}
    assert record(path, user='userk', key=b'ey').missing([ANN]) == {ANN}


def test_memory_file_holds_no_addresses_and_is_private(path):
    record(path).add([ANN])
    with open(path, 'rb') as file:
        assert b'ann' not in file.read()
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(path).st_size == LINE


def test_memory_forget_last_empties_the_file(path):
    one, two = record(path), record(path, key=b'two')
    one.add([ANN])
    two.add([ANN])
    one.forget()
    assert record(path).missing([ANN]) == {ANN}
    assert record(path, key=b'two').missing([ANN]) == set()
    two.forget()
    assert os.stat(path).st_size == 0
    assert record(path, key=b'two').missing([ANN]) == {ANN}


def test_memory_forget_without_a_file(path):
    record(path).forget()
    assert not os.path.exists(path)


def test_memory_remembers_again_after_forgetting(path):
    one = record(path)
    one.add([ANN])
    one.forget()
    record(path).add([BOB])
    assert record(path).missing(EVERYBODY) == {ANN, CAT}


def test_memory_expires(path):
    clock = Clock()
    record(path, clock=clock).add([ANN])
    clock.now += SECONDS
    assert record(path, clock=clock).missing([ANN]) == set()
    clock.now += 1
    assert record(path, clock=clock).missing([ANN]) == {ANN}


def test_memory_keep_renews_what_was_delivered_before(path):
    clock = Clock()
    record(path, clock=clock).add([ANN])
    clock.now += SECONDS - 10
    again = record(path, clock=clock)
    assert again.missing([ANN, BOB]) == {BOB}
    again.keep()
    clock.now += SECONDS
    assert record(path, clock=clock).missing([ANN, BOB]) == {BOB}


def test_memory_keep_is_on_disk(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, 'fsync', lambda descriptor: synced.append(os.fstat(descriptor)))
    one = record(path)
    one.add([ANN])
    assert not synced
    one.keep()
    assert {status.st_ino for status in synced} == {
        os.stat(path).st_ino, os.stat(os.path.dirname(path)).st_ino}


@pytest.mark.parametrize('torn', [
    b'17', b'1700000000 abc', b'\n\n', b'x y z\n', b'\xff\0\n', b' '])
def test_memory_torn_lines_are_skipped(path, torn):
    record(path, clock=Clock()).add([ANN])
    with open(path, 'ab') as file:
        file.write(torn)
    assert record(path, clock=Clock()).missing([ANN, BOB]) == {BOB}
    record(path, clock=Clock()).add([BOB])
    assert record(path, clock=Clock()).missing(EVERYBODY) == {CAT}


def test_memory_is_bounded_newest_stay(path):
    clock = Clock()
    for number in range(500):
        clock.now += 1
        record(path, key=b'%d' % number, most=20, clock=clock).add([ANN])
        assert os.stat(path).st_size <= 40 * LINE
    assert record(path, key=b'499', most=20, clock=clock).missing([ANN]) == set()
    assert record(path, key=b'480', most=20, clock=clock).missing([ANN]) == set()
    assert record(path, key=b'400', most=20, clock=clock).missing([ANN]) == {ANN}
    assert os.listdir(os.path.dirname(path)) == [memory.FILE_NAME]


def test_memory_left_over_rewrite_is_no_obstacle(path):
    with open(path + '.new', 'wb') as file:
        file.write(b'rubbish')
    for number in range(10):
        record(path, key=b'%d' % number, most=2).add([ANN])
    assert record(path, key=b'9').missing([ANN]) == set()


def test_memory_never_through_a_link(path, tmp_path):
    target = tmp_path / 'target'
    target.write_bytes(b'precious\n')
    os.symlink(target, path)
    with pytest.raises(OSError):
        record(path).add([ANN])
    with pytest.raises(OSError):
        record(path).missing([ANN])
    assert target.read_bytes() == b'precious\n'


def test_memory_no_regular_file(path):
    os.mkfifo(path)
    with pytest.raises(PermissionError):
        record(path).add([ANN])
    assert record(path).missing([ANN]) == {ANN}


def test_memory_directory_in_its_place(path):
    os.mkdir(path)
    with pytest.raises(OSError):
        record(path).add([ANN])


def test_memory_file_of_somebody_else(path, monkeypatch):
    record(path).add([ANN])
    monkeypatch.setattr(os, 'geteuid', lambda: 4711)
    for action in (record(path).missing, record(path).add):
        with pytest.raises(PermissionError):
            action([ANN])


def test_memory_many_threads(path):
    def work(name):
        for number in range(30):
            one = record(path, key=b'%s %d' % (name, number), most=50)
            one.add([ANN])
            assert one.missing([ANN, BOB]) == {BOB}
            one.forget()

    threads = [threading.Thread(target=work, args=(b'%d' % number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.stat(path).st_size == 0


def test_memory_replaced_while_waiting_for_the_lock(path, monkeypatch):
    record(path).add([ANN])
    real, calls = memory.fcntl.flock, []

    def flock(descriptor, how):
        if not calls:
            calls.append(True)
            os.rename(path, path + '.old')
        real(descriptor, how)

    monkeypatch.setattr(memory.fcntl, 'flock', flock)
    record(path).add([BOB])
    assert record(path).missing(EVERYBODY) == {ANN, CAT}
