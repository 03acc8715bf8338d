# SPDX-License-Identifier: GPL-2.0-or-later
"""A certificate is renewed under a running daemon: SIGHUP, and what each client then sees."""
from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl

import pytest

from real.launchers import skip_without
from real.logins import CERTIFICATE_OPTIONS
from support.daemon import Daemon, make_home, needs_account
from support.mailservers import certificate
from support.talk import CERTIFICATE, KEY, PATIENCE, Talk

pytestmark = needs_account
PORTS = {'ssl': 0, 'starttls': 1}


@pytest.fixture
def home(tmp_path):
    """A home with the certificate and key that the daemon uses, and new ones beside them."""
    skip_without('openssl')
    home = make_home(tmp_path)
    shutil.copy(CERTIFICATE, home / 'cert')
    shutil.copy(KEY, home / 'key')
    (home / 'key').chmod(0o600)
    (home / 'new').mkdir()
    certificate(home / 'new')
    return home


def start(home):
    return Daemon(home, '-plocalhost:0/ssl', '-plocalhost:0/tls',
                  '--ssl-cert=%s' % (home / 'cert'), '--ssl-key=%s' % (home / 'key'))


def encrypted(daemon, security):
    """A connection with TLS that takes any certificate, before the next command."""
    talk = daemon.connect(PORTS[security])
    if security == 'starttls':
        talk.reply()
        talk.ask('EHLO client.example')
        assert talk.ask('STARTTLS').startswith('220 ')
    talk.sock = ssl._create_unverified_context().wrap_socket(talk.sock)
    if security == 'ssl':
        talk.reply()
    return talk


def shown(daemon, security):
    """The certificate that a new client is shown, PEM."""
    with encrypted(daemon, security) as talk:
        return ssl.DER_cert_to_PEM_cert(talk.sock.getpeercert(binary_form=True)).split()


def renew(home, *names):
    for name in names:
        new = home / 'new' / {'cert': 'localhost.pem', 'key': 'localhost.key'}[name]
        os.replace(shutil.copy(new, home / (name + '.tmp')), home / name)


@pytest.mark.parametrize('security', PORTS)
def test_renewed_certificate_is_shown_after_sighup(home, security):
    with start(home) as daemon, encrypted(daemon, security) as before:
        assert shown(daemon, security) == CERTIFICATE.read_text().split()
        renew(home, 'cert', 'key')
        assert shown(daemon, security) == CERTIFICATE.read_text().split()
        daemon.signal(signal.SIGHUP)
        daemon.wait_for('event=reloaded')
        assert shown(daemon, security) == (home / 'new' / 'localhost.pem').read_text().split()
        assert not daemon.events('reload-refused')
        before.login()  # a session that was there goes on


@pytest.mark.parametrize('damage, words', [
    (lambda home: renew(home, 'cert'), 'not the private key of'),
    (lambda home: (home / 'key').write_text(''), 'there is no PEM private key in it'),
    (lambda home: (home / 'cert').write_text('half a c'), 'there is no PEM certificate in it'),
    (lambda home: (home / 'cert').unlink(), 'No such file or directory'),
], ids=['mismatch', 'empty-key', 'cut-certificate', 'missing'])
def test_broken_certificate_is_refused_and_the_old_one_stays(home, damage, words):
    with start(home) as daemon:
        damage(home)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for('event=reload-refused')
        assert words in daemon.events('reload-refused')[0]
        for security in PORTS:
            assert shown(daemon, security) == CERTIFICATE.read_text().split()


# --tls=localoptional: this host is where the connection comes from, not who it is made to.

def own_address():
    """An address of this host that is not loopback; '' if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(('192.0.2.1', 9))  # sends nothing
        except OSError:
            return ''
        return probe.getsockname()[0]


@pytest.mark.parametrize('here, offered', [(True, True), (False, False)])
def test_localoptional_asks_for_tls_off_loopback(home, here, offered):
    address = '127.0.0.1' if here else own_address()
    if not address:
        pytest.skip('this host has no address but loopback')
    with Daemon(home, '-p:0', '--tls=localoptional', *CERTIFICATE_OPTIONS) as daemon:
        with Talk(socket.create_connection((address, daemon.ports[0]), PATIENCE)) as talk:
            talk.reply()
            assert ('AUTH' in talk.ask('EHLO client.example')) is offered
            answer = talk.ask('AUTH PLAIN AGJvYmJ5AEZvb0Jhcg==')
            assert answer.startswith('235' if offered else '530')
