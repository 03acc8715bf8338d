# SPDX-License-Identifier: GPL-2.0-or-later
"""The program from the command line to the exit status (mistakes: tests/badconfig)."""
import email.utils
import fcntl
import os
import platform
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time

import pytest

from support.daemon import Daemon, command, make_home, needs_account, signal_process, until
from support.talk import CERTIFICATE, KEY, PATIENCE, Talk
from TMDA import Version
from TMDA.ofmipd.main import main

AUTH = 'AUTH PLAIN AGJvYmJ5AEZvb0Jhcg=='  # bobby, FooBar


@pytest.fixture
def home(tmp_path):
    return make_home(tmp_path)


def run(*arguments, **keywords):
    """Run the program to its end; (status, stdout, stderr)."""
    done = subprocess.run(command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=PATIENCE * 3, check=False, **keywords)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def environment(home, **more):
    return dict(os.environ, HOME=str(home), **more)


@pytest.mark.parametrize('flag', ['-h', '--help'])
def test_main_help(capsys, flag):
    assert main([flag]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith('Usage: tmda-ofmipd') and not printed.err


def test_main_version(capsys):
    assert main(['--version']) == 0
    assert capsys.readouterr().out == Version.TMDA + '\n'


def test_main_full_version(capsys):
    assert main(['-V']) == 0
    printed = capsys.readouterr().out
    for word in (Version.VERSION, platform.python_version(), ssl.OPENSSL_VERSION):
        assert word in printed


def test_main_fault_is_one_line(capsys, monkeypatch):
    import TMDA.ofmipd.main as module

    def fail(arguments):
        raise KeyError('x')
    monkeypatch.setattr(module, 'parse', fail)
    assert main([]) == 70
    printed = capsys.readouterr().err
    assert printed.startswith("tmda-ofmipd: internal error: KeyError: 'x' (test_main.py:")
    assert printed.count('\n') == 1


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason='only root can start as root')
@pytest.mark.parametrize('arguments', [['--setup'], ['--check']])
def test_main_parts_that_are_missing_say_so(capsys, monkeypatch, arguments):
    import TMDA.ofmipd.main as module
    parts = tuple(part._replace(module='TMDA.ofmipd.missing') for part in module.PARTS)
    monkeypatch.setattr(module, 'PARTS', parts)
    assert main(arguments) == 69
    assert capsys.readouterr().err == ('tmda-ofmipd: %s is not available in this version\n'
                                       % arguments[0])


@needs_account
def test_daemon_first_lines(home):
    with Daemon(home, '-d') as daemon:
        first, second = daemon.lines[:2]
        assert first.startswith('tmda-ofmipd started at ')
        date = first[len('tmda-ofmipd started at '):]
        assert abs(email.utils.parsedate_to_datetime(date).timestamp() - time.time()) < 60
        assert email.utils.format_datetime(email.utils.parsedate_to_datetime(date)) == date
        assert second == '\tListening on localhost:%d' % daemon.ports[0]


@needs_account
def test_daemon_telnet(home):
    with Daemon(home) as daemon, daemon.connect() as talk:
        assert re.fullmatch(r'220 \S+ ESMTP tmda-ofmipd', talk.reply())
        assert talk.ask('quit') == '221 Bye'
        assert talk.at_end()


@needs_account
def test_daemon_debug_shows_no_password(home):
    with Daemon(home, '-d') as daemon, daemon.connect() as talk:
        talk.reply()
        talk.ask('EHLO x')
        talk.ask('AUTH XYZZY AGJvYmJ5AEZvb0Jhcg==')
        talk.ask('AGJvYmJ5AEZvb0Jhcg==')
        talk.ask('AUTH LOGIN Ym9iYnk=')
        talk.ask('RWlnZW5zaW5u')
        assert talk.ask(AUTH).startswith('235')
        talk.ask('QUIT')
        daemon.wait_for('C: QUIT')
        for secret in ('AGJvYmJ5AEZvb0Jhcg==', 'RWlnZW5zaW5u', 'FooBar', 'Ym9iYnk='):
            assert secret not in daemon.text
        assert 'C: AUTH PLAIN ***' in daemon.text
        assert daemon.events('login-failed')[0].count('user=bobby mechanism=LOGIN') == 1


@needs_account
def test_daemon_silent_without_log(home):
    process = subprocess.Popen(command('-f', '-p', 'localhost:0', '--pid-file', str(home / 'pid')),
                               env=environment(home), stderr=subprocess.PIPE)
    until((home / 'pid').exists)
    until(lambda: (home / 'pid').read_text())
    process.terminate()
    assert process.communicate(timeout=PATIENCE)[1] == b''
    assert process.returncode == 0


@needs_account
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_daemon_end(home, number):
    with Daemon(home) as daemon, daemon.connect() as talk:
        talk.reply()
        daemon.signal(number)
        assert talk.reply().startswith('421')
        assert talk.at_end()
        talk.close()
        assert daemon.process.wait(PATIENCE) == 0
        daemon.wait_for('event=stopped')
        assert daemon.events('stopped')[0].endswith('sessions=0')


@needs_account
def test_daemon_reload_reads_passwords_and_keeps_sessions(home):
    with Daemon(home) as daemon, daemon.connect() as talk:
        talk.reply()
        (home / '.tmda' / 'tofmipd').write_text('chloe:baz_bap\n')
        daemon.signal(signal.SIGHUP)
        daemon.wait_for('event=reloaded')
        talk.ask('EHLO x')
        assert talk.ask('AUTH PLAIN AGNobG9lAGJhel9iYXA=').startswith('235')


@needs_account
def test_daemon_reload_refuses_a_broken_certificate(home):
    shutil.copy(CERTIFICATE, home / 'cert')
    shutil.copy(KEY, home / 'key')
    (home / 'key').chmod(0o600)
    with Daemon(home, '--tls=on', '--ssl-cert', str(home / 'cert'), '--ssl-key',
                str(home / 'key')) as daemon:
        (home / 'key').write_text('broken')
        daemon.signal(signal.SIGHUP)
        daemon.wait_for('event=reload-refused')
        assert str(home / 'key') in daemon.events('reload-refused')[0]
        with daemon.connect() as talk:
            talk.reply()
            talk.ask('EHLO x')
            talk.ask('STARTTLS')
            talk.start_tls()
            talk.login()


@needs_account
def test_daemon_exposed_key_is_logged(home):
    shutil.copy(KEY, home / 'key')
    (home / 'key').chmod(0o644)
    with Daemon(home, '--ssl', '--ssl-cert', str(CERTIFICATE), '--ssl-key',
                str(home / 'key')) as daemon:
        assert 'file=%s' % (home / 'key') in daemon.events('key-readable')[0]


@needs_account
def test_daemon_counters(home):
    with Daemon(home) as daemon, daemon.connect() as talk:
        talk.reply()
        daemon.signal(signal.SIGUSR1)
        daemon.wait_for('event=counters')
        assert 'now=1 connect=1 ' in daemon.events('counters')[0]


@needs_account
def test_daemon_ports_with_different_modes(home):
    with Daemon(home, '-plocalhost:0/ssl', '-plocalhost:0', '-plocalhost:0/plain', '--tls=on',
                '--ssl-cert', str(CERTIFICATE), '--ssl-key', str(KEY)) as daemon:
        with daemon.connect(0) as talk:
            talk.start_tls()
            talk.reply()
            talk.login()
        with daemon.connect(1) as talk:
            talk.reply()
            assert talk.ask(AUTH).startswith('530')
            assert 'STARTTLS' in talk.ask('EHLO x')
        with daemon.connect(2) as talk:
            talk.reply()
            assert 'STARTTLS' not in talk.ask('EHLO x')
            assert talk.ask(AUTH).startswith('235')


@needs_account
def test_daemon_log_file_follows_its_name(home):
    log = home / 'log'
    process = subprocess.Popen(command('-f', '-L', '-plocalhost:0', '--log-file', str(log)),
                               env=environment(home))
    until(lambda: log.exists() and 'event=started' in log.read_text())
    log.rename(home / 'log.1')
    process.send_signal(signal.SIGHUP)
    until(lambda: log.exists() and 'event=reloaded' in log.read_text())
    process.terminate()
    assert process.wait(PATIENCE) == 0
    assert 'event=stopped' in log.read_text()


@needs_account
def test_daemon_survives_the_end_of_descriptors(home):
    limit = 50

    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with Daemon(home, preexec_fn=few) as daemon:
        talks = [daemon.connect() for _ in range(limit)]
        daemon.wait_for('event=accept-paused')
        for talk in talks[:10]:
            talk.reply()
            talk.login()  # the reserve lets sessions go on
        for talk in talks[:20]:
            talk.close()
        for talk in talks[20:]:
            assert talk.reply().startswith('220 ')
            talk.close()
        assert daemon.events('accept-resumed')


@needs_account
def test_daemon_connections_wait(home):
    with Daemon(home, '-C', '1') as daemon, daemon.connect() as first, daemon.connect() as second:
        first.reply()
        second.sock.settimeout(0.3)
        with pytest.raises(socket.timeout):
            second.sock.recv(1)
        second.sock.settimeout(PATIENCE)
        first.ask('QUIT')
        assert second.reply().startswith('220 ')


# Background


@needs_account
@pytest.mark.parametrize('more', [[], ['--workers=2']], ids=['one process', 'workers'])
def test_background_detaches_and_tells_the_truth(home, more):
    pid_file, log = home / 'pid', home / 'log'
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    where = 'localhost:%d' % port
    status, out, err = run('-p', where, '-L', '--pid-file', str(pid_file), '--log-file', str(log),
                           *more, env=environment(home), cwd=str(home))
    assert (status, out, err) == (0, '', '')
    process = int(pid_file.read_text())
    try:
        assert pid_file.stat().st_mode & 0o777 == 0o644
        assert os.getsid(process) != os.getsid(0)
        assert 'Listening on ' + where in log.read_text()
        with Talk(socket.create_connection(('localhost', port), PATIENCE)) as talk:
            assert talk.reply().startswith('220 ')
        again = run('-p', where, env=environment(home))
        assert again == (75, '', 'tmda-ofmipd: %s: Address already in use\n' % where)
    finally:
        assert signal_process(process, signal.SIGTERM)
    until(lambda: not pid_file.exists())
    until(lambda: not signal_process(process, 0))


@needs_account
def test_background_failure_after_detaching_is_told(home):
    status, _out, err = run('-plocalhost:0', '--pid-file=/proc/none', env=environment(home))
    assert (status, err.count('\n')) == (71, 1)


# Service managers


def next_but_alive(manager):
    """The next notification that is no sign of life."""
    text = b'WATCHDOG=1'
    while text == b'WATCHDOG=1':
        text = manager.recv(999)
    return text


@needs_account
def test_systemd_notifications(home):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(home / 'notify'))
        manager.settimeout(PATIENCE)
        with Daemon(home, environ={'NOTIFY_SOCKET': str(home / 'notify'),
                                   'WATCHDOG_USEC': '200000'}) as daemon:
            ready = b'READY=1\nMAINPID=%d' % daemon.process.pid
            assert manager.recv(999) == ready
            assert manager.recv(999) == b'WATCHDOG=1'
            daemon.signal(signal.SIGHUP)
            assert next_but_alive(manager).startswith(b'RELOADING=1\nMONOTONIC_USEC=')
            assert next_but_alive(manager) == ready
            daemon.signal(signal.SIGTERM)
            assert next_but_alive(manager) == b'STOPPING=1'


@needs_account
def test_systemd_socket_activation(home):
    code = ('import os, sys; os.dup2(int(sys.argv[1]), 3); '
            'os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid())); '
            'os.execv(sys.executable, [sys.executable] + sys.argv[2:])')
    with socket.create_server(('127.0.0.1', 0)) as listening:
        handed_on = fcntl.fcntl(listening.fileno(), fcntl.F_DUPFD, 50)
        process = subprocess.Popen(
            [sys.executable, '-c', code, str(handed_on)] + command('-f')[1:],
            pass_fds=(handed_on,), env=environment(home))
        os.close(handed_on)
        address = listening.getsockname()
        with Talk(socket.create_connection(address, PATIENCE)) as talk:
            assert talk.reply().startswith('220 ')
        process.terminate()
        assert process.wait(PATIENCE) == 0
