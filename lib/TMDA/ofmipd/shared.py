# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared mode put together: one daemon for many users, by root or for --configdir, --vhome-script.

main makes a SharedAssembly instead of an Assembly, binds the sockets, detaches, and calls
supervise(), which becomes the monitor; or serve_one() for -1.  Who does what is in monitor.py
(forks), duties.py (what the forked processes do), privileges.py (what root does), network.py,
channels.py (the network process) and child.py (the processes of a session).

Everything is checked before: what only root can read is read in a process that ends at once, so
that nothing of it is in the memory that the processes of sessions are copied from.
"""

from __future__ import annotations

import gc
import json
import os

from TMDA.Errors import ConfigError
from TMDA.ofmipd import logs, monitor, privileges, process
from TMDA.ofmipd.assembly import check_paths, default_files, fqdn
from TMDA.ofmipd.child import Rules
from TMDA.ofmipd.duties import Duties
from TMDA.ofmipd.failure import CONFIG, SOFTWARE, StartError
from TMDA.ofmipd.inprocess import Policy
from TMDA.ofmipd.network import Network
from TMDA.ofmipd.options import Options, ordered_sources
from TMDA.ofmipd.sources import build

SESSIONS = 1000   # processes of sessions at a time, where -C does not say
STOP_SECONDS = 5  # beyond shutdown_seconds, for the network process
# What a session needs to send a message: loaded once, shared by all processes of sessions.
PRELOADED = ('TMDA.Cookie', 'TMDA.Defaults', 'TMDA.FilterParser', 'TMDA.inject.sendmail',
             'TMDA.inject.sidenotes', 'TMDA.inject.smtpout', 'TMDA.inject.submit',
             'TMDA.inject.tagging', 'TMDA.inject.transport', 'TMDA.ofmipd.grammar',
             'TMDA.ofmipd.login', 'TMDA.ofmipd.passwords', 'email.utils', 'encodings.idna',
             'hashlib', 'hmac', 'smtplib', 'subprocess')


class SharedAssembly:
    """Made of Options by main, raises StartError; stands in for assembly.Assembly."""

    def __init__(self, options: Options, log: logs.Log):
        check_paths(options)
        self.options = options
        self.log = log
        self.limits = options.limits
        self.hostname = fqdn()
        self.account = _network_account(options.username) if os.geteuid() == 0 else None
        password_file, ipauthmap = default_files(self.account is not None)
        self.rules = Rules(
            ordered_sources(options, password_file), ipauthmap, options.configdir,
            options.vhome_script, options.vdomains_path,
            Policy(options.pure_proxy, options.throttle_script), self.limits, self.account)
        self.mechanisms = self._checked()

    def serve_one(self) -> int:
        """-1: serve the client on descriptor 0; the exit status."""
        return self._watch(Duties(self, Network.serve_descriptor, once=True))

    def supervise(self, daemon: process.Daemon) -> None:
        """Be the monitor until a signal to end.  Raises StartError.

        One process serves the network, whatever --workers says: the work is done by the processes
        of the sessions.
        """
        _preload()
        duties = Duties(self, lambda network: network.serve(daemon), daemon.notifier,
                        daemon.started)
        status = self._watch(duties)
        if status:
            raise StartError(status, 'the network process could not start')

    def _watch(self, duties: Duties) -> int:
        problem = duties.refresh()
        if problem:
            raise StartError(CONFIG, problem)
        return monitor.Monitor(duties, self.options.sessions or SESSIONS,
                               self.limits.shutdown_seconds + STOP_SECONDS).run()

    def _checked(self) -> tuple[str, ...]:
        """Check sources and certificate in a process of their own; the mechanisms to offer."""
        answer = json.loads(privileges.apart(self._check) or '{}')
        if 'exposed' in answer:
            self.log.event('key-readable', file=answer['exposed'])
        if 'mechanisms' not in answer:
            raise StartError(answer.get('status', SOFTWARE), answer.get('error', 'checks failed'))
        return tuple(answer['mechanisms'])

    def _check(self) -> str:
        owners = (0, self.account.uid) if self.account else ()
        found = {}
        try:
            if self.options.wants_tls:
                from TMDA.ofmipd.tls import Certificate
                exposed = Certificate(self.options).exposed_key
                found.update({'exposed': exposed} if exposed else {})
            chain = build(self.rules.sources, self.limits.source_seconds, owners,
                          self.rules.ipauthmap)
            found['mechanisms'] = chain.mechanisms
        except ConfigError as error:
            found.update(error=str(error), status=CONFIG)
        except StartError as error:
            found.update(error=str(error), status=error.status)
        return json.dumps(found)


def _network_account(name: str) -> privileges.Account:
    """The account of -u.  Raises StartError."""
    try:
        return privileges.find(name)
    except (KeyError, ValueError):
        raise StartError(CONFIG, 'there is no account %s for the network side: make one, or name '
                         'another with -u' % name) from None
    except privileges.Refused as error:
        raise StartError(CONFIG, '-u: %s' % error) from None


def _preload() -> None:
    """Load what sessions will need, and keep it on pages that no process has to copy."""
    for name in PRELOADED:
        __import__(name)
    os.getgrouplist('root', 0)  # has the C library load what it asks for groups
    '\u2028'.encode('unicode_escape')
    gc.collect()
    gc.freeze()
