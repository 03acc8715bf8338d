# SPDX-License-Identifier: GPL-2.0-or-later
"""Descriptors, disk space, and user code that wants to end the process: the program survives."""
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile

import pytest
from real.postfix import free_port

from support import wait_for
from support.daemon import Daemon, command, needs_account, until
from support.proxy import AUTHOR, Proxy, write_home
from support.talk import PATIENCE, Talk
from support.upstream import Upstream

LARGE = b'x' * 70 + b'\r\n'


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield server


@pytest.fixture
def home(tmp_path, upstream):
    return write_home(tmp_path, upstream.port)


def send(talk, size=1):
    """The reply to a message of about so many octets."""
    for command in ('MAIL FROM:<%s>' % AUTHOR, 'RCPT TO:<b@example.org>', 'DATA'):
        talk.ask(command)
    talk.send(b'From: bobby@example.net\r\n\r\n' + LARGE * (size // len(LARGE) + 1) + b'.\r\n')
    return talk.reply()


# Disk full

@needs_account
def test_disk_full_is_452_and_small_messages_go_through(home, upstream):
    """No file may grow beyond 300,000 octets, which is what a full disk looks like."""
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300000, 300000))
    with Daemon(home, preexec_fn=small_files) as daemon, daemon.connect() as talk:
        talk.reply()
        talk.login()
        assert send(talk, 1000000).startswith('452 4.3.1')
        assert send(talk).startswith('250')
        assert send(talk, 280000).startswith('250')
    assert len(upstream.messages) == 2


@needs_account
def test_log_on_a_full_disk_harms_no_session(home, upstream):
    port = free_port()
    process = subprocess.Popen(
        command('-f', '-L', '-d', '-p127.0.0.1:%d' % port, '--log-file', '/dev/full'),
        stdin=subprocess.DEVNULL, env=dict(os.environ, HOME=str(home)))
    try:
        with Talk(_connected(port)) as talk:
            talk.reply()
            talk.login()
            assert send(talk).startswith('250')
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
    assert len(upstream.messages) == 1


def _connected(port):
    def connect():
        try:
            return socket.create_connection(('127.0.0.1', port), PATIENCE)
        except ConnectionRefusedError:
            return None
    return wait_for(connect)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason='mounting needs root')
def test_disk_really_full_and_empty_again(home, upstream, tmp_path, monkeypatch):
    disk = tmp_path / 'disk'
    disk.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=400k', 'none', str(disk)],
                             check=False, stderr=subprocess.DEVNULL)
    if mounted.returncode:
        pytest.skip('no file system can be mounted here')
    try:
        monkeypatch.setattr(tempfile, 'tempdir', str(disk))
        (disk / 'filler').write_bytes(b'x' * 100000)
        with Proxy(home) as proxy, proxy.connect() as talk:
            talk.login()
            assert send(talk, 390000).startswith('452 4.3.1')
            assert send(talk).startswith('250')
            (disk / 'filler').unlink()
            assert send(talk, 390000).startswith('250')
        assert os.listdir(disk) == []  # what was spooled has no name and is gone
    finally:
        subprocess.run(['umount', str(disk)], check=True)


# Descriptors

@needs_account
def test_message_goes_through_when_descriptors_are_used_up(home, upstream):
    """The reserve is given to the sessions that there are: they can spool, and reach upstream."""
    limit = 60

    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with Daemon(home, preexec_fn=few) as daemon:
        first = daemon.connect()
        first.reply()
        first.login()
        others = [daemon.connect() for _ in range(limit)]
        daemon.wait_for('event=accept-paused')
        spent = _processor_seconds(daemon.process.pid)
        assert send(first, 300000).startswith('250')
        first.sock.settimeout(0.5)
        with pytest.raises(OSError):
            first.sock.recv(1)
        assert _processor_seconds(daemon.process.pid) - spent < 0.4  # it waits, and does not spin
        for talk in [first, *others]:
            talk.close()
        with daemon.connect() as last:
            assert last.reply().startswith('220 ')
    assert len(upstream.messages) == 1


def _processor_seconds(process):
    with open('/proc/%d/stat' % process, encoding='ascii') as file:
        fields = file.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


# A user's code

ENDS = ['import os; os._exit(0)', 'import os; os.kill(os.getpid(), 9)', 'import os; os.abort()']


@needs_account
@pytest.mark.parametrize('code', ENDS)
def test_configuration_that_ends_the_process_is_no_success(home, upstream, code):
    """With --workers the next client is served all the same."""
    with Daemon(home, '--workers=2', '-C', '100') as daemon:
        config = home / '.tmda' / 'config'
        good = config.read_text()
        config.write_text(good + code + '\n')
        with daemon.connect() as talk:
            talk.reply()
            talk.login()
            try:
                answer = send(talk)
            except OSError:
                answer = ''
            assert not answer.startswith('2')
        config.write_text(good)
        daemon.wait_for('event=worker-died')
        with daemon.connect() as talk:
            talk.reply()
            talk.login()
            assert send(talk).startswith('250')
    assert len(upstream.messages) == 1


# SIGTERM, and what is left in the directory for temporary files

@needs_account
def test_nothing_is_left_behind_when_it_is_killed_in_a_message(home, upstream, tmp_path):
    directory = tmp_path / 'temporary'
    directory.mkdir()
    with Daemon(home, environ={'TMPDIR': str(directory)}, status=None) as daemon:
        with daemon.connect() as talk:
            talk.reply()
            talk.login()
            for command in ('MAIL FROM:<%s>' % AUTHOR, 'RCPT TO:<b@example.org>', 'DATA'):
                talk.ask(command)
            talk.send(b'x' * 500000)
            until(lambda: any(link.startswith(str(directory)) for link in _files(daemon)))
            daemon.signal(signal.SIGKILL)
            daemon.process.wait()
        assert os.listdir(directory) == []
    shutil.rmtree(directory)


def _files(daemon):
    """What the daemon's descriptors are; a file without a name as DIRECTORY/#NUMBER (deleted)."""
    folder = '/proc/%d/fd' % daemon.process.pid
    found = []
    for name in os.listdir(folder):
        try:
            found.append(os.readlink(os.path.join(folder, name)))
        except FileNotFoundError:
            pass
    return found
