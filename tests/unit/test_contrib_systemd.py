# SPDX-License-Identifier: GPL-2.0-or-later
"""contrib/: units of systemd, the init script, and the scripts that find virtual users' homes."""
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from support import wait_for
from support.daemon import PROGRAM, signal_process
from support.shared import (SharedDaemon, as_account, launcher, log_in, make_config,
                            make_passwords, other_account)
from support.talk import Talk
from support.upstream import Upstream

CONTRIB = Path(__file__).resolve().parents[2] / 'contrib'
UNITS = sorted((CONTRIB / 'systemd').iterdir())
EXPOSURE = 40  # of 100, at most

needs_analyze = pytest.mark.skipif(not shutil.which('systemd-analyze'),
                                   reason='systemd-analyze is not here')


def run(*command, **keywords):
    """The finished process with its output as text."""
    return subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
                          universal_newlines=True, check=False, **keywords)


@pytest.fixture
def units(tmp_path):
    """A directory with all units; the program is where it can be found."""
    for path in UNITS:
        text = path.read_text().replace('/usr/bin/tmda-ofmipd', '/bin/true')
        (tmp_path / path.name).write_text(text)
    return tmp_path


@needs_analyze
@pytest.mark.parametrize('name', [path.name for path in UNITS])
def test_unit_is_well_formed(units, name):
    user = ['--user'] if 'user' in name else []
    done = run('systemd-analyze', 'verify', '--man=no', *user, units / name,
               env=dict(os.environ, XDG_RUNTIME_DIR=str(units)))
    assert done.returncode == 0
    assert not [line for line in done.stdout.splitlines() if name in line]


@needs_analyze
def test_service_is_little_exposed(units):
    done = run('systemd-analyze', 'security', '--offline=true', '--threshold=%d' % EXPOSURE,
               units / 'tofmipd.service')
    if 'unrecognized option' in done.stdout:
        pytest.skip('systemd-analyze is too old')
    assert done.returncode == 0, done.stdout[-300:]


def test_service_options_are_understood():
    from TMDA.ofmipd.options import parse
    for path in UNITS:
        for line in re.findall(r'(?m)^ExecStart=\S+/tmda-ofmipd (.*)$', path.read_text()):
            words = line.replace('$TOFMIPD_OPTIONS', '').split()
            assert parse(words).background is False  # Type=notify


def test_sysconfig_options_are_understood():
    import shlex
    from TMDA.ofmipd.options import parse
    text = (CONTRIB / 'tofmipd.sysconfig').read_text()
    lines = re.findall(r'(?m)^#?TOFMIPD_OPTIONS="(.*)"$', text)
    assert len(lines) == 3
    for line in lines:
        assert parse(shlex.split(line)).listeners


@pytest.fixture
def account(unprivileged, tmp_path):
    """The account of daemons; it can reach the directory of the test."""
    return other_account(tmp_path, unprivileged)


@pytest.mark.skipif(not shutil.which('systemd-socket-activate'),
                    reason='systemd-socket-activate is not here')
def test_socket_of_systemd_is_taken_over(account, tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    with Upstream() as upstream:
        make_config(tmp_path / 'users' / 'ann', upstream, '', account)
    passwords = make_passwords(tmp_path / 'passwords', 'ann', account=account)
    os.chmod(tmp_path / 'users', 0o755)
    command = ['systemd-socket-activate', '-l', '127.0.0.1:%d' % port,
               *('-E%s=%s' % pair for pair in os.environ.items() if '\n' not in pair[1]),
               *launcher({}, '-f', '-L', '-a', passwords, '-c', str(tmp_path / 'users'))]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          **as_account(account)) as process:
        try:
            def connected():
                try:
                    return socket.create_connection(('127.0.0.1', port), 10)
                except ConnectionRefusedError:
                    return None

            with Talk(wait_for(connected)) as talk:
                assert talk.reply().startswith('220')
                assert log_in(talk, 'ann', 'secret').startswith('235')
        finally:
            process.terminate()
            text = process.communicate(timeout=20)[1].decode()
    assert 'Listening on 127.0.0.1:%d' % port in text
    assert process.returncode == 0


@pytest.fixture
def init(account, tmp_path):
    """init(action) -> the finished script, with paths of the test in place of the system's."""
    passwords = make_passwords(tmp_path / 'passwords', 'ann', account=account)
    (tmp_path / 'users').mkdir(exist_ok=True)
    run_directory = tmp_path / 'run'
    run_directory.mkdir()
    run_directory.chmod(0o777)
    pid_file = run_directory / 'pid'
    options = '-p 127.0.0.1:0 -a %s -c %s --log-file %s' % (passwords, tmp_path / 'users',
                                                         run_directory / 'log')
    (tmp_path / 'sysconfig').write_text('TOFMIPD_OPTIONS="%s"\n' % options)
    program = tmp_path / 'tmda-ofmipd'
    program.write_text('#!/bin/sh\nexec %s "$@"\n' % ' '.join(
        "'%s'" % word for word in (launcher({})[0], '-W', 'error', PROGRAM)))
    program.chmod(0o755)
    text = (CONTRIB / 'tofmipd.init').read_text()
    for path, replaced in (('/usr/bin/tmda-ofmipd', program), ('/var/run/tofmipd.pid', pid_file),
                           ('/etc/sysconfig/tofmipd', tmp_path / 'sysconfig')):
        assert path in text
        text = text.replace(path, str(replaced))
    script = tmp_path / 'init'
    script.write_text(text)
    script.chmod(0o755)

    def act(action):
        return run(script, action, **as_account(account))

    act.pid_file, act.program, act.sysconfig = pid_file, program, tmp_path / 'sysconfig'
    yield act
    if pid_file.exists():
        signal_process(int(pid_file.read_text()), 15)


def test_init_script_starts_and_stops(init):
    assert init('status').returncode == 3
    assert init('stop').returncode == 0
    started = init('start')
    assert started.returncode == 0, started.stdout
    first = init.pid_file.read_text()
    assert init('start').returncode == 0
    assert init.pid_file.read_text() == first
    assert init('status').stdout == 'tofmipd is running\n'
    assert init('reload').returncode == 0
    assert init('restart').returncode == 0
    assert init.pid_file.read_text() != first
    assert init('stop').returncode == 0
    assert init('status').returncode == 3


def test_init_script_tells_a_failed_start(init):
    init.sysconfig.write_text('TOFMIPD_OPTIONS="--no-such-option"\n')
    done = init('start')
    assert done.returncode == 64
    assert 'no-such-option' in done.stdout


def test_init_script_knows_the_other_cases(init):
    assert init('nonsense').returncode == 2
    init.pid_file.write_text('999999999\n')
    assert init('status').returncode == 1
    init.program.unlink()
    assert init('start').returncode == 5
    assert init('stop').returncode == 0


@pytest.mark.parametrize('printed, status, result', [
    ('echo /home/vpopmail/domains/example.com/ann', 0, '/home/vpopmail/domains/example.com/ann\n'),
    ('echo no such user; exit 1', 1, ''), ('echo no such user', 1, ''), ('', 1, ''),
])
def test_vpopmail_script_prints_the_home(tmp_path, printed, status, result):
    program = tmp_path / 'vuserinfo'
    program.write_text('#!/bin/sh\n[ "$*" = "-d ann@example.com" ] || exit 9\n%s\n' % printed)
    program.chmod(0o755)
    done = run(CONTRIB / 'vpopmail-vdir.sh', 'ann', 'example.com',
               env={'PATH': '%s:/usr/bin:/bin' % tmp_path})
    assert (done.returncode, done.stdout) == (status, result)


def test_vmailmgr_script_prints_the_home(tmp_path):
    (tmp_path / 'users' / 'ann').mkdir(parents=True)
    script = CONTRIB / 'vmailmgr-vdir.sh'
    environ = {'PATH': '/usr/bin:/bin', 'HOME': str(tmp_path)}
    done = run(script, 'ann', 'example.com', env=environ)
    assert (done.returncode, done.stdout) == (0, '%s/users/ann\n' % tmp_path)
    assert run(script, 'bob', 'example.com', env=environ).returncode == 1
    assert run(script, 'ann', env=environ).returncode == 64


def test_vmailmgr_script_finds_a_virtual_user_for_the_daemon(account, tmp_path):
    from support.shared import give, send
    with Upstream() as upstream:
        make_config(tmp_path / 'users' / 'ann' / '.tmda', upstream, '', account)
        give(tmp_path / 'users', account)
        passwords = make_passwords(tmp_path / 'passwords', 'ann@example.com', account=account)
        with SharedDaemon('-a', passwords, '-S', str(CONTRIB / 'vmailmgr-vdir.sh'),
                          account=account, environ={'HOME': str(tmp_path)}) as daemon:
            with daemon.session('ann@example.com') as talk:
                assert send(talk).startswith('250')
