# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that sessions need, made of the options: certificate, sources of passwords, backend.

main makes one Assembly before it detaches, so that whatever is missing, unsafe or broken shows
on the terminal and in the exit status.  It is shared by -1, the daemon and its workers.
"""

from __future__ import annotations

import os
import socket
import sys

from TMDA.Errors import ConfigError
from TMDA.ofmipd.accounts import Accounts, own_home
from TMDA.ofmipd.failure import CONFIG, StartError
from TMDA.ofmipd.guard import Guard
from TMDA.ofmipd.inprocess import InProcess, Policy
from TMDA.ofmipd.logs import Log
from TMDA.ofmipd.options import OPTIONS, Options, ordered_sources
from TMDA.ofmipd.session import Service
from TMDA.ofmipd.sources import build

# What has to be true of a path that an option names, by the kind of the option.
_ACCESS = {'file': os.R_OK, 'program': os.X_OK, 'directory': os.X_OK}


class Assembly:
    """Made of Options; raises StartError.

    service(tls_mode) is what a listener's sessions share; reload() is what SIGHUP asks for.
    """

    def __init__(self, options: Options, log: Log):
        check_paths(options)
        self.options = options
        self.log = log
        self.limits = options.limits
        self.networks = options.proxy_protocol
        self.hostname = fqdn()
        self.certificate = None
        if options.one_session and options.tls:
            # One session asks once, and may never: its client waits for the import of ssl only then.
            self.certificate = lambda: _certificate(options, log)()
        elif options.wants_tls:
            self.certificate = _certificate(options, log)
        self._chain = _chain(options, self.limits.source_seconds, log)
        self._guard = Guard(self.limits)
        self._backend = InProcess(self._chain, Accounts(options.configdir, os.environ),
                                  Policy(options.pure_proxy, options.throttle_script),
                                  self.limits)

    def service(self, tls_mode: str) -> Service:
        """What all sessions of a listener with this TLS mode share."""
        return Service(hostname=self.hostname, backend=self._backend, limits=self.limits,
                       guard=self._guard, log=self.log, tls_mode=tls_mode,
                       tls_context=self.certificate if tls_mode else None,
                       carries_dsn=_upstream_carries_dsn)

    def reload(self) -> None:
        """Read certificate and password file again and follow a renamed log file.

        What is broken is logged and changes nothing.  Sessions go on.
        """
        try:
            self.log.reopen()
            if self.certificate:
                self.certificate.reload()
        except (OSError, StartError) as error:
            self.log.event('reload-refused', cause=error)
        self._chain.reload()
        self.log.event('reloaded')


def fqdn() -> str:
    """The full name of this host, as socket.getfqdn() finds it.

    The name is passed as octets: for text, Python would load its IDNA codec, which with -1 costs
    each connection three milliseconds.
    """
    name = socket.gethostname()
    try:
        canonical, aliases, _ = socket.gethostbyaddr(name.encode())
    except OSError:
        return name
    return next((known for known in [canonical] + aliases if '.' in known), canonical)


def _upstream_carries_dsn() -> bool:
    """Whether DSN may be offered: we know only by the connections that earlier messages left."""
    # Not imported before the first message; another thread may be about to.
    pool = getattr(sys.modules.get('TMDA.inject.pool'), 'shared', None)
    return pool is not None and pool.carries_dsn


def check_paths(options: Options) -> None:
    """Raise StartError for a file, program or directory of an option that is not there."""
    for row in OPTIONS:
        path = getattr(options, row.name)
        if row.kind not in _ACCESS or not path:
            continue
        wrong = _wrong_with(path, row.kind)
        if wrong:
            raise StartError(CONFIG, '%s: %s: %s' % (row.flags[-1], path, wrong))


def _wrong_with(path: str, kind: str) -> str:
    try:
        os.stat(path)
    except OSError as error:
        return error.strerror
    if (kind == 'directory') is not os.path.isdir(path):
        return 'not a directory' if kind == 'directory' else 'is a directory'
    if not os.access(path, _ACCESS[kind]):
        return 'not executable' if kind == 'program' else 'permission denied'
    return ''


def _certificate(options: Options, log: Log):
    from TMDA.ofmipd.tls import Certificate
    certificate = Certificate(options)
    if certificate.exposed_key:
        log.event('key-readable', file=certificate.exposed_key)
    return certificate


def default_files(root: bool) -> tuple[str, str]:
    """The password file and ipauthmap where no option names them: in /etc, or in ~/.tmda."""
    if root:
        return '/etc/tofmipd', '/etc/ipauthmap'
    directory = os.path.join(own_home(os.environ), '.tmda')
    return os.path.join(directory, 'tofmipd'), os.path.join(directory, 'ipauthmap')


def _chain(options: Options, seconds: float, log: Log):
    password_file, ipauthmap = default_files(os.geteuid() == 0)
    try:
        return build(ordered_sources(options, password_file), seconds, ipauthmap=ipauthmap,
                     log=lambda text: log.event('source-trouble', cause=text))
    except ConfigError as error:
        raise StartError(CONFIG, str(error)) from None
