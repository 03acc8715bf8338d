# SPDX-License-Identifier: GPL-2.0-or-later
"""End of data, line ends, dots and size.

The reference below does octet by octet, and in the words of the RFC, what the
reader does on whole blocks.
"""
import errno
import random
import socket
import threading
from time import monotonic, perf_counter

import pytest

from TMDA.inject.limits import Limits
from TMDA.inject.spool import Spool
from TMDA.ofmipd.datareader import DataReader, read_data
from TMDA.ofmipd.wire import Disconnected, TimedOut, Wire


def read(data, sizes=None):
    """(text, rest), or None when the end was not found; in blocks of these sizes, repeated."""
    with Spool(1 << 22) as spool:
        reader = DataReader(spool, 1 << 22)
        position = turn = 0
        while position < len(data):
            size = sizes[turn % len(sizes)] if sizes else len(data)
            turn += 1
            if reader.feed(data[position:position + size]):
                assert reader.failure is None and reader.size == spool.size
                return b''.join(spool.chunks()), reader.rest + data[position + size:]
            position += size
        return None


def reference(data):
    """The same, one line at a time: a line ends at CRLF."""
    text, position = b'', 0
    while True:
        end = data.find(b'\r\n', position)
        if end < 0:
            return None
        line, position = data[position:end], end + 2
        if line == b'.':
            return text, data[position:]
        if line.startswith(b'.'):
            line = line[1:]
        for stray in (b'\r', b'\n'):
            line = line.replace(stray, b'\0\0CRLF')
        text += line.replace(b'\0\0CRLF', b'\r\n') + b'\r\n'


TEXTS = {  # what follows DATA CRLF -> (text, rest)
    b'.\r\n': (b'', b''),
    b'.\r\nQUIT\r\n': (b'', b'QUIT\r\n'),
    b'a\r\n.\r\n': (b'a\r\n', b''),
    b'a\r\n.\r\nNOOP\r\nQUIT\r\n': (b'a\r\n', b'NOOP\r\nQUIT\r\n'),
    b'\r\n.\r\n': (b'\r\n', b''),
    b'..\r\n.\r\n': (b'.\r\n', b''),
    b'...\r\n.\r\n': (b'..\r\n', b''),
    b'.a\r\n.\r\n': (b'a\r\n', b''),
    b'a\r\n..\r\n..b\r\n.\r\n': (b'a\r\n.\r\n.b\r\n', b''),
    b'a.b\r\n.\r\n': (b'a.b\r\n', b''),
    b'a\0b\xff\xfe\r\n.\r\n': (b'a\0b\xff\xfe\r\n', b''),
    b'a\r\n.\r\nb\r\n.\r\n': (b'a\r\n', b'b\r\n.\r\n'),
    # Bare CR and LF: each becomes CRLF; what they begin keeps its dot.
    b'a\nb\r\n.\r\n': (b'a\r\nb\r\n', b''),
    b'a\rb\r\n.\r\n': (b'a\r\nb\r\n', b''),
    b'a\n\nb\r\n.\r\n': (b'a\r\n\r\nb\r\n', b''),
    b'a\r\r\nb\r\n.\r\n': (b'a\r\n\r\nb\r\n', b''),
    b'a\n\rb\r\n.\r\n': (b'a\r\n\r\nb\r\n', b''),
    b'a\n.\nb\r\n.\r\n': (b'a\r\n.\r\nb\r\n', b''),
    b'a\n..\nb\r\n.\r\n': (b'a\r\n..\r\nb\r\n', b''),
}
NO_ENDS = [  # each between text: content, never an end
    b'\n.\n', b'\n.\r\n', b'\r.\r', b'\r.\r\n', b'\r\n.\n', b'\r\n.\r', b'\r\n.\r\r\n', b'\n.\r',
    b'\r.\n', b'\r\n.\0\r\n', b'\r\n.\n\r\n', b'\r\n\0.\r\n', b'\r\n. \r\n', b'\r\n .\r\n',
    b'\r\n..\r\n', b'\n\n.\r\n', b'\r\n.\n.\r\n', b'\r\n.\r.\r\n', b'\n\r.\r\n', b'\n\r.\n\r',
    b'\r\n\x0b.\r\n', b'\r\n.\x0c\r\n', b'\r\n\xc2\x85.\r\n', b'\xe2\x80\xa8.\r\n', b'\r\n.\t\r\n',
    b'\x85.\x85', b'\r\n.\x1a\r\n', b'\n..\r\n', b'\r..\r\n', b'\r\n.\r\0\n', b'\r\0\n.\r\n',
    b'\r\n\r.\r\n', b'\n.\n.\n', b'\r.\r.\r', b'\r\n.\r\n'[:4], b'.\r\n', b'.\n', b'.\r',
    b'\r\n.\x85\r\n', b'\r\n\xe2\x80\xa9.\r\n', b'\n\0.\r\n', b'\r\n.\\r\\n', b'%0d%0a.%0d%0a',
    b'\r\n.,\r\n', b'\n\n.\n\n',
]


@pytest.mark.parametrize('data, expected', TEXTS.items())
def test_text_and_rest(data, expected):
    assert read(data) == expected
    assert read(data, [1]) == expected


@pytest.mark.parametrize('form', NO_ENDS)
def test_form_is_no_end_of_data(form):
    data = b'a' + form + b'MAIL FROM:<x@y>\r\n.\r\nQUIT\r\n'
    text, rest = read(data)
    assert rest == b'QUIT\r\n'
    assert b'MAIL FROM:<x@y>' in text
    assert (text, rest) == reference(data) == read(data, [1])
    assert_only_crlf(text)


@pytest.mark.parametrize('data', [b'', b'.', b'.\r', b'a', b'a\r\n', b'a\r\n.', b'a\r\n.\r',
                                  b'\n.\n'])
def test_without_an_end_more_is_wanted(data):
    assert read(data, [1]) is None
    assert data == b'' or read(data) is None


def assert_only_crlf(text):
    bare = text.replace(b'\r\n', b'')
    assert b'\r' not in bare and b'\n' not in bare


def test_random_mixes_in_random_pieces():
    chance = random.Random(5321)
    for _ in range(10000):
        data = b''.join(chance.choices([b'\r', b'\n', b'.', b'\r\n', b'\r\n.', b'ab', b'\0'],
                                       k=chance.randint(0, 25))) + b'\r\n.\r\nX'
        sizes = [chance.randint(1, 9) for _ in range(4)]
        text, rest = read(data)
        assert (text, rest) == reference(data) == read(data, sizes)
        assert_only_crlf(text)
        # Stuffed again, as a sender does, it is one message.
        stuffed = (b'\r\n' + text).replace(b'\r\n.', b'\r\n..')[2:] + b'.\r\n'
        assert read(stuffed) == (text, b'')


def test_nothing_but_line_ends_changes():
    chance = random.Random(1)
    values = [value for value in range(256) if value not in b'\r\n']
    text = b'x' + bytes(chance.choices(values, k=300000))
    assert read(text + b'\r\n.\r\n', [65536]) == (text + b'\r\n', b'')


# Size and room

def feed_all(data, limit, spool):
    reader = DataReader(spool, limit)
    assert reader.feed(data)
    return reader


@pytest.mark.parametrize('text, size', [
    (b'12345678\r\n', 10), (b'..2345678\r\n', 10), (b'1234567\n\r\n', 11), (b'', 0)])
def test_size_is_that_of_the_text_as_kept(text, size):
    with Spool(100) as spool:
        assert feed_all(text + b'.\r\n', size, spool).failure is None
        assert spool.size == size


def test_too_big_is_read_to_its_end():
    with Spool(100) as spool:
        reader = DataReader(spool, 10)
        assert not reader.feed(b'x' * 50)
        assert not reader.feed(b'y' * 50)
        assert reader.feed(b'\r\n.\r\nQUIT\r\n')
        assert reader.failure[:2] == (552, '5.3.4')
        assert reader.rest == b'QUIT\r\n'
        assert reader.size == 102


class FullSpool(Spool):
    def write(self, data):
        raise OSError(errno.ENOSPC, 'No space left on device')


def test_disk_full_is_read_to_its_end():
    reader = DataReader(FullSpool(1), 1000)
    assert not reader.feed(b'x' * 50)
    assert reader.feed(b'\r\n.\r\nQUIT\r\n')
    assert reader.failure[:2] == (452, '4.3.1')
    assert 'No space left' in reader.cause
    assert reader.rest == b'QUIT\r\n'


# Over a wire

@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    wire = Wire.over_socket(theirs)
    with ours:
        yield ours, wire
    wire.finish()


def test_octets_behind_the_end_stay_in_the_wire(ends):
    ours, wire = ends
    ours.sendall(b'text\r\n.\r\nNOOP\r\n')
    with Spool(100) as spool:
        assert read_data(wire, spool, Limits()).size == 6
    assert wire.read_line(100) == b'NOOP\r\n'


def test_connection_cut_in_the_message(ends):
    ours, wire = ends
    ours.sendall(b'text\r\n.')
    ours.shutdown(socket.SHUT_WR)
    with Spool(100) as spool, pytest.raises(Disconnected):
        read_data(wire, spool, Limits())


@pytest.mark.parametrize('pause, limits', [
    (0.02, {'command_seconds': 1, 'data_rate': 500}),  # 50 octets/s: too slow on average
    (5, {'command_seconds': 0.2, 'data_rate': 1}),  # fast enough so far, then nothing more
])
def test_slow_sender_is_cut_off(ends, pause, limits):
    ours, wire = ends
    done = threading.Event()

    def drip():
        ours.send(b'x' * 10)
        while not done.wait(pause):
            ours.send(b'x')

    thread = threading.Thread(target=drip)
    thread.start()
    started = monotonic()
    try:
        with Spool(100) as spool, pytest.raises(TimedOut):
            read_data(wire, spool, Limits(**limits))
    finally:
        done.set()
        thread.join()
    assert monotonic() - started < 3


def test_sender_that_is_fast_enough_may_take_longer_than_a_command(ends):
    ours, wire = ends
    done = threading.Event()

    def send():
        for _ in range(40):
            done.wait(0.02)
            ours.send(b'x' * 100)
        ours.send(b'\r\n.\r\n')

    thread = threading.Thread(target=send)
    thread.start()
    with Spool(10000) as spool:
        result = read_data(wire, spool, Limits(command_seconds=0.5, data_rate=500))
    thread.join()
    assert result.size == 4002


def test_a_megabyte_is_read_in_milliseconds():
    """At memory speed, not line by line; also with bare line ends and many dots."""
    for line in (b'x' * 70 + b'\r\n', b'x' * 70 + b'\n', b'..' + b'x' * 70 + b'\r\n'):
        data = line * 15000 + b'\r\n.\r\n'
        started = perf_counter()
        assert read(data, [65536])
        assert perf_counter() - started < 0.25
