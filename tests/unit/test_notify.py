# SPDX-License-Identifier: GPL-2.0-or-later
"""What a service manager is told and what it passes on."""
import fcntl
import os
import socket
import subprocess
import sys

import pytest

from TMDA.ofmipd.notify import Notifier, inherited_sockets


@pytest.fixture
def manager(tmp_path):
    """A socket on which a manager would listen, and its address."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / 'notify'))
        listening.settimeout(5)
        yield listening, str(tmp_path / 'notify')


def test_notifier_messages(manager):
    listening, address = manager
    environ = {'NOTIFY_SOCKET': address, 'HOME': '/'}
    notifier = Notifier(environ)
    assert environ == {'HOME': '/'}
    notifier.ready()
    assert listening.recv(999) == b'READY=1\nMAINPID=%d' % os.getpid()
    notifier.reloading()
    assert listening.recv(999).startswith(b'RELOADING=1\nMONOTONIC_USEC=')
    notifier.stopping()
    assert listening.recv(999) == b'STOPPING=1'
    notifier.alive()
    assert listening.recv(999) == b'WATCHDOG=1'


@pytest.mark.skipif(sys.platform != 'linux', reason='abstract addresses are of Linux')
def test_notifier_abstract_address():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        name = 'tmda-test-%d' % os.getpid()
        listening.bind('\0' + name)
        listening.settimeout(5)
        Notifier({'NOTIFY_SOCKET': '@' + name}).stopping()
        assert listening.recv(999) == b'STOPPING=1'


@pytest.mark.parametrize('environ', [{}, {'NOTIFY_SOCKET': '/nonexistent/socket'}])
def test_notifier_without_manager_does_nothing(environ):
    notifier = Notifier(environ)
    notifier.ready()
    notifier.stopping()
    assert notifier.interval is None


@pytest.mark.parametrize('environ, interval', [
    ({'WATCHDOG_USEC': '30000000'}, 15.0),
    ({'WATCHDOG_USEC': '30000000', 'WATCHDOG_PID': str(os.getpid())}, 15.0),
    ({'WATCHDOG_USEC': '30000000', 'WATCHDOG_PID': '1'}, None),
    ({'WATCHDOG_USEC': '0'}, None),
    ({'WATCHDOG_USEC': 'soon'}, None),
])
def test_notifier_watchdog_interval(environ, interval):
    assert Notifier(environ).interval == interval
    assert environ == {}


@pytest.mark.parametrize('environ', [
    {},
    {'LISTEN_FDS': '1'},
    {'LISTEN_FDS': '1', 'LISTEN_PID': '1'},
    {'LISTEN_FDS': 'x', 'LISTEN_PID': str(os.getpid())},
])
def test_inherited_sockets_none(environ):
    assert inherited_sockets(environ) == []
    assert environ == {}


INHERIT = '''
import os, sys
sys.path[:0] = {path!r}
from TMDA.ofmipd.notify import inherited_sockets
os.dup2({one}, 3)
os.dup2({two}, 4)
os.environ['LISTEN_PID'] = str(os.getpid())
for sock, name in inherited_sockets(os.environ):
    print(sock.fileno(), sock.getsockname()[1], repr(name), sock.get_inheritable())
    sock.close()
print([name for name in os.environ if name.startswith('LISTEN')])
'''


def test_inherited_sockets_with_names():
    with socket.create_server(('127.0.0.1', 0)) as first, socket.create_server(
            ('127.0.0.1', 0)) as second:
        one, two = (fcntl.fcntl(sock, fcntl.F_DUPFD, 50) for sock in (first, second))
        code = INHERIT.format(path=sys.path, one=one, two=two)
        run = subprocess.run([sys.executable, '-c', code], pass_fds=(one, two), timeout=30,
                             env=dict(os.environ, LISTEN_FDS='2', LISTEN_FDNAMES='ssl'),
                             stdout=subprocess.PIPE, check=True)
        os.close(one)
        os.close(two)
        assert run.stdout.decode().splitlines() == [
            "3 %d 'ssl' False" % first.getsockname()[1],
            "4 %d '' False" % second.getsockname()[1],
            '[]']
