# SPDX-License-Identifier: GPL-2.0-or-later
"""The servers that the bench compares: each has start(), port, process and stop().

All listen on 127.0.0.1 and end with stop().  When root runs the bench, none of them runs as root
but Postfix's master, which has to: the others belong to ACCOUNT.
"""
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from real.postfix import Postfix, free_port

TOP = Path(__file__).resolve().parents[2]
PATH = os.environ.get('PATH', '') + ':/usr/sbin:/sbin'
ACCOUNT = 'nobody'
START_SECONDS = 30
STOP_SECONDS = 20
LOGIN = 'alice:secret'

CONFIG = '''\
MAIL_TRANSPORT = 'smtp'
SMTPHOST = '127.0.0.1:%d'
USERNAME = 'alice'
HOSTNAME = 'example.net'
FULLNAME = 'Alice Liddell'
'''

# Four rules, all of which a message of the load generator goes through.
FILTER = '''\
to carol@example.com bare
to *@lists.example.org keyword=lists
to *@=partner.example sender
to * dated=14d
'''


class Missing(Exception):
    """A server is not installed here; str() says what is missing."""


class Server:
    """A program in the foreground, with a directory of its own."""

    def __init__(self):
        self.port = free_port()
        self.top = Path(tempfile.mkdtemp(prefix='tmda-bench-', dir='/tmp'))
        self.process = 0
        self._popen = None

    def launch(self, command: list, environ: dict) -> None:
        """Run the command in the directory, which becomes the account's; wait for its port."""
        identity = {}
        if os.geteuid() == 0:
            owner = pwd.getpwnam(ACCOUNT)
            identity = {'user': owner.pw_uid, 'group': owner.pw_gid, 'extra_groups': []}
            for path in [self.top, *self.top.rglob('*')]:
                os.chown(path, owner.pw_uid, owner.pw_gid)
        with open(self.top / 'output', 'wb') as output:
            self._popen = subprocess.Popen(
                command, cwd=self.top, env={'PATH': PATH, 'HOME': str(self.top), **environ},
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, **identity)
        self.process = self._popen.pid
        deadline = time.monotonic() + START_SECONDS
        while not listening(self.port):
            if self._popen.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError('%s does not start: %s' % (command[0], self.output()))
            time.sleep(0.02)

    def output(self) -> str:
        """What the program has printed."""
        return (self.top / 'output').read_text(encoding='utf-8', errors='replace')

    def stop(self) -> None:
        """End the program, and remove its directory."""
        if self._popen is not None:
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()
        shutil.rmtree(self.top)


class Sink(Server):
    """Postfix's smtp-sink: takes all mail and throws it away."""

    def start(self) -> None:
        """Listen."""
        program = shutil.which('smtp-sink', path=PATH)
        if not program:
            raise Missing('smtp-sink (Debian: postfix)')
        self.launch([program, '-m', '4000', '127.0.0.1:%d' % self.port, '1024'], {})


class Daemon(Server):
    """tmda-ofmipd with one user, who has a filter of four rules and a login."""

    def __init__(self, sink_port: int, *options: str, rules: str = FILTER, python: str = ''):
        super().__init__()
        self._sink_port = sink_port
        self._options = options
        self._rules = rules
        self._python = python

    def start(self) -> None:
        """Lay the user's files out and listen."""
        directory = self.top / '.tmda'
        if '--configdir' in self._options:
            directory = self.top / 'users' / 'alice'
        (directory / 'filters').mkdir(parents=True)
        files = {
            directory / 'config': CONFIG % self._sink_port + 'DATADIR = %r\n' % str(directory),
            directory / 'crypt_key': '0123456789abcdef0123456789abcdef01234567\n',
            directory / 'filters/outgoing': self._rules,
            self.top / 'passwords': LOGIN + '\n',
        }
        for path, text in files.items():
            path.write_text(text, encoding='utf-8')
            path.chmod(0o600)
        options = [option.replace('TOP', str(self.top)) for option in self._options]
        self.launch([self._python or interpreter(), '-B', str(TOP / 'bin/tmda-ofmipd'), '-f',
                     '-p', '127.0.0.1:%d' % self.port, '-a', str(self.top / 'passwords')]
                    + options, {'GLOBAL_TMDARC': str(self.top / 'none')})


class Aiosmtpd(Server):
    """aiosmtpd that hands messages on with smtplib; python is that of an environment with it."""

    def __init__(self, sink_port: int, python: str):
        super().__init__()
        self._sink_port = sink_port
        self._python = python

    def start(self) -> None:
        """Listen."""
        if not self._python:
            raise Missing('aiosmtpd (name an interpreter that has it: --aiosmtpd PYTHON)')
        script = self.top / 'relay.py'
        shutil.copy(Path(__file__).with_name('aiosmtpd_relay.py'), script)
        self.launch([self._python, '-B', str(script), str(self.port), str(self._sink_port)], {})


class PostfixProxy(Postfix):
    """Postfix's smtpd as a proxy in front of the sink (smtpd_proxy_filter)."""

    def __init__(self, sink_port: int):
        super().__init__()
        self.process = 0
        self._sink_port = sink_port

    def start(self) -> None:
        """Listen."""
        if not shutil.which('postfix', path=PATH):
            raise Missing('Postfix')
        if os.geteuid() != 0:
            raise Missing('Postfix, which needs root')
        super().start()
        subprocess.run(['postconf', '-c', str(self.configuration), '-e',
                        'smtpd_proxy_filter=127.0.0.1:%d' % self._sink_port], check=True)
        self._command('reload')
        self.process = int((self.top / 'queue/pid/master.pid').read_text(encoding='ascii'))

    def stop(self) -> None:
        """End the daemons, and remove all files."""
        if self.process:
            super().stop()
        else:
            shutil.rmtree(self.top)


def listening(port: int) -> bool:
    """Whether something answers on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(('127.0.0.1', port)) == 0


def interpreter() -> str:
    """This interpreter, or the system's where the account can't reach this one."""
    if os.geteuid() != 0:
        return sys.executable
    owner = pwd.getpwnam(ACCOUNT)
    for python in (sys.executable, os.path.realpath(sys.executable), '/usr/bin/python3'):
        try:
            if not subprocess.call([python, '-B', '-c', ''], user=owner.pw_uid,
                                   group=owner.pw_gid, extra_groups=[], cwd='/',
                                   stderr=subprocess.DEVNULL):
                return python
        except OSError:
            pass  # out of reach
    raise RuntimeError('no Python that %s can run' % ACCOUNT)
