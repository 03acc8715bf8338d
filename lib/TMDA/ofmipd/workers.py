# SPDX-License-Identifier: GPL-2.0-or-later
"""--workers: several processes over the same listening sockets, and one that looks after them.

The parent has no threads, serves nobody and parses nothing.  It forks the workers before any of
them has a thread, replaces one that dies (later and later if that keeps happening), passes
signals on, and ends when all workers have ended.  A worker whose parent is gone ends, too: it
sees its lifeline, a pipe that only the parent holds open, closed.

A connection goes to the worker that has the fewest (balance.py); each worker has its own share of
-C and its own memory of failed logins.
"""

from __future__ import annotations

import os
import signal
from time import monotonic
from typing import Callable

from TMDA.inject import processor
from TMDA.ofmipd.balance import Balance
from TMDA.ofmipd.daemon import ENDING, WATCHED, Signals
from TMDA.ofmipd.failure import SOFTWARE
from TMDA.ofmipd.listeners import close_all
from TMDA.ofmipd.notify import Notifier
from TMDA.ofmipd.process import Daemon, serve
from TMDA.ofmipd.trouble import fault

GRACE_SECONDS = 5     # beyond shutdown_seconds, before a worker that does not end is killed
FIRST_DELAY = 0.1     # seconds before a dead worker is replaced; doubled for each one that
LONGEST_DELAY = 30.0  # dies within HEALTHY_SECONDS
HEALTHY_SECONDS = 60

# work(index, lifeline): what a worker does, from its first moment to its end.
Work = Callable[[int, int], None]


def share(connections: int, workers: int, index: int) -> int:
    """The part of -C that belongs to worker `index`; 0 is no limit, for all or for none."""
    return connections // workers + (index < connections % workers)


class Workers:
    """The parent's side: `number` processes that call work.  signals are the parent's."""

    def __init__(self, number: int, work: Work, signals: Signals, log):
        self._work = work
        self._signals = signals
        self._log = log
        self._number = number
        self._running: dict[int, tuple[int, float]] = {}  # process id -> (index, started at)
        self._due: dict[int, float] = {}                  # index -> when to start it again
        self._delays = [FIRST_DELAY] * number
        self._lifeline, self._held = os.pipe()

    def start(self) -> None:
        """Fork all workers."""
        for index in range(self._number):
            self._fork(index)

    def seconds_to_wait(self) -> float | None:
        """Until start_due() has something to do; None for never."""
        return max(min(self._due.values()) - monotonic(), 0) if self._due else None

    def start_due(self) -> None:
        """Fork the replacements whose time has come."""
        for index, due in list(self._due.items()):
            if due <= monotonic():
                del self._due[index]
                self._fork(index)

    def collect(self, ending: bool = False) -> None:
        """Take note of workers that have ended, and plan replacements unless all is to end."""
        while self._running:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                return
            if process not in self._running:
                continue
            index, started = self._running.pop(process)
            if ending:
                continue
            healthy = monotonic() - started > HEALTHY_SECONDS
            delay = FIRST_DELAY if healthy else self._delays[index]
            self._delays[index] = min(delay * 2, LONGEST_DELAY)
            self._due[index] = monotonic() + delay
            self._log.event('worker-died', process=process,
                            status=os.waitstatus_to_exitcode(status))

    def send(self, number: int) -> None:
        """Pass a signal on to all workers."""
        for process in self._running:
            os.kill(process, number)

    def stop(self, seconds: float) -> None:
        """End all workers; kill those that take longer than some seconds."""
        deadline = monotonic() + seconds
        self.send(signal.SIGTERM)
        self.collect(ending=True)
        while self._running and monotonic() < deadline:
            self._signals.wait(deadline - monotonic())
            self.collect(ending=True)
        self.send(signal.SIGKILL)
        for process in self._running:
            os.waitpid(process, 0)

    def _fork(self, index: int) -> None:
        """Signals stay blocked in the worker until it has made its own Signals."""
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        try:
            process = os.fork()
            if not process:
                self._live(index)
            self._running[process] = (index, monotonic())
        except OSError as error:
            self._due[index] = monotonic() + LONGEST_DELAY
            self._log.event('worker-died', cause=error)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)

    def _live(self, index: int) -> None:
        """The worker's whole life; never returns."""
        status = SOFTWARE
        try:
            os.close(self._held)
            self._signals.close()
            self._work(index, self._lifeline)
            status = 0
        except BaseException as error:
            self._log.event('worker-failed', **fault(error))
        finally:
            os._exit(status)


def supervise(daemon: Daemon, number: int, connections: int) -> None:
    """Run workers until a signal to end, and until they have ended."""
    quiet = daemon._replace(notifier=Notifier({}), started=lambda: None)
    balance = Balance(number)

    parent = os.getpid()

    def work(index: int, lifeline: int) -> None:
        if not daemon.assembly.options.all_processors:
            processor.keep_to_one(parent + index)
        serve(quiet, share(connections, number, index), lifeline, balance.place(index))

    signals = Signals(WATCHED + (signal.SIGCHLD,))
    workers = Workers(number, work, signals, daemon.assembly.log)
    daemon.started()  # before the workers are forked, so that they let go of the terminal, too
    workers.start()
    daemon.notifier.ready()
    _until_ended(daemon, signals, workers)
    daemon.notifier.stopping()
    close_all(daemon.listening)
    workers.stop(daemon.assembly.limits.shutdown_seconds + GRACE_SECONDS)
    signals.close()


def _until_ended(daemon: Daemon, signals: Signals, workers: Workers) -> None:
    notifier = daemon.notifier
    number = None
    while number not in ENDING:
        number = signals.wait(_shorter(workers.seconds_to_wait(), notifier.interval))
        if number is None:
            notifier.alive()
        elif number == signal.SIGCHLD:
            workers.collect()
        elif number == signal.SIGHUP:
            notifier.reloading()
            daemon.assembly.reload()  # for the workers that will be forked from here
            workers.send(number)
            notifier.ready()
        elif number == signal.SIGUSR1:
            workers.send(number)
        workers.start_due()


def _shorter(one: float | None, other: float | None) -> float | None:
    given = [seconds for seconds in (one, other) if seconds is not None]
    return min(given) if given else None
