# SPDX-License-Identifier: GPL-2.0-or-later
"""What TMDA's how-to says of --ssl and --tls.  (Ours needs neither tlslite nor pycrypto.)"""
from __future__ import annotations

import os
import socket
import ssl
import subprocess

import pytest

from real.launchers import skip_without
from support.daemon import Daemon, command, make_home, needs_account
from support.proxy import write_home
from support.talk import CERTIFICATE, KEY, Talk
from support.upstream import Upstream
from TMDA.ofmipd.verbs import VERBS

FILES = ('--ssl-cert=%s' % CERTIFICATE, '--ssl-key=%s' % KEY)

pytestmark = needs_account


@pytest.fixture
def home(tmp_path):
    return make_home(tmp_path)


def submit(talk: Talk) -> None:
    """Log in and send a message."""
    talk.login()
    for line in ('MAIL FROM:<a@example.org>', 'RCPT TO:<b@example.org>', 'DATA'):
        assert talk.ask(line)[:1] in '23'
    assert talk.ask('Subject: test\r\n\r\nHello.\r\n.').startswith('250 ')


def start_tls(talk: Talk) -> None:
    """EHLO and STARTTLS, after the greeting."""
    assert 'STARTTLS' in talk.ask('EHLO client.example')
    assert talk.ask('STARTTLS').startswith('220 ')
    talk.start_tls()


def test_has_builtin_support_for_ssl_removing_the_need_to_use_stunnel(tmp_path):
    with Upstream() as upstream:
        home = write_home(tmp_path, upstream.port)
        with Daemon(home, '-plocalhost:0/ssl', '-plocalhost:0/tls', *FILES) as daemon:
            with daemon.connect(0) as talk:
                talk.start_tls()
                assert talk.reply().startswith('220 ')
                submit(talk)
            with daemon.connect(1) as talk:
                assert talk.reply().startswith('220 ')
                start_tls(talk)
                submit(talk)
        assert len(upstream.messages) == 2


def test_ssl_the_connection_is_immediately_negotiated_when_the_client_connects(home):
    with Daemon(home, '--ssl', *FILES) as daemon, daemon.connect() as talk:
        talk.sock.settimeout(0.2)
        with pytest.raises(socket.timeout):
            talk.sock.recv(1)  # no greeting in clear
        talk.sock.settimeout(10)
        talk.start_tls()
        assert talk.reply().startswith('220 ')


def test_ssl_once_negotiation_has_completed_a_standard_smtp_communication_occurs_inside(home):
    with Daemon(home, '--ssl', *FILES) as daemon, daemon.connect() as talk:
        talk.start_tls()
        assert talk.reply().startswith('220 ')
        assert 'STARTTLS' not in talk.ask('EHLO client.example')
        talk.login()
        assert talk.ask('QUIT') == '221 Bye'


def test_tls_a_plain_text_connection_is_initially_made_then_starttls(home):
    with Daemon(home, '--tls=on', *FILES) as daemon, daemon.connect() as talk:
        assert talk.reply().startswith('220 ')  # in clear
        start_tls(talk)
        assert talk.sock.version() in ('TLSv1.2', 'TLSv1.3')
        talk.login()


def test_note_that_tls_requires_an_argument(home):
    run = subprocess.run(command('-f', '--tls'), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, timeout=60, check=False)
    assert (run.returncode, run.stdout) == (64, b'tmda-ofmipd: option --tls needs an argument\n')


def test_tls_optional_a_client_can_completely_ignore_tls_support(tmp_path):
    with Upstream() as upstream:
        home = write_home(tmp_path, upstream.port)
        with Daemon(home, '--tls=optional', *FILES) as daemon, daemon.connect() as talk:
            talk.reply()
            submit(talk)
        assert len(upstream.messages) == 1


def test_tls_optional_a_client_can_use_it(home):
    with Daemon(home, '--tls=optional', *FILES) as daemon, daemon.connect() as talk:
        talk.reply()
        start_tls(talk)
        talk.login()


def test_tls_on_very_few_commands_are_accepted_prior_to_starttls(home):
    accepted = set()
    with Daemon(home, '--tls=on', *FILES) as daemon:
        for verb in VERBS:
            with daemon.connect() as talk:
                talk.reply()
                talk.ask('EHLO client.example')
                argument = ' client.example' if verb in ('HELO', 'EHLO') else ''
                if talk.ask(verb + argument)[:1] == '2':
                    accepted.add(verb)
    assert accepted == {'EHLO', 'HELO', 'STARTTLS', 'NOOP', 'RSET', 'HELP', 'QUIT'}


@pytest.mark.parametrize('line', ['AUTH PLAIN AGJvYmJ5AEZvb0Jhcg==', 'AUTH LOGIN', 'AUTH CRAM-MD5',
                                  'MAIL FROM:<a@example.org>', 'RCPT TO:<b@example.org>', 'DATA'])
def test_tls_on_prevents_any_authentication_or_mail_injection_over_an_unencrypted_connection(
        home, line):
    with Daemon(home, '--tls=on', *FILES) as daemon, daemon.connect() as talk:
        talk.reply()
        talk.ask('EHLO client.example')
        assert talk.ask(line)[:3] in ('530', '503')
        assert talk.ask('MAIL FROM:<a@example.org>').startswith('530 ')


def test_does_not_offer_some_auth_mechanisms_prior_to_starttls_and_others_after(home):
    with Daemon(home, '--tls=on', *FILES) as daemon, daemon.connect() as talk:
        talk.reply()
        assert 'AUTH' not in talk.ask('EHLO client.example')
        start_tls(talk)
        assert 'AUTH SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN' in talk.ask('EHLO client.example')


@pytest.mark.parametrize('mode', ['--ssl', '--tls=on', '--tls=optional', '--tls=localoptional'])
@pytest.mark.parametrize('files, status', [
    ((), 64), (FILES[:1], 64), (FILES[1:], 64), (('--ssl-cert=/nonexistent', FILES[1]), 78),
    ((FILES[0], '--ssl-key=/nonexistent'), 78)])
def test_in_all_modes_requires_access_to_a_private_key_and_certificate_file(
        home, mode, files, status):
    run = subprocess.run(command('-f', '-plocalhost:0', mode, *files), stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False,
                         env=dict(os.environ, HOME=str(home)))
    assert run.returncode == status and run.stdout.count(b'\n') == 1, run.stdout


@pytest.mark.parametrize('kind', [['rsa:2048'], ['ec', '-pkeyopt', 'ec_paramgen_curve:secp384r1']],
                         ids=['rsa', 'ec'])
@pytest.mark.parametrize('together', [False, True], ids=['two-files', 'one-file'])
def test_the_files_should_be_created_in_the_standard_way_using_openssl(home, kind, together):
    skip_without('openssl')
    key, certificate = home / 'key', home / 'certificate'
    subprocess.run(['openssl', 'req', '-x509', '-newkey', *kind, '-nodes', '-days', '2', '-subj',
                    '/CN=localhost', '-keyout', str(key), '-out', str(certificate)], check=True,
                   timeout=60, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    files = ['--ssl-cert=%s' % certificate, '--ssl-key=%s' % key]
    if together:
        certificate.write_text(certificate.read_text() + key.read_text())
        certificate.chmod(0o600)
        files.pop()
    with Daemon(home, '--ssl', *files) as daemon, daemon.connect() as talk:
        context = ssl.create_default_context(cafile=str(certificate))
        context.check_hostname = False
        talk.sock = context.wrap_socket(talk.sock)
        assert talk.reply().startswith('220 ')
