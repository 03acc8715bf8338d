# SPDX-License-Identifier: GPL-2.0-or-later
"""The program itself: started as a process, talked to, signalled, ended."""
from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from support.talk import PATIENCE, Talk

PROGRAM = str(Path(__file__).resolve().parents[2] / 'bin' / 'tmda-ofmipd')

needs_account = pytest.mark.skipif(os.geteuid() == 0, reason='root does not start personal mode')


def command(*arguments: str) -> list[str]:
    """The command line, with an interpreter that turns warnings into errors."""
    return [sys.executable, '-W', 'error', PROGRAM, *arguments]


def make_home(directory: Path) -> Path:
    """A home with a password file: bobby's password is FooBar."""
    (directory / '.tmda').mkdir()
    passwords = directory / '.tmda' / 'tofmipd'
    passwords.write_text('bobby:FooBar\n')
    passwords.chmod(0o600)
    return directory


def until(condition, what='') -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.005)


def signal_process(process: int, number: int) -> bool:
    """Send a signal; False if there is no such process."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return False
    return True


class Daemon:
    """tmda-ofmipd -f in a process; a context manager that ends it and looks at its exit status.

    `ports` are those of its listeners; `lines` what it has written to stderr so far.
    """

    def __init__(self, home: Path, *arguments: str, listeners: int = 1, environ=None,
                 status: int | None = 0, **keywords):
        given = arguments if listeners == 0 or any(word.startswith('-p') for word in arguments) \
            else ('-plocalhost:0',) + arguments
        self.status = status
        self.lines: list[str] = []
        self.process = subprocess.Popen(command('-f', '-L', *given), stdin=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, **keywords,
                                        env=dict(os.environ, HOME=str(home), **(environ or {})))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait_for('event=started')
        self.ports = [int(line.rpartition(':')[2]) for line in self.lines
                      if line.startswith('\tListening on ')]

    def _read(self) -> None:
        for line in self.process.stderr:
            self.lines.append(line.decode().rstrip('\n'))

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *unused) -> None:
        try:
            if self.process.poll() is None:
                self.process.terminate()
            status = self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self._reader.join(PATIENCE)
            self.process.stderr.close()
        if self.status is not None:
            assert status == self.status, self.text

    @property
    def text(self) -> str:
        """All of stderr."""
        return '\n'.join(self.lines)

    def events(self, name: str) -> list[str]:
        """The lines of an event."""
        return [line for line in self.lines if 'event=' + name + ' ' in line + ' ']

    def wait_for(self, words: str, times: int = 1) -> None:
        """Wait until so many lines have these words."""
        until(lambda: sum(words in line for line in self.lines) >= times
              or not self._reader.is_alive(), self.text)
        assert sum(words in line for line in list(self.lines)) >= times, self.text

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def connect(self, number: int = 0) -> Talk:
        """Connect to a listener."""
        return Talk(socket.create_connection(('localhost', self.ports[number]), PATIENCE))
