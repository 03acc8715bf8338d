# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that accept connections and start `tmda-ofmipd -1` for each: LAUNCHERS, a table.

Each runs in the foreground for the account of the test, listens on a free port of 127.0.0.1, and
is ended by its process id.  submit() sends a message through one from another address, CLIENT,
which has to turn up in the Received field.
"""
from __future__ import annotations

import os
import pwd
import shlex
import shutil
import signal
import smtplib
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Callable, NamedTuple

import pytest

from real.postfix import free_port
from real.servers import PATH, listening
from support import wait_for
from support.daemon import PROGRAM
from support.proxy import AUTHOR, PASSWORD, USER
from support.talk import CERTIFICATE, KEY, PATIENCE, client_context

CLIENT = '127.0.0.7'
RECIPIENT = 'friend@example.org'
MESSAGE = 'From: Bobby <%s>\r\nTo: %s\r\nSubject: test\r\n\r\nHello.\r\n' % (AUTHOR, RECIPIENT)

XINETD = '''\
service {name}
{{
        type            = UNLISTED
        socket_type     = stream
        protocol        = tcp
        bind            = 127.0.0.1
        port            = {port}
        wait            = no
        user            = {user}
        env             = HOME={home}
        server          = {program}
        log_on_failure  += USERID
}}
'''
STUNNEL = '''\
foreground = yes
pid =
syslog = no
[tmda-ofmipd]
accept = 127.0.0.1:{port}
cert = {certificate}
key = {key}
exec = {program}
'''


def one_session(home: Path, *options: str) -> list[str]:
    """The command line of one session that logs into the file `log` in its home."""
    return [sys.executable, PROGRAM, '-1', '-L', '--log-file', str(home / 'log'), *options]


def wrapper(home: Path, command: list[str]) -> list[str]:
    """A script that runs the command: launchers differ in what argv[0] they give to a program."""
    path = home / 'tmda-ofmipd'
    path.write_text('#!/bin/sh\nexec %s "$@"\n' % shlex.join(command))
    path.chmod(0o755)
    return [str(path)]


def variables(home: Path) -> list[str]:
    """NAME=VALUE of what our process needs of the environment, where a launcher drops it."""
    return ['HOME=%s' % home] + ['%s=%s' % item for item in os.environ.items()
                                 if item[0].startswith(('PYTHON', 'COVERAGE', 'LD_'))]


def skip_without(*programs: str) -> None:
    """Skip the test if a program is not installed."""
    for name in programs:
        if not shutil.which(name, path=PATH):
            pytest.skip('%s is not installed' % name)


class Launched:
    """A process that listens on a port of 127.0.0.1; a context manager that ends it.

    `output` is a file with all that it wrote.
    """

    def __init__(self, command: list[str], port: int, home: Path):
        self.port = port
        self.output = home / 'launcher-output'
        program = shutil.which(command[0], path=PATH)
        with open(self.output, 'wb') as output:
            self.process = subprocess.Popen(
                [program, *command[1:]], env=dict(os.environ, HOME=str(home), PATH=PATH),
                cwd=home, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)

    def __enter__(self) -> Launched:
        wait_for(lambda: listening(self.port) or self.process.poll() is not None)
        assert self.process.poll() is None, self.output.read_text()
        return self

    def __exit__(self, *unused) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def tcpserver(home: Path, port: int, command: list[str]) -> list[str]:
    """ucspi-tcp; -H and -R: no look-ups of names and of IDENT."""
    return ['tcpserver', '-HR', '127.0.0.1', str(port), *command]


def systemd(home: Path, port: int, command: list[str]) -> list[str]:
    """What Accept=yes and StandardInput=socket do in units."""
    settings = [word for setting in variables(home) for word in ('-E', setting)]
    return ['systemd-socket-activate', '-l', '127.0.0.1:%d' % port, '-a', '--inetd',
            *settings, *command]


def xinetd(home: Path, port: int, command: list[str]) -> list[str]:
    """A service like that of the how-to."""
    return run_xinetd(home, XINETD.format(
        name='tmda-ofmipd', port=port, home=home, user=own_name(), program=command[0]))


def run_xinetd(home: Path, service: str) -> list[str]:
    """xinetd with one service and nothing of the machine's own configuration."""
    path = home / 'xinetd.conf'
    path.write_text(service)
    return ['xinetd', '-dontfork', '-filelog', str(home / 'xinetd.log'), '-f', str(path),
            '-pidfile', str(home / 'xinetd.pid')]


def stunnel(home: Path, port: int, command: list[str]) -> list[str]:
    """stunnel's exec: TLS is done before our process sees anything."""
    path = home / 'stunnel.conf'
    path.write_text(STUNNEL.format(port=port, certificate=CERTIFICATE, key=KEY,
                                   program=command[0]))
    return ['stunnel', str(path)]


def own_name() -> str:
    """The name of the account that runs the test."""
    return pwd.getpwuid(os.geteuid()).pw_name


class Launcher(NamedTuple):
    """How to start it, and whether clients speak TLS to it from the first octet."""

    command: Callable
    tls: bool = False


LAUNCHERS = {
    'tcpserver': Launcher(tcpserver),
    'xinetd': Launcher(xinetd),
    'systemd-socket-activate': Launcher(systemd),
    'stunnel': Launcher(stunnel, tls=True),
}


def launched(name: str, home: Path, *options: str) -> Launched:
    """The launcher of that name, with sessions that have these options."""
    skip_without(name)
    port = free_port()
    command = wrapper(home, one_session(home, *options))
    return Launched(LAUNCHERS[name].command(home, port, command), port, home)


def connect(port: int, tls: bool = False, context: ssl.SSLContext | None = None) -> smtplib.SMTP:
    """An SMTP client at CLIENT, after the greeting."""
    where = {'host': '127.0.0.1', 'port': port, 'local_hostname': 'client.example',
             'timeout': PATIENCE * 2, 'source_address': (CLIENT, 0)}
    if tls:
        return smtplib.SMTP_SSL(context=context or client_context(), **where)
    return smtplib.SMTP(**where)


def submit(client: smtplib.SMTP) -> None:
    """Log in and send MESSAGE."""
    client.login(USER, PASSWORD)
    assert client.sendmail(AUTHOR, [RECIPIENT], MESSAGE) == {}


def received(message) -> str:
    """The first field of a message that an Upstream got, unfolded, without its name."""
    name, _, value = message.data.partition(b'\r\nFrom:')[0].decode('ascii').partition(': ')
    assert name == 'Received'
    return ' '.join(value.split())
