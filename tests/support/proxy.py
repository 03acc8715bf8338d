# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole of personal mode in this process: server, sessions, sources, tagging, transport.

Only the process and its signals are left out.  write_home() makes what a user has in a home
directory; it serves tests that start the program as well.
"""
from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

from support.fake_backend import FakeLog
from support.talk import PATIENCE, Talk, server_context
from TMDA.inject import transport
from TMDA.inject.limits import Limits
from TMDA.ofmipd.accounts import Accounts
from TMDA.ofmipd.guard import Guard
from TMDA.ofmipd.inprocess import InProcess, Policy
from TMDA.ofmipd.listeners import Listening
from TMDA.ofmipd.server import Server
from TMDA.ofmipd.session import Service
from TMDA.ofmipd.sources import build

USER, PASSWORD = 'bobby', 'FooBar'
AUTHOR = 'bobby@example.net'
HOSTNAME = 'mail.example.net'


def write_home(home: Path, upstream_port: int, filter_text: str = 'to * bare\n',
               passwords: str = '%s:%s\n' % (USER, PASSWORD), more: str = '') -> Path:
    """Password file, key, configuration (upstream at 127.0.0.1, and `more`) and filter in home."""
    directory = home / '.tmda'
    files = {
        directory / 'tofmipd': passwords,
        directory / 'crypt_key': '0123456789abcdef' * 4 + '\n',
        directory / 'config': 'MAIL_TRANSPORT = "smtp"\nSMTPHOST = "127.0.0.1:%d"\n%s\n'
                              % (upstream_port, more),
        directory / 'filters' / 'outgoing': filter_text,
    }
    (directory / 'filters').mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        path.write_text(text, encoding='utf-8')
        path.chmod(0o600)
    return home


class Proxy:
    """A running server; a context manager.  `port`, `log` (a FakeLog), `connect()`.

    tls_mode is that of Service.  Keyword arguments replace limits; a failed login costs no time
    unless they say so.
    """

    def __init__(self, home: Path, tls_mode: str = '', **limits):
        self.log = FakeLog()
        self.limits = Limits(**dict({'login_delay': 0}, **limits))
        chain = build([('file', str(home / '.tmda' / 'tofmipd'))], 30)
        environ = {'HOME': str(home), 'PATH': os.environ['PATH'],
                   'GLOBAL_TMDARC': str(home / 'no-global-file')}
        backend = InProcess(chain, Accounts('', environ), Policy(), self.limits)
        self.service = Service(HOSTNAME, backend, self.limits, Guard(self.limits), self.log,
                               tls_mode, server_context)
        sock = socket.create_server(('127.0.0.1', 0), backlog=1024)
        sock.setblocking(False)
        self.port = sock.getsockname()[1]
        self._server = Server([Listening('', (sock,), tls_mode)], lambda mode: self.service, 0, (),
                              self.log)

    def __enter__(self) -> Proxy:
        self._server.start()
        return self

    def __exit__(self, *unused) -> None:
        self._server.stop(PATIENCE)
        threading.stack_size(0)
        transport.close()

    def connect(self) -> Talk:
        """A connection, after the greeting; over TLS if the server's mode is `ssl`."""
        talk = Talk(socket.create_connection(('127.0.0.1', self.port), PATIENCE))
        talk.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.service.tls_mode == 'ssl':
            talk.start_tls()
        assert talk.reply().startswith('220 ')
        return talk
