# SPDX-License-Identifier: GPL-2.0-or-later
"""One connection from its first octet to its last: the PROXY header if there is one, then a session.

serve() is called by the server in the thread of a connection, and by -1 in the main thread.
"""

from __future__ import annotations

from TMDA.ofmipd.client import Client
from TMDA.ofmipd.session import Service, Session
from TMDA.ofmipd.wire import Wire, WireError


def serve(wire: Wire, client: Client, service: Service, networks: tuple = ()) -> None:
    """Serve one client and close the wire.  networks: whose connections begin with a PROXY header.

    A connection whose header is missing or wrong is closed without a word, as its
    specification asks (section 2).
    """
    if networks:
        from TMDA.ofmipd.proxyprotocol import ProxyError, client_behind
        try:
            client = client_behind(wire, client, networks, service.limits.proxy_seconds)
        except (ProxyError, WireError) as error:
            service.log.event('proxy-refused', client=client.address, cause=error)
            wire.close()
            return
    Session(wire, client, service).run()
