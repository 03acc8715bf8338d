# SPDX-License-Identifier: GPL-2.0-or-later
"""Authentication by logging in to a server: imap imaps pop3 pop3s apop ldap ldaps (-R).

RemoteSource connects, has the protocol's module try the login, and hangs up.  The server's word
decides; a server that cannot be reached, hangs, drips, says too much or talks garbage is UNSURE.
Certificates are checked on TLS protocols unless the server is on the loopback interface or the
URL says `?verify=no`.

The protocol modules are imported by the first login that needs them, because imaplib and poplib
are slow to load and one-session mode starts a process for each client.
"""

from __future__ import annotations

from typing import Callable

from TMDA.ofmipd.ipauthmap import IPAuthMap
from TMDA.ofmipd.remoteurl import RemoteUrl, loopback
from TMDA.ofmipd.timedsocket import TimedSocket, connect
from TMDA.ofmipd.verdict import AskingSource, Verdict

ANSWER_LIMIT = 65536  # octets that a server may send in one login
MAPPED_HOST = '0.0.0.0'  # asks ipauthmap


def _login_function(protocol: str) -> Callable[..., Verdict]:
    """login(stream, user, password, url) -> Verdict for `protocol`."""
    if protocol in ('imap', 'imaps'):
        from TMDA.ofmipd import imaplogin
        return imaplogin.login
    if protocol in ('ldap', 'ldaps'):
        from TMDA.ofmipd import ldap
        return ldap.login
    from TMDA.ofmipd import pop3login
    return pop3login.login


class RemoteSource(AskingSource):
    """The users of one mail or LDAP server, or of several chosen by ipauthmap."""

    def __init__(self, url: RemoteUrl, seconds: float, ipauthmap: IPAuthMap | None = None):
        """ipauthmap is needed for host 0.0.0.0 only."""
        super().__init__(url.name, seconds)
        self.url = url
        self._map = ipauthmap

    def ask(self, user: bytes, password: bytes, client, deadline: float) -> Verdict:
        stream = self._connect(client, deadline)
        try:
            return _login_function(self.url.protocol)(stream, user, password, self.url)
        finally:
            stream.close()

    def _connect(self, client, deadline: float) -> TimedSocket:
        host, port = self.url.host, self.url.port
        if host == MAPPED_HOST and self._map:
            host, port = self._map.lookup(getattr(client, 'local_address', '') or '', port)
        verify = self.url.verify and not loopback(host)
        return connect(host, port, deadline, ANSWER_LIMIT, self.url.tls, verify)
