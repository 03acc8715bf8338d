# SPDX-License-Identifier: GPL-2.0-or-later
"""ipauthmap: which server knows the users of which of our addresses.

With a -R host of 0.0.0.0, the address that a client connected *to* chooses the server to ask.
Lines of the file (/etc/ipauthmap as root, ~/.tmda/ipauthmap otherwise):

    ADDR1 ADDR2 [PORT]      clients connected to ADDR1 are checked at ADDR2
    ADDR1:ADDR2[:PORT]      the older form, IPv4 only
    # comment

Addresses are compared as addresses, in any spelling.  A bad line is logged with its number and
skipped.  Without an entry the server is 127.0.0.1; without a file it is the local address
itself.  The file is read again when it changes.  An unreadable file raises OSError at lookup.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Callable, Optional, Tuple

SIZE_LIMIT = 1 << 20  # octets of the file that are read

Target = Tuple[str, Optional[int]]


def _address(text: str):
    """A parsed address without zone; an IPv4 address mapped into IPv6 counts as IPv4."""
    address = ipaddress.ip_address(text.partition('%')[0])
    return getattr(address, 'ipv4_mapped', None) or address


def parse_line(line: str) -> Tuple[object, Target] | None:
    """(address, (server, port or None)) of one line, None for an empty one; ValueError if bad."""
    words = line.partition('#')[0].split()
    if not words:
        return None
    if len(words) == 1:
        words = words[0].split(':')
        for word in words[:2]:
            ipaddress.IPv4Address(word)
    if len(words) not in (2, 3):
        raise ValueError('write ADDRESS SERVER [PORT]')
    port = int(words[2]) if len(words) == 3 else None
    if port is not None and not 1 <= port <= 65535:
        raise ValueError('no such port')
    ipaddress.ip_address(words[1])
    return _address(words[0]), (words[1], port)


class IPAuthMap:
    """One ipauthmap file."""

    def __init__(self, path: str, log: Callable[[str], None] | None = None):
        """log is called with one line of text for each bad line."""
        self.path = path
        self._log = log or (lambda text: None)
        self._identity: tuple | None = None
        self._targets: dict = {}

    def lookup(self, local_address: str, port: int) -> Tuple[str, int]:
        """The server (address, port) for clients that connected to `local_address`."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return local_address or '127.0.0.1', port
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if identity != self._identity:
            self._targets = self._read()
            self._identity = identity
        try:
            found = self._targets.get(_address(local_address))
        except ValueError:  # connected over a pipe: no address
            found = None
        server, own_port = found or ('127.0.0.1', None)
        return server, own_port or port

    def _read(self) -> dict:
        targets: dict = {}
        with open(self.path, encoding='utf-8', errors='replace') as file:
            text = file.read(SIZE_LIMIT)
        for number, line in enumerate(text.split('\n'), 1):
            try:
                entry = parse_line(line)
            except ValueError as error:
                self._log(f'{self.path}: line {number} skipped: {error}')
                continue
            if entry:
                targets.setdefault(*entry)
        return targets
