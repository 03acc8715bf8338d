# SPDX-License-Identifier: GPL-2.0-or-later
"""Every source of passwords by every mechanism over every way to connect, for real.

A daemon for each source listens in all TLS modes at once.  Dovecot and slapd are Debian's, the
checkpassword program is our own, made as cr.yp.to/checkpwd/interface.html says.
"""
from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from real.launchers import skip_without
from real.logins import CERTIFICATE_OPTIONS, LOGINS, WAYS, Way, connect, listeners, log_in
from real.servers import USERS, Dovecot, Slapd, skip_other_dovecot
from support.daemon import PROGRAM, Daemon, make_home, needs_account

DN = 'cn=%s,dc=example,dc=org'
ALL, PASSWORD_NEEDED = tuple(LOGINS), ('PLAIN', 'LOGIN')
USER, PASSWORD = 'bob', USERS['bob']

# Source -> the mechanisms that it can check.
SOURCES = {
    'file': ALL, 'checkpassword': PASSWORD_NEEDED, 'imap': PASSWORD_NEEDED,
    'imaps': PASSWORD_NEEDED, 'pop3': PASSWORD_NEEDED, 'apop': PASSWORD_NEEDED,
    'ldap': PASSWORD_NEEDED, 'ldaps': PASSWORD_NEEDED,
}
MATRIX = [(source, mechanism, way) for source, mechanisms in SOURCES.items()
          for mechanism in mechanisms for way in WAYS]

CHECKPASSWORD = '''\
#!%s
import os, sys
data = b''
while True:
    piece = os.read(3, 513)
    if not piece:
        break
    data += piece
user, password, stamp, rest = data.split(b'\\0', 3)
sys.exit(0 if (user, password) == (b'bob', b'secret') else 1)
'''


class Setup:
    """Servers and daemons, each started when it is first asked for."""

    def __init__(self, directory: Path, account: str, stack: contextlib.ExitStack):
        self._directory = directory
        self._account = account
        self._stack = stack
        self._daemons: dict = {}
        self._servers: dict = {}

    def daemon(self, source: str) -> Daemon:
        """The daemon that asks a source."""
        if source not in self._daemons:
            options = self._options(source)  # skips the test where a server is missing
            home = self._directory / source
            home.mkdir()
            self._daemons[source] = self._stack.enter_context(
                Daemon(make_home(home), *options, *listeners(), *CERTIFICATE_OPTIONS))
        return self._daemons[source]

    def port(self, protocol: str) -> int:
        """The port of a protocol of dovecot or slapd."""
        if protocol.startswith('ldap'):
            return self._server(Slapd, 'slapd', 'slapadd', 'openssl').ports[protocol]
        skip_other_dovecot()
        port = 'pop3' if protocol == 'apop' else protocol
        return self._server(Dovecot, 'dovecot', 'openssl').ports[port]

    def _server(self, kind, *programs):
        if kind not in self._servers:
            skip_without(*programs)
            server = kind(self._account)
            self._stack.callback(server.stop)
            server.start()
            self._servers[kind] = server
        return self._servers[kind]

    def _options(self, source: str) -> list[str]:
        path = self._directory / (source + '-file')
        if source == 'file':
            path.write_text('%s:%s\n' % (USER, PASSWORD))
            path.chmod(0o600)
            return ['-a', str(path)]
        if source == 'checkpassword':
            path.write_text(CHECKPASSWORD % sys.executable)
            path.chmod(0o700)
            return ['-A', str(path)]
        dn = '/' + DN if source.startswith('ldap') else ''
        return ['-R', '%s://127.0.0.1:%d%s' % (source, self.port(source), dn)]


@pytest.fixture(scope='module')
def setup(tmp_path_factory, unprivileged):
    with contextlib.ExitStack() as stack:
        yield Setup(tmp_path_factory.mktemp('matrix'), unprivileged, stack)


@needs_account
@pytest.mark.parametrize('source, mechanism, way', [
    pytest.param(*row, id='%s-%s-%s' % (row[0], row[1], row[2].name)) for row in MATRIX])
def test_matrix(setup, source, mechanism, way):
    with connect(setup.daemon(source).ports, way) as client:
        client.ehlo()
        assert set(client.esmtp_features['auth'].split()) == set(SOURCES[source])
        assert log_in(client, mechanism, USER, PASSWORD).startswith('235 2.7.0 ')


# A failed login costs its address a delay that doubles: each row has an address of its own.
@needs_account
@pytest.mark.parametrize('number, source, mechanism', [
    (number, source, mechanism) for number, (source, mechanism) in enumerate(
        (source, mechanism) for source, mechanisms in SOURCES.items()
        for mechanism in mechanisms if mechanism != 'LOGIN')])
def test_matrix_wrong_password(setup, number, source, mechanism):
    way = WAYS[number % len(WAYS)]
    with connect(setup.daemon(source).ports, way, '127.0.1.%d' % (number + 1)) as client:
        client.ehlo()
        assert log_in(client, mechanism, USER, 'wrong') == '535 5.7.8 Authentication failed'


@needs_account
@pytest.mark.parametrize('source', SOURCES)
def test_matrix_no_login_before_tls_is_needed(setup, source):
    with connect(setup.daemon(source).ports, Way('tls=on')) as client:
        client.ehlo()
        assert 'auth' not in client.esmtp_features
        assert log_in(client, 'PLAIN', USER, PASSWORD).startswith('530 5.7.0 ')


# 454 is for "cannot tell", 535 for "no".

@needs_account
def test_source_that_is_down_is_454_unless_another_says_yes(setup, tmp_path):
    with socket.socket() as closed:
        closed.bind(('127.0.0.1', 0))
        down = 'imap://127.0.0.1:%d' % closed.getsockname()[1]
        with Daemon(make_home(tmp_path), '-R', down, '-F') as daemon:
            with connect(daemon.ports, Way('plain')) as client:
                client.ehlo()
                assert log_in(client, 'PLAIN', 'bobby', 'FooBar').startswith('235 ')
            with connect(daemon.ports, Way('plain'), '127.0.2.1') as client:
                client.ehlo()
                assert log_in(client, 'PLAIN', 'bobby', 'wrong').startswith('454 4.7.0 ')
            daemon.wait_for('event=login-unsure')
            assert 'imap' in daemon.events('login-unsure')[0]


@needs_account
def test_sources_are_asked_in_the_order_given(setup, tmp_path):
    home = make_home(tmp_path)
    passwords = str(home / '.tmda' / 'tofmipd')
    imap = 'imap://127.0.0.1:%d' % setup.port('imap')
    ldap = 'ldap://127.0.0.1:%d/%s' % (setup.port('ldap'), DN)
    with Daemon(home, '-R', imap, '-a', passwords, '-R', ldap) as daemon:
        with connect(daemon.ports, Way('plain')) as client:
            client.ehlo()
            assert log_in(client, 'PLAIN', 'bobby', 'FooBar').startswith('235 ')
        with connect(daemon.ports, Way('plain'), '127.0.2.2') as client:
            client.ehlo()
            assert log_in(client, 'PLAIN', 'bobby', 'wrong').startswith('535 ')
        daemon.wait_for('event=login-failed')
        cause = daemon.events('login-failed')[0].partition('cause=')[2]
        assert cause.index('imap') < cause.index('file') < cause.index('ldap')


@needs_account
@pytest.mark.parametrize('line', ['127.0.0.1 127.0.0.1 %d', '::ffff:127.0.0.1 127.0.0.1 %d',
                                  '127.0.0.1:127.0.0.1:%d'])
def test_ipauthmap_chooses_the_server(setup, tmp_path, line):
    home = make_home(tmp_path)
    (home / '.tmda' / 'ipauthmap').write_text(
        '# comment\nno line\n%s\n' % line % setup.port('imap'))
    with Daemon(home, '-R', 'imap://0.0.0.0') as daemon:
        with connect(daemon.ports, Way('plain')) as client:
            client.ehlo()
            assert log_in(client, 'PLAIN', USER, PASSWORD).startswith('235 ')
        assert 'line 2 skipped' in daemon.text


# PAM: root makes the services, the daemon is not root's.

@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason='services are files in /etc/pam.d')
@pytest.mark.skipif(not Path('/etc/pam.d').is_dir(), reason='no /etc/pam.d')
@pytest.mark.parametrize('module, expected', [('permit', '235 2.7.0 '), ('deny', '535 5.7.8 ')])
def test_pam(tmp_path, unprivileged, module, expected):
    import pwd
    import tempfile
    account = pwd.getpwnam(unprivileged)
    identity = {'user': account.pw_uid, 'group': account.pw_gid, 'extra_groups': [], 'cwd': '/'}
    readable = [sys.executable, '-c', 'open(%r).close()' % PROGRAM]
    try:
        subprocess.run(readable, check=True, stderr=subprocess.DEVNULL, **identity)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip('%s cannot read this tree or run this Python: start tests/run' % unprivileged)
    service = Path('/etc/pam.d/tmda-test-%d' % os.getpid())
    service.write_text('auth required pam_%s.so\naccount required pam_permit.so\n' % module)
    try:
        with tempfile.TemporaryDirectory() as home:
            os.chown(home, account.pw_uid, account.pw_gid)
            with Daemon(Path(home), '-m', service.name, **identity) as daemon:
                for mechanism in PASSWORD_NEEDED:
                    with connect(daemon.ports, Way('plain')) as client:
                        client.ehlo()
                        assert log_in(client, mechanism, USER, PASSWORD).startswith(expected)
    finally:
        service.unlink()
