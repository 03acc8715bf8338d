# SPDX-License-Identifier: GPL-2.0-or-later
"""--autoconfig: how mail clients find the daemon by themselves.

Printed are, for whoever runs the domain's web and name server,

- the XML file that Thunderbird, K-9 Mail and others get from
  https://autoconfig.DOMAIN/mail/config-v1.1.xml or
  https://DOMAIN/.well-known/autoconfig/mail/config-v1.1.xml (format 1.1, as described at
  wiki.mozilla.org/Thunderbird:Autoconfiguration:ConfigFileFormat);
- SRV records: _submission (RFC 6186 section 3.1), and _submissions where TLS comes from the first
  octet (RFC 8314 section 5.1).

Nothing is changed.  The domain is that of --address, else HOSTNAME of the configuration.
"""

from __future__ import annotations

import os

from TMDA.ofmipd import mailclient, users
from TMDA.ofmipd.accounts import own_home
from TMDA.ofmipd.mailclient import Server
from TMDA.ofmipd.options import Options
from TMDA.ofmipd.starter import checked_address

TTL = 3600  # seconds
SOCKET_TYPES = {'none': 'plain', 'SSL/TLS': 'SSL', 'STARTTLS': 'STARTTLS'}
PATHS = ('https://autoconfig.%s/mail/config-v1.1.xml',
         'https://%s/.well-known/autoconfig/mail/config-v1.1.xml')

_DOCUMENT = """\
<?xml version="1.0" encoding="UTF-8"?>
<clientConfig version="1.1">
  <emailProvider id="%(domain)s">
    <domain>%(domain)s</domain>
    <displayName>%(name)s</displayName>
    <displayShortName>%(name)s</displayShortName>
    <!-- Clients refuse a file without a server for incoming mail: put yours here. -->
    <incomingServer type="imap">
      <hostname>imap.%(domain)s</hostname>
      <port>993</port>
      <socketType>SSL</socketType>
      <authentication>password-cleartext</authentication>
      <username>%%EMAILLOCALPART%%</username>
    </incomingServer>
%(servers)s  </emailProvider>
</clientConfig>
"""
_SERVER = """\
    <outgoingServer type="smtp">
      <hostname>%(host)s</hostname>
      <port>%(port)d</port>
      <socketType>%(socket)s</socketType>
      <authentication>%(authentication)s</authentication>
      <username>%(user)s</username>
    </outgoingServer>
"""


def run(options: Options) -> int:
    """Print both; the exit status."""
    show(options, checked_address(options.address) if options.address else '@' + _own_domain())
    return 0


def _own_domain() -> str:
    from TMDA import Defaults
    environ = dict(os.environ, HOME=own_home(os.environ))
    return Defaults.load(environ, os.path.join(environ['HOME'], '.tmda', 'config')).HOSTNAME


def show(options: Options, address: str) -> None:
    """Print XML and SRV records for the domain of address."""
    domain = address.rpartition('@')[2]
    servers = mailclient.servers(options)
    print(document(domain, options.full_name or domain, servers, user_name(options),
                   mailclient.takes_cram(options)))
    print('; the file belongs to %s' % ' or '.join(path % _ascii(domain) for path in PATHS))
    print('; DNS records of %s' % domain)
    print('\n'.join(records(domain, servers)))


def user_name(options: Options) -> str:
    """What clients log in with, in terms of the file's format."""
    if options.vhome_script:
        return '%EMAILADDRESS%'
    return '%EMAILLOCALPART%' if users.is_shared(options) else users.own_login()


def document(domain: str, name: str, servers: list[Server], user: str, cram: bool) -> str:
    """The XML file."""
    blocks = [_SERVER % {
        'host': _escaped(_ascii(server.host)), 'port': server.port,
        'socket': SOCKET_TYPES[mailclient.SECURITY[server.tls_mode]],
        # Where nobody can listen, the plain password is what every client can do.
        'authentication': 'password-encrypted' if cram and not server.tls_mode
                          else 'password-cleartext',
        'user': _escaped(user)} for server in servers]
    return _DOCUMENT % {'domain': _escaped(_ascii(domain)), 'name': _escaped(name),
                        'servers': ''.join(blocks)}


def records(domain: str, servers: list[Server]) -> list[str]:
    """SRV records as in a zone file; comments for servers that have no name for others."""
    found = []
    for priority, server in enumerate(servers):
        if server.is_local:
            found.append('; %s:%d: not a name that other hosts can use'
                         % (server.host, server.port))
            continue
        service = '_submissions' if server.tls_mode == 'ssl' else '_submission'
        found.append('%s._tcp.%s. %d IN SRV %d 1 %d %s.'
                     % (service, _ascii(domain), TTL, priority, server.port, _ascii(server.host)))
    return found


def _escaped(text: str) -> str:
    import html
    return html.escape(text)


def _ascii(name: str) -> str:
    """A domain name as the DNS has it."""
    try:
        return name.rstrip('.').encode('idna').decode('ascii')
    except UnicodeError:
        return name.rstrip('.')
