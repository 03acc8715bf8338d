# SPDX-License-Identifier: GPL-2.0-or-later
"""-1: one session for a program that accepts connections (xinetd, tcpserver, stunnel, systemd).

Descriptor 0 is the connected socket.  If it is not a socket, it is a pipe from the client and
descriptor 1 a pipe to it.  The session takes them away to other numbers: what a user's
configuration prints, or a program that it starts, must not get into the conversation.

Each connection pays for the start of this process: nothing is imported here that the session
does not use.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
from fcntl import F_DUPFD_CLOEXEC, fcntl
from typing import Mapping

from TMDA.ofmipd.client import Client
from TMDA.ofmipd.connection import serve
from TMDA.ofmipd.logs import stderr_is_the_client
from TMDA.ofmipd.wire import Shutdown, Wire


def run(service, networks: tuple, environ: Mapping[str, str]) -> None:
    """Serve the session.  SIGTERM and SIGINT end it between two commands."""
    shutdown = Shutdown()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *unused: shutdown.begin())
    wire, client = connected(shutdown, environ)
    serve(wire, client, service, networks)


def connected(shutdown: Shutdown | None, environ: Mapping[str, str]) -> tuple[Wire, Client]:
    """The wire over descriptors 0 and 1, and who is at its end.

    Programs that accept connections say in the environment who it is; only where they do not, the
    socket is asked.  Over a pipe without such variables the client is unknown.
    """
    client = Client.of_environment(environ)
    is_socket = stat.S_ISSOCK(os.fstat(0).st_mode)
    reader = _moved(0)
    writer = reader if is_socket else _moved(1)
    _give_to_nobody(stderr_is_the_client())
    if not is_socket:
        return Wire.over_pipes(reader, writer, shutdown), client or Client()
    sock = socket.socket(fileno=reader)
    return Wire.over_socket(sock, shutdown), client or Client.of_socket(sock)


def _moved(descriptor: int) -> int:
    """A copy of a descriptor that is none of the three standard ones, even if one is closed."""
    return fcntl(descriptor, F_DUPFD_CLOEXEC, 3)


def _give_to_nobody(stderr_too: bool) -> None:
    """Make standard input and output, and standard error if that was the client's, /dev/null."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2) if stderr_too else (0, 1):
        os.dup2(nothing, number)
    if nothing > 2:
        os.close(nothing)
