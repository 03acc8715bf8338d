# SPDX-License-Identifier: GPL-2.0-or-later
"""Sources of authentication against Debian's dovecot, slapd and libpam."""
import hashlib
import hmac
import os
import secrets
import shutil
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from real.servers import PATH, USERS, Dovecot, Slapd, missing, skip_other_dovecot

from TMDA.ofmipd import passwordhashes, sources
from TMDA.ofmipd.sasl import CramMD5, Password
from TMDA.ofmipd.verdict import NO, UNSURE, YES

SECONDS = 20
CLIENT = SimpleNamespace(address='192.0.2.1', local_address='127.0.0.1')


def running(server):
    """Start a server for a module's tests, stop it after them."""
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope='module')
def dovecot(unprivileged):
    """Dovecot with the users of servers.USERS."""
    skip_other_dovecot()
    yield from running(Dovecot(unprivileged))


@pytest.fixture(scope='module')
def slapd(unprivileged):
    """slapd with the users of servers.USERS."""
    lacking = missing('slapd', 'slapadd', 'openssl')
    if lacking:
        pytest.skip(f'{lacking} is not installed')
    yield from running(Slapd(unprivileged))


def ask(url, user, password):
    """The verdict of one -R source."""
    return sources.build([('remote', url)], SECONDS).check(Password(user, password), CLIENT)


# Dovecot

# protocol of the URL: whose port
MAIL_PROTOCOLS = {'imap': 'imap', 'imaps': 'imaps', 'pop3': 'pop3', 'pop3s': 'pop3s',
                  'apop': 'pop3'}


# APOP has no way to send a name with blanks.
@pytest.mark.parametrize('protocol, user', [
    (protocol, user) for protocol in MAIL_PROTOCOLS for user in USERS
    if protocol != 'apop' or ' ' not in user
])
def test_dovecot(dovecot, protocol, user):
    url = f'{protocol}://127.0.0.1:{dovecot.ports[MAIL_PROTOCOLS[protocol]]}'
    assert ask(url, user, USERS[user]).answer == YES, dovecot.log()
    wrong = ask(url, user, USERS[user] + 'x')
    assert wrong.answer == NO, (wrong, dovecot.log())


@pytest.mark.parametrize('protocol', MAIL_PROTOCOLS)
def test_dovecot_unknown_user(dovecot, protocol):
    url = f'{protocol}://127.0.0.1:{dovecot.ports[MAIL_PROTOCOLS[protocol]]}'
    assert ask(url, 'nobody', 'secret').answer == NO


@pytest.mark.parametrize('protocol', ['imaps', 'pop3s'])
def test_dovecot_certificate(dovecot, monkeypatch, protocol):
    monkeypatch.setattr('TMDA.ofmipd.remote.loopback', lambda host: False)
    url = f'{protocol}://localhost:{dovecot.ports[protocol]}'
    assert ask(url, 'bob', 'secret').answer == UNSURE
    assert ask(url + '?verify=no', 'bob', 'secret').answer == YES
    monkeypatch.setenv('SSL_CERT_FILE', str(dovecot.certificate))
    assert ask(url, 'bob', 'secret').answer == YES


def test_doveadm_makes_entries_that_we_read(tmp_path, dovecot):
    made = subprocess.run(['doveadm', 'pw', '-s', 'SCRAM-SHA-256', '-p', 'p\xe4ss'],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60, check=True)
    path = tmp_path / 'tofmipd'
    path.write_bytes(b'bob:' + made.stdout)
    path.chmod(0o600)
    chain = sources.build([('file', str(path))], SECONDS)
    assert chain.check(Password('bob', 'p\xe4ss')).answer == YES
    assert chain.check(Password('bob', 'pass')).answer == NO


def test_dovecot_reads_entries_that_we_make(dovecot):
    entry = passwordhashes.make_scram('p\xe4ss')
    test = ['doveadm', 'pw', '-t', entry, '-p']
    assert subprocess.run([*test, 'p\xe4ss'], stdin=subprocess.DEVNULL, timeout=60, check=False,
                          stdout=subprocess.DEVNULL).returncode == 0
    assert subprocess.run([*test, 'pass'], stdin=subprocess.DEVNULL, timeout=60, check=False,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0


# slapd

DN = 'cn=%s,dc=example,dc=org'


@pytest.mark.parametrize('user', USERS)
@pytest.mark.parametrize('protocol', ['ldap', 'ldaps'])
def test_slapd(slapd, protocol, user):
    url = f'{protocol}://127.0.0.1:{slapd.ports[protocol]}/{DN}'
    assert ask(url, user, USERS[user]).answer == YES, slapd.log()
    wrong = ask(url, user, USERS[user] + 'x')
    assert wrong.answer == NO and 'result 49' in wrong.cause


@pytest.mark.parametrize('user, password', [
    ('nobody', 'secret'),
    ('bob', ''),
    ('bob,dc=example,dc=org', 'secret'),
    ('bob+sn=bob', 'secret'),
    ('bob\\', 'secret'),
    ('*', 'secret'),
    ('#626f62', 'secret'),
    ('bob"', 'secret'),
])
def test_slapd_says_no(slapd, user, password):
    assert ask(f'ldap://127.0.0.1:{slapd.ports["ldap"]}/{DN}', user, password).answer == NO


def test_slapd_empty_password_is_success_to_slapd(slapd):
    """What our refusal of empty passwords is for: the server itself says yes."""
    lacking = missing('ldapwhoami')
    if lacking:
        pytest.skip(f'{lacking} is not installed')
    who = ['ldapwhoami', '-x', '-H', f'ldap://127.0.0.1:{slapd.ports["ldap"]}']
    run = subprocess.run(who, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60,
                         check=True)
    assert run.stdout == b'anonymous\n'


def test_slapd_bad_dn(slapd):
    url = f'ldap://127.0.0.1:{slapd.ports["ldap"]}/no dn %s'
    assert ask(url, 'bob', 'secret').answer == NO  # invalidDNSyntax


def test_slapd_certificate(slapd, monkeypatch):
    monkeypatch.setattr('TMDA.ofmipd.remote.loopback', lambda host: False)
    url = f'ldaps://localhost:{slapd.ports["ldaps"]}/{DN}'
    assert ask(url, 'bob', 'secret').answer == UNSURE
    assert ask(url + '?verify=no', 'bob', 'secret').answer == YES


# All in a chain

def test_chain_of_real_servers(dovecot, slapd, tmp_path):
    path = tmp_path / 'tofmipd'
    path.write_text('carol:plain\nbob:local\n', encoding='ascii')
    path.chmod(0o600)
    with socket.socket() as closed:
        closed.bind(('127.0.0.1', 0))
        chain = sources.build([
            ('remote', f'imap://127.0.0.1:{dovecot.ports["imap"]}'),
            ('remote', f'ldap://127.0.0.1:{slapd.ports["ldap"]}/{DN}'),
            ('file', str(path)),
        ], SECONDS)
        down = sources.build([('remote', f'imap://127.0.0.1:{closed.getsockname()[1]}'),
                              ('file', str(path))], SECONDS)
        assert chain.check(Password('bob', 'secret')).source.startswith('imap:')
        assert chain.check(Password('carol', 'plain')).source.startswith('file:')
        assert chain.check(Password('bob', 'wrong')).answer == NO
        assert down.check(Password('bob', 'local')).answer == YES
        assert down.check(Password('bob', 'wrong')).answer == UNSURE
    assert chain.mechanisms == ('PLAIN', 'LOGIN')
    digest = hmac.new(b'plain', b'<1@x>', hashlib.md5).hexdigest()
    assert chain.check(CramMD5('carol', b'<1@x>', digest)).answer == YES


# PAM

SERVICES = {
    'permit': 'auth required pam_permit.so\naccount required pam_permit.so\n',
    'deny': 'auth required pam_deny.so\naccount required pam_deny.so\n',
    'account-deny': 'auth required pam_permit.so\naccount required pam_deny.so\n',
    'unix': 'auth required pam_unix.so nodelay\naccount required pam_unix.so\n',
    'rhost': 'auth required pam_permit.so\naccount required pam_access.so accessfile={access}\n',
    'broken': 'auth required pam_no_such_module.so\n',
}

needs_pam = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason='services are files in /etc/pam.d'),
    pytest.mark.skipif(not Path('/etc/pam.d').is_dir(), reason='no /etc/pam.d'),
]


@pytest.fixture(scope='module')
def services(tmp_path_factory):
    """Services of our own in /etc/pam.d; a function from their name here to the real one."""
    prefix = f'tmda-test-{os.getpid()}-'
    access = tmp_path_factory.mktemp('pam') / 'access'
    access.write_text('+:ALL:192.0.2.1\n-:ALL:ALL\n', encoding='ascii')
    paths = [Path('/etc/pam.d', prefix + name) for name in SERVICES]
    try:
        for path, text in zip(paths, SERVICES.values()):
            path.write_text(text.replace('{access}', str(access)), encoding='ascii')
        yield lambda name: prefix + name
    finally:
        for path in paths:
            path.unlink()


@pytest.fixture(scope='module')
def account():
    """An account made for these tests: (name, password)."""
    lacking = missing('useradd', 'userdel', 'chpasswd')
    if lacking:
        pytest.skip(f'{lacking} is not installed')
    name, password = f'tmdapam{os.getpid()}', secrets.token_hex(8)
    run = {'timeout': 60, 'check': True,
           'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
    subprocess.run([shutil.which('useradd', path=PATH), '--no-create-home', name],
                   stdin=subprocess.DEVNULL, **run)
    try:
        subprocess.run([shutil.which('chpasswd', path=PATH)], input=f'{name}:{password}'.encode(),
                       **run)
        yield name, password
    finally:
        subprocess.run([shutil.which('userdel', path=PATH), name], stdin=subprocess.DEVNULL, **run)


def pam(service, user, password, address='192.0.2.1'):
    """The verdict of a PAM service."""
    client = SimpleNamespace(address=address)
    return sources.build([('pam', service)], SECONDS).check(Password(user, password), client)


class TestPam:
    """libpam with services of our own."""

    pytestmark = needs_pam

    @pytest.mark.parametrize('service, expected', [
        ('permit', YES), ('deny', NO), ('account-deny', NO), ('broken', UNSURE),
    ])
    def test_fixed_answers(self, services, account, service, expected):
        verdict = pam(services(service), account[0], 'any')
        assert verdict.answer == expected, verdict

    def test_unix(self, services, account):
        name, password = account
        assert pam(services('unix'), name, password).answer == YES
        assert pam(services('unix'), name, password + 'x').answer == NO
        assert pam(services('unix'), 'no-such-user', password).answer == NO
        assert pam(services('unix'), name, '').answer == NO

    @pytest.mark.parametrize('address, expected', [('192.0.2.1', YES), ('192.0.2.2', NO)])
    def test_client_address_reaches_the_modules(self, services, account, address, expected):
        assert pam(services('rhost'), account[0], 'any', address).answer == expected
