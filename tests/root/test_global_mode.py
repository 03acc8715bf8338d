# SPDX-License-Identifier: GPL-2.0-or-later
"""Started by root: who each process is, what it has, and what a user's code cannot do.

Accounts are made for these tests and removed after them.  The upstream shows by added header
fields who handled a message.
"""
import grp
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from support import wait_for
from support.accounts import Accounts
from support.daemon import until
from support.shared import (MISDEEDS, SharedDaemon, give, launcher, log_in, make_config,
                            make_passwords, processes, send, status_of)
from support.talk import CERTIFICATE, KEY, Talk
from support.upstream import Upstream

pytestmark = [pytest.mark.root,
              pytest.mark.skipif(os.geteuid() != 0, reason='global mode is started by root')]

CONTRIB = Path(__file__).resolve().parents[2] / 'contrib'
DEADLINE = 2  # seconds that a message may take where a test waits for that
SHOW = '''
import os, sys
ADDED_HEADERS_CLIENT = {
    'X-Process': str(os.getpid()),
    'X-Uids': ' '.join(map(str, os.getresuid())),
    'X-Gids': ' '.join(map(str, os.getresgid())),
    'X-Groups': ' '.join(map(str, sorted(os.getgroups()))),
    'X-Directory': os.getcwd(),
    'X-Umask': oct(os.umask(0o077)),
    'X-Environ': ' '.join(sorted(os.environ)),
    'X-Home': os.environ['HOME'],
    'X-Logname': os.environ['LOGNAME'],
}
'''


@pytest.fixture(scope='module')
def place():
    """Accounts, and a directory that all of them can reach."""
    import tempfile
    with tempfile.TemporaryDirectory(prefix='tmda-root-') as directory:
        path = Path(directory)
        path.chmod(0o755)
        with Accounts(path) as accounts:
            extra = accounts.group('x')
            yield SimpleNamespace(
                path=path, network=accounts.make('n', home=False),
                ann=accounts.make('a', '-G', extra), bob=accounts.make('b'),
                extra=grp.getgrnam(extra).gr_gid)


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield server


@pytest.fixture
def global_mode(place, upstream):
    """start(ann's code, arguments...) -> a daemon of root with a password file of root."""
    started = []

    def start(code=SHOW, *arguments, users=(), sources=(), **keywords):
        for account, text in ((place.ann, code), (place.bob, SHOW)):
            make_config(Path(account.pw_dir) / '.tmda', upstream, text, account.pw_name)
        passwords = make_passwords(place.path / 'passwords', place.ann.pw_name, place.bob.pw_name,
                                   *users)
        os.chown(passwords, 0, 0)
        daemon = SharedDaemon('-u', place.network.pw_name, *(sources or ('-a', passwords)),
                              *arguments, **keywords)
        started.append(daemon)
        return daemon

    yield start
    for daemon in started:
        daemon.__exit__()


def header(upstream, name):
    """The values of an added field in all messages."""
    return [value.decode() for message in upstream.messages
            for value in re.findall(rb'(?m)^%s: (.*)\r$' % name.encode(), message.data)]


def ids(process):
    """(uids, gids, groups) of /proc/PID/status."""
    status = status_of(process)
    return tuple([int(word) for word in status[name].split()] for name in ('Uid', 'Gid', 'Groups'))


def test_user_is_who_handles_the_message(global_mode, upstream, place):
    daemon = global_mode()
    for user in (place.ann, place.bob):
        with daemon.session(user.pw_name) as talk:
            assert send(talk).startswith('250')
    for number, (user, more) in enumerate(((place.ann, [place.extra]), (place.bob, []))):
        assert header(upstream, 'X-Uids')[number] == ' '.join([str(user.pw_uid)] * 3)
        assert header(upstream, 'X-Gids')[number] == ' '.join([str(user.pw_gid)] * 3)
        groups = ' '.join(map(str, sorted([user.pw_gid] + more)))
        assert header(upstream, 'X-Groups')[number] == groups
        assert header(upstream, 'X-Home')[number] == user.pw_dir
        assert header(upstream, 'X-Logname')[number] == user.pw_name
    assert header(upstream, 'X-Directory') == ['/', '/']
    assert header(upstream, 'X-Umask') == ['0o77', '0o77']


def test_environment_is_clean(global_mode, upstream, place):
    daemon = global_mode(environ={'SECRET_OF_ROOT': 'x', 'LD_LIBRARY_PATH_X': 'y', 'TZ': 'UTC'})
    with daemon.session(place.ann.pw_name) as talk:
        assert send(talk).startswith('250')
    names = set(header(upstream, 'X-Environ')[0].split())
    assert {'HOME', 'LOGNAME', 'USER', 'PATH', 'SHELL', 'LOGIN', 'TZ'} <= names
    assert names <= {'HOME', 'LOGNAME', 'USER', 'PATH', 'SHELL', 'LOGIN', 'TZ', 'TCPLOCALIP',
                     'LANG', 'LC_ALL', 'LC_CTYPE', 'GLOBAL_TMDARC', 'TMDA_SENDMAIL_PROGRAM'}


def test_sendmail_is_run_as_the_user(global_mode, place):
    home = Path(place.ann.pw_dir)
    script = home / 'sendmail'
    script.write_text('#!/bin/sh\ncat >/dev/null; (id; pwd; umask; env) >%s/who\n' % home)
    script.chmod(0o755)
    daemon = global_mode('MAIL_TRANSPORT = "sendmail"\nSENDMAIL_PROGRAM = %r' % str(script))
    with daemon.session(place.ann.pw_name) as talk:
        assert send(talk).startswith('250')
    who = (home / 'who').read_text()
    assert 'uid=%d(%s)' % (place.ann.pw_uid, place.ann.pw_name) in who
    assert 'groups=' in who and str(place.extra) in who
    assert '(root)' not in who
    assert (home / 'who').stat().st_uid == place.ann.pw_uid
    assert (home / 'who').stat().st_mode & 0o777 == 0o600


def test_processes_are_who_they_should_be(global_mode, place):
    daemon = global_mode()
    with daemon.session(place.ann.pw_name):
        monitor = daemon.process.pid
        network, child = processes(monitor)
        assert ids(monitor)[0] == [0] * 4
        for process, account, groups in (
                (network, place.network, [place.network.pw_gid]),
                (child, place.ann, sorted([place.ann.pw_gid, place.extra]))):
            uids, gids, found = ids(process)
            assert uids == [account.pw_uid] * 4
            assert gids == [account.pw_gid] * 4
            assert sorted(found) == groups
            status = status_of(process)
            assert not any(int(status[name], 16) for name in ('CapPrm', 'CapEff', 'CapInh',
                                                              'CapAmb'))
        assert status_of(monitor)['Threads'] == '1'
        assert status_of(child)['Threads'] == '1'
        assert os.readlink('/proc/%d/cwd' % child) == '/'
        assert status_of(child).get('Umask', '0077') == '0077'


def test_child_has_its_channel_and_nothing_else(global_mode, place):
    daemon = global_mode()
    with daemon.session(place.ann.pw_name):
        network, child = processes(daemon.process.pid)
        ends = [os.readlink('/proc/%d/fd/%s' % (child, name))
                for name in os.listdir('/proc/%d/fd' % child)]
        assert sorted(end.partition(':')[0] for end in ends) == ['/dev/null'] * 3 + ['socket']
        assert not any('memfd' in os.readlink('/proc/%d/fd/%s' % (network, name))
                       for name in os.listdir('/proc/%d/fd' % network))


def test_secrets_are_in_no_memory_but_their_own(global_mode, place):
    daemon = global_mode('', '--tls', 'optional', '--ssl-cert', str(CERTIFICATE), '--ssl-key',
                         str(KEY), users=('carl:qqSECRETqq #',))
    password = b'carl:qqSECRET' + b'qq'
    key = KEY.read_bytes().split(b'\n')[3]
    with daemon.session(place.ann.pw_name):
        network, child = processes(daemon.process.pid)
        for process in (daemon.process.pid, child):
            memory = memory_of(process)
            assert b'tmda-ofmipd' in memory
            assert password not in memory
            assert key not in memory
        assert password not in memory_of(network)


def memory_of(process):
    """Everything that a process may write, and so may have read."""
    found = []
    with open('/proc/%d/maps' % process) as maps, open('/proc/%d/mem' % process, 'rb') as memory:
        for line in maps:
            words = line.split()
            if 'w' in words[1] and words[-1] not in ('[vvar]', '[vsyscall]'):
                start, end = (int(word, 16) for word in words[0].split('-'))
                memory.seek(start)
                try:
                    found.append(memory.read(end - start))
                except OSError:
                    pass
    return b''.join(found)


THIEVES = {
    'key of another': 'open(%(key)r).read()',
    'password file': 'open(%(passwords)r).read()',
    'files of the monitor': 'import os\nos.listdir("/proc/%%d/fd" %% os.getppid())',
    'end of the monitor': 'import os\nos.kill(os.getppid(), 9)',
    'groups': 'import os\nos.setgroups([0])',
    'initgroups': 'import os\nos.initgroups("root", 0)',
    'ids': 'import os\nos.setresuid(-1, 0, -1)',
}


@pytest.mark.parametrize('name', THIEVES)
def test_thief_gets_nothing(global_mode, upstream, place, name):
    code = THIEVES[name] % {'key': place.bob.pw_dir + '/.tmda/crypt_key',
                            'passwords': str(place.path / 'passwords')}
    daemon = global_mode(code)
    with daemon.session(place.ann.pw_name) as talk:
        assert send(talk).startswith('451')
    daemon.wait_for('event=message')
    assert 'ermission' in daemon.events('message')[0] or 'permitted' in daemon.events('message')[0]
    assert not upstream.messages


@pytest.mark.parametrize('name', MISDEEDS)
def test_code_that_misbehaves_harms_its_own_session_only(global_mode, upstream, place, name):
    daemon = global_mode(MISDEEDS[name], submit_seconds=DEADLINE)
    network = processes(daemon.process.pid)[0]
    with daemon.session(place.bob.pw_name) as other, daemon.session(place.ann.pw_name) as talk:
        started = time.monotonic()
        assert send(talk).startswith('451')
        assert time.monotonic() < started + DEADLINE + 5
        assert send(other).startswith('250')
    daemon.wait_for('event=message', 2)
    assert 'user=%s ' % place.ann.pw_name in daemon.events('message')[0]
    assert 'reply="451' in daemon.events('message')[0]
    until(lambda: processes(daemon.process.pid) == [network], 'processes are left')
    until(lambda: not owned_by(place.ann.pw_uid), 'what it started is left')


def owned_by(uid):
    """The processes of a user."""
    found = []
    for name in os.listdir('/proc'):
        try:
            if name.isdigit() and os.stat('/proc/' + name).st_uid == uid:
                found.append(int(name))
        except FileNotFoundError:
            pass
    return found


def refusal(daemon, user, password='secret'):
    """The reply to a login."""
    with daemon.connect() as talk:
        talk.reply()
        return log_in(talk, user, password)


def test_root_is_refused_like_a_wrong_password(global_mode, place):
    daemon = global_mode(users=('root', 'no-such-account', place.network.pw_name))
    wrong = refusal(daemon, place.ann.pw_name, 'wrong')
    assert wrong.startswith('535 5.7.8')
    assert refusal(daemon, 'nobody-at-all') == wrong
    assert refusal(daemon, 'root') == wrong
    assert refusal(daemon, place.network.pw_name) == wrong
    assert refusal(daemon, 'no-such-account', 'wrong') == wrong
    assert refusal(daemon, 'no-such-account').startswith('454 4.7.0')
    daemon.wait_for('event=login-unsure')
    assert len(daemon.events('login-failed')) == 5
    assert 'no account' in daemon.events('login-unsure')[0]


@pytest.mark.parametrize('owner, works', [('root', True), ('network', True), ('ann', False)])
def test_password_file_belongs_to_root_or_the_network_account(place, global_mode, owner, works):
    uid = {'root': 0, 'network': place.network.pw_uid, 'ann': place.ann.pw_uid}[owner]
    path = Path(make_passwords(place.path / 'others', place.ann.pw_name))
    os.chown(path, uid, -1)
    if works:
        daemon = global_mode(sources=('-a', str(path)))
        with daemon.session(place.ann.pw_name):
            return
    run = subprocess.run(launcher({}, '-f', '-u', place.network.pw_name, '-a', str(path)),
                         stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=20, check=False)
    assert run.returncode == 78
    assert 'belongs to %s' % place.ann.pw_name in run.stderr.decode()


@pytest.mark.parametrize('name, words', [('no-such-account', 'no account'), ('root', 'uid 0')])
def test_network_account_has_to_be_one_without_privileges(name, words):
    run = subprocess.run(launcher({}, '-f', '-u', name), stderr=subprocess.PIPE,
                         stdin=subprocess.DEVNULL, timeout=20, check=False)
    assert run.returncode == 78
    assert words in run.stderr.decode()
    assert run.stderr.count(b'\n') == 1


CHECKER = '''#!/bin/sh
id -u >>%(path)s/asked
user=$(tr '\\0' '\\n' <&3 | head -1)
case $user in slow*) exec 2>&-; exec sleep 20;; esac
[ "$user" = %(ann)s ]
'''


@pytest.fixture
def checker(place):
    """A checkpassword program that lets ann in and needs root; it hangs for users slow..."""
    path = place.path / 'checker'
    path.write_text(CHECKER % {'path': place.path, 'ann': place.ann.pw_name})
    path.chmod(0o755)
    (place.path / 'asked').unlink(missing_ok=True)
    return path


def test_checkpassword_is_asked_as_root(global_mode, place, checker, upstream):
    daemon = global_mode(sources=('-A', str(checker)))
    with daemon.session(place.ann.pw_name) as talk:
        assert send(talk).startswith('250')
    assert refusal(daemon, place.bob.pw_name).startswith('535')
    assert (place.path / 'asked').read_text() == '0\n0\n'
    assert header(upstream, 'X-Uids') == [' '.join([str(place.ann.pw_uid)] * 3)]


def test_slow_sources_slow_nobody_else(global_mode, place, checker):
    daemon = global_mode(sources=('-A', str(checker)), source_seconds=600, shutdown_seconds=1)
    slow = []
    for number in range(200):
        talk = Talk(socket.create_connection(('127.0.0.1', daemon.ports[0]), 30))
        talk.reply()
        talk.ask('EHLO x')
        talk.send(b'AUTH PLAIN AHNsb3cAeA==\r\n')
        slow.append(talk)
    wait_for(lambda: (place.path / 'asked').read_text().count('\n') == 200, 60)
    started = time.monotonic()
    with daemon.session(place.ann.pw_name):
        assert time.monotonic() < started + 2
    for talk in slow:
        talk.close()
    daemon.__exit__()


def test_pam_is_asked_as_root(global_mode, place, upstream):
    if not shutil.which('chpasswd') or not Path('/etc/pam.d').is_dir():
        pytest.skip('no PAM here')
    service = Path('/etc/pam.d/tmda-ofmipd-%d' % os.getpid())
    service.write_text('auth required pam_unix.so\naccount required pam_unix.so\n')
    try:
        subprocess.run(['chpasswd'], input='%s:of the account' % place.ann.pw_name, text=True,
                       check=True)
        daemon = global_mode(sources=('-m', service.name))
        assert refusal(daemon, place.ann.pw_name, 'wrong').startswith('535')
        with daemon.session(place.ann.pw_name, 'of the account') as talk:
            assert send(talk).startswith('250')
    finally:
        service.unlink()
    assert header(upstream, 'X-Uids') == [' '.join([str(place.ann.pw_uid)] * 3)]


def test_key_of_root_is_used_and_read_again(global_mode, place):
    certificate, key = place.path / 'cert.pem', place.path / 'key.pem'
    shutil.copy(CERTIFICATE, certificate)
    key.write_bytes(KEY.read_bytes())
    key.chmod(0o600)
    daemon = global_mode('', '--tls', 'on', '--ssl-cert', str(certificate), '--ssl-key', str(key))
    for times in (1, 2):
        with daemon.connect() as talk:
            talk.reply()
            talk.ask('EHLO x')
            assert talk.ask('STARTTLS').startswith('220')
            talk.start_tls()
            assert log_in(talk, place.ann.pw_name, 'secret').startswith('235')
        daemon.signal(signal.SIGHUP)
        daemon.wait_for('event=reloaded', times)
    assert not daemon.events('reload-refused')


def one_session(arguments, dialog, environ):
    """The replies of -1 over a socket as xinetd gives it (0, 1 and 2), and its exit status."""
    ours, theirs = socket.socketpair()
    with subprocess.Popen(launcher({}, '-1', *arguments), stdin=theirs, stdout=theirs,
                          stderr=theirs, env=dict(os.environ, **environ)) as process:
        theirs.close()
        with Talk(ours) as talk:
            replies = [talk.reply()]
            for line in dialog:
                replies.append(talk.ask(line))
            assert talk.at_end()
        return replies, process.wait(10)


def test_one_session_of_root_is_served_the_same_way(place, upstream):
    from support.talk import base64_text
    make_config(Path(place.ann.pw_dir) / '.tmda', upstream, SHOW, place.ann.pw_name)
    passwords = make_passwords(place.path / 'passwords', place.ann.pw_name)
    os.chown(passwords, 0, 0)
    login = 'AUTH PLAIN ' + base64_text('\0%s\0secret' % place.ann.pw_name)
    replies, status = one_session(
        ['-u', place.network.pw_name, '-a', passwords],
        ['EHLO x', login, 'MAIL FROM:<a@example.com>', 'RCPT TO:<b@example.net>', 'DATA',
         'Subject: x\r\n\r\nx\r\n.', 'QUIT'], {'REMOTE_HOST': '192.0.2.7'})
    assert [text[:3] for text in replies] == '220 250 235 250 250 354 250 221'.split()
    assert status == 0
    assert header(upstream, 'X-Uids') == [' '.join([str(place.ann.pw_uid)] * 3)]
    assert b'192.0.2.7' in upstream.messages[0].data


def test_virtual_domain_is_served_by_its_owner(place, upstream, global_mode):
    home = Path(place.bob.pw_dir) / 'virtual'
    make_config(home / 'carl' / '.tmda', upstream, SHOW, place.bob.pw_name)
    script = place.path / 'vhome'
    script.write_text('#!/bin/sh\nid -u >%s/script\necho %s/$1\n' % (place.bob.pw_dir, home))
    script.chmod(0o755)
    (place.path / 'virtualdomains').write_text('# x\nexample.com:%s\n' % place.bob.pw_name)
    daemon = global_mode('', '-S', str(script), '-v', str(place.path / 'virtualdomains'),
                         users=('carl@example.com', 'carl@example.net'))
    assert refusal(daemon, 'carl@example.net').startswith('454')
    with daemon.session('carl@example.com') as talk:
        assert send(talk).startswith('250')
    assert (Path(place.bob.pw_dir) / 'script').read_text() == '%d\n' % place.bob.pw_uid
    assert header(upstream, 'X-Uids') == [' '.join([str(place.bob.pw_uid)] * 3)]
    assert header(upstream, 'X-Home') == [str(home / 'carl')]


def test_configdir_of_root_runs_a_user_without_an_account_as_the_owner(place, upstream,
                                                                       global_mode):
    users = place.path / 'users'
    make_config(users / 'carl', upstream, SHOW, place.bob.pw_name)
    make_config(users / 'dora', upstream, SHOW)
    daemon = global_mode('', '-c', str(users), users=('carl', 'dora', 'emil'))
    with daemon.session('carl') as talk:
        assert send(talk).startswith('250')
    assert header(upstream, 'X-Uids') == [' '.join([str(place.bob.pw_uid)] * 3)]
    assert refusal(daemon, 'dora').startswith('535')  # her directory is root's
    assert refusal(daemon, 'emil').startswith('454')


def test_service_unit_has_all_capabilities_that_are_needed(place, global_mode, checker, upstream):
    if not shutil.which('setpriv'):
        pytest.skip('no setpriv here')
    unit = (CONTRIB / 'systemd' / 'tofmipd.service').read_text()
    named = re.search(r'(?m)^CapabilityBoundingSet=(.*)$', unit).group(1).lower().split()
    bounding = '-all,' + ','.join('+' + name[len('cap_'):] for name in named)
    passwords = make_passwords(place.path / 'owned', place.bob.pw_name)
    os.chown(passwords, place.network.pw_uid, -1)
    daemon = global_mode(SHOW, sources=('-A', str(checker), '-a', passwords), account='',
                         prefix=('setpriv', '--bounding-set', bounding), submit_seconds=DEADLINE)
    assert int(status_of(daemon.process.pid)['CapBnd'], 16).bit_count() == len(named) \
        if hasattr(int, 'bit_count') else True
    for user in (place.ann, place.bob):
        with daemon.session(user.pw_name) as talk:
            assert send(talk).startswith('250')
    config = Path(place.ann.pw_dir) / '.tmda' / 'config'
    config.write_text(MISDEEDS['sleep'])
    with daemon.session(place.ann.pw_name) as talk:
        assert send(talk).startswith('451')
    until(lambda: not owned_by(place.ann.pw_uid), 'what hung is left')


def test_sessions_in_parallel_do_not_mix(global_mode, place, upstream):
    daemon = global_mode(SHOW)
    failures = []

    def work(account, text):
        try:
            for _ in range(5):
                with daemon.session(account.pw_name) as talk:
                    assert send(talk, text).startswith('250')
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(account, 'from uid %d' % account.pw_uid))
               for account in (place.ann, place.bob) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(upstream.messages) == 30
    for message in upstream.messages:
        uid = re.search(rb'from uid (\d+)', message.data).group(1)
        assert b'X-Uids: ' + b' '.join([uid] * 3) in message.data


@pytest.mark.skipif(any(name.startswith('COVERAGE') for name in os.environ),
                    reason='the measurement of coverage takes more memory than is looked for')
def test_session_that_waits_needs_little_memory(global_mode, place):
    daemon = global_mode(environ={'PYTHONPATH': ''})  # or tests/run measures coverage in it
    with daemon.session(place.ann.pw_name):
        child = processes(daemon.process.pid)[-1]
        with open('/proc/%d/smaps_rollup' % child) as file:
            private = sum(int(line.split()[1]) for line in file if line.startswith('Private_'))
        assert private < 6 * 1024  # kB


def test_xinetd_with_user_root_serves_every_account_as_itself(place, upstream, tmp_path):
    """The how-to's service: xinetd starts -1 as root for each connection."""
    from real.launchers import CLIENT, connect, launched
    for account in (place.ann, place.bob):
        make_config(Path(account.pw_dir) / '.tmda', upstream, SHOW, account.pw_name)
    passwords = make_passwords(place.path / 'passwords', place.ann.pw_name, place.bob.pw_name)
    os.chown(passwords, 0, 0)
    options = ('-u', place.network.pw_name, '-a', passwords)
    with launched('xinetd', tmp_path, *options) as server:
        for account in (place.ann, place.bob):
            with connect(server.port) as client:
                client.login(account.pw_name, 'secret')
                client.sendmail('a@example.com', ['b@example.net'], 'Subject: x\r\n\r\nx\r\n')
    assert header(upstream, 'X-Uids') == [' '.join([str(account.pw_uid)] * 3)
                                          for account in (place.ann, place.bob)]
    assert all(CLIENT.encode() in message.data.split(b'\r\n')[0] for message in upstream.messages)
