# SPDX-License-Identifier: GPL-2.0-or-later
"""How a Unix daemon behaves: detaching, the pid file, signals, the limit of descriptors.

Detached is the only place that forks for the sake of the background; workers.py forks workers.
Both do so before there is any thread.
"""

from __future__ import annotations

import os
import select
import signal
import sys

from TMDA.ofmipd.failure import OS_ERROR, SOFTWARE, StartError

ENDING = (signal.SIGTERM, signal.SIGINT)
WATCHED = ENDING + (signal.SIGHUP, signal.SIGUSR1)
UMASK = 0o077              # what the daemon writes is its user's own business
DESCRIPTOR_LIMIT = 1 << 16  # soft limit that is asked for, if the hard limit allows it


class Signals:
    """Signals as something to wait for: the handlers do nothing, the interpreter writes the
    number of each into a pipe.  Main thread only.

    lifeline: a descriptor; when its other end is closed, that counts as SIGTERM.
    """

    def __init__(self, numbers: tuple = WATCHED, lifeline: int | None = None):
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, _nothing) for number in numbers}
        self._arrived = b''
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)
        self._lifeline = lifeline
        if lifeline is not None:
            self._poll.register(lifeline, select.POLLIN | select.POLLHUP)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)  # workers are born with them blocked

    def wait(self, seconds: float | None = None) -> int | None:
        """The next signal, in the order of arrival; None after some seconds without any."""
        if not self._arrived:
            timeout = None if seconds is None else max(seconds, 0) * 1000
            for descriptor, _ in self._poll.poll(timeout):
                if descriptor == self._lifeline:
                    return signal.SIGTERM
                self._arrived += os.read(self._reader, 4096)
        if not self._arrived:
            return None
        number, self._arrived = self._arrived[0], self._arrived[1:]
        return number

    def close(self) -> None:
        """Put the handlers back as they were."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)


def _nothing(number: int, frame: object) -> None:
    """A handler has to exist, or the signal would have its default effect."""


class Detached:
    """Go into the background: the command that was typed ends when the daemon runs.

    start() forks twice and returns in the daemon, which still has the terminal's stderr.  The
    command waits for running() and then exits with 0; or, if the daemon fails before, for
    failed(), whose status it exits with.
    """

    def __init__(self):
        self._writer = -1

    def start(self) -> None:
        """Return in the daemon only."""
        sys.stdout.flush()
        sys.stderr.flush()
        reader, self._writer = os.pipe()
        try:
            child = os.fork()
        except OSError as error:
            raise StartError(OS_ERROR, 'fork: %s' % error.strerror) from None
        if child:
            os.close(self._writer)
            os.waitpid(child, 0)
            os._exit((os.read(reader, 1) or bytes([SOFTWARE]))[0])
        os.close(reader)
        os.setsid()
        if os.fork():  # so that no terminal can ever become ours
            os._exit(0)
        os.chdir('/')

    def running(self) -> None:
        """All is well: let go of the terminal."""
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        if null > 2:
            os.close(null)
        self.failed(0)

    def failed(self, status: int) -> None:
        """Tell the waiting command its exit status."""
        if self._writer >= 0:
            os.write(self._writer, bytes([status]))
            os.close(self._writer)
            self._writer = -1


class PidFile:
    """A file with our process id; path '' for none.  Raises StartError when it can't be written."""

    def __init__(self, path: str):
        self._path = path
        if not path:
            return
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise StartError(OS_ERROR, '%s: %s' % (path, error.strerror)) from None
        os.fchmod(descriptor, 0o644)  # the umask is strict, but service scripts read this file
        with open(descriptor, 'w') as file:
            file.write('%d\n' % os.getpid())

    def remove(self) -> None:
        """Remove the file, if it can be removed: a daemon that gave up root may not be able to."""
        if self._path:
            try:
                os.unlink(self._path)
            except OSError:
                pass


def raise_descriptor_limit() -> None:
    """Ask for as many descriptors as the hard limit allows: sessions need one and more each."""
    import resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTOR_LIMIT if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTOR_LIMIT)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
