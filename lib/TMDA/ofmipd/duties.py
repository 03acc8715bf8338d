# SPDX-License-Identifier: GPL-2.0-or-later
"""What the processes of shared mode do: here monitor.py and privileges.py meet the rest.

Made by shared.py before the first fork.  The monitor calls it as root in global mode, so it is as
short as they are.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Callable

from TMDA.ofmipd import privileges
from TMDA.ofmipd.child import Child, judge
from TMDA.ofmipd.logs import stderr_is_the_client
from TMDA.ofmipd.network import TLS_OPTIONS, live
from TMDA.ofmipd.notify import Notifier
from TMDA.ofmipd.sources import build

ROOT_SOURCES = ('authprog', 'pam')  # that need root to check passwords


class Duties:
    """What the monitor's processes do; the names are monitor.py's and privileges.py's.

    network(), session() and load() are called in a forked process and are its whole life; ready(),
    stopping(), reload(), refresh() and beat() in the monitor; mute(), ask() and serve() by
    privileges.session().  `account` is that of the network side or None, `log` the monitor's log,
    `once` says that a network process that has ended is not replaced, `root_sources` are the
    sources that only root can ask, by options.Source.
    """

    def __init__(self, assembly, life: Callable, notifier: Notifier | None = None,
                 started: Callable[[], None] = lambda: None, once: bool = False):
        self.account = assembly.account
        self.log = assembly.log
        self.once = once
        self._assembly = assembly
        self._life = life
        self._notifier = notifier or Notifier({})
        self._started = started
        self._child = Child(assembly.rules, assembly.log)
        self.serve = self._child.serve
        self._secrets = [privileges.Secret(source.value, self.account, judge)
                         for source in assembly.rules.sources if source.kind == 'file']
        self.root_sources = {
            source: build([source], assembly.limits.source_seconds).sources[0]
            for source in assembly.rules.sources if self.account and source.kind in ROOT_SOURCES}
        options = assembly.options
        self._files = {letter: getattr(options, name) for letter, name in TLS_OPTIONS.items()
                       if options.wants_tls and getattr(options, name)}

    def network(self, control: socket.socket, news: tuple, lifeline: int) -> int:
        """The network process: give up what is not needed, then serve.  The exit status."""
        os.setsid()  # a signal from the terminal reaches it once, by the monitor
        for secret in self._secrets:
            secret.close()
        self.load(news[1])
        privileges.become(self.account)
        return live(self._assembly, control, news[0], lifeline, self._life)

    def load(self, news: socket.socket) -> None:
        """Send the network process the files that it may not open itself."""
        privileges.hand_over(news, self._files, self._assembly.options.log_file, self.account)

    def session(self, channel: socket.socket) -> None:
        """The process of a session."""
        privileges.session(channel, self)

    def ready(self) -> None:
        """Clients are accepted."""
        if self.once:
            _let_go_of_client()
        self._started()
        self._notifier.ready()

    def reload(self) -> None:
        """SIGHUP came: a process to load() is about to be forked."""
        self._notifier.reloading()
        self.refresh()
        try:
            self.log.reopen()
        except OSError as error:
            self.log.event('reload-refused', cause=error)
        self._notifier.ready()

    def stopping(self) -> None:
        """A signal to end came."""
        self._notifier.stopping()

    def refresh(self) -> str:
        """Read changed password files; what is wrong with them, which is logged as well."""
        problems = list(filter(None, (secret.refresh() for secret in self._secrets)))
        for problem in problems:
            self.log.event('source-trouble', cause=problem)
        return '; '.join(problems)

    def beat(self) -> float | None:
        """A sign of life; seconds until the next is wanted, or None."""
        self._notifier.alive()
        return self._notifier.interval

    def mute(self) -> None:
        """Write no more to the log, whose descriptor is about to be closed."""
        self.log.redirect(lambda *unused, **ignored: None)
        if 'syslog' in sys.modules:
            sys.modules['syslog'].closelog()

    def ask(self, channel: socket.socket, rooted: dict) -> str:
        """See Child.ask."""
        copies = {secret.path: secret.descriptor for secret in self._secrets}
        return self._child.ask(channel, rooted, copies)


def _let_go_of_client() -> None:
    """The client's connection is the network process's own; it ends when that one closes it."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2) if stderr_is_the_client() else (0, 1):
        os.dup2(null, descriptor)
    os.close(null)
