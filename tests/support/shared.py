# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared mode: the daemon with small limits, homes of users, and their processes."""
from __future__ import annotations

import os
import pwd
import subprocess
import sys
import threading
from pathlib import Path

from support.daemon import Daemon
from support.talk import Talk, base64_text

LIB = str(Path(__file__).resolve().parents[2] / 'lib')

# The program, with other defaults of limits: most have no option.
LAUNCHER = '''
import sys
sys.path.insert(0, %r)
from TMDA.inject import limits
changed = dict(word.split('=') for word in sys.argv.pop(1).split())
limits.LIMITS = tuple(row._replace(default=int(changed.get(row.name, row.default)))
                      for row in limits.LIMITS)
from TMDA.ofmipd.main import main
sys.exit(main())
''' % LIB

# What a user's code may do; none of it may reach anybody else.
MISDEEDS = {
    'setuid': 'import os\nos.setuid(0)',
    'seteuid': 'import os\nos.seteuid(0)',
    'exit': 'import os\nos._exit(0)',
    'system exit': 'raise SystemExit(0)',
    'loop': 'while True:\n    pass',
    'sleep': 'import time\ntime.sleep(600)',
    'deaf': 'import signal, time\nfor number in range(1, 32):\n    try:\n'
            '        signal.signal(number, signal.SIG_IGN)\n    except OSError:\n        pass\n'
            'while True:\n    time.sleep(600)',
    'fork': 'import os, time\nfor _ in range(5):\n    if not os.fork():\n        break\n'
            'time.sleep(600)',
    'crash': 'import ctypes\nctypes.string_at(0)',
    'close': 'import os\nos.closerange(0, 1000)',
    'kill': 'import os\nos.kill(0, 9)',
}


def launcher(limits: dict, *arguments: str) -> list[str]:
    """The command line of the program with other limits."""
    words = ' '.join('%s=%d' % pair for pair in limits.items())
    return [sys.executable, '-W', 'error', '-c', LAUNCHER, words, *arguments]


class SharedDaemon(Daemon):
    """tmda-ofmipd -f -L in shared mode; keywords are limits.  See Daemon.

    prefix: the beginning of a command that runs another one.
    """

    def __init__(self, *arguments: str, account: str = '', environ=None, prefix: tuple = (),
                 **limits: int):
        self.status = 0
        self.lines: list[str] = []
        given = arguments if any(word.startswith('-p') for word in arguments) \
            else ('-p127.0.0.1:0',) + arguments
        limits.setdefault('login_delay', 0)
        limits.setdefault('login_delay_most', 0)
        self.process = subprocess.Popen([*prefix, *launcher(limits, '-f', '-L', *given)],
                                        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                        env=dict(os.environ, **(environ or {})), cwd='/',
                                        **as_account(account))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait_for('event=started')
        self.ports = [int(line.rpartition(':')[2]) for line in self.lines
                      if line.startswith('\tListening on ')]

    def session(self, user: str, password: str = 'secret') -> Talk:
        """A session of a user who has logged in."""
        talk = self.connect()
        assert talk.reply().startswith('220')
        talk.login(user, password)
        return talk


def as_account(name: str) -> dict:
    """Keywords for subprocess to start something under an account; none if it is ours."""
    if not name or os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(name)
    return {'user': entry.pw_uid, 'group': entry.pw_gid, 'extra_groups': []}


def other_account(directory: Path, name: str) -> str:
    """The account under which root starts daemons of tests, who can then reach the directory; ''
    for any other account, which starts them itself."""
    if os.geteuid() != 0:
        return ''
    for one in (directory, *directory.parents):
        if one.stat().st_mode & 0o055 != 0o055:
            one.chmod(one.stat().st_mode | 0o055)
    return name


def give(path: Path, account: str) -> None:
    """Let everything below path belong to an account."""
    if account and os.geteuid() == 0:
        entry = pwd.getpwnam(account)
        for one in (path, *path.rglob('*')):
            os.chown(one, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def log_in(talk: Talk, user: str, password: str) -> str:
    """The reply to AUTH PLAIN."""
    assert talk.ask('EHLO client.example').startswith('250')
    return talk.ask('AUTH PLAIN ' + base64_text('\0%s\0%s' % (user, password)))


def send(talk: Talk, text: str = 'hello', recipient: str = 'b@example.net') -> str:
    """Send a message; the answer to its end."""
    assert talk.ask('MAIL FROM:<a@example.com>').startswith('250')
    assert talk.ask('RCPT TO:<%s>' % recipient).startswith('250')
    assert talk.ask('DATA').startswith('354')
    return talk.ask('From: a@example.com\r\nSubject: x\r\n\r\n%s\r\n.' % text)


def make_config(directory: Path, upstream, code: str = '', account: str = '') -> None:
    """A directory with a configuration that sends to upstream, and a key."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / 'crypt_key').write_text('00112233445566778899aabbccddeeff00112233')
    (directory / 'crypt_key').chmod(0o600)
    (directory / 'config').write_text(
        "MAIL_TRANSPORT = 'smtp'\nSMTPHOST = '127.0.0.1:%d'\nACTION_OUTGOING = 'bare'\n"
        'DATADIR = %r\nCRYPT_KEY_FILE = %r\n%s\n'
        % (upstream.port, str(directory), str(directory / 'crypt_key'), code))
    give(directory, account)


def make_passwords(path: Path, *users: str, account: str = '') -> str:
    """A password file: everybody's password is "secret"."""
    path.write_text(''.join('%s:secret\n' % user for user in users))
    path.chmod(0o600)
    give(path, account)
    return str(path)


def processes(parent: int) -> list[int]:
    """The children of a process."""
    found = []
    for name in os.listdir('/proc'):
        if name.isdigit():
            try:
                with open('/proc/%s/stat' % name) as file:
                    fields = file.read().rpartition(')')[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent and fields[0] not in 'ZX':
                found.append(int(name))
    return sorted(found)


def status_of(process: int) -> dict[str, str]:
    """/proc/PID/status."""
    with open('/proc/%d/status' % process) as file:
        return {name: value.strip() for name, _, value in (line.partition(':') for line in file)}
