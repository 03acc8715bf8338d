# SPDX-License-Identifier: GPL-2.0-or-later
"""The soak itself: what is done to the daemon, and what is measured.

soak() starts the program with a port in the clear and one with TLS and an upstream server that
takes everything.  First a twentieth of the sessions, so that everything is loaded and every cache
is filled; then all others; then clients that connect and vanish, and clients that hold a
connection and say nothing, while somebody looks how long a new client waits for its greeting.
"""
from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from chaos.storm import FILTER, MODES, PROGRAM, write_directory
from soak.measure import Held, settled
from soak.sessions import Connection, Sessions
from support.proxy import USER, write_home
from support.talk import CERTIFICATE, KEY
from TMDA.ofmipd.demoupstream import Upstream

WARM_UP = 20     # one in so many sessions comes before the first measurement
START_SECONDS = 20


class Plan(NamedTuple):
    """How much of each."""

    mode: str = 'personal'
    sessions: int = 100000
    vanishing: int = 5000
    idle: int = 2000
    seed: int = 1


class Report(NamedTuple):
    """before: after the warm-up; after: after all sessions; end: after the idle clients have gone.
    rate: sessions a second.  slowest_...: seconds that a new client waited for its greeting."""

    before: Held
    after: Held
    end: Held
    rate: float
    slowest_vanishing: float
    slowest_idle: float
    errors: list

    @property
    def growth(self) -> int:
        """Octets of memory that the sessions left behind."""
        return self.after.memory - self.before.memory


class Daemon:
    """The program in a process; a context manager."""

    def __init__(self, mode: str, home: Path, upstream_port: int):
        write_home(home, upstream_port, FILTER)
        write_directory(home / 'users' / USER, upstream_port)
        self._log = home / 'log'
        words = [word.format(home=home) for word in MODES[mode]]
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), '-f', '--log-file', str(self._log), '-L',
             '-p', '127.0.0.1:0', '-p', '127.0.0.1:0/ssl', '--ssl-cert', str(CERTIFICATE),
             '--ssl-key', str(KEY), '-C', '10000', *words],
            stdin=subprocess.DEVNULL, env=dict(os.environ, HOME=str(home)))

    def __enter__(self) -> Daemon:
        deadline = time.monotonic() + START_SECONDS
        while not self._log.exists() or 'event=started' not in self._log.read_text():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError('the daemon does not start')
            time.sleep(0.02)
        self.ports = tuple(int(line.split('/')[0].rpartition(':')[2])
                           for line in self._log.read_text().split('\n') if 'Listening on' in line)
        return self

    def __exit__(self, *unused) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()


class Watcher:
    """A client that comes again and again; `slowest` is how long it waited at most."""

    def __init__(self, port: int):
        self.slowest = 0.0
        self._port = port
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *unused) -> None:
        self._ending.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            connection = Connection(self._port)
            connection.close()
            self.slowest = max(self.slowest, connection.seconds)
            if self._ending.wait(0.02):
                return


def soak(plan: Plan, home: Path) -> Report:
    """Do it all.  Raises RuntimeError if the daemon does not start."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    upstream = Upstream()
    try:
        with Daemon(plan.mode, home, upstream.port) as daemon:
            return _soak(plan, daemon)
    finally:
        upstream.close()


def _soak(plan: Plan, daemon: Daemon) -> Report:
    process = daemon.process.pid
    warm = Sessions(daemon.ports, max(plan.sessions // WARM_UP, 100), plan.seed)
    warm.run()
    before = settled(process)
    started = time.monotonic()
    rest = Sessions(daemon.ports, plan.sessions - plan.sessions // WARM_UP, plan.seed + 1)
    rest.run()
    seconds = time.monotonic() - started
    after = settled(process, before)
    vanishing = _vanish(daemon.ports[0], plan.vanishing)
    settled(process, before)
    idle = _idle(daemon.ports[0], plan.idle)
    end = settled(process, before)
    rate = (plan.sessions - plan.sessions // WARM_UP) / seconds
    return Report(before, after, end, rate, vanishing, idle, warm.errors + rest.errors)


def _vanish(port: int, number: int) -> float:
    """So many clients connect and are gone before anything is said."""
    with Watcher(port) as watcher:
        for index in range(number):
            source = ('127.0.2.%d' % (index % 200 + 1), 0)
            socket.create_connection(('127.0.0.1', port), 60, source).close()
    return watcher.slowest


def _idle(port: int, number: int) -> float:
    """So many clients hold a connection; all are greeted, and so is whoever comes then."""
    held = []
    try:
        with Watcher(port) as watcher:
            for index in range(number):
                held.append(socket.create_connection(('127.0.0.1', port), 60,
                                                     ('127.0.3.%d' % (index % 200 + 1), 0)))
            for sock in held:
                if not sock.recv(100).startswith(b'220 '):
                    raise RuntimeError('a client was not greeted')
        with Watcher(port) as later:
            time.sleep(1)
        return max(watcher.slowest, later.slowest)
    finally:
        for sock in held:
            sock.close()
