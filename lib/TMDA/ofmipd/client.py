# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is connected, as far as that is known.

The server makes a Client for each connection: from the environment that tcpserver or xinetd set,
from the socket, or from a PROXY protocol header.  The session writes it into the Received field
and the log, and --tls=localoptional asks whether it is this host.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import NamedTuple

_IPV4_MAPPED = '::ffff:'  # RFC 4291 2.5.5.2: an IPv4 client of a socket that listens on IPv6


class Client(NamedTuple):
    """Addresses are numeric and '' where unknown; name is what reverse DNS said, or ''."""

    address: str = ''
    name: str = ''
    port: int = 0
    local_address: str = ''
    local_port: int = 0

    @property
    def loopback(self) -> bool:
        """True when the client is known to be on this host."""
        packed = packed_address(self.address)
        return packed[:1] == b'\x7f' if len(packed) == 4 else packed == b'\0' * 15 + b'\1'

    @classmethod
    def of_socket(cls, sock: socket.socket) -> Client:
        """Both ends of an internet socket; an unknown client for any other."""
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return cls()
        try:
            remote, local = sock.getpeername(), sock.getsockname()
        except OSError:  # gone already
            return cls()
        return cls(_plain(remote[0]), '', remote[1], _plain(local[0]), local[1])

    @classmethod
    def of_environment(cls, environ: Mapping[str, str]) -> Client | None:
        """What tcpserver (TCP...) or xinetd and stunnel (REMOTE_HOST) say; None if nothing."""
        if environ.get('TCPREMOTEIP'):
            return cls(_numeric(environ['TCPREMOTEIP']), environ.get('TCPREMOTEHOST', ''),
                       _port(environ.get('TCPREMOTEPORT', '')),
                       _numeric(environ.get('TCPLOCALIP', '')),
                       _port(environ.get('TCPLOCALPORT', '')))
        remote = environ.get('REMOTE_HOST')
        if not remote:
            return None
        address = _numeric(remote)
        return cls(address, '' if address else remote)


def packed_address(text: str) -> bytes:
    """The 4 or 16 octets of a numeric IPv4 or IPv6 address; b'' for anything else."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
    return b''


def _plain(address: str) -> str:
    """The address without its IPv4-in-IPv6 prefix and without an interface (`%eth0`)."""
    address = address.partition('%')[0]
    if address.lower().startswith(_IPV4_MAPPED) and '.' in address:
        return address[len(_IPV4_MAPPED):]
    return address


def _numeric(text: str) -> str:
    address = _plain(text)
    return address if packed_address(address) else ''


def _port(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
