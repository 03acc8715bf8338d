# SPDX-License-Identifier: GPL-2.0-or-later
import os
import socket
import ssl
import threading
from time import monotonic

import pytest
from support.talk import PATIENCE, Talk, client_context, server_context

from TMDA.ofmipd.wire import (Disconnected, Interrupted, LineTooLong, Shutdown, TimedOut,
                              TlsFailed, Wire)


class CountingStream:
    """A scripted stream: blocks to receive; remembers each send."""

    def __init__(self, sock, *blocks):
        self.input = self.output = sock.fileno()
        self.blocks = list(blocks)
        self.sent = []

    def receive(self, size):
        return self.blocks.pop(0) if self.blocks else b''

    def send(self, data):
        self.sent.append(data)
        return len(data)

    def finish_output(self):
        pass

    def close(self):
        pass


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(PATIENCE)
        yield ours, theirs


@pytest.fixture
def wire(ends):
    wire = Wire.over_socket(ends[1])
    wire.deadline = monotonic() + PATIENCE
    return wire


@pytest.fixture
def readable():
    """A socket that always polls as readable."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.send(b'x')
        yield theirs


def scripted(readable, *blocks):
    stream = CountingStream(readable, *blocks)
    wire = Wire(stream)
    wire.deadline = monotonic() + PATIENCE
    return wire, stream


def test_read_line_from_pieces(readable):
    wire, _stream = scripted(readable, b'NO', b'OP\r', b'\nQUIT\r\n')
    assert wire.read_line(100) == b'NOOP\r\n'
    assert wire.read_line(100) == b'QUIT\r\n'
    assert wire.buffered == b''


def test_read_line_at_the_limit(readable):
    wire, _stream = scripted(readable, b'12345678\r\n')
    assert wire.read_line(10) == b'12345678\r\n'


@pytest.mark.parametrize('blocks', [
    (b'123456789\r\nNOOP\r\n',),
    (b'12345', b'678901', b'2\r', b'\nNO', b'OP\r\n'),
    (b'x' * 100, b'y' * 100, b'\nNOOP\r\n'),
])
def test_line_too_long_is_skipped_to_its_end(readable, blocks):
    wire, _stream = scripted(readable, *blocks)
    with pytest.raises(LineTooLong):
        wire.read_line(10)
    assert wire.read_line(10) == b'NOOP\r\n'


def test_line_too_long_is_not_kept_in_memory(readable):
    wire, _stream = scripted(readable, *[b'x' * 8192] * 1000)
    with pytest.raises(Disconnected):
        wire.read_line(10)
    assert len(wire.buffered) <= 8192


def test_replies_to_pipelined_commands_share_one_write(readable):
    wire, stream = scripted(readable, b'A\r\nB\r\nC\r\n', b'D\r\n')
    for _ in range(3):
        wire.write(b'ok ' + wire.read_line(100))
    assert stream.sent == []
    wire.read_line(100)
    assert stream.sent == [b'ok A\r\nok B\r\nok C\r\n']


def test_replies_are_sent_before_waiting_for_the_rest_of_a_line(readable):
    wire, stream = scripted(readable, b'A\r\nB', b'\r\n')
    wire.write(b'ok ' + wire.read_line(100))
    wire.read_line(100)
    assert stream.sent == [b'ok A\r\n']


def test_output_is_bounded(readable):
    wire, stream = scripted(readable)
    for _ in range(100):
        wire.write(b'x' * 1000)
    assert len(stream.sent) >= 5


def test_read_some_and_push_back(readable):
    wire, _stream = scripted(readable, b'one\r\ntwo', b'three')
    wire.read_line(100)
    wire.push_back(b'zero')
    assert wire.read_some() == b'zerotwo'
    assert wire.read_some() == b'three'
    with pytest.raises(Disconnected):
        wire.read_some()


def test_drop_input(readable):
    wire, _stream = scripted(readable, b'STARTTLS\r\nMAIL FROM:<x@y>\r\n', b'NOOP\r\n')
    wire.read_line(100)
    wire.drop_input()
    assert wire.read_line(100) == b'NOOP\r\n'


def test_end_of_input_in_a_line_is_no_line(ends, wire):
    ends[0].sendall(b'QUIT')
    ends[0].shutdown(socket.SHUT_WR)
    with pytest.raises(Disconnected):
        wire.read_line(100)


def test_reset_is_disconnected():
    with socket.create_server(('127.0.0.1', 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _address = listener.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
        client.close()
        wire = Wire.over_socket(accepted)
        with pytest.raises(Disconnected):
            wire.read_line(100)
        wire.finish()


def test_drip_does_not_move_the_deadline(ends, wire):
    wire.deadline = monotonic() + 0.3
    done = threading.Event()

    def drip():
        while not done.wait(0.02):
            ends[0].send(b'x')

    thread = threading.Thread(target=drip)
    thread.start()
    started = monotonic()
    try:
        with pytest.raises(TimedOut):
            wire.read_line(10000)
    finally:
        done.set()
        thread.join()
    assert 0.25 < monotonic() - started < 3


def test_reader_that_does_not_read_times_out(ends, wire):
    wire.deadline = monotonic() + 0.2
    with pytest.raises(TimedOut):
        for _ in range(1000):
            wire.write(b'x' * 65536)


@pytest.mark.parametrize('begin_first', [True, False])
def test_shutdown_wakes_a_wire_that_waits(ends, begin_first):
    shutdown = Shutdown()
    wire = Wire.over_socket(ends[1], shutdown)
    starter = threading.Timer(0 if begin_first else 0.1, shutdown.begin)
    starter.start()
    if begin_first:
        starter.join()
    with pytest.raises(Interrupted):
        wire.read_line(100)
    starter.join()
    shutdown.close()


def test_shutdown_stops_before_the_next_buffered_command(ends):
    shutdown = Shutdown()
    wire = Wire.over_socket(ends[1], shutdown)
    ends[0].sendall(b'A\r\nB\r\n')
    wire.read_line(100)
    shutdown.begin()
    shutdown.begin()
    with pytest.raises(Interrupted):
        wire.read_line(100)
    shutdown.close()


def test_shutdown_lets_a_message_be_finished(ends):
    shutdown = Shutdown()
    wire = Wire.over_socket(ends[1], shutdown)
    wire.interruptible = False
    shutdown.begin()
    ends[0].sendall(b'text')
    assert wire.read_some() == b'text'
    shutdown.close()


def test_wait_ends_with_shutdown(ends):
    shutdown = Shutdown()
    wire = Wire.over_socket(ends[1], shutdown)
    wire.wait(0.01)
    shutdown.begin()
    with pytest.raises(Interrupted):
        wire.wait(PATIENCE)
    shutdown.close()


def test_pipes_are_polled_and_keep_their_blocking_mode():
    their_input, our_output = os.pipe()
    our_input, their_output = os.pipe()
    wire = Wire.over_pipes(their_input, their_output)
    wire.deadline = monotonic() + 0.2
    assert os.get_blocking(their_input) and os.get_blocking(their_output)
    os.write(our_output, b'EHLO x\r\n')
    assert wire.read_line(100) == b'EHLO x\r\n'
    with pytest.raises(TimedOut):
        wire.read_line(100)
    wire.deadline = monotonic() + 0.2
    with pytest.raises(TimedOut):  # nobody reads: a blocking write would hang
        for _ in range(100):
            wire.write(b'x' * 65536)
    os.close(our_output)
    os.close(our_input)
    wire.close()
    wire.finish()


def test_finish_sends_what_was_gathered_and_may_be_called_twice(ends, wire):
    wire.write(b'221 Bye\r\n')
    wire.finish()
    wire.finish()
    assert Talk(ends[0]).line() == '221 Bye'


def test_finish_lingers_until_unread_input_is_gone():
    with socket.create_server(('127.0.0.1', 0)) as listener:
        with Talk(socket.create_connection(listener.getsockname())) as talk:
            accepted, _address = listener.accept()
            wire = Wire.over_socket(accepted)
            talk.send(b'x' * 100000)
            wire.write(b'421 Go away\r\n')
            thread = threading.Thread(target=wire.finish, args=(True,))
            thread.start()
            assert talk.line() == '421 Go away'
            assert talk.at_end()
            thread.join(0.2)
            assert thread.is_alive()  # until the client closes
            talk.close()
            thread.join(PATIENCE)
            assert not thread.is_alive()


def start_tls_client(talk, errors):
    try:
        talk.start_tls()
    except OSError as error:
        errors.append(error)


def test_start_tls_carries_lines_both_ways(ends, wire):
    talk = Talk(ends[0])
    wire.write(b'220 Go\r\n')
    assert wire.tls is None
    errors = []
    client = threading.Thread(target=lambda: (talk.line(), start_tls_client(talk, errors)))
    client.start()
    wire.start_tls(server_context())
    client.join()
    assert not errors
    assert wire.tls.version == 'TLSv1.3' and wire.tls.cipher.startswith('TLS_')
    talk.send(b'A\r\nB\r\n')
    assert [wire.read_line(100), wire.read_line(100)] == [b'A\r\n', b'B\r\n']
    big = b'y' * 5000 + b'\r\n'
    writer = threading.Thread(target=talk.send, args=(big * 40,))
    writer.start()
    read = b''
    while len(read) < len(big) * 40:
        read += wire.read_some()
    assert read == big * 40
    writer.join()
    wire.write(b'250 OK\r\n')
    wire.finish()
    assert talk.line() == '250 OK'
    assert talk.at_end()  # with a closing alert: else ssl would raise
    talk.close()


def test_garbage_instead_of_a_handshake(ends, wire):
    ends[0].sendall(b'EHLO plain\r\n' * 10)
    with pytest.raises(TlsFailed):
        wire.start_tls(server_context())


def test_failed_handshake_tells_the_client_why(ends, wire):
    context = server_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    modern = client_context()
    modern.minimum_version = ssl.TLSVersion.TLSv1_3
    with pytest.raises(ssl.SSLWantReadError):
        modern.wrap_bio(incoming, outgoing, server_hostname='localhost').do_handshake()
    ends[0].sendall(outgoing.read())
    with pytest.raises(TlsFailed):
        wire.start_tls(context)
    assert ends[0].recv(100)[:1] == b'\x15'  # an alert


def test_garbage_after_the_handshake(ends, wire):
    talk = Talk(ends[0])
    client = threading.Thread(target=talk.start_tls)
    client.start()
    wire.start_tls(server_context())
    client.join()
    raw = socket.socket(fileno=os.dup(talk.sock.fileno()))
    with raw:
        raw.sendall(b'QUIT\r\n' * 10)
        with pytest.raises(TlsFailed):
            wire.read_line(100)
    wire.write(b'421 Go away\r\n')
    wire.finish()
    talk.close()


def test_handshake_that_does_not_come_times_out(ends, wire):
    wire.deadline = monotonic() + 0.1
    with pytest.raises(TimedOut):
        wire.start_tls(server_context())


def test_what_is_buffered_begins_the_handshake(ends, wire):
    """As when a PROXY header and the client's first record come in one packet."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = client_context().wrap_bio(incoming, outgoing, server_hostname='localhost')
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    ends[0].sendall(b'HEADER\r\n' + outgoing.read())
    wire.read_line(100)
    assert wire.buffered
    wire.deadline = monotonic() + 0.2
    with pytest.raises(TimedOut):
        wire.start_tls(server_context())
    incoming.write(ends[0].recv(65536))
    hello.do_handshake()
