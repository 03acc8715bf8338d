# SPDX-License-Identifier: GPL-2.0-or-later
import socket

import pytest

from TMDA.ofmipd.client import Client, packed_address


@pytest.mark.parametrize('environ, client', [
    ({}, None),
    ({'REMOTE_HOST': ''}, None),
    ({'TCPREMOTEIP': '192.0.2.1', 'TCPREMOTEHOST': 'h.example', 'TCPREMOTEPORT': '99',
      'TCPLOCALIP': '192.0.2.9', 'TCPLOCALPORT': '8025', 'REMOTE_HOST': '203.0.113.1'},
     Client('192.0.2.1', 'h.example', 99, '192.0.2.9', 8025)),
    ({'TCPREMOTEIP': '::ffff:192.0.2.1', 'TCPREMOTEPORT': 'x'}, Client('192.0.2.1')),
    ({'TCPREMOTEIP': 'fe80::1%eth0'}, Client('fe80::1')),
    ({'TCPREMOTEIP': 'no address'}, Client()),
    ({'REMOTE_HOST': '192.0.2.1'}, Client('192.0.2.1')),
    ({'REMOTE_HOST': 'h.example'}, Client('', 'h.example')),
])
def test_client_of_environment(environ, client):
    assert Client.of_environment(environ) == client


@pytest.mark.parametrize('address, loopback', [
    ('127.0.0.1', True), ('127.9.9.9', True), ('::1', True), ('0:0:0:0:0:0:0:1', True),
    ('192.0.2.1', False), ('::2', False), ('', False), ('127.0.0.1.example', False),
    ('127.0.0.1\0', False),
])
def test_client_loopback(address, loopback):
    assert Client(address).loopback is loopback


def test_client_of_socket():
    with socket.create_server(('127.0.0.1', 0)) as listener:
        with socket.create_connection(listener.getsockname()) as ours:
            accepted, _address = listener.accept()
            with accepted:
                client = Client.of_socket(accepted)
            assert client == Client('127.0.0.1', '', ours.getsockname()[1], '127.0.0.1',
                                    listener.getsockname()[1])


def test_client_of_a_local_socket_is_unknown():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert Client.of_socket(theirs) == Client()


def test_client_gone_already_is_unknown():
    with socket.socket() as never_connected:
        assert Client.of_socket(never_connected) == Client()


def test_packed_address():
    assert packed_address('192.0.2.1') == b'\xc0\0\2\1'
    assert len(packed_address('::1')) == 16
    assert packed_address('example') == b''
