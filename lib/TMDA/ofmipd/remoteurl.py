# SPDX-License-Identifier: GPL-2.0-or-later
"""The value of -R: PROTO://HOST[:PORT][/DN][?verify=no], or PROTO alone for localhost.

    imap://mail.example.org            imaps://[2001:db8::1]:1993
    pop3  apop  pop3s                  ldaps://ldap.example.org/uid=%s,ou=people,dc=example

A DN is for ldap and ldaps only, has to contain `%s` for the user, and is taken as it stands (no
percent-encoding).  `?verify=no` asks not to check the certificate.  Host 0.0.0.0 stands for the
server that ipauthmap names.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from TMDA.Errors import ConfigError

# protocol: (port, TLS from the first octet, takes a DN)
PROTOCOLS = {
    'imap': (143, False, False),
    'imaps': (993, True, False),
    'pop3': (110, False, False),
    'pop3s': (995, True, False),
    'apop': (110, False, False),
    'ldap': (389, False, True),
    'ldaps': (636, True, True),
}

_FORM = re.compile(
    r'(?P<protocol>[A-Za-z0-9]+)'
    r'(?:://(?P<host>\[[0-9A-Fa-f:.]+\]|[^][:/?@\s]*)'
    r'(?::(?P<port>[0-9]{1,5}))?'
    r'(?:/(?P<dn>.*?))?'
    r'(?:\?verify=(?P<verify>yes|no))?'
    r')?')


class RemoteUrl(NamedTuple):
    """A -R value in its parts; `verify` is what the URL asks for."""

    protocol: str
    host: str
    port: int
    dn: str = ''
    verify: bool = True

    @property
    def tls(self) -> bool:
        """True when TLS starts with the first octet."""
        return PROTOCOLS[self.protocol][1]

    @property
    def name(self) -> str:
        """The source's name in log lines."""
        host = f'[{self.host}]' if ':' in self.host else self.host
        dn = '/' + self.dn if self.dn else ''
        return f'{self.protocol}://{host}:{self.port}{dn}'


def parse(text: str) -> RemoteUrl:
    """A RemoteUrl; ConfigError, one line with the text and what is wrong, if it is none."""
    found = _FORM.fullmatch(text)
    if not found:
        raise ConfigError(f'remote authentication {text!r}: write PROTO://HOST[:PORT][/DN], '
                          'an IPv6 address in brackets')
    protocol = found['protocol'].lower()
    if protocol not in PROTOCOLS:
        raise ConfigError(f'remote authentication {text!r}: unknown protocol; one of '
                          + ' '.join(PROTOCOLS))
    standard, _, takes_dn = PROTOCOLS[protocol]
    port = int(found['port'] or standard)
    if not 1 <= port <= 65535:
        raise ConfigError(f'remote authentication {text!r}: no such port')
    dn = found['dn'] or ''
    if takes_dn and '%s' not in dn:
        raise ConfigError(f'remote authentication {text!r}: the DN must contain %s for the user, '
                          'as in ldap://HOST/uid=%s,ou=people,dc=example,dc=org')
    if dn and not takes_dn:
        raise ConfigError(f'remote authentication {text!r}: nothing may follow HOST[:PORT]/')
    host = (found['host'] or 'localhost').strip('[]')
    return RemoteUrl(protocol, host, port, dn, found['verify'] != 'no')


def loopback(host: str) -> bool:
    """True for localhost and the addresses of the loopback interface."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == 'localhost'
