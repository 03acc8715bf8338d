# SPDX-License-Identifier: GPL-2.0-or-later
"""Mail clients over TLS: from the first octet (465) and by STARTTLS (587), by each mechanism.

All of them check the server's certificate.  tests/real/test_clients.py has them without TLS,
with tags and a real Postfix behind the daemon.
"""
from __future__ import annotations

import os
import smtplib
import subprocess

import pytest

from real.launchers import MESSAGE, RECIPIENT, received, skip_without
from real.logins import CERTIFICATE_OPTIONS
from support import wait_for
from support.daemon import Daemon, needs_account
from support.proxy import AUTHOR, PASSWORD, USER, write_home
from support.talk import CERTIFICATE, PATIENCE, client_context
from support.upstream import Upstream

pytestmark = needs_account
MECHANISMS = ('PLAIN', 'LOGIN', 'CRAM-MD5')
SECURITY = {'ssl': 0, 'starttls': 1}  # number of the daemon's listener


@pytest.fixture(scope='module')
def upstream():
    with Upstream() as server:
        yield server


@pytest.fixture(scope='module')
def daemon(tmp_path_factory, upstream):
    home = write_home(tmp_path_factory.mktemp('clients'), upstream.port)
    with Daemon(home, '-plocalhost:0/ssl', '-plocalhost:0/tls', *CERTIFICATE_OPTIONS) as running:
        yield running


def swaks(port, security, mechanism, directory):
    tls = '--tls-on-connect' if security == 'ssl' else '--tls'
    return ['swaks', '--server', 'localhost:%d' % port, tls, '--tls-verify',
            '--tls-ca-path', str(CERTIFICATE), '--from', AUTHOR, '--to', RECIPIENT,
            '--auth', mechanism, '--auth-user', USER, '--auth-password', PASSWORD, '--data', '-']


def msmtp(port, security, mechanism, directory):
    return ['msmtp', '--file=' + os.devnull, '--host=localhost', '--port=%d' % port, '--tls=on',
            '--tls-starttls=' + ('off' if security == 'ssl' else 'on'),
            '--tls-trust-file=%s' % CERTIFICATE, '--auth=' + mechanism.lower(), '--user=' + USER,
            '--passwordeval=echo ' + PASSWORD, '--from=' + AUTHOR, RECIPIENT]


def curl(port, security, mechanism, directory):
    (directory / 'message').write_bytes(MESSAGE.encode())
    scheme = 'smtps' if security == 'ssl' else 'smtp'
    return ['curl', '--silent', '--show-error', '--ssl-reqd', '--cacert', str(CERTIFICATE),
            '--upload-file', str(directory / 'message'), '--url',
            '%s://localhost:%d' % (scheme, port), '--mail-from', AUTHOR, '--mail-rcpt', RECIPIENT,
            '--user', '%s:%s' % (USER, PASSWORD), '--login-options', 'AUTH=' + mechanism]


@pytest.mark.parametrize('mechanism', MECHANISMS)
@pytest.mark.parametrize('security', SECURITY)
@pytest.mark.parametrize('client', [swaks, msmtp, curl])
def test_program(client, security, mechanism, daemon, upstream, tmp_path):
    skip_without(client.__name__)
    command = client(daemon.ports[SECURITY[security]], security, mechanism, tmp_path)
    run = subprocess.run(command, input=MESSAGE.replace('\r\n', '\n').encode(), timeout=60,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert run.returncode == 0, run.stdout.decode()
    check(daemon, upstream, mechanism)


@pytest.mark.parametrize('mechanism', MECHANISMS)
@pytest.mark.parametrize('security', SECURITY)
def test_smtplib(security, mechanism, daemon, upstream):
    where = ('localhost', daemon.ports[SECURITY[security]])
    if security == 'ssl':
        client = smtplib.SMTP_SSL(*where, context=client_context(), timeout=PATIENCE)
    else:
        client = smtplib.SMTP(*where, timeout=PATIENCE)
    with client:
        if security == 'starttls':
            client.starttls(context=client_context())
        client.ehlo()
        client.user, client.password = USER, PASSWORD
        client.auth(mechanism, getattr(client, 'auth_' + mechanism.lower().replace('-', '_')))
        client.sendmail(AUTHOR, RECIPIENT, MESSAGE)
    check(daemon, upstream, mechanism)


def check(daemon, upstream, mechanism):
    """What arrived, over what, and how the client logged in."""
    message, = upstream.messages
    upstream.messages.clear()
    assert (message.mail_from, message.recipients) == (AUTHOR, [RECIPIENT])
    assert message.data.rstrip().endswith(b'\r\n\r\nHello.')  # swaks adds an empty line
    assert '(using TLSv1.3 with cipher ' in received(message)
    session = received(message).partition(' with ESMTPSA id ')[2].partition(';')[0]
    login, = wait_for(lambda: [line for line in daemon.events('login')
                               if 'session=' + session in line])
    assert login.endswith('mechanism=' + mechanism)
