# SPDX-License-Identifier: GPL-2.0-or-later
"""The network process of shared mode: sockets, TLS, SMTP, threads; no passwords, no privileges.

duties.py makes a Network when the process has become the account of -u for good; nothing was read
from a client before.  It stands in for assembly.Assembly, so that process.serve() and
onesession.run() work here as in personal mode.

Files that only root may open come over the news socket as descriptors, at the start and, with
SIGHUP, again: certificate, key and parameters (copies in memory), and the log file.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING, Callable

from TMDA.ofmipd import ipc
from TMDA.ofmipd.channels import Channels, Monitor
from TMDA.ofmipd.failure import StartError
from TMDA.ofmipd.guard import Guard
from TMDA.ofmipd.logs import FileSink
from TMDA.ofmipd.notify import Notifier
from TMDA.ofmipd.options import Options
from TMDA.ofmipd.session import Service

if TYPE_CHECKING:
    from TMDA.ofmipd.process import Daemon

NEWS_LIMIT = 16  # octets of a message on the news socket
TLS_OPTIONS = {'c': 'ssl_cert', 'k': 'ssl_key', 'd': 'ssl_dh'}


class Network:
    """See the module.  news has the first files already.  Raises StartError."""

    def __init__(self, assembly, monitor: Monitor, news: socket.socket,
                 lifeline: int):
        self.options = assembly.options
        self.log = assembly.log
        self.limits = assembly.limits
        self.networks = assembly.options.proxy_protocol
        self._hostname = assembly.hostname
        self._monitor = monitor
        self._news = news
        self._lifeline = lifeline
        self._guard = Guard(assembly.limits)
        self._backend = Channels(monitor, assembly.mechanisms, assembly.rules.patience,
                                 assembly.limits)
        self._certificate = None
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until process.serve() waits for it
        self._log_file = _HandedFile()
        news.setblocking(False)
        self._take_news()

    def service(self, tls_mode: str) -> Service:
        """What all sessions of a listener with this TLS mode share."""
        return Service(hostname=self._hostname, backend=self._backend, limits=self.limits,
                       guard=self._guard, log=self.log, tls_mode=tls_mode,
                       tls_context=self._context if tls_mode else None)

    def serve(self, daemon: Daemon) -> None:
        """Accept clients until a signal to end."""
        from TMDA.ofmipd import process

        def started() -> None:
            if self.options.background:
                _let_go_of_terminal()
            self._monitor.ready()

        process.serve(daemon._replace(assembly=self, notifier=Notifier({}), started=started),
                      self.options.sessions, self._lifeline)

    def serve_descriptor(self) -> None:
        """-1: serve the client on descriptor 0."""
        from TMDA.ofmipd import onesession
        self._monitor.ready()
        onesession.run(self.service(self.options.tls_mode), self.networks, os.environ)

    def reload(self) -> None:
        """SIGHUP: take the files that have been sent."""
        try:
            self._take_news()
        except (OSError, StartError) as error:
            self.log.event('reload-refused', cause=error)
        self.log.event('reloaded')

    def _context(self):
        return self._certificate()

    def _take_news(self) -> None:
        """Read all messages that are there: letters for descriptors, and a dot."""
        while True:
            descriptors: list[int] = []
            try:
                letters = ipc.receive_octets(self._news, NEWS_LIMIT, descriptors)
                if not letters:
                    return
                self._use(dict(zip(letters.decode('ascii'), descriptors)))
            except BlockingIOError:
                return
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

    def _use(self, files: dict[str, int]) -> None:
        if 'l' in files:
            self._log_file.take(os.dup(files['l']))
            self.log.redirect(self._log_file)
        paths = {option: '/dev/fd/%d' % files[letter]
                 for letter, option in TLS_OPTIONS.items() if letter in files}
        if paths:
            from TMDA.ofmipd.tls import Certificate
            self._certificate = Certificate(Options(**dict(vars(self.options), **paths)))


def live(assembly, control: socket.socket, news: socket.socket, lifeline: int,
         life: Callable[[Network], None]) -> int:
    """Make a Network and call life(network); the exit status."""
    try:
        life(Network(assembly, Monitor(control), news, lifeline))
    except StartError as error:
        assembly.log.event('worker-failed', cause=error)
        return error.status
    return 0


class _HandedFile(FileSink):
    """A log file that was opened by somebody who may."""

    def __init__(self):
        self._handed = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        super().__init__('')

    def take(self, descriptor: int) -> None:
        """Write there from now on; descriptor is ours then."""
        self._handed = descriptor
        self.reopen()

    def reopen(self) -> None:
        """Only by take(): the name can't be opened here."""
        if self._handed >= 0:
            super().reopen()

    def _open(self) -> int:
        descriptor, self._handed = self._handed, -1
        return descriptor


def _let_go_of_terminal() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
