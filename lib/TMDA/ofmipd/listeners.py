# SPDX-License-Identifier: GPL-2.0-or-later
"""The sockets on which the daemon listens: from -p and -6, or passed on by systemd.

main calls open_all() before it detaches, so that an address that can't be had shows in the exit
status.  The sockets are shared by all workers; they do not block, because a worker that was woken
for a connection may find that another one has taken it.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import NamedTuple

from TMDA.ofmipd.failure import OS_ERROR, TEMPORARY, StartError
from TMDA.ofmipd.options import DEFAULT_PORT, LISTENER_MODES, ListenSpec

BACKLOG = 1024  # connections that wait to be accepted; the system's own limit may be lower


class Listening(NamedTuple):
    """An address that we listen on: its name for the log, its sockets, and its TLS mode."""

    name: str
    sockets: tuple[socket.socket, ...]
    tls_mode: str


def open_all(specs: tuple[ListenSpec, ...], tls_mode: str,
             inherited: list[tuple[socket.socket, str]], hostname: str) -> list[Listening]:
    """Listen wherever specs say; with none, on the inherited sockets or else the default address.

    An inherited socket's name (systemd's FileDescriptorName=) may be a TLS mode as -p takes them.
    Raises StartError.
    """
    opened: list[Listening] = []
    try:
        for sock, name in inherited:
            opened.append(_inherit(sock, LISTENER_MODES.get(name, tls_mode)))
        for spec in specs:
            mode = tls_mode if spec.mode is None else spec.mode
            opened.append(Listening(*_open(spec), mode))
        if not opened:
            opened.append(Listening(*_open_default(hostname), tls_mode))
    except StartError:
        close_all(opened)
        raise
    return opened


def close_all(opened: list[Listening]) -> None:
    """Close all sockets."""
    for listening in opened:
        for sock in listening.sockets:
            sock.close()


def _inherit(sock: socket.socket, tls_mode: str) -> Listening:
    try:
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        listens = 0
    if not listens:
        raise StartError(OS_ERROR, 'LISTEN_FDS: descriptor %d does not listen' % sock.fileno())
    sock.setblocking(False)
    return Listening(_name(sock), (sock,), tls_mode)


def _name(sock: socket.socket) -> str:
    address = sock.getsockname()
    if sock.family == socket.AF_INET6:
        return '[%s]:%d' % address[:2]
    return '%s:%d' % address if sock.family == socket.AF_INET else str(address)


def _open_default(hostname: str) -> tuple[str, tuple[socket.socket, ...]]:
    """The FQDN if it is an address of this host, else localhost."""
    try:
        return _open(_default_spec(hostname))
    except StartError as error:
        cause = error.__cause__
        if not isinstance(cause, socket.gaierror) and cause.errno != errno.EADDRNOTAVAIL:
            raise
    return _open(_default_spec('localhost'))


def _default_spec(host: str) -> ListenSpec:
    return ListenSpec('%s:%d' % (host, DEFAULT_PORT), host, DEFAULT_PORT, False, None)


def _open(spec: ListenSpec) -> tuple[str, tuple[socket.socket, ...]]:
    """(name, sockets): one socket, or one for each family where every interface is meant."""
    try:
        sockets = _open_everywhere(spec) if not spec.host else (_open_host(spec),)
    except socket.gaierror as error:
        raise StartError(OS_ERROR, '%s: %s' % (spec.text, error.strerror)) from error
    except OSError as error:
        status = TEMPORARY if error.errno == errno.EADDRINUSE else OS_ERROR
        raise StartError(status, '%s: %s' % (spec.text, os.strerror(error.errno))) from error
    if spec.port:
        return spec.text, sockets
    return '%s:%d' % (spec.text.rpartition(':')[0], sockets[0].getsockname()[1]), sockets


def _open_host(spec: ListenSpec) -> socket.socket:
    """The first address of a name that this host has: an IPv4 one if there is any, unless -6."""
    order = [socket.AF_INET6] if spec.ipv6 else [socket.AF_INET, socket.AF_INET6]
    found = socket.getaddrinfo(spec.host, spec.port, type=socket.SOCK_STREAM,
                               family=order[0] if spec.ipv6 else socket.AF_UNSPEC)
    found.sort(key=lambda entry: order.index(entry[0]))
    for family, _, _, _, address in found[:-1]:
        try:
            return _listen(family, address)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
    return _listen(found[-1][0], found[-1][4])


def _open_everywhere(spec: ListenSpec) -> tuple[socket.socket, ...]:
    """Every interface: IPv4 and, if this host has it, IPv6; only IPv6 for -6."""
    if spec.ipv6:
        return (_listen(socket.AF_INET6, ('::', spec.port)),)
    first = _listen(socket.AF_INET, ('0.0.0.0', spec.port))
    try:
        return first, _listen(socket.AF_INET6, ('::', first.getsockname()[1]))
    except OSError as error:
        if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            return (first,)
        first.close()
        raise


def _listen(family: int, address: tuple) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
