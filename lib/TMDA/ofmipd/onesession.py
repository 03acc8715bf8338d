# SPDX-License-Identifier: GPL-2.0-or-later
"""-1: one session for a program that accepts connections (xinetd, tcpserver, stunnel, systemd).

Descriptor 0 is the connected socket.  If it is not a socket, it is a pipe from the client and
descriptor 1 a pipe to it, as stunnel's exec gives them.

Each connection pays for the start of this process: nothing is imported here that the session
does not use.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
from typing import Mapping

from TMDA.ofmipd.client import Client
from TMDA.ofmipd.connection import serve
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
    if not stat.S_ISSOCK(os.fstat(0).st_mode):
        return Wire.over_pipes(0, 1, shutdown), client or Client()
    sock = socket.socket(fileno=os.dup(0))
    return Wire.over_socket(sock, shutdown), client or Client.of_socket(sock)

