# SPDX-License-Identifier: GPL-2.0-or-later
"""The threaded server of one process: accepts connections and gives each a thread.

main (or each worker) makes a Server, starts it, and stops it.  One Acceptor, a
socketserver.ThreadingTCPServer, works for each listening socket; all share a Gate, which knows
how many sessions there are and whether one more may come.

What it guarantees:
- With -C, a client that is one too many waits in the listen queue and is not refused.
- The acceptor never waits for a client: TLS handshake, PROXY header and everything else happen in
  the thread of the connection.
- Of several workers, the one that has the fewest sessions takes the next (balance.py).
- When descriptors, threads or memory run out, nobody is accepted for a while; the sessions that
  are there go on, for which some descriptors are kept in reserve.
- stop() takes no more clients, tells sessions that wait for a command to end, lets others finish
  their message, and comes back when all have ended or the time is over.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import socketserver
import threading
from time import monotonic, sleep

from TMDA.ofmipd.balance import Place, alone
from TMDA.ofmipd.client import Client
from TMDA.ofmipd.connection import serve
from TMDA.ofmipd.crew import Crew
from TMDA.ofmipd.listeners import Listening
from TMDA.ofmipd.trouble import fault
from TMDA.ofmipd.wire import Shutdown, Wire

POLL_SECONDS = 0.25   # how long an acceptor may take to see that it is to stop
PAUSE_SECONDS = 0.25  # between two tries when descriptors are used up
YIELD_SECONDS = 0.002  # for another worker that has fewer sessions to take a connection
RESERVE = 8           # descriptors that a session may need when all others are used
# Address space of a thread's stack; only what is touched takes memory.  A user's configuration runs
# here: recursion up to Python's own limit has to fit.  One huge page (2 MiB) must not, or the
# system may back each stack by a whole one.
STACK_OCTETS = (2 << 20) - (64 << 10)
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Gate:
    """Counts sessions and says whether another may begin.  limit 0 is no limit."""

    def __init__(self, limit: int, log, place: Place | None = None):
        self._limit = limit
        self._log = log
        self._place = place or alone()
        self._count = 0
        self._changed = threading.Condition()
        self._reserve: list[int] = []
        self._paused = False
        self._fill_reserve()

    @property
    def count(self) -> int:
        """Sessions that there are now."""
        return self._count

    def yields(self) -> bool:
        """True if another worker has fewer sessions and should have the next one."""
        return self._place.yields()

    def enter(self, seconds: float) -> bool:
        """Count one more session; False if there was no room for it within some seconds."""
        with self._changed:
            if not self._changed.wait_for(self._has_room, seconds):
                return False
            if len(self._reserve) < RESERVE and not self._fill_reserve():
                self._changed.wait(PAUSE_SECONDS)
                return False
            self._count += 1
            self._place.record(self._count)
            return True

    def accepted(self) -> None:
        """The session that entered has its connection: if there was a shortage, it is over."""
        if self._paused:
            self._paused = False
            self._log.event('accept-resumed')

    def leave(self) -> None:
        """One session less."""
        with self._changed:
            self._count -= 1
            self._place.record(self._count)
            self._changed.notify_all()

    def exhausted(self, error: Exception) -> None:
        """Something was used up: give the reserve to the sessions that there are, and wait."""
        with self._changed:
            self.close()
            if not self._paused:
                self._paused = True
                self._log.event('accept-paused', cause=error)
            self._changed.wait(PAUSE_SECONDS)

    def wait_empty(self, seconds: float) -> int:
        """Wait until no session is left, or some seconds; return how many are left."""
        with self._changed:
            self._changed.wait_for(lambda: not self._count, max(seconds, 0))
            return self._count

    def close(self) -> None:
        """Close the reserve."""
        while self._reserve:
            os.close(self._reserve.pop())

    def _has_room(self) -> bool:
        return not self._limit or self._count < self._limit

    def _fill_reserve(self) -> bool:
        try:
            while len(self._reserve) < RESERVE:
                self._reserve.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            self.close()
        return bool(self._reserve)


class Handler(socketserver.BaseRequestHandler):
    """Runs in the thread of a connection."""

    def handle(self) -> None:
        """Serve the client."""
        server = self.server
        wire = Wire.over_socket(self.request, server.shutdown_signal)
        serve(wire, Client.of_socket(self.request), server.service, server.networks)


class Acceptor(socketserver.ThreadingTCPServer):
    """The standard threading server over a socket that listens already."""

    def __init__(self, sock: socket.socket, service, gate: Gate, networks: tuple,
                 shutdown_signal: Shutdown):
        socketserver.BaseServer.__init__(self, sock.getsockname(), Handler)
        self.socket = sock
        self.service = service
        self.networks = networks
        self.shutdown_signal = shutdown_signal
        self._gate = gate
        self._crew = Crew()

    def get_request(self) -> tuple:
        """Accept a connection, if there is room.  An OSError makes the caller's loop go on."""
        if self._gate.yields():
            sleep(YIELD_SECONDS)
        if not self._gate.enter(POLL_SECONDS):
            raise BlockingIOError
        try:
            sock, address = self.socket.accept()
        except OSError as error:
            self._gate.leave()
            if error.errno in EXHAUSTED:
                self._gate.exhausted(error)
            raise
        self._gate.accepted()
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return sock, address

    def process_request(self, request: socket.socket, client_address) -> None:
        """Serve the client in a thread."""
        self._crew.run(functools.partial(self.process_request_thread, request, client_address))

    def server_close(self) -> None:
        """Close the listening socket, and let threads end that serve nobody."""
        self.socket.close()
        self._crew.close()

    def shutdown_request(self, request: socket.socket) -> None:
        """Called once for each accepted connection, however it ended."""
        request.close()
        self._gate.leave()

    def handle_error(self, request: socket.socket, client_address) -> None:
        """No thread could be had, or a session failed outside of what serve() catches."""
        import sys
        error = sys.exc_info()[1]
        if isinstance(error, (RuntimeError, MemoryError)):
            self._gate.exhausted(error)
        else:
            self.service.log.event('session-failed', **fault(error))


class Server:
    """All acceptors of a process.  service_for(tls_mode) gives the Service of a listener; place is
    that of a worker."""

    def __init__(self, listening: list[Listening], service_for, limit: int, networks: tuple, log,
                 place: Place | None = None):
        self._log = log
        self._gate = Gate(limit, log, place)
        self._shutdown = Shutdown()
        self._acceptors = [
            Acceptor(sock, service_for(each.tls_mode), self._gate, networks, self._shutdown)
            for each in listening for sock in each.sockets]

    @property
    def sessions(self) -> int:
        """Sessions that there are now."""
        return self._gate.count

    def start(self) -> None:
        """Begin to accept, in threads of the server's own."""
        threading.stack_size(STACK_OCTETS)
        for acceptor in self._acceptors:
            threading.Thread(target=acceptor.serve_forever, args=(POLL_SECONDS,),
                             daemon=True).start()

    def stop(self, seconds: float) -> int:
        """Accept no more, let sessions end; return how many had not after some seconds."""
        deadline = monotonic() + seconds
        self._shutdown.begin()
        for acceptor in self._acceptors:
            acceptor.shutdown()
            acceptor.server_close()
        left = self._gate.wait_empty(deadline - monotonic())
        self._gate.close()
        return left
