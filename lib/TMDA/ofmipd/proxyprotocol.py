# SPDX-License-Identifier: GPL-2.0-or-later
"""The header in which a proxy such as haproxy or stunnel names its client (PROXY protocol 1 and 2).

The specification is haproxy's doc/proxy-protocol.txt; section numbers below are its own.  A
header is expected from the addresses of --proxy-protocol and from no others: there it is
required, elsewhere it is an unknown command (section 2 forbids guessing).

parse() is pure; client_behind() is called at the start of each connection.
"""

from __future__ import annotations

import socket
import struct
from time import monotonic
from typing import NamedTuple

from TMDA.ofmipd.client import Client
from TMDA.ofmipd.wire import Wire

SIGNATURE = b'\r\n\r\n\0\r\nQUIT\n'  # version 2; section 2.2
LINE_LIMIT = 107                     # octets of a version 1 line with CRLF; section 2.1
BINARY_LIMIT = 4096                  # octets of a version 2 header; longer ones are refused
FAMILIES_1 = {b'TCP4': socket.AF_INET, b'TCP6': socket.AF_INET6}
FAMILIES_2 = {0x11: (socket.AF_INET, 4), 0x21: (socket.AF_INET6, 16)}  # TCP only; address octets


class ProxyError(Exception):
    """The header is missing or wrong; str() is the cause for the log."""


class Ends(NamedTuple):
    """Both ends of the connection from the client to the proxy."""

    address: str
    port: int
    local_address: str
    local_port: int


class Header(NamedTuple):
    """A header and its length in octets.

    ends is None where the proxy speaks for itself or does not know (LOCAL, UNKNOWN, a family that
    is not TCP): then the addresses of the socket count.
    """

    ends: Ends | None
    size: int


def parse(data: bytes) -> Header | None:
    """The header at the start of data, or None while more octets are needed.  Raises ProxyError."""
    if data[:len(SIGNATURE)] == SIGNATURE[:len(data)]:
        return _parse_binary(data)
    if data[:6] == b'PROXY '[:len(data)]:
        return _parse_line(data)
    raise ProxyError('no PROXY protocol header')


def client_behind(wire: Wire, peer: Client, networks: tuple, seconds: float) -> Client:
    """Who is connected, where peer is at the other end of the socket.

    That is peer itself if it is in none of the networks, or if its header names nobody.  Raises
    ProxyError, and WireError when no header came within some seconds.
    """
    if not is_trusted(peer.address, networks):
        return peer
    ends = _read_header(wire, seconds)
    if ends is None:
        return peer
    return Client(ends.address, '', ends.port, ends.local_address, ends.local_port)


def _read_header(wire: Wire, seconds: float) -> Ends | None:
    """Read a header off the wire; what follows it stays there to be read."""
    wire.deadline = monotonic() + seconds
    data = b''
    header = None
    while header is None:
        data += wire.read_some()
        header = parse(data)
    wire.push_back(data[header.size:])
    return header.ends


def is_trusted(address: str, networks: tuple) -> bool:
    """Whether an address is in one of the networks (objects of the ipaddress module)."""
    if not networks:
        return False
    from ipaddress import ip_address
    try:
        client = ip_address(address.partition('%')[0])
    except ValueError:
        return False
    return any(client in network for network in networks)


def _parse_line(data: bytes) -> Header | None:
    """Version 1, section 2.1."""
    end = data.find(b'\r\n', 0, LINE_LIMIT) + 2
    if end == 1:
        if len(data) >= LINE_LIMIT:
            raise ProxyError('the PROXY line is too long')
        return None
    words = data[:end - 2].split(b' ')
    if words[1] == b'UNKNOWN':
        return Header(None, end)
    if words[1] not in FAMILIES_1 or len(words) != 6:
        raise ProxyError('a PROXY line with other words than TCP4 or TCP6 and four values')
    family = FAMILIES_1[words[1]]
    return Header(Ends(_address(family, words[2]), _port(words[4]),
                       _address(family, words[3]), _port(words[5])), end)


def _address(family: int, word: bytes) -> str:
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, word.decode('ascii')))
    except (OSError, ValueError):
        raise ProxyError('a PROXY line with a wrong address') from None


def _port(word: bytes) -> int:
    if not (word.isdigit() and len(word) < 6 and int(word) < 65536):
        raise ProxyError('a PROXY line with a wrong port')
    return int(word)


def _parse_binary(data: bytes) -> Header | None:
    """Version 2, section 2.2."""
    if len(data) < 16:
        return None
    command, family, length = struct.unpack_from('!BBH', data, 12)
    size = 16 + length
    if command not in (0x20, 0x21):
        raise ProxyError('a PROXY header with an unknown version or command')
    if size > BINARY_LIMIT:
        raise ProxyError('the PROXY header is too long')
    if len(data) < size:
        return None
    if command == 0x20 or family not in FAMILIES_2:
        return Header(None, size)
    kind, width = FAMILIES_2[family]
    if length < 2 * width + 4:
        raise ProxyError('the PROXY header is too short for its addresses')
    source, target, port, local_port = struct.unpack_from('!%ds%dsHH' % (width, width), data, 16)
    return Header(Ends(socket.inet_ntop(kind, source), port,
                       socket.inet_ntop(kind, target), local_port), size)
