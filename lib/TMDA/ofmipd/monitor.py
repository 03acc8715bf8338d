# SPDX-License-Identifier: GPL-2.0-or-later
"""The process that has the others: it forks, hands channels over, and ends what must end.

In global mode it is root, and with privileges.py it is all of ours that is; so it does little.
It has no threads.  It reads signals, and from the network process requests of five octets:

    o NUMBER   open: fork the process of a session; one end of a socketpair to it is the answer
    e NUMBER   end: that session is over; a process that is not gone two seconds later is killed
    r 0        ready: clients are accepted

NUMBER is chosen by the network process.  The answer to `o` is `o NUMBER` with a descriptor, or
`f NUMBER` when there are too many sessions or no process can be had.  Anything else than these
requests means that the network process is not ours any more: it is killed and started again.

SIGTERM and SIGINT end the network process, which lets sessions end, and then all others; SIGHUP
has the files read again that only root can read; SIGUSR1 is passed on.  When the network process
dies, its sessions end and it is started again.  When the monitor dies, the network process sees
its lifeline closed and ends, and so do all sessions, whose channels it held.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
from time import monotonic
from typing import Callable, NamedTuple

REQUEST = struct.Struct('!cI')
OPEN, END, READY, FULL = b'o', b'e', b'r', b'f'
GRACE_SECONDS = 2            # between the end of a session and that of its process, by force
STOP_SECONDS = 5             # beyond the network process's own time for the end
RESTART_SECONDS = (0.1, 30)  # the first and the longest delay before a dead one is replaced
HEALTHY_SECONDS = 60         # a network process that lived so long may be replaced at once
ENDING = (signal.SIGTERM, signal.SIGINT)
WATCHED = ENDING + (signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)


class Tasks(NamedTuple):
    """What the monitor's processes do.  All but ready, reload and refresh are called in a forked
    process, which ends when they return; an int that they return is its exit status.

    network(control, news, lifeline)  the network process
    session(channel)                  the process of a session
    load(news)                        sends the network process what it reads after SIGHUP
    ready(), reload()                 the network process serves; SIGHUP came
    refresh()                         before a session's process is forked
    """

    network: Callable[[socket.socket, tuple, int], int]
    session: Callable[[socket.socket], None]
    load: Callable[[socket.socket], None]
    ready: Callable[[], None]
    reload: Callable[[], None]
    refresh: Callable[[], None]


class Monitor:
    """See the module.  limit: processes of sessions at a time; seconds: what the network process
    may take for its end; once: serve as long as the first network process lives (-1);
    beat: (seconds, function) for a watchdog, or None."""

    def __init__(self, tasks: Tasks, limit: int, seconds: float, log, once: bool = False,
                 beat: tuple[float, Callable[[], None]] | None = None):
        self._tasks = tasks
        self._limit = limit
        self._seconds = seconds
        self._log = log
        self._once = once
        self._beat = beat
        self._network = 0          # process id; 0 for none
        self._loader = 0
        self._sessions: dict[int, int] = {}    # number -> process id
        self._overdue: dict[int, float] = {}   # process id -> when it is killed
        self._served = self._stopping = False
        self._status = 0
        self._started = self._start_at = 0.0
        self._delay = RESTART_SECONDS[0]
        self._requests = b''
        self._wakeup = os.pipe()
        self._lifeline = os.pipe()
        self._news = socket.socketpair()
        self._control, self._theirs = socket.socketpair()

    def run(self) -> int:
        """Until the end.  Returns the exit status: that of a network process that never served."""
        for descriptor in self._wakeup:
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        for number in WATCHED:
            signal.signal(number, lambda *unused: None)
        self._start_network()
        while self._network or self._start_at:
            self._wait()
            self._kill_overdue()
            if self._start_at and monotonic() >= self._start_at:
                self._start_network()
        self._end_sessions()
        return self._status

    def _wait(self) -> None:
        """Sleep until there is something to do, and do what came in."""
        poll = select.poll()
        poll.register(self._wakeup[0], select.POLLIN)
        if self._network:
            poll.register(self._control, select.POLLIN)
        times = list(self._overdue.values()) + [self._start_at] * bool(self._start_at)
        if self._beat:
            self._beat[1]()
            times.append(monotonic() + self._beat[0])
        seconds = max(min(times) - monotonic(), 0) if times else None
        for descriptor, _ in poll.poll(None if seconds is None else seconds * 1000 + 1):
            if descriptor == self._wakeup[0]:
                for number in os.read(descriptor, 4096):
                    self._take_signal(number)
            elif self._network:
                self._take_requests()

    def _take_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number in ENDING:
            self._stopping, self._start_at = True, 0.0
            self._overdue[self._network] = monotonic() + self._seconds + STOP_SECONDS
            self._signal_network(number)
        elif number == signal.SIGHUP:
            self._tasks.reload()
            self._loader = self._fork(self._tasks.load, self._news[1])
        elif number == signal.SIGUSR1:
            self._signal_network(number)

    def _signal_network(self, number: int) -> None:
        if self._network:
            os.kill(self._network, number)

    # Requests of the network process

    def _take_requests(self) -> None:
        try:
            self._requests += self._control.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        while len(self._requests) >= REQUEST.size and self._network:
            octets, self._requests = (self._requests[:REQUEST.size],
                                      self._requests[REQUEST.size:])
            action, number = REQUEST.unpack(octets)
            if action == OPEN and number not in self._sessions:
                self._open(number)
            elif action == END:
                process = self._sessions.get(number)
                if process:
                    self._overdue[process] = monotonic() + GRACE_SECONDS
            elif action == READY and not self._served:
                self._served = True
                self._tasks.ready()
            else:
                self._log.event('network-process-refused', request=octets.hex())
                self._signal_network(signal.SIGKILL)
                return

    def _open(self, number: int) -> None:
        if len(self._sessions) >= self._limit:
            return self._answer(FULL, number)
        self._tasks.refresh()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            process = self._fork(self._tasks.session, theirs, (ours,))
            if not process:
                return self._answer(FULL, number)
            self._sessions[number] = process
            self._answer(OPEN, number, ours.fileno())

    def _answer(self, word: bytes, number: int, *descriptors: int) -> None:
        """The network process waits for each answer, so there is room, or it is not ours."""
        try:
            socket.send_fds(self._control, [REQUEST.pack(word, number)], descriptors,
                            socket.MSG_DONTWAIT)
        except OSError:
            self._signal_network(signal.SIGKILL)

    # Processes

    def _fork(self, life: Callable, argument, unwanted: tuple = ()) -> int:
        """The process id of a new process that does life(argument); 0 if there can be none."""
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        try:
            process = os.fork()
            if not process:
                self._live(life, argument, unwanted)
            return process
        except OSError as error:
            self._log.event('fork-failed', cause=error)
            return 0
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)

    def _live(self, life: Callable, argument, unwanted: tuple) -> None:
        """The whole life of a forked process; never returns."""
        status = 70
        try:
            signal.set_wakeup_fd(-1)
            for number in WATCHED:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
            for descriptor in (*self._wakeup, self._lifeline[1], self._control.fileno(),
                               *(sock.fileno() for sock in unwanted)):
                os.close(descriptor)
            status = life(argument) or 0
        except BaseException as error:
            self._log.event('process-failed', cause='%s: %s' % (type(error).__name__, error))
        finally:
            os._exit(status)

    def _start_network(self) -> None:
        def life(control: socket.socket) -> int:
            return self._tasks.network(control, self._news, self._lifeline[0])

        self._start_at = 0.0
        self._network = self._fork(life, self._theirs)
        self._started = monotonic()
        if not self._network:
            self._plan_restart()

    def _plan_restart(self) -> None:
        """Start the network process again, later and later if it keeps dying."""
        if monotonic() - self._started > HEALTHY_SECONDS:
            self._delay = RESTART_SECONDS[0]
        self._start_at = monotonic() + self._delay
        self._delay = min(self._delay * 2, RESTART_SECONDS[1])

    def _reap(self) -> None:
        """Take note of processes that have ended."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            failed = ended.si_code != os.CLD_EXITED or ended.si_status != 0
            if ended.si_pid not in (self._network, self._loader) and failed:
                _kill(ended.si_pid)  # what it has started, while its id can't be anybody else's
                self._log.event('process-ended', process=ended.si_pid, status=ended.si_status)
            os.waitpid(ended.si_pid, 0)
            self._overdue.pop(ended.si_pid, None)
            if ended.si_pid == self._network:
                self._network_ended(ended.si_status)
            elif ended.si_pid == self._loader:
                self._signal_network(signal.SIGHUP)
            else:
                self._sessions = {number: process for number, process in self._sessions.items()
                                  if process != ended.si_pid}

    def _network_ended(self, status: int) -> None:
        self._network = 0
        if self._stopping or self._once or not self._served:
            self._status = status if not self._stopping else 0
            return
        self._log.event('worker-died', status=status)
        for process in self._sessions.values():
            self._overdue.setdefault(process, monotonic() + GRACE_SECONDS)
        self._requests = b''
        self._control.close()
        self._theirs.close()
        self._control, self._theirs = socket.socketpair()
        self._plan_restart()

    def _kill_overdue(self) -> None:
        for process, due in list(self._overdue.items()):
            if monotonic() >= due:
                del self._overdue[process]
                _kill(process)

    def _end_sessions(self) -> None:
        """Their channels are closed: give them a moment, then end them by force."""
        deadline = monotonic() + GRACE_SECONDS
        while self._sessions and monotonic() < deadline:
            select.select([self._wakeup[0]], [], [], max(deadline - monotonic(), 0))
            os.read(self._wakeup[0], 4096)
            self._reap()
        for process in self._sessions.values():
            _kill(process)


def _kill(process: int) -> None:
    """End a process and its group, if it has one already."""
    for kill in (os.killpg, os.kill):
        try:
            kill(process, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
