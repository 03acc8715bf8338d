# SPDX-License-Identifier: GPL-2.0-or-later
"""What a service manager tells us and wants to know (sd_notify(3), sd_listen_fds(3)).

Notifier says when the daemon is ready, reloads and stops, and keeps the watchdog quiet.
inherited_sockets() takes over sockets that systemd listens on.  Both take their variables out of
the environment, so that no program we run believes that they were meant for it.

Nothing here fails: a manager that does not listen is none of the daemon's troubles.
"""

from __future__ import annotations

import os
import socket
import time
from typing import MutableMapping

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START


class Notifier:
    """The way to the manager named by NOTIFY_SOCKET; without one every method does nothing."""

    def __init__(self, environ: MutableMapping[str, str]):
        address = environ.pop('NOTIFY_SOCKET', '')
        self._address = '\0' + address[1:] if address[:1] == '@' else address
        self.interval = _watchdog_interval(environ)

    def ready(self) -> None:
        """The sockets listen."""
        self._send('READY=1\nMAINPID=%d' % os.getpid())

    def reloading(self) -> None:
        """A reload begins; ready() ends it."""
        self._send('RELOADING=1\nMONOTONIC_USEC=%d' % (time.monotonic_ns() // 1000))

    def stopping(self) -> None:
        """The end has begun."""
        self._send('STOPPING=1')

    def alive(self) -> None:
        """To be called each `interval` seconds, where that is not None."""
        self._send('WATCHDOG=1')

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.settimeout(1)
                channel.connect(self._address)
                channel.send(text.encode('ascii'))
        except OSError:
            pass


def _watchdog_interval(environ: MutableMapping[str, str]) -> float | None:
    """Half the time in which the manager wants a sign of life, in seconds; None for no watchdog."""
    period, process = environ.pop('WATCHDOG_USEC', ''), environ.pop('WATCHDOG_PID', '')
    if not period.isdigit() or int(period) == 0 or process not in ('', str(os.getpid())):
        return None
    return int(period) / 2e6


def inherited_sockets(environ: MutableMapping[str, str]) -> list[tuple[socket.socket, str]]:
    """The listening sockets passed to this process, each with its name from LISTEN_FDNAMES."""
    process, number = environ.pop('LISTEN_PID', ''), environ.pop('LISTEN_FDS', '')
    names = environ.pop('LISTEN_FDNAMES', '').split(':')
    if process != str(os.getpid()) or not number.isdigit():
        return []
    found = []
    for offset in range(int(number)):
        descriptor = FIRST_DESCRIPTOR + offset
        os.set_inheritable(descriptor, False)
        name = names[offset] if offset < len(names) else ''
        found.append((socket.socket(fileno=descriptor), name))
    return found
