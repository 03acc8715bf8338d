# SPDX-License-Identifier: GPL-2.0-or-later
"""The PROXY header: which octets are one, whom it is believed from, and how long it may take."""
import socket
import struct
import time
from ipaddress import ip_network

import pytest

from TMDA.ofmipd import proxyprotocol
from TMDA.ofmipd.client import Client
from TMDA.ofmipd.proxyprotocol import Ends, ProxyError, client_behind, is_trusted, parse
from TMDA.ofmipd.wire import Disconnected, TimedOut, Wire

LINE = b'PROXY TCP4 192.0.2.7 198.51.100.1 4711 587\r\n'
ENDS = Ends('192.0.2.7', 4711, '198.51.100.1', 587)


def binary(command=0x21, family=0x11, payload=None, extra=b''):
    """A version 2 header."""
    if payload is None:
        payload = socket.inet_aton('192.0.2.7') + socket.inet_aton('198.51.100.1') + struct.pack(
            '!HH', 4711, 587)
    payload += extra
    return proxyprotocol.SIGNATURE + struct.pack('!BBH', command, family, len(payload)) + payload


BINARY_6 = binary(family=0x21, payload=socket.inet_pton(socket.AF_INET6, '2001:db8::7')
                  + socket.inet_pton(socket.AF_INET6, '2001:db8::1') + struct.pack('!HH', 1, 2))

GOOD = [
    (LINE, ENDS),
    (b'PROXY TCP6 2001:DB8:0::7 2001:db8::1 1 2\r\n', Ends('2001:db8::7', 1, '2001:db8::1', 2)),
    (b'PROXY UNKNOWN\r\n', None),
    (b'PROXY UNKNOWN ffff::1 what ever 1 2\r\n', None),
    (binary(), ENDS),
    (binary(extra=b'\x04\0\1x'), ENDS),
    (BINARY_6, Ends('2001:db8::7', 1, '2001:db8::1', 2)),
    (binary(command=0x20), None),
    (binary(command=0x20, family=0, payload=b''), None),
    (binary(family=0x12), None),
    (binary(family=0x31, payload=b'x' * 216), None),
    (binary(family=0, payload=b''), None),
]


@pytest.mark.parametrize('data, ends', GOOD)
def test_parse(data, ends):
    assert parse(data + b'EHLO x\r\n') == (ends, len(data))


@pytest.mark.parametrize('data, ends', GOOD)
def test_parse_every_beginning_is_incomplete(data, ends):
    for size in range(len(data)):
        assert parse(data[:size]) is None


@pytest.mark.parametrize('data', [
    b'EHLO x\r\n',
    b'PROXYTCP4',
    b'proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n',
    b'\r\n\r\nEHLO',
    b'PROXY \r\n',
    b'PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n',
    b'PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n',
    b'PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n',
    b'PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n',
    b'PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n',
    b'PROXY TCP4 ::1 ::1 1 2\r\n',
    b'PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n',
    b'PROXY TCP4 1.2.3.4\0 1.2.3.4 1 2\r\n',
    b'PROXY TCP4 \xff 1.2.3.4 1 2\r\n',
    b'PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n',
    b'PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n',
    b'PROXY TCP4 1.2.3.4 1.2.3.4 1 2' + b' ' * 107 + b'\r\n',
    b'PROXY ' + b'x' * 200,
    binary(command=0x11),
    binary(command=0x22),
    binary(payload=b'x' * 11),
    binary(family=0x21),
    binary(extra=b'x' * 5000),
])
def test_parse_wrong(data):
    with pytest.raises(ProxyError):
        parse(data)


@pytest.mark.parametrize('address, networks, trusted', [
    ('10.1.2.3', '10.0.0.0/8', True),
    ('11.1.2.3', '10.0.0.0/8', False),
    ('::1', '127.0.0.1/32 ::1/128', True),
    ('fe80::1%eth0', 'fe80::/10', True),
    ('', '0.0.0.0/0', False),
    ('10.1.2.3', '', False),
])
def test_is_trusted(address, networks, trusted):
    assert is_trusted(address, tuple(map(ip_network, networks.split()))) is trusted


PROXY = Client('10.0.0.1', '', 999, '10.0.0.2', 587)
NETWORKS = (ip_network('10.0.0.0/8'),)


@pytest.fixture
def ends():
    """A wire and the socket at its other end."""
    ours, theirs = socket.socketpair()
    wire = Wire.over_socket(theirs)
    yield wire, ours
    ours.close()
    wire.close()


@pytest.mark.parametrize('header', [LINE, binary()])
def test_client_behind_leaves_what_follows(ends, header):
    wire, peer = ends
    peer.sendall(header + b'EHLO x\r\n')
    client = client_behind(wire, PROXY, NETWORKS, 5)
    assert client == Client('192.0.2.7', '', 4711, '198.51.100.1', 587)
    assert wire.read_line(100) == b'EHLO x\r\n'


def test_client_behind_octet_by_octet(ends):
    wire, peer = ends
    import threading

    def drip():
        for octet in LINE:
            peer.sendall(bytes([octet]))
    thread = threading.Thread(target=drip)
    thread.start()
    assert client_behind(wire, PROXY, NETWORKS, 5).address == '192.0.2.7'
    thread.join()


def test_client_behind_unknown_is_the_proxy(ends):
    wire, peer = ends
    peer.sendall(b'PROXY UNKNOWN\r\n')
    assert client_behind(wire, PROXY, NETWORKS, 5) is PROXY


def test_client_behind_others_are_not_believed(ends):
    wire, peer = ends
    peer.sendall(LINE)
    stranger = Client('192.0.2.66', '', 1)
    assert client_behind(wire, stranger, NETWORKS, 5) is stranger
    assert wire.read_line(200) == LINE


def test_client_behind_is_required(ends):
    wire, peer = ends
    peer.sendall(b'EHLO x\r\n')
    with pytest.raises(ProxyError):
        client_behind(wire, PROXY, NETWORKS, 5)


def test_client_behind_has_to_come_in_time(ends):
    wire, peer = ends
    peer.sendall(LINE[:10])
    started = time.monotonic()
    with pytest.raises(TimedOut):
        client_behind(wire, PROXY, NETWORKS, 0.05)
    assert time.monotonic() - started < 5


def test_client_behind_cut(ends):
    wire, peer = ends
    peer.sendall(LINE[:10])
    peer.close()
    with pytest.raises(Disconnected):
        client_behind(wire, PROXY, NETWORKS, 5)
