# SPDX-License-Identifier: GPL-2.0-or-later
"""Every limit and timeout, in one table.

The command line options, the documentation's table and the tests are made from LIMITS.  Where a
number comes from an RFC, the meaning names it; the others are defenses (htdocs/security.html).
"""

from __future__ import annotations

from typing import NamedTuple


class Limit(NamedTuple):
    """One row: attribute name, default, unit, command line option ('' where there is none), meaning."""

    name: str
    default: int
    unit: str
    option: str
    meaning: str


LIMITS = (
    Limit('command_line', 2048, 'octets', '', 'a command line (RFC 5321 4.5.3.1.4 asks for 512)'),
    Limit('auth_line', 12288, 'octets', '', 'a line of an AUTH exchange (RFC 4954 4)'),
    Limit('message_size', 52428800, 'octets', '--message-size', 'a message; announced as SIZE (RFC 1870)'),
    Limit('header_size', 1048576, 'octets', '', 'the header of a message'),
    Limit('recipients', 1000, 'recipients', '--recipients', 'recipients of a message (RFC 5321 4.5.3.1.8)'),
    Limit('command_seconds', 300, 'seconds', '--timeout', 'waiting for a command (RFC 5321 4.5.3.2.7)'),
    Limit('login_seconds', 60, 'seconds', '', 'all a client may use before it has logged in'),
    Limit('tls_seconds', 60, 'seconds', '', 'a TLS handshake'),
    Limit('data_rate', 500, 'octets/s', '', 'the slowest that DATA may come on average'),
    Limit('bad_commands', 10, 'commands', '', 'commands in error before the session ends'),
    Limit('login_failures', 3, 'failures', '', 'failed logins before the session ends'),
    Limit('login_delay', 1, 'seconds', '', 'delay after a failed login; doubles for each from one address'),
    Limit('login_delay_most', 15, 'seconds', '', 'the longest delay after a failed login'),
    Limit('guess_addresses', 10000, 'addresses', '', 'client addresses remembered for failed logins'),
    Limit('proxy_seconds', 5, 'seconds', '', 'waiting for a PROXY protocol header'),
    Limit('source_seconds', 30, 'seconds', '', 'asking one authentication source'),
    Limit('script_seconds', 30, 'seconds', '', 'a throttle script, virtual home script or filter command'),
    Limit('submit_seconds', 900, 'seconds', '', 'tagging and handing over one message'),
    Limit('connect_seconds', 60, 'seconds', '', 'connecting to the upstream server'),
    Limit('upstream_seconds', 300, 'seconds', '', 'one reply of the upstream server (RFC 5321 4.5.3.2)'),
    Limit('idle_connections', 20, 'connections', '', 'upstream connections kept for reuse'),
    Limit('idle_seconds', 60, 'seconds', '', 'how long an unused upstream connection is kept'),
    Limit('message_connections', 20, 'connections', '', 'upstream connections used for one message'),
    Limit('spool_memory', 262144, 'octets', '', 'a message kept in memory; a larger one is in a file'),
    Limit('remembered', 10000, 'recipients', '', 'deliveries remembered of partly sent messages'),
    Limit('shutdown_seconds', 30, 'seconds', '', 'waiting for sessions at the end'),
    Limit('sessions', 0, 'sessions', '--connections', 'sessions at once; 0 for no limit'),
)


class Limits:
    """A value for each row of LIMITS as an attribute; keyword arguments replace defaults.

    Raises TypeError for a name that is not in the table.
    """

    def __init__(self, **replaced: int):
        for row in LIMITS:
            setattr(self, row.name, replaced.pop(row.name, row.default))
        if replaced:
            raise TypeError('no such limit: ' + ', '.join(sorted(replaced)))
