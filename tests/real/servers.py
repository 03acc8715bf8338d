# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's dovecot and slapd with configurations and ports of their own, for any account.

Each runs in the foreground from a temporary directory on free ports of
127.0.0.1 and is ended by its process id.  Root has them run under an account
without privileges.  Users are those of USERS.
"""
import base64
import grp
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from real.postfix import free_port
from support.mailservers import certificate

PATH = os.environ.get('PATH', '') + ':/usr/sbin:/sbin'
START_SECONDS = 30

USERS = {
    'bob': 'secret',
    'alice@example.org': 'p\xe4ss "w\\rd" \u20ac',
    'smith, "jr" + co': 'x y',
}

DOVECOT_CONF = '''\
base_dir = {top}/run
state_dir = {top}/state
log_path = {top}/log
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
first_valid_uid = 1
protocols = imap pop3
listen = 127.0.0.1
mail_location = maildir:{top}/mail/%u
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}
disable_plaintext_auth = no
auth_mechanisms = plain login apop
auth_username_chars =
auth_verbose = yes
auth_failure_delay = 0
auth_cache_size = 0
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {top}/users
}}
userdb {{
  driver = static
  args = uid={user} gid={group} home={top}/mail/%u
}}
service anvil {{
  chroot =
  # no delay after failed logins from one address
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
  }}
}}
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = {pop3s}
  }}
}}
'''

SLAPD_CONF = '''\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {top}/pid
TLSCertificateFile {certificate}
TLSCertificateKeyFile {key}
database mdb
suffix "dc=example,dc=org"
directory {top}/data
access to attrs=userPassword by anonymous auth
access to * by * read
'''

LDIF_ROOT = '''\
dn: dc=example,dc=org
objectClass: domain
dc: example

'''


def missing(*programs):
    """The first of these programs that is not installed, or ''."""
    return next((name for name in programs if not shutil.which(name, path=PATH)), '')


def skip_other_dovecot():
    """Skip the test unless dovecot is here, and of the version that Dovecot is written for."""
    lacking = missing('dovecot', 'doveadm', 'openssl')
    if lacking:
        pytest.skip(f'{lacking} is not installed')
    version = subprocess.run([shutil.which('dovecot', path=PATH), '--version'],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60,
                             check=True).stdout.decode()
    if not version.startswith('2.3'):
        pytest.skip(f'the configuration here is for dovecot 2.3, not {version.split()[0]}')


class Server:
    """A temporary directory and one process in the foreground: start(), stop()."""

    def __init__(self, account):
        """account: whose process it is if root starts it."""
        self.owner = pwd.getpwnam(account) if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        self.top = Path(tempfile.mkdtemp(prefix='tmda-server-', dir='/tmp'))
        self.certificate, self.key = certificate(self.top)
        self._process = None

    def launch(self, command, ports):
        """Give all files to the account, run the command, wait until the ports answer."""
        for path in [self.top, *self.top.rglob('*')]:
            os.chown(path, self.owner.pw_uid, self.owner.pw_gid)
        as_root = os.geteuid() == 0
        identity = {'user': self.owner.pw_uid, 'group': self.owner.pw_gid, 'extra_groups': []}
        with open(self.top / 'output', 'wb') as output:
            self._process = subprocess.Popen(
                command, cwd=self.top, env={'PATH': PATH, 'HOME': str(self.top)},
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                **(identity if as_root else {}))
        deadline = time.monotonic() + START_SECONDS
        for port in ports:
            while not listening(port):
                assert self._process.poll() is None and time.monotonic() < deadline, self.log()
                time.sleep(0.02)

    def log(self):
        """What the server has said."""
        names = ('output', 'log')
        return ''.join((self.top / name).read_text(encoding='utf-8', errors='replace')
                       for name in names if (self.top / name).exists())

    def stop(self):
        """End the process and remove all files."""
        if self._process:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.top)


def listening(port):
    """Whether something answers on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(('127.0.0.1', port)) == 0


class Dovecot(Server):
    """Dovecot 2.3: ports is a dict of imap, imaps, pop3 and pop3s."""

    def start(self):
        """Write the configuration and start; it listens when this returns."""
        self.ports = {name: free_port() for name in ('imap', 'imaps', 'pop3', 'pop3s')}
        values = dict(self.ports, top=self.top, user=self.owner.pw_name,
                      group=grp.getgrgid(self.owner.pw_gid).gr_name,
                      certificate=self.certificate, key=self.key)
        (self.top / 'conf').write_text(DOVECOT_CONF.format(**values), encoding='utf-8')
        # Dovecot escapes a user's quotes before it looks for the line.
        (self.top / 'users').write_text(''.join(
            user.replace('"', '\\"') + f':{password}\n' for user, password in USERS.items()),
            encoding='utf-8')
        (self.top / 'mail').mkdir()
        dovecot = shutil.which('dovecot', path=PATH)
        self.launch([dovecot, '-F', '-c', str(self.top / 'conf')], self.ports.values())


class Slapd(Server):
    """OpenLDAP: ports is a dict of ldap and ldaps; users are cn=...,dc=example,dc=org."""

    def start(self):
        """Write configuration and data and start; it listens when this returns."""
        self.ports = {name: free_port() for name in ('ldap', 'ldaps')}
        values = {'top': self.top, 'certificate': self.certificate, 'key': self.key}
        configuration, data = self.top / 'conf', self.top / 'ldif'
        configuration.write_text(SLAPD_CONF.format(**values), encoding='ascii')
        data.write_text(LDIF_ROOT + ''.join(map(_entry, USERS.items())), encoding='ascii')
        (self.top / 'data').mkdir()
        subprocess.run([shutil.which('slapadd', path=PATH), '-f', configuration, '-l', data],
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       timeout=60, check=True)
        urls = ' '.join(f'{name}://127.0.0.1:{port}/' for name, port in self.ports.items())
        self.launch([shutil.which('slapd', path=PATH), '-f', str(configuration), '-h', urls,
                     '-d', '0'], self.ports.values())


def _entry(user_and_password):
    """An entry in LDIF; base64 spares us its quoting, backslashes the DN's."""
    user, password = user_and_password
    escaped = ''.join('\\' + letter if letter in ',+"\\' else letter for letter in user)
    fields = (('dn:', f'cn={escaped},dc=example,dc=org'), ('cn:', user), ('sn:', user),
              ('userPassword:', password))
    lines = ['%s: %s' % (name, base64.b64encode(value.encode()).decode())
             for name, value in fields]
    return '\n'.join(lines + ['objectClass: inetOrgPerson', '', ''])
