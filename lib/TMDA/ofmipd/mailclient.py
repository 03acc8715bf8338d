# SPDX-License-Identifier: GPL-2.0-or-later
"""What a mail client has to know to reach a daemon that is started with these options.

Used by --setup (for people), --autoconfig (for programs) and --check.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from typing import NamedTuple

from TMDA.ofmipd import listeners
from TMDA.ofmipd.assembly import default_files, fqdn
from TMDA.ofmipd.failure import StartError
from TMDA.ofmipd.options import (DEFAULT_PORT, LISTENER_MODES, OPTIONS, ListenSpec, Options,
                                 ordered_sources)
from TMDA.ofmipd.users import password_owners

EVERYWHERE = ('', '0.0.0.0', '::')
LOOPBACK = ('localhost', '127.0.0.1', '::1')

# TLS mode of a port: what mail clients call it.
SECURITY = {
    '': 'none',
    'ssl': 'SSL/TLS',
    'optional': 'STARTTLS',
    'localoptional': 'STARTTLS',
    'on': 'STARTTLS',
}

_MODE_WORDS = {mode: word for word, mode in reversed(list(LISTENER_MODES.items()))}
_SOURCE_FLAGS = {'file': '-a', 'authprog': '-A', 'remote': '-R', 'pam': '-m'}
_DAEMON_GROUPS = ('Connection', 'Encryption', 'Authentication')
_DAEMON_KINDS = ('flag', 'text', 'tls', 'file', 'program')


class Server(NamedTuple):
    """One port: the host as clients name it (no brackets), the port, the TLS mode."""

    host: str
    port: int
    tls_mode: str

    @property
    def is_local(self) -> bool:
        """Whether only programs on this host can reach it."""
        return self.host in LOOPBACK or self.host.startswith('127.')


def servers(options: Options) -> list[Server]:
    """The ports on which the daemon would listen, in the order of the options."""
    if not options.listeners:
        return [Server(_default_host(), DEFAULT_PORT, options.tls_mode)]
    return [Server(fqdn() if spec.host in EVERYWHERE else spec.host, spec.port,
                   options.tls_mode if spec.mode is None else spec.mode)
            for spec in options.listeners]


def takes_cram(options: Options) -> bool:
    """Whether all passwords are known in plain, so that clients may keep theirs to themselves."""
    from TMDA.Errors import ConfigError
    from TMDA.ofmipd.sources import build
    password_file, ipauthmap = default_files(os.geteuid() == 0)
    try:
        return 'CRAM-MD5' in build(ordered_sources(options, password_file),
                                   options.limits.source_seconds, password_owners(options),
                                   ipauthmap).mechanisms
    except ConfigError:
        return False


def command_name() -> str:
    """What one types to run this program: its path where it is not to be found without."""
    called = sys.argv[0]
    if os.path.basename(called) == 'tmda-ofmipd' and not shutil.which('tmda-ofmipd'):
        return called
    return 'tmda-ofmipd'


def start_command(options: Options) -> str:
    """The command that starts a daemon with these options, as one types it into a shell."""
    words = [command_name()]
    for spec in options.listeners:
        mode = '' if spec.mode is None else '/' + _MODE_WORDS[spec.mode]
        words += ['-6' if spec.ipv6 else '-p', spec.text + mode]
    for kind, value in options.sources:
        words += [_SOURCE_FLAGS[kind], value]
    for row in OPTIONS:
        value = getattr(options, row.name)
        if row.group not in _DAEMON_GROUPS or row.kind not in _DAEMON_KINDS or not value:
            continue
        words += [row.flags[-1]] if row.kind == 'flag' else ['%s=%s' % (row.flags[-1], value)]
    return ' '.join(map(shlex.quote, words))


def _default_host() -> str:
    """The FQDN if it is an address of this host, as the daemon finds out: by binding a socket."""
    name = fqdn()
    try:
        listeners.close_all(listeners.open_all((ListenSpec(name, name, 0, False, None),), '', [],
                                               name))
    except (StartError, OSError):
        return 'localhost'
    return name
