# SPDX-License-Identifier: GPL-2.0-or-later
"""The process that has the others: it forks, hands channels over, and ends what must end.

In global mode it is root, and with privileges.py it is all of ours that is; so it does little.
It has no threads.  It reads signals, and from the network process requests of five octets:

    o NUMBER   open: fork the process of a session; one end of a socketpair to it is the answer
    e NUMBER   end: that session is over; a process that is not gone two seconds later is killed
    r 0        ready: clients are accepted

NUMBER is chosen by the network process.  The answer to `o` is `o NUMBER` with a descriptor, or
`f NUMBER` when there are too many sessions or no process can be had.  Anything else than these
requests means that the network process is not ours any more: it is killed, and replaced.

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
import time
from typing import Callable

REQUEST = struct.Struct('!cI')
OPEN, END, READY, FULL = b'o', b'e', b'r', b'f'
GRACE_SECONDS = 2    # between the end of a session and that of its process, by force
RESTART_SECONDS = 1  # before a network process that died is replaced
LOOK_SECONDS = 0.5   # between two looks at processes that are to end
ENDING = (signal.SIGTERM, signal.SIGINT)
WATCHED = ENDING + (signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)


class Monitor:
    """See the module.  What `duties` has to be: shared.Duties.  limit: processes of sessions at a
    time.  seconds: what the network process may take for its end."""

    def __init__(self, duties, limit: int, seconds: float):
        self._duties = duties
        self._limit = limit
        self._seconds = seconds
        self._network = self._loader = 0     # process ids; 0 for none
        self._sessions: dict[int, int] = {}  # number -> process id
        # Process id -> when it is killed; 0 -> when the network process is started again.
        self._due: dict[int, float] = {}
        self._requests = b''
        self._served = self._stopping = False
        self._status = 0
        self._wakeup, self._lifeline, self._news = (socket.socketpair() for _ in range(3))
        for sock in self._wakeup:
            sock.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._wakeup[0], select.POLLIN)

    def run(self) -> int:
        """Until the end.  Returns the exit status: not 0 if the network process never served."""
        signal.set_wakeup_fd(self._wakeup[1].fileno(), warn_on_full_buffer=False)
        for number in WATCHED:
            signal.signal(number, lambda *unused: None)
        self._start_network()
        while self._network or self._sessions or self._due:
            self._wait()
            for process in [one for one, due in self._due.items() if due <= time.monotonic()]:
                del self._due[process]
                if process:
                    _kill(process)
                else:
                    self._start_network()
        signal.set_wakeup_fd(-1)
        for sock in (*self._wakeup, *self._lifeline, *self._news):
            sock.close()
        return self._status

    def _wait(self) -> None:
        """Sleep until there is something to do, and do what came in."""
        seconds = LOOK_SECONDS if self._due else self._duties.beat()
        found = dict(self._poll.poll(None if seconds is None else seconds * 1000))
        if self._network and self._control.fileno() in found:
            self._take_requests()
        if self._wakeup[0].fileno() in found:
            for number in self._wakeup[0].recv(4096):
                self._take_signal(number)

    def _take_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGHUP:
            self._duties.reload()
            self._loader = self._fork(self._duties.load, self._news[1])
        else:
            if number in ENDING and not self._stopping:
                self._stopping = True
                self._duties.stopping()
                self._due.pop(0, None)
                if self._network:
                    self._end(self._network, self._seconds)
            self._signal_network(number)

    def _signal_network(self, number: int) -> None:
        if self._network:
            os.kill(self._network, number)

    # Requests of the network process

    def _take_requests(self) -> None:
        try:
            received = self._control.recv(4096)
        except ConnectionResetError:  # it ended without taking all answers
            received = b''
        if not received:
            self._signal_network(signal.SIGKILL)
        self._requests += received
        while len(self._requests) >= REQUEST.size:
            action, number = REQUEST.unpack(self._requests[:REQUEST.size])
            self._requests = self._requests[REQUEST.size:]
            if action == OPEN and number not in self._sessions:
                self._open(number)
            elif action == END:
                if number in self._sessions:
                    self._end(self._sessions[number], GRACE_SECONDS)
            elif action == READY:
                if not self._served:
                    self._duties.ready()
                self._served = True
            else:
                self._signal_network(signal.SIGKILL)
                self._requests = b''

    def _open(self, number: int) -> None:
        answer, descriptors = FULL, []
        self._duties.refresh()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            if len(self._sessions) < self._limit:
                process = self._fork(self._duties.session, theirs, ours)
                if process:
                    self._sessions[number] = process
                    answer, descriptors = OPEN, [ours.fileno()]
            try:  # it waits for each answer, so there is room for this one, or it is not ours
                socket.send_fds(self._control, [REQUEST.pack(answer, number)], descriptors)
            except OSError:
                self._signal_network(signal.SIGKILL)

    def _end(self, process: int, seconds: float) -> None:
        self._due.setdefault(process, time.monotonic() + seconds)

    # Processes

    def _fork(self, life: Callable, argument, *unwanted: socket.socket) -> int:
        """The process id of a new process that does life(argument); 0 if there can be none."""
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        try:
            process = os.fork()
            if not process:
                self._live(life, argument, unwanted)
            return process
        except OSError as error:
            self._duties.log.event('session-failed', cause=error)
            return 0
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)

    def _live(self, life: Callable, argument, unwanted: tuple[socket.socket, ...]) -> None:
        """The whole life of a forked process; never returns."""
        status = os.EX_SOFTWARE
        try:
            signal.set_wakeup_fd(-1)
            for number in WATCHED:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
            for descriptor in (*self._wakeup, self._lifeline[1], self._control, *unwanted):
                os.close(descriptor.fileno())
            status = life(argument) or 0
        except BaseException as error:
            self._duties.log.event('worker-failed', cause=repr(error))
        finally:
            os._exit(status)

    def _start_network(self) -> None:
        self._requests = b''
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        self._poll.register(self._control, select.POLLIN)
        with theirs:
            self._network = self._fork(
                lambda news: self._duties.network(
                    theirs, news, self._lifeline[0].fileno()), self._news)
        if not self._network:
            self._network_ended(os.EX_OSERR)

    def _reap(self) -> None:
        """Take note of processes that have ended."""
        while self._network or self._sessions or self._loader:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            process = ended.si_pid
            if ended.si_status and process in self._sessions.values():
                _kill(process)  # what it has started, while its number can't be anybody else's
                self._duties.log.event('session-failed', process=process, status=ended.si_status)
            os.waitpid(process, 0)
            self._due.pop(process, None)
            self._sessions = {number: other for number, other in self._sessions.items()
                              if other != process}
            if process == self._loader:
                self._loader = 0
                self._signal_network(signal.SIGHUP)
            elif process == self._network:
                self._network_ended(ended.si_status)

    def _network_ended(self, status: int) -> None:
        """Start another one, unless this one was to end or could not begin."""
        self._network = 0
        self._poll.unregister(self._control)
        self._control.close()
        # The next one begins to count anew.
        self._sessions = {-process: process for process in self._sessions.values()}
        for process in self._sessions.values():
            self._end(process, GRACE_SECONDS)
        if self._served and not self._stopping and not self._duties.once:
            self._duties.log.event('worker-died', status=status)
            self._end(0, RESTART_SECONDS)
        elif not self._stopping:
            self._status = status


def _kill(process: int) -> None:
    """End a process and what it has started; each of ours leads a group."""
    try:
        os.killpg(process, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
