# SPDX-License-Identifier: GPL-2.0-or-later
"""The monitor with other duties than ours: what it does for a network process and what not.

The network process of a test is a function that speaks raw requests; what it
returns is written to a pipe that the test reads.
"""
import os
import signal
import socket
import time

import pytest

from support import wait_for
from TMDA.ofmipd import monitor
from TMDA.ofmipd.monitor import END, FULL, OPEN, READY, REQUEST


class Events:
    """A log whose events are written to a pipe."""

    def __init__(self, descriptor):
        self._descriptor = descriptor

    def event(self, name, **facts):
        os.write(self._descriptor, ('event %s\n' % name).encode())


class Duties:
    """network: the script of the network process; session: that of a session's process."""

    def __init__(self, descriptor, network, session, once=True):
        self.log = Events(descriptor)
        self.once = once
        self.session = session
        self._descriptor = descriptor
        self._network = network

    def say(self, text):
        os.write(self._descriptor, (text + '\n').encode())

    def network(self, control, news, lifeline):
        os.setsid()
        self.say('network %s' % (self._network(Far(control, news[0], lifeline)),))
        return 0

    def load(self, news):
        news.sendall(b'loaded.')

    def ready(self):
        self.say('ready')

    def reload(self):
        self.say('reload')

    def stopping(self):
        pass

    def refresh(self):
        pass

    def beat(self):
        return None


class Far:
    """The network process's side."""

    def __init__(self, control, news, lifeline):
        self.control, self.news, self.lifeline = control, news, lifeline
        control.settimeout(10)

    def ask(self, action, number):
        self.control.sendall(REQUEST.pack(action, number))

    def answer(self):
        """(action, number, socket or None)."""
        octets, descriptors, _, _ = socket.recv_fds(self.control, REQUEST.size, 4)
        assert len(octets) == REQUEST.size and len(descriptors) <= 1
        channel = socket.socket(fileno=descriptors[0]) if descriptors else None
        if channel:
            channel.settimeout(10)
        return REQUEST.unpack(octets) + (channel,)

    def open(self, number):
        self.ask(OPEN, number)
        return self.answer()


class Run:
    """A monitor in a process of its own.  `read()` gives what its processes have said so far."""

    def __init__(self, network, session=None, limit=10, seconds=10, once=True):
        reader, writer = os.pipe()
        self.process = os.fork()
        if not self.process:
            status = 99
            try:
                os.close(reader)
                os.setsid()
                duties = Duties(writer, network, session or echo, once)
                status = monitor.Monitor(duties, limit, seconds).run()
            finally:
                os._exit(status)
        os.close(writer)
        os.set_blocking(reader, False)
        self._reader = reader
        self._text = ''
        self._status = None

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self._status is None:
            os.killpg(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
        os.close(self._reader)

    def read(self):
        try:
            self._text += os.read(self._reader, 65536).decode()
        except BlockingIOError:
            pass
        return self._text

    def wait_for(self, words, times=1):
        wait_for(lambda: self.read().count(words) >= times)

    def status(self):
        """The exit status, once the monitor has ended."""
        def ended():
            process, status = os.waitpid(self.process, os.WNOHANG)
            return process and [os.waitstatus_to_exitcode(status)]

        self._status = wait_for(ended)[0]
        return self._status

    def signal(self, number):
        os.kill(self.process, number)


def echo(channel):
    """A session's process that sends back what it gets."""
    os.setsid()
    while True:
        data = channel.recv(100)
        if not data:
            return 0
        channel.sendall(data)


def hang(channel):
    """A session's process that does not end, nor what it has started."""
    os.setsid()
    child = os.fork()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if child:
        channel.sendall(b'%d %d' % (os.getpid(), child))
    while True:
        time.sleep(600)


def gone(process):
    """Whether there is no such process, or only what is left of it."""
    try:
        with open('/proc/%d/stat' % process) as file:
            return file.read().rpartition(')')[2].split()[0] in 'ZX'
    except FileNotFoundError:
        return True


def test_channel_leads_to_a_process_of_its_own():
    def network(far):
        answers = [far.open(number) for number in (1, 2)]
        for action, number, channel in answers:
            channel.sendall(b'%d' % number)
        return [(action, number, channel.recv(10)) for action, number, channel in answers]

    with Run(network) as run:
        assert run.status() == 0
        assert run.read() == "network [(b'o', 1, b'1'), (b'o', 2, b'2')]\n"


def test_sessions_beyond_the_limit_are_refused_until_one_ends():
    def network(far):
        first, second = far.open(1), far.open(2)
        assert second[0] == FULL and second[2] is None
        first[2].close()
        far.ask(END, 1)
        for number in range(3, 10000):
            if far.open(number)[0] == OPEN:
                return 'again'

    with Run(network, limit=1) as run:
        assert run.status() == 0
        assert run.read() == 'network again\n'


def test_session_that_does_not_end_is_killed_with_what_it_started(monkeypatch):
    monkeypatch.setattr(monitor, 'GRACE_SECONDS', 0.1)
    monkeypatch.setattr(monitor, 'LOOK_SECONDS', 0.05)

    def network(far):
        channel = far.open(1)[2]
        processes = [int(word) for word in channel.recv(100).split()]
        channel.close()
        far.ask(END, 1)
        wait_for(lambda: all(map(gone, processes)))
        return 'gone'

    with Run(network, hang) as run:
        assert run.status() == 0
        assert sorted(run.read().split('\n')) == ['', 'event session-failed', 'network gone']


def test_session_that_fails_is_logged():
    def network(far):
        return far.open(1)[2].recv(1)

    with Run(network, lambda channel: os._exit(3)) as run:
        assert run.status() == 0
        assert 'event session-failed\n' in run.read()
        assert "network b''\n" in run.read()


def test_session_that_raises_is_logged():
    def session(channel):
        raise ValueError('x')

    with Run(lambda far: far.open(1)[2].recv(1), session) as run:
        assert run.status() == 0
        assert 'event worker-failed\n' in run.read()


def test_session_has_none_of_the_monitors_descriptors():
    def network(far):
        channels = [far.open(number)[2] for number in (1, 2)]
        os.kill(os.getppid(), signal.SIGKILL)
        # Were it open in the session's processes, it would stay so.
        return socket.socket(fileno=far.lifeline).recv(1), len(channels)

    with Run(network) as run:
        run.wait_for("network (b'', 2)\n")


@pytest.mark.parametrize('octets', [
    REQUEST.pack(b'x', 1),
    REQUEST.pack(b'\0', 0),
    b'GET / HTTP/1.0\r\n\r\n',
    REQUEST.pack(OPEN, 1) * 2,  # the same number twice
])
def test_network_process_that_asks_for_something_else_is_killed(octets):
    def network(far):
        far.ask(READY, 0)
        far.control.sendall(octets)
        time.sleep(600)

    with Run(network) as run:
        assert run.status() == signal.SIGKILL
        assert 'network' not in run.read()


def test_network_process_that_closes_its_socket_is_killed():
    def network(far):
        far.control.close()
        time.sleep(600)

    with Run(network) as run:
        assert run.status() == signal.SIGKILL


def test_network_process_that_takes_no_answers_is_killed():
    def network(far):
        while True:
            far.ask(OPEN, 1)
            far.ask(END, 1)

    with Run(network, limit=0) as run:
        assert run.status() == signal.SIGKILL


def test_requests_in_pieces_are_put_together():
    def network(far):
        for octet in REQUEST.pack(OPEN, 7):
            far.control.sendall(bytes([octet]))
            time.sleep(0.001)
        return far.answer()[:2]

    with Run(network) as run:
        assert run.status() == 0
        assert run.read() == "network (b'o', 7)\n"


def test_network_process_is_replaced_and_its_sessions_end(monkeypatch, tmp_path):
    monkeypatch.setattr(monitor, 'RESTART_SECONDS', 0.05)
    monkeypatch.setattr(monitor, 'GRACE_SECONDS', 0.05)
    monkeypatch.setattr(monitor, 'LOOK_SECONDS', 0.02)
    mark = tmp_path / 'mark'

    def network(far):
        far.ask(READY, 0)
        if not mark.exists():
            mark.write_bytes(far.open(1)[2].recv(100))
            os.kill(os.getpid(), signal.SIGKILL)
        wait_for(lambda: all(gone(int(word)) for word in mark.read_text().split()))
        answer = far.open(1)[0]
        far.control.recv(1)  # until it is ended
        return answer

    with Run(network, hang, once=False) as run:
        run.wait_for('event worker-died')
        wait_for(lambda: mark.exists())
        run.wait_for('event session-failed')
        run.signal(signal.SIGTERM)
        assert run.status() == 0
        assert run.read().count('ready') == 1


def test_network_process_that_never_served_is_the_end():
    with Run(lambda far: os._exit(78), once=False) as run:
        assert run.status() == 78


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signal_to_end_ends_all(number):
    def network(far):
        far.open(1)
        far.ask(READY, 0)
        far.control.recv(1)

    with Run(network, once=False) as run:
        run.wait_for('ready')
        run.signal(number)
        assert run.status() == 0


def test_network_process_that_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(monitor, 'LOOK_SECONDS', 0.05)

    def network(far):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        far.ask(READY, 0)
        time.sleep(600)

    with Run(network, seconds=0.1) as run:
        run.wait_for('ready')
        run.signal(signal.SIGTERM)
        assert run.status() == 0


def test_reload_brings_news_and_then_the_signal():
    def network(far):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
        far.ask(READY, 0)
        signal.sigwait([signal.SIGHUP])
        return far.news.recv(100)

    with Run(network) as run:
        run.wait_for('ready')
        run.signal(signal.SIGHUP)
        assert run.status() == 0
        assert run.read() == "ready\nreload\nnetwork b'loaded.'\n"


def test_counters_signal_is_passed_on():
    def network(far):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        far.ask(READY, 0)
        return signal.sigwait([signal.SIGUSR1])

    with Run(network) as run:
        run.wait_for('ready')
        run.signal(signal.SIGUSR1)
        assert run.status() == 0


def test_lifeline_closes_when_the_monitor_dies():
    def network(far):
        far.ask(READY, 0)
        return 'end %r' % socket.socket(fileno=far.lifeline).recv(1)

    with Run(network) as run:
        run.wait_for('ready')
        run.signal(signal.SIGKILL)
        run.wait_for("network end b''")
