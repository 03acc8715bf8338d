# SPDX-License-Identifier: GPL-2.0-or-later
"""The life of a process that serves clients: the only one, or one of the workers.

The main thread waits for signals here while threads of the server do the work:
SIGTERM and SIGINT end the process, SIGHUP reloads, SIGUSR1 logs the counters.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Callable, NamedTuple

from TMDA.ofmipd.assembly import Assembly
from TMDA.ofmipd.balance import Place
from TMDA.ofmipd.daemon import ENDING, Signals
from TMDA.ofmipd.listeners import Listening
from TMDA.ofmipd.notify import Notifier
from TMDA.ofmipd.server import Server

if TYPE_CHECKING:
    from TMDA.ofmipd.statistics import Book


class Daemon(NamedTuple):
    """What main has prepared.  started() is to be called when clients are accepted.

    book: where the counters of all processes come together, with --stats.
    """

    assembly: Assembly
    listening: list[Listening]
    notifier: Notifier
    started: Callable[[], None]
    book: Book | None = None


def serve(daemon: Daemon, connections: int, lifeline: int | None = None,
          place: Place | None = None) -> None:
    """Serve until a signal to end, and until the sessions have ended or had their time.

    connections: at most so many sessions, 0 for no limit.  lifeline: see Signals.  place: that of
    a worker among the others.
    """
    assembly, log = daemon.assembly, daemon.assembly.log
    signals = Signals(lifeline=lifeline)
    server = Server(daemon.listening, assembly.service, connections, assembly.networks, log,
                    place)
    server.start()
    log.event('started', process=os.getpid())
    daemon.notifier.ready()
    daemon.started()
    recorder = _recorder(daemon.book, log, server) if daemon.book else None
    _until_ended(daemon, signals, server)
    daemon.notifier.stopping()
    log.event('stopping', sessions=server.sessions)
    left = server.stop(assembly.limits.shutdown_seconds)
    _close_upstream()
    log.event('stopped', sessions=left)
    if recorder:
        recorder.stop()
    signals.close()  # not before: a service manager may tell parent and worker, and the parent, too


def _recorder(book: Book, log, server: Server):
    """Write the counters each minute until its stop() is called."""
    from TMDA.ofmipd.statistics import Recorder
    return Recorder(book, log, lambda: server.sessions)


def _close_upstream() -> None:
    """Say goodbye on the connections that are kept, if a message was ever sent."""
    pool = sys.modules.get('TMDA.inject.pool')
    shared = getattr(pool, 'shared', None)  # which is missing while the module is being imported
    if shared is not None:
        shared.close()


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
