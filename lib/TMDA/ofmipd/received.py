# SPDX-License-Identifier: GPL-2.0-or-later
"""The value of the Received field that goes on top of every message (RFC 5321 4.4).

Called by the session.  What the client said of itself and what reverse DNS says of it are hostile
text: only characters of host names and address literals are kept, so that nothing in them can
open a comment, begin a clause or end the field (CWE-93).
"""

from __future__ import annotations

import re
import time

from TMDA.ofmipd.client import Client

NAME_LIMIT = 255  # octets of a name that are kept, as in DNS (RFC 1035 2.3.4)
_NOT_IN_NAMES = re.compile(r'[^A-Za-z0-9._:\[\]-]')
_DAYS = ('Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun')
_MONTHS = ('Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec')


def protocol(extended: bool, tls: bool, authenticated: bool, smtputf8: bool) -> str:
    """The keyword after `with` (RFC 3848; RFC 6531 4.3); plain SMTP knows neither TLS nor AUTH."""
    name = 'UTF8SMTP' if smtputf8 else 'ESMTP'
    if not extended and name == 'ESMTP' and not tls and not authenticated:
        return 'SMTP'
    return name + ('S' if tls else '') + ('A' if authenticated else '')


def compose(client: Client, helo: str, hostname: str, with_protocol: str, session_id: str,
            tls=None, now: float | None = None) -> str:
    """The value on one line: `from ... by ... with ... id ...; date`.

    tls is the wire's TlsInfo or None; now is in seconds since 1970, by default the present.
    """
    parts = ['from %s (%s)' % (clean_name(helo) or 'unknown', _peer(client))]
    if tls is not None:
        parts.append('(using %s with cipher %s)' % (tls.version, tls.cipher))
    parts.append('by %s (tmda-ofmipd) with %s id %s; %s'
                 % (hostname, with_protocol, session_id, format_date(now)))
    return ' '.join(parts)


def clean_name(text: str) -> str:
    """A name that a stranger gave, fit for a header field: `?` for what no host name contains."""
    return _NOT_IN_NAMES.sub('?', text[:NAME_LIMIT])


def format_date(now: float | None = None) -> str:
    """The local date of RFC 5322 3.3 in English, whatever the locale says."""
    date = time.localtime(now)
    sign, offset = ('-', -date.tm_gmtoff) if date.tm_gmtoff < 0 else ('+', date.tm_gmtoff)
    return '%s, %d %s %d %02d:%02d:%02d %s%02d%02d' % (
        _DAYS[date.tm_wday], date.tm_mday, _MONTHS[date.tm_mon - 1], date.tm_year,
        date.tm_hour, date.tm_min, date.tm_sec, sign, offset // 3600, offset % 3600 // 60)


def _peer(client: Client) -> str:
    """Who was connected: `name [address]`, with `unknown` for what is not known."""
    name = clean_name(client.name) or 'unknown'
    if not client.address:
        return name
    return '%s [%s%s]' % (name, 'IPv6:' if ':' in client.address else '', client.address)
