# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS between octets, without a socket: what came in is fed, what is to be sent is taken.

Used by wire.Wire only.  Because the layer does no I/O it serves sockets and pipes alike, nothing
of the plain text before STARTTLS can get into it unseen (RFC 3207 4.2), and all waiting stays in
the wire with its deadline.
"""

from __future__ import annotations

import ssl


class TlsLayer:
    """The server's side of one TLS connection.  Methods raise ssl.SSLError when the peer errs."""

    def __init__(self, context: ssl.SSLContext):
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def feed(self, data: bytes) -> None:
        """Octets that the peer sent."""
        self._incoming.write(data)

    def take(self) -> bytes:
        """Octets that are to be sent to the peer."""
        return self._outgoing.read()

    def handshake(self) -> bool:
        """Go on with the handshake; False while it needs more octets from the peer."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def decrypt(self, size: int) -> bytes | None:
        """Plain octets, at most size; b'' after the peer's goodbye; None when more must be fed."""
        try:
            return self._object.read(size)
        except ssl.SSLWantReadError:
            return None

    def encrypt(self, data: bytes) -> None:
        """Make records of data, to be taken."""
        while data:
            data = data[self._object.write(data):]

    def goodbye(self) -> None:
        """Add the closing alert, without which the peer must suspect a cut (RFC 8446 6.1)."""
        try:
            self._object.unwrap()
        except ssl.SSLError:
            pass  # the peer's own alert is not waited for

    @property
    def version(self) -> str:
        """As in `TLSv1.3`."""
        return self._object.version() or ''

    @property
    def cipher(self) -> str:
        """As in `TLS_AES_256_GCM_SHA384`."""
        cipher = self._object.cipher()
        return cipher[0] if cipher else ''
