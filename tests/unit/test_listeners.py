# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the daemon listens for what -p and -6 say (addresses that can't be had: tests/badconfig)."""
import errno
import socket

import pytest

from TMDA.ofmipd import listeners
from TMDA.ofmipd.failure import StartError
from TMDA.ofmipd.listeners import close_all, open_all
from TMDA.ofmipd.options import parse


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(('::1', 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason='this host has no IPv6')


@pytest.fixture
def opened():
    """Call open_all; what it opened is closed in the end."""
    everything = []

    def call(arguments=(), tls_mode='', inherited=(), hostname='localhost'):
        found = open_all(parse(list(arguments) + ['--ssl-cert=x']).listeners, tls_mode,
                         list(inherited), hostname)
        everything.extend(found)
        return found

    yield call
    close_all(everything)


def addresses(listening):
    return [(sock.family, sock.getsockname()[0]) for sock in listening.sockets]


IPV4, IPV6 = socket.AF_INET, socket.AF_INET6


@pytest.mark.parametrize('argument, name, expected', [
    ('-plocalhost:0', 'localhost', [(IPV4, '127.0.0.1')]),
    ('-p127.0.0.1:0', '127.0.0.1', [(IPV4, '127.0.0.1')]),
    pytest.param('-p[::1]:0', '[::1]', [(IPV6, '::1')], marks=needs_ipv6),
    pytest.param('-6::1:0', '::1', [(IPV6, '::1')], marks=needs_ipv6),
    pytest.param('-p:0', '', [(IPV4, '0.0.0.0'), (IPV6, '::')], marks=needs_ipv6),
    pytest.param('-6:0', '', [(IPV6, '::')], marks=needs_ipv6),
])
def test_open_all(opened, argument, name, expected):
    listening, = opened([argument])
    assert addresses(listening) == expected
    ports = {sock.getsockname()[1] for sock in listening.sockets}
    assert len(ports) == 1
    assert listening.name == '%s:%d' % (name, ports.pop())
    assert not any(sock.getblocking() for sock in listening.sockets)


@needs_ipv6
def test_open_all_every_interface_of_both_families_side_by_side(opened):
    first, = opened(['-p:0'])
    port = first.sockets[0].getsockname()[1]
    first.sockets[1].close()
    second, = opened(['-6:%d' % port])
    assert second.name == ':%d' % port


def test_open_all_modes(opened):
    found = opened(['-plocalhost:0', '-plocalhost:0/ssl', '-plocalhost:0/plain'], 'optional')
    assert [each.tls_mode for each in found] == ['optional', 'ssl', '']


def test_open_all_name_is_as_given(opened):
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    assert opened(['-p', 'localhost:%d' % port])[0].name == 'localhost:%d' % port


@pytest.fixture
def port(monkeypatch):
    """A port that is free, as the default one."""
    with socket.create_server(('127.0.0.1', 0)) as free:
        number = free.getsockname()[1]
    monkeypatch.setattr(listeners, 'DEFAULT_PORT', number)
    return number


@pytest.mark.parametrize('hostname, expected', [
    ('127.0.0.1', '127.0.0.1'),
    ('nohost.invalid', 'localhost'),
    ('192.0.2.123', 'localhost'),
])
def test_open_all_default(opened, port, hostname, expected):
    assert opened(hostname=hostname)[0].name == '%s:%d' % (expected, port)


def test_open_all_default_in_use_is_an_error(opened, port):
    with socket.create_server(('127.0.0.1', port)):
        with pytest.raises(StartError) as caught:
            opened(hostname='127.0.0.1')
    assert caught.value.status == 75


def test_open_all_inherited(opened):
    one, two = (socket.create_server(('127.0.0.1', 0)) for _ in range(2))
    found = opened(inherited=[(one, 'ssl'), (two, 'tofmipd.socket')], tls_mode='on')
    assert [each.tls_mode for each in found] == ['ssl', 'on']
    assert found[0].name == '127.0.0.1:%d' % one.getsockname()[1]


def test_open_all_inherited_has_to_listen(opened):
    with socket.socket() as sock, pytest.raises(StartError, match='does not listen'):
        opened(inherited=[(sock, '')])


def test_open_all_closes_what_it_opened_when_it_fails(opened):
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(StartError):
        opened(['-p127.0.0.1:%d' % port, '-p192.0.2.123:1'])
    with socket.socket() as sock:
        assert sock.connect_ex(('127.0.0.1', port)) == errno.ECONNREFUSED
