# SPDX-License-Identifier: GPL-2.0-or-later
"""A client connection that ends at a given time and after a given number of octets.

Socket timeouts are renewed by every octet that arrives, so a server that drips keeps a reader
for ever.  TimedSocket has one absolute deadline for everything: connecting, the TLS handshake,
reading and writing.  It looks enough like a socket and its file for imaplib and poplib to work
on it.  Used by remote.py for imap, pop3, apop and ldap.

Resolving a name cannot be interrupted; resolv.conf(5) `timeout` and `attempts` bound it.  Time
spent there counts.

All failures are OSErrors: TimeoutError, ConnectionError, ssl.SSLError and their relatives.
"""

from __future__ import annotations

import socket
import time

PIECE = 4096  # octets asked for at a time


class TimedSocket:
    """Buffered reading and writing on a connected socket until `deadline` (time.monotonic).

    most is the number of octets that the server may send in all.
    """

    def __init__(self, sock: socket.socket, deadline: float, most: int):
        self.deadline = deadline
        self._socket = sock
        self._left = most
        self._buffer = b''

    def _arm(self) -> None:
        self._socket.settimeout(remaining(self.deadline))

    def _receive(self) -> bool:
        """Reads what is there; False at the end of the stream."""
        self._arm()
        data = self._socket.recv(PIECE)
        self._left -= len(data)
        if self._left < 0:
            raise ConnectionError('the server sent too much')
        self._buffer += data
        return bool(data)

    def _take(self, size: int) -> bytes:
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def readline(self, size: int = -1) -> bytes:
        """Up to and with the next LF, at most `size` octets if that is not negative."""
        searched = 0
        while True:
            end = self._buffer.find(b'\n', searched) + 1
            searched = len(self._buffer)
            if end and not 0 <= size < end:
                return self._take(end)
            if 0 <= size <= searched:
                return self._take(size)
            if not self._receive():
                return self._take(searched)

    def read(self, size: int) -> bytes:
        """`size` octets, less only at the end of the stream."""
        while len(self._buffer) < size and self._receive():
            pass
        return self._take(size)

    def sendall(self, data: bytes) -> None:
        """Sends everything."""
        self._arm()
        self._socket.sendall(data)

    def makefile(self, _mode: str = 'rb') -> TimedSocket:
        """The reading side as poplib asks for it: this object."""
        return self

    def shutdown(self, _how: int) -> None:
        """Nothing: close() is enough, and poplib calls this after it."""

    def close(self) -> None:
        """Ends the connection; may be called again."""
        self._socket.close()


def remaining(deadline: float) -> float:
    """Seconds until `deadline`; TimeoutError when there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError('timed out')
    return seconds


def _connected(host: str, port: int, deadline: float) -> socket.socket:
    failure: OSError = ConnectionError(f'{host} has no address')
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, 0,
                                                                 socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(remaining(deadline))
            sock.connect(address)
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise failure


def _encrypted(sock: socket.socket, host: str, verify: bool) -> socket.socket:
    import ssl

    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock, server_hostname=host)


def connect(host: str, port: int, deadline: float, most: int,
            tls: bool = False, verify: bool = True) -> TimedSocket:
    """Connects, with TLS from the first octet if `tls`.

    The certificate is checked against the system's authorities (or OpenSSL's SSL_CERT_FILE) and
    the host name unless `verify` is False.
    """
    sock = _connected(host, port, deadline)
    try:
        if tls:
            sock.settimeout(remaining(deadline))  # a handshake's timeout is one for all its steps
            sock = _encrypted(sock, host, verify)
        return TimedSocket(sock, deadline, most)
    except BaseException:
        sock.close()
        raise
