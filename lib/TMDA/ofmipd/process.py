# SPDX-License-Identifier: GPL-2.0-or-later
"""The life of a process that serves clients: the only one, or one of the workers.

The main thread waits for signals here while threads of the server do the work:
SIGTERM and SIGINT end the process, SIGHUP reloads, SIGUSR1 logs the counters.
"""

from __future__ import annotations

import os
import signal
from typing import Callable, NamedTuple

from TMDA.ofmipd.assembly import Assembly
from TMDA.ofmipd.daemon import ENDING, Signals
from TMDA.ofmipd.listeners import Listening
from TMDA.ofmipd.notify import Notifier
from TMDA.ofmipd.server import Server


class Daemon(NamedTuple):
    """What main has prepared.  started() is to be called when clients are accepted."""

    assembly: Assembly
    listening: list[Listening]
    notifier: Notifier
    started: Callable[[], None]


def serve(daemon: Daemon, connections: int, lifeline: int | None = None) -> None:
    """Serve until a signal to end, and until the sessions have ended or had their time.

    connections: at most so many sessions, 0 for no limit.  lifeline: see Signals.
    """
    assembly, log = daemon.assembly, daemon.assembly.log
    signals = Signals(lifeline=lifeline)
    server = Server(daemon.listening, assembly.service, connections, assembly.networks, log)
    server.start()
    log.event('started', process=os.getpid())
    daemon.notifier.ready()
    daemon.started()
    _until_ended(daemon, signals, server)
    daemon.notifier.stopping()
    log.event('stopping', sessions=server.sessions)
    left = server.stop(assembly.limits.shutdown_seconds)
    log.event('stopped', sessions=left)
    signals.close()  # not before: a service manager may tell parent and worker, and the parent, too


def _until_ended(daemon: Daemon, signals: Signals, server: Server) -> None:
    log = daemon.assembly.log
    number = None
    while number not in ENDING:
        number = signals.wait(daemon.notifier.interval)
        if number is None:
            daemon.notifier.alive()
        elif number == signal.SIGHUP:
            daemon.notifier.reloading()
            daemon.assembly.reload()
            daemon.notifier.ready()
        elif number == signal.SIGUSR1:
            log.event('counters', process=os.getpid(), now=server.sessions, **log.counters)
