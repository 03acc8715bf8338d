# SPDX-License-Identifier: GPL-2.0-or-later
"""Authentication by a checkpassword-compatible program (-A).

The interface is at cr.yp.to/checkpwd/interface.html: the program finds

    user NUL password NUL timestamp NUL

on descriptor 3, at most 512 octets in all, and answers by its exit code.  The option's value is
split into words as a shell would, but no shell runs, and nothing of the client is in the
program's arguments or environment.  Its descriptors 0, 1 and 2 are /dev/null, because in
one-session mode ours are the client's connection.

Exit 0 is YES and 111 UNSURE.  Any other exit is NO; 2, by which a program says that it was
called wrongly, is named in the cause.  A program that is missing, dies of a signal or runs too
long is UNSURE; in the last case its whole process group is killed.

posix_spawn is used because subprocess can give a child descriptor 3 only if ours has that
number too, and fork() is not safe in a process with threads.  SIGCHLD must not be ignored.
"""

from __future__ import annotations

import os
import shlex
import signal
import time

from TMDA.Errors import ConfigError
from TMDA.ofmipd.verdict import NO, UNSURE, YES, AskingSource, Verdict

INPUT_LIMIT = 512  # octets on descriptor 3
FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.05  # seconds between looks at a running program

# Signals that a daemon may ignore or handle; a program expects their default.
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGHUP,
                    signal.SIGINT, signal.SIGTERM)


def split(command: str) -> list:
    """The words of the option's value; ConfigError if there are none or a quote is open."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f'authentication program {command!r}: {error}') from None
    if not words:
        raise ConfigError('authentication program: no program given')
    return words


class Checkpassword(AskingSource):
    """One program and its arguments."""

    def __init__(self, command: str, seconds: float):
        """command is split as a shell would; ConfigError if that fails."""
        self.arguments = split(command)
        super().__init__('program:' + self.arguments[0], seconds)

    def ask(self, user: bytes, password: bytes, client, deadline: float) -> Verdict:
        data = b'%s\0%s\0%d\0' % (user, password, int(time.time()))
        if len(data) > INPUT_LIMIT:
            return Verdict(NO, f'name and password are longer than {INPUT_LIMIT} octets')
        process = _spawn(self.arguments, data)
        status = _wait(process, deadline)
        if status is None:
            return Verdict(UNSURE, 'timed out')
        if os.WIFSIGNALED(status):
            return Verdict(UNSURE, f'died of signal {os.WTERMSIG(status)}')
        return _judge(os.WEXITSTATUS(status))


def _judge(code: int) -> Verdict:
    if code == 0:
        return Verdict(YES)
    meaning = {1: '', 2: ' (it was called wrongly)', 111: ' (temporary)'}.get(code, '')
    return Verdict(UNSURE if code == 111 else NO, f'exit code {code}{meaning}')


def _spawn(arguments: list, data: bytes) -> int:
    """Starts the program in a process group of its own with data on descriptor 3."""
    import fcntl

    reading, writing = os.pipe()
    try:
        os.write(writing, data)  # less than a pipe holds, so this cannot block
    finally:
        os.close(writing)
    # Out of the way of 0 to 3, which are set one after the other in the child.
    high = fcntl.fcntl(reading, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(reading)
    actions = [(os.POSIX_SPAWN_DUP2, high, 3)]
    actions += [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    try:
        return os.posix_spawnp(arguments[0], arguments, os.environ, file_actions=actions,
                               setpgroup=0, setsigmask=(), setsigdef=_DEFAULT_SIGNALS)
    finally:
        os.close(high)


def _wait(process: int, deadline: float) -> int | None:
    """The wait status; None if the program had to be killed at the deadline."""
    pause = FIRST_PAUSE
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status
        if time.monotonic() >= deadline:
            break
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None
