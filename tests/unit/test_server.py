# SPDX-License-Identifier: GPL-2.0-or-later
"""The threaded server: how many at once, what happens when something is used up, and the end."""
import contextlib
import errno
import os
import socket
import threading
import time
from ipaddress import ip_network

import pytest

from support.fake_backend import FakeBackend, FakeLog, make_service
from support.talk import PATIENCE, Talk, server_context
from TMDA.ofmipd import server as server_module
from TMDA.ofmipd.crew import MOST_IDLE
from TMDA.ofmipd.listeners import Listening
from TMDA.ofmipd.server import Gate, Server


def until(condition):
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.002)


class Serving:
    """A server in this process, with listeners of the given modes; connect() to one."""

    def __init__(self, modes=('',), limit=0, networks=(), **service):
        self.log = FakeLog()
        self.backend = FakeBackend()
        self.sockets = [socket.create_server(('127.0.0.1', 0)) for _ in modes]
        for sock in self.sockets:
            sock.setblocking(False)
        listening = [Listening('', (sock,), mode) for sock, mode in zip(self.sockets, modes)]
        self.server = Server(
            listening, lambda mode: make_service(self.backend, self.log, tls_mode=mode,
                                                 tls_context=server_context, **service),
            limit, networks, self.log)

    def connect(self, number=0) -> Talk:
        return Talk(socket.create_connection(self.sockets[number].getsockname(), PATIENCE))


@pytest.fixture
def serve():
    """Make and start a Serving; it is stopped in the end."""
    with contextlib.ExitStack() as stack:
        def start(*arguments, **keywords):
            serving = Serving(*arguments, **keywords)
            stack.callback(serving.server.stop, 0.1)
            serving.server.start()
            return serving
        yield start
    threading.stack_size(0)


def test_server_greets(serve):
    serving = serve()
    with serving.connect() as talk:
        assert talk.reply() == '220 mail.example.org ESMTP tmda-ofmipd'
        assert serving.server.sessions == 1
        assert talk.ask('QUIT') == '221 Bye'
        assert talk.at_end()
    until(lambda: serving.server.sessions == 0)


def test_server_knows_its_clients(serve):
    serving = serve()
    with serving.connect() as talk:
        talk.reply()
        facts, = serving.log.named('connect')
        assert (facts['client'], facts['port']) == ('127.0.0.1', talk.sock.getsockname()[1])


def test_server_modes_of_listeners(serve):
    serving = serve(('', 'ssl', 'on'))
    with serving.connect(1) as talk:
        talk.start_tls()
        assert talk.reply().startswith('220 ')
    with serving.connect(2) as talk:
        talk.reply()
        assert 'STARTTLS' in talk.ask('EHLO x')
    with serving.connect(0) as talk:
        talk.reply()
        assert 'STARTTLS' not in talk.ask('EHLO x')


def test_server_hung_handshake_stops_nobody(serve):
    serving = serve(('ssl',))
    with serving.connect() as silent, serving.connect() as talk:
        talk.start_tls()
        assert talk.reply().startswith('220 ')
        assert silent.sock.fileno() >= 0


def test_server_limit_lets_the_next_client_wait(serve):
    serving = serve(('', ''), limit=2)
    with serving.connect(0) as first, serving.connect(1) as second:
        assert first.reply() and second.reply()
        with serving.connect(0) as third:
            third.sock.settimeout(0.6)
            with pytest.raises(socket.timeout):
                third.sock.recv(1)
            third.sock.settimeout(PATIENCE)
            first.ask('QUIT')
            assert third.reply().startswith('220 ')
    assert len(serving.log.named('connect')) == 3


def test_server_proxy_header(serve):
    serving = serve(networks=(ip_network('127.0.0.0/8'),))
    with serving.connect() as talk:
        talk.send(b'PROXY TCP4 192.0.2.7 198.51.100.1 4711 587\r\n')
        assert talk.reply().startswith('220 ')
    with serving.connect() as talk:
        talk.send(b'EHLO x\r\n')
        assert talk.at_end()
    assert [facts['client'] for facts in serving.log.named('connect')] == ['192.0.2.7']
    assert [facts['client'] for facts in serving.log.named('proxy-refused')] == ['127.0.0.1']


def test_server_session_that_breaks_harms_only_itself(serve, monkeypatch):
    serving = serve()
    broken = []

    def serve_or_break(wire, client, *rest):
        if not broken:
            broken.append(client)
            raise KeyError('x')
        return original(wire, client, *rest)
    original = server_module.serve
    monkeypatch.setattr(server_module, 'serve', serve_or_break)
    with serving.connect() as talk:
        assert talk.at_end()
    with serving.connect() as talk:
        assert talk.reply().startswith('220 ')
    facts, = serving.log.named('session-failed')
    assert facts['cause'] == "KeyError: 'x'"
    until(lambda: serving.server.sessions == 0)


def test_server_no_thread_to_be_had(serve, monkeypatch):
    serving = serve()

    def refuse(self):
        monkeypatch.undo()
        raise RuntimeError("can't start new thread")
    monkeypatch.setattr(threading.Thread, 'start', refuse)
    with serving.connect() as talk:
        assert talk.at_end()
    with serving.connect() as talk:
        assert talk.reply().startswith('220 ')
    assert serving.log.named('accept-paused') and serving.log.named('accept-resumed')


@pytest.mark.parametrize('number', [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ECONNABORTED])
def test_server_accept_fails_and_recovers(serve, monkeypatch, number):
    serving = serve()
    acceptor = serving.server._acceptors[0]
    calls = []

    class Failing:
        """The listening socket, whose accept() fails twice."""

        def __getattr__(self, name):
            return getattr(serving.sockets[0], name)

        def accept(self):
            calls.append(time.monotonic())
            if len(calls) <= 2:
                raise OSError(number, os.strerror(number))
            return serving.sockets[0].accept()

    monkeypatch.setattr(acceptor, 'socket', Failing())
    with serving.connect() as talk:
        assert talk.reply().startswith('220 ')
    paused = len(serving.log.named('accept-paused'))
    if number == errno.ECONNABORTED:
        assert paused == 0
    else:
        assert paused == len(serving.log.named('accept-resumed')) == 1
        assert calls[2] - calls[0] > server_module.PAUSE_SECONDS  # it does not spin
    assert serving.server.sessions <= 1


def test_server_stop_tells_idle_sessions(serve):
    serving = serve()
    address = serving.sockets[0].getsockname()
    with serving.connect() as talk:
        talk.reply()
        talk.login()
        assert serving.server.stop(PATIENCE) == 0
        assert talk.reply() == '421 4.3.2 mail.example.org shutting down'
        assert talk.at_end()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, PATIENCE)


def test_server_stop_lets_a_message_be_finished(serve):
    serving = serve()
    with serving.connect() as talk:
        talk.reply()
        talk.login()
        talk.ask('MAIL FROM:<a@example.org>')
        talk.ask('RCPT TO:<b@example.org>')
        assert talk.ask('DATA').startswith('354')
        talk.send(b'Subject: x\r\n\r\n')
        left = []
        stopping = threading.Thread(target=lambda: left.append(serving.server.stop(PATIENCE)))
        stopping.start()
        until(lambda: serving.server._shutdown.begun)
        talk.send(b'text\r\n.\r\n')
        assert talk.reply().startswith('250')
        assert talk.reply().startswith('421')
        stopping.join()
    assert left == [0]
    assert len(serving.backend.submitted) == 1


def test_server_stop_does_not_wait_for_ever(serve):
    serving = serve()
    serving.backend.before_submit.clear()
    with serving.connect() as talk:
        talk.reply()
        talk.login()
        talk.ask('MAIL FROM:<a@example.org>')
        talk.ask('RCPT TO:<b@example.org>')
        talk.ask('DATA')
        talk.send(b'text\r\n.\r\n')
        assert serving.server.stop(0.1) == 1
        serving.backend.before_submit.set()


def test_server_leaves_nothing_behind(serve):
    serving = serve()
    threads, descriptors = threading.active_count(), len(os.listdir('/dev/fd'))
    for _ in range(50):
        with serving.connect() as talk:
            talk.reply()
    until(lambda: serving.server.sessions == 0)
    until(lambda: threading.active_count() <= threads + MOST_IDLE)
    assert len(os.listdir('/dev/fd')) == descriptors


def test_gate_counts():
    gate = Gate(2, FakeLog())
    assert gate.enter(0) and gate.enter(0)
    assert not gate.enter(0.01)
    gate.leave()
    assert gate.enter(0)
    assert gate.count == 2
    assert gate.wait_empty(0.01) == 2
    gate.close()


def test_gate_reserve_is_given_up_and_taken_again():
    log = FakeLog()
    before = len(os.listdir('/dev/fd'))
    gate = Gate(0, log)
    assert len(os.listdir('/dev/fd')) == before + server_module.RESERVE
    gate.exhausted(OSError(errno.EMFILE, 'Too many open files'))
    gate.exhausted(OSError(errno.EMFILE, 'Too many open files'))
    assert len(os.listdir('/dev/fd')) == before
    assert gate.enter(0)
    gate.accepted()
    assert len(os.listdir('/dev/fd')) == before + server_module.RESERVE
    assert [name for name, _ in log.events] == ['accept-paused', 'accept-resumed']
    gate.close()


def test_gate_without_reserve_lets_nobody_in(monkeypatch):
    gate = Gate(0, FakeLog())
    gate.close()

    def refuse(*unused):
        raise OSError(errno.EMFILE, 'Too many open files')
    monkeypatch.setattr(os, 'open', refuse)
    assert not gate.enter(0)
    monkeypatch.undo()
    assert gate.enter(0)
    gate.close()
