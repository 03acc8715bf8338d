# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared mode without root: --configdir and --vhome-script, the same processes, one account.

What root adds is in tests/root.
"""
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support import wait_for
from support.daemon import until
from support.shared import (MISDEEDS, SharedDaemon, as_account, give, launcher, log_in,
                            make_config, make_passwords, other_account, processes, send)
from support.talk import CERTIFICATE, KEY, Talk
from support.upstream import Upstream

DEADLINE = 2  # seconds that a message may take where a test waits for that


@pytest.fixture
def place(tmp_path, unprivileged):
    """A directory that the account of the daemon can reach."""
    return tmp_path, other_account(tmp_path, unprivileged)


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield server


@pytest.fixture
def users(place, upstream):
    """start(code for ann, ...) -> a daemon whose users are ann and bob."""
    directory, account = place
    started = []

    def start(code='', *arguments, **limits):
        make_config(directory / 'users' / 'ann', upstream, code, account)
        make_config(directory / 'users' / 'bob', upstream, '', account)
        passwords = make_passwords(directory / 'passwords', 'ann', 'bob', 'carl', account=account)
        daemon = SharedDaemon('-a', passwords, '-c', str(directory / 'users'), *arguments,
                              account=account, **limits)
        started.append(daemon)
        return daemon

    yield start
    for daemon in started:
        daemon.__exit__()


def test_message_is_sent_by_a_process_of_the_session(users, upstream):
    daemon = users('import os\nADDED_HEADERS_CLIENT = {"X-Process": str(os.getpid())}')
    with daemon.session('ann') as talk:
        network, child = processes(daemon.process.pid)
        for _ in range(2):
            assert send(talk).startswith('250')
        for message in upstream.messages:
            assert b'X-Process: %d\r\n' % child in message.data
        assert talk.ask('QUIT').startswith('221')
    until(lambda: processes(daemon.process.pid) == [network])


def test_large_message_is_sent(users, upstream):
    daemon = users()
    with daemon.session('ann') as talk:
        assert send(talk, '\r\n'.join(['x' * 70] * 20000)).startswith('250')
    assert upstream.messages[0].data.count(b'x' * 70) == 20000


def test_mechanisms_are_those_of_the_password_file(users):
    daemon = users()
    with daemon.connect() as talk:
        talk.reply()
        assert 'AUTH SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN' in talk.ask('EHLO x')


def test_wrong_password_is_refused_and_may_be_corrected(users):
    daemon = users()
    with daemon.connect() as talk:
        talk.reply()
        assert log_in(talk, 'ann', 'wrong').startswith('535 5.7.8')
        assert log_in(talk, 'ann', 'secret').startswith('235')


def test_password_file_that_changes_is_read_again_and_a_bad_one_is_not(users, place):
    daemon = users()
    path = place[0] / 'passwords'
    for text, password, words in (('ann:other\n', 'other', ''),
                                  ('nonsense', 'other', 'passwords:1: '),
                                  ('ann:third\n', 'third', '')):
        path.write_text(text)
        with daemon.session('ann', password):
            pass
        assert words in daemon.text


@pytest.mark.parametrize('name', MISDEEDS)
def test_code_that_misbehaves_harms_its_own_session_only(users, upstream, name):
    daemon = users(MISDEEDS[name], submit_seconds=DEADLINE)
    network = processes(daemon.process.pid)[0]
    with daemon.session('bob') as other, daemon.session('ann') as talk:
        assert send(talk).startswith('451')
        assert send(other).startswith('250')
    daemon.wait_for('event=message', 2)
    assert 'user=ann' in daemon.events('message')[0]
    assert 'reply="451' in daemon.events('message')[0]
    until(lambda: processes(daemon.process.pid) == [network], 'processes are left')
    assert len(upstream.messages) == 1 + (name == 'close')  # which was sent when the channel broke
    if name in ('loop', 'sleep', 'deaf', 'fork'):
        until(lambda: not leftover(), 'what it started is left')


def leftover():
    """Processes of a launcher whose parent is gone."""
    found = []
    for process in processes(1):
        try:
            command = Path('/proc/%d/cmdline' % process).read_bytes()
        except OSError:
            continue
        if b'submit_seconds=%d' % DEADLINE in command:
            found.append(process)
    return found


def test_session_whose_process_has_failed_can_log_in_again(users):
    daemon = users('import os\nos._exit(0)')
    with daemon.session('ann') as talk:
        assert send(talk).startswith('451')
        assert talk.ask('MAIL FROM:<a@example.com>').startswith('250')
        assert talk.ask('RCPT TO:<b@example.net>').startswith('250')
        assert talk.ask('DATA').startswith('354')
        assert talk.ask('x\r\n.').startswith('421')
    with daemon.session('ann'):
        pass


def test_network_process_that_dies_is_replaced(users):
    daemon = users()
    with daemon.session('ann'):
        network, child = processes(daemon.process.pid)
        os.kill(network, signal.SIGKILL)
        daemon.wait_for('event=worker-died')
    daemon.wait_for('event=started', 2)
    with daemon.session('ann') as talk:
        assert child not in processes(daemon.process.pid)
        assert send(talk).startswith('250')


def test_monitor_that_dies_takes_all_with_it(users):
    daemon = users()
    daemon.status = None
    with daemon.session('ann') as talk:
        found = processes(daemon.process.pid)
        daemon.process.kill()
        assert talk.line().startswith('421')
        until(lambda: not any(os.path.exists('/proc/%d/fd/0' % one) for one in found))


def test_stop_lets_a_message_end(users, upstream):
    daemon = users()
    with daemon.session('ann') as talk:
        assert talk.ask('MAIL FROM:<a@example.com>').startswith('250')
        assert talk.ask('RCPT TO:<b@example.net>').startswith('250')
        assert talk.ask('DATA').startswith('354')
        daemon.signal(signal.SIGTERM)
        daemon.wait_for('event=stopping')
        assert talk.ask('Subject: x\r\n\r\nx\r\n.').startswith('250')
        assert talk.reply().startswith('421')
    assert daemon.process.wait(10) == 0


def test_sessions_beyond_the_limit_of_processes_fail_temporarily(users, monkeypatch):
    daemon = users('', '-C', '2')
    with daemon.session('ann') as talk, daemon.session('bob'):
        assert talk.ask('NOOP').startswith('250')
        assert len(processes(daemon.process.pid)) == 3


@pytest.fixture
def certificate(place):
    """(certificate, key): copies that belong to the account of the daemon."""
    directory, account = place
    paths = directory / 'cert.pem', directory / 'key.pem'
    for source, target in zip((CERTIFICATE, KEY), paths):
        target.write_bytes(source.read_bytes())
        target.chmod(0o600)
        give(target, account)
    return paths


def tls_session(daemon):
    """A connection on which TLS has begun."""
    talk = daemon.connect()
    talk.reply()
    talk.ask('EHLO x')
    assert talk.ask('STARTTLS').startswith('220')
    talk.start_tls()
    return talk


def test_certificate_is_read_again(users, certificate):
    path, key = certificate
    daemon = users('', '--tls', 'on', '--ssl-cert', str(path), '--ssl-key', str(key))
    with tls_session(daemon) as talk:
        assert 'AUTH' in talk.ask('EHLO x')
        key.write_text('broken')
        daemon.signal(signal.SIGHUP)
        daemon.wait_for('event=reload-refused')
        with tls_session(daemon):
            pass
        key.write_bytes(KEY.read_bytes())
        daemon.signal(signal.SIGHUP)
        daemon.wait_for('event=reloaded', 2)
        with tls_session(daemon):
            pass
        assert talk.ask('NOOP').startswith('250')
    assert len(daemon.events('reload-refused')) == 1


def test_log_file_is_opened_again(users, place):
    directory, account = place
    make_passwords(directory / 'passwords', 'ann', account=account)
    (directory / 'users').mkdir()
    (directory / 'log').mkdir()
    give(directory / 'log', account)
    log, old = directory / 'log' / 'now', directory / 'log' / 'old'
    command = launcher({}, '-f', '-L', '-p127.0.0.1:0', '-a', str(directory / 'passwords'),
                       '-c', str(directory / 'users'), '--log-file', str(log))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, **as_account(account)) as process:
        wait_for(lambda: log.exists() and 'event=started' in log.read_text())
        port = int(log.read_text().partition('Listening on 127.0.0.1:')[2].partition('\n')[0])
        log.rename(old)
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: log.exists() and 'event=reloaded' in log.read_text())
        with Talk(socket.create_connection(('127.0.0.1', port), 10)) as talk:
            talk.reply()
            assert log_in(talk, 'ann', 'wrong').startswith('535')
        process.terminate()
        assert process.wait(10) == 0
    assert 'event=login-failed' in log.read_text()
    assert 'event=stopped' in log.read_text()
    assert 'event=login-failed' not in old.read_text()


def notify_socket(directory, account):
    """A socket that plays a service manager."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.settimeout(10)
    path = str(directory / 'notify')
    manager.bind(path)
    os.chmod(path, 0o777)
    return manager, path


def test_service_manager_is_told(place, upstream):
    directory, account = place
    make_config(directory / 'users' / 'ann', upstream, '', account)
    give(directory / 'users', account)
    passwords = make_passwords(directory / 'passwords', 'ann', account=account)
    manager, path = notify_socket(directory, account)
    with manager, SharedDaemon('-a', passwords, '-c', str(directory / 'users'), account=account,
                               environ={'NOTIFY_SOCKET': path,
                                        'WATCHDOG_USEC': '200000'}) as daemon:
        def told():
            """What comes next but signs of life."""
            while True:
                text = manager.recv(100).decode()
                if text != 'WATCHDOG=1':
                    return text

        assert told() == 'READY=1\nMAINPID=%d' % daemon.process.pid
        while manager.recv(100) != b'WATCHDOG=1':
            pass
        daemon.signal(signal.SIGHUP)
        assert told().startswith('RELOADING=1\nMONOTONIC_USEC=')
        assert told().startswith('READY=1')
        daemon.signal(signal.SIGTERM)
        assert told() == 'STOPPING=1'


def one_session(command, account, dialog, **keywords):
    """What -1 over a socket says to a dialog, and its exit status."""
    ours, theirs = socket.socketpair()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE,
                          **as_account(account), **keywords) as process:
        theirs.close()
        with Talk(ours) as talk:
            replies = [talk.reply()] + [talk.ask(line) for line in dialog]
            assert talk.at_end()
        process.wait(10)
        return replies, process.returncode, process.stderr.read().decode()


def test_one_session_is_served_by_the_same_processes(place, upstream):
    directory, account = place
    make_config(directory / 'users' / 'ann', upstream, '', account)
    passwords = make_passwords(directory / 'passwords', 'ann', account=account)
    give(directory / 'users', account)
    command = launcher({}, '-1', '-L', '-a', passwords, '-c', str(directory / 'users'))
    replies, status, log = one_session(
        command, account, ['EHLO x', 'AUTH PLAIN AGFubgBzZWNyZXQ=', 'MAIL FROM:<a@example.com>',
                           'RCPT TO:<b@example.net>', 'DATA', 'Subject: x\r\n\r\nx\r\n.', 'QUIT'],
        env=dict(os.environ, TCPREMOTEIP='192.0.2.7'))
    assert [line[:3] for line in replies] == '220 250 235 250 250 354 250 221'.split()
    assert status == 0, log
    assert 'client=192.0.2.7' in log
    assert len(upstream.messages) == 1


@pytest.fixture
def virtual(place, upstream):
    """start(script's body) -> a daemon with virtual users."""
    directory, account = place
    started = []

    def start(body, **limits):
        make_config(directory / 'homes/example.com/ann/.tmda', upstream,
                    'import os\nADDED_HEADERS_CLIENT = {"X-Home": os.path.expanduser("~"),'
                    ' "X-Environ": " ".join(map(os.environ.get, ("HOME", "LOGIN", "USER")))}',
                    account)
        script = directory / 'vhome'
        script.write_text('#!/bin/sh\n%s\n' % body)
        script.chmod(0o755)
        passwords = make_passwords(directory / 'passwords', 'ann@example.com', 'ann',
                                   account=account)
        started.append(SharedDaemon('-a', passwords, '-S', str(script), account=account, **limits))
        return started[-1]

    yield start
    for daemon in started:
        daemon.__exit__()


def test_virtual_user_has_the_home_that_the_script_prints(virtual, upstream, place):
    home = str(place[0] / 'homes/example.com/ann')
    daemon = virtual('echo %s/homes/$2/$1' % place[0])
    with daemon.session('Ann@Example.com') as talk:
        assert send(talk).startswith('250')
    assert b'X-Home: %s\r\n' % home.encode() in upstream.messages[0].data
    assert b'X-Environ: %s ann@example.com ann\r\n' % home.encode() in upstream.messages[0].data


@pytest.mark.parametrize('body, limits', [('exit 1', {}), ('sleep 600', {'script_seconds': 1})])
def test_virtual_user_without_a_home_fails_temporarily(virtual, body, limits):
    daemon = virtual(body, **limits)
    with daemon.connect() as talk:
        talk.reply()
        assert log_in(talk, 'ann@example.com', 'secret').startswith('454')
        assert log_in(talk, 'ann@example.com', 'secret').startswith('454')
    daemon.wait_for('event=login-unsure', 2)


def test_start_with_a_bad_password_file_says_so(place):
    directory, account = place
    (directory / 'passwords').write_text('ann:secret\n')
    (directory / 'passwords').chmod(0o644)
    give(directory / 'passwords', account)
    run = subprocess.run(launcher({}, '-f', '-p127.0.0.1:0', '-c', str(directory), '-a',
                                  str(directory / 'passwords')), stderr=subprocess.PIPE,
                         stdin=subprocess.DEVNULL, timeout=20, check=False, **as_account(account))
    assert run.returncode == 78
    assert run.stderr.decode().splitlines() == [
        'tmda-ofmipd: %s: mode is 644, must be 600 or 400: chmod 600 %s'
        % ((directory / 'passwords',) * 2)]


def test_detached_start_says_by_its_status_that_it_runs(place):
    directory, account = place
    passwords = make_passwords(directory / 'passwords', 'ann', account=account)
    (directory / 'run').mkdir()
    give(directory / 'run', account)
    pid_file, log = directory / 'run' / 'pid', directory / 'run' / 'log'
    run = subprocess.run(launcher({}, '-b', '-L', '-p127.0.0.1:0', '-c', str(directory), '-a',
                                  passwords, '--pid-file', str(pid_file), '--log-file', str(log)),
                         stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=20, check=False,
                         **as_account(account))
    assert (run.returncode, run.stderr) == (0, b'')
    process = int(pid_file.read_text())
    network, = processes(process)
    for one in (process, network):
        assert os.readlink('/proc/%d/fd/2' % one) == '/dev/null'
    os.kill(process, signal.SIGTERM)
    wait_for(lambda: 'event=stopped' in log.read_text() and not pid_file.exists())


def test_interpreter_can_be_reached(place):
    """Not ours: says why all others fail where the interpreter is root's own."""
    run = subprocess.run([sys.executable, '-c', 'import encodings.idna'], check=False,
                         **as_account(place[1]))
    assert run.returncode == 0
