# SPDX-License-Identifier: GPL-2.0-or-later
"""What TMDA's how-to says of the protocol and of the sources of passwords."""
from __future__ import annotations

import os
import smtplib
import subprocess
import sys

import pytest

from real.launchers import own_name
from real.logins import LOGINS, log_in
from support.daemon import Daemon, command, make_home, needs_account
from support.fake_backend import FakeBackend, make_service
from support.mailservers import ScriptedServer, imap
from support.talk import PATIENCE, Running
from TMDA.Errors import ConfigError
from TMDA.ofmipd import assembly, remoteurl, sources

EXAMPLE = {'bobby': 'FooBar', 'chloe': 'baz_bap', 'johndoe': '8i9/hjuy+33'}


@pytest.fixture
def home(tmp_path):
    return make_home(tmp_path)


def client(daemon):
    """smtplib, after EHLO."""
    made = smtplib.SMTP('localhost', daemon.ports[0], timeout=PATIENCE)
    made.ehlo()
    return made


def start_fails(home, *arguments):
    """The one line that a daemon prints which does not start."""
    run = subprocess.run(command('-f', '-plocalhost:0', *arguments), stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False,
                         env=dict(os.environ, HOME=str(home)))
    assert run.returncode == 78 and run.stdout.count(b'\n') == 1
    return run.stdout.decode()


# Authentication

@pytest.mark.parametrize('before, line, code', [
    ([], 'HELO client', '250'), ([], 'NOOP', '250'), ([], 'RSET', '250'), ([], 'QUIT', '221'),
    (['AUTH'], 'MAIL FROM:<a@example.org>', '250'),
    (['AUTH', 'MAIL FROM:<>'], 'RCPT TO:<b@example.org>', '250'),
    (['AUTH', 'MAIL FROM:<>', 'RCPT TO:<b@example.org>'], 'DATA', '354'),
    (['AUTH'], 'VRFY bobby', '252'),
])
def test_implements_the_minimal_smtp_protocol_as_defined_in_rfc_2821(before, line, code):
    """RFC 2821 section 4.5.1 lists the commands."""
    with Running(make_service()) as running:
        running.talk.reply()
        for command_line in before:
            running.talk.login() if command_line == 'AUTH' else running.talk.ask(command_line)
        assert running.talk.ask(line).startswith(code)


def test_the_esmtp_ehlo_command_defined_in_rfc_1869():
    with Running(make_service()) as running:
        running.talk.reply()
        lines = running.talk.ask('EHLO client').split('\n')
        assert all(line.startswith('250-') for line in lines[:-1]) and lines[-1][:4] == '250 '


@needs_account
@pytest.mark.parametrize('mechanism', ['PLAIN', 'LOGIN', 'CRAM-MD5'])
def test_smtp_authentication_plain_login_cram_md5_methods(home, mechanism):
    with Daemon(home) as daemon, client(daemon) as smtp:
        assert mechanism in smtp.esmtp_features['auth'].split()
        assert log_in(smtp, mechanism, 'bobby', 'FooBar').startswith('235 ')


@pytest.mark.parametrize('line', ['MAIL FROM:<a@example.org>', 'RCPT TO:<b@example.org>', 'DATA',
                                  'VRFY bobby'])
def test_the_proxy_cannot_be_used_by_an_unauthenticated_user(line):
    backend = FakeBackend()
    with Running(make_service(backend)) as running:
        running.talk.reply()
        running.talk.ask('EHLO client')
        assert running.talk.ask(line)[:3] in ('530', '503')
        assert running.talk.ask('MAIL FROM:<a@example.org>').startswith('530 5.7.0 ')
    assert not backend.submitted


# 1. From a "password" file that you create

@needs_account
@pytest.mark.parametrize('user', EXAMPLE)
@pytest.mark.parametrize('mechanism', LOGINS)
def test_each_line_should_contain_a_username_and_password_separated_by_a_colon(
        home, user, mechanism):
    (home / '.tmda' / 'tofmipd').write_text(''.join('%s:%s\n' % pair for pair in EXAMPLE.items()))
    with Daemon(home) as daemon, client(daemon) as smtp:
        assert log_in(smtp, mechanism, user, EXAMPLE[user]).startswith('235 ')


@needs_account
def test_the_passwords_need_not_be_the_same_as_any_other_passwords_on_the_system(home):
    (home / '.tmda' / 'tofmipd').write_text('%s:made up for mail\n' % own_name())
    with Daemon(home) as daemon, client(daemon) as smtp:
        assert log_in(smtp, 'PLAIN', own_name(), 'made up for mail').startswith('235 ')


def test_the_default_location_is_etc_tofmipd_in_global_mode_otherwise_tmda_tofmipd(monkeypatch):
    monkeypatch.setenv('HOME', '/home/bobby')
    assert assembly.default_files(root=True)[0] == '/etc/tofmipd'
    assert assembly.default_files(root=False)[0] == '/home/bobby/.tmda/tofmipd'


@needs_account
def test_these_defaults_can_be_overridden_using_the_a_flag(home):
    (home / '.tmda' / 'tofmipd').rename(home / 'elsewhere')
    with Daemon(home, '-a', str(home / 'elsewhere')) as daemon, client(daemon) as smtp:
        assert log_in(smtp, 'PLAIN', 'bobby', 'FooBar').startswith('235 ')


@needs_account
@pytest.mark.parametrize('mode', [0o600, 0o400])
def test_the_authentication_file_must_be_chmod_600_or_400(home, mode):
    (home / '.tmda' / 'tofmipd').chmod(mode)
    with Daemon(home) as daemon, daemon.connect() as talk:
        assert talk.reply().startswith('220 ')


@needs_account
@pytest.mark.parametrize('mode', [0o640, 0o604, 0o644, 0o700, 0o660, 0o606])
def test_tmda_ofmipd_will_fail_to_start_otherwise(home, mode):
    path = home / '.tmda' / 'tofmipd'
    path.chmod(mode)
    assert start_fails(home) == (
        'tmda-ofmipd: %s: mode is %o, must be 600 or 400: chmod 600 %s\n' % (path, mode, path))


def test_the_authentication_file_must_be_owned_by_the_user_running_the_daemon(home):
    path = str(home / '.tmda' / 'tofmipd')
    sources.build([('file', path)], 1, owners=(os.geteuid(),))
    with pytest.raises(ConfigError, match='must belong to'):
        sources.build([('file', path)], 1, owners=(os.geteuid() + 1,))


# 2. A checkpassword compatible program

CHECKPASSWORD = '''\
import os, sys
assert sys.argv[1:] == ['one argument', '-x']
sys.exit(0 if os.read(3, 513).startswith(b'bobby\\0FooBar\\0') else 1)
'''


@needs_account
@pytest.mark.parametrize('password, code', [('FooBar', '235'), ('foobar', '535')])
def test_use_the_A_flag_to_specify_the_program_and_arguments(home, password, code):
    (home / 'check.py').write_text(CHECKPASSWORD)
    program = "%s %s 'one argument' -x" % (sys.executable, home / 'check.py')
    with Daemon(home, '-A', program) as daemon, client(daemon) as smtp:
        assert 'CRAM-MD5' not in smtp.esmtp_features['auth']
        assert log_in(smtp, 'PLAIN', 'bobby', password).startswith(code)


def help_text():
    run = subprocess.run(command('--help'), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         timeout=60, check=True)
    return ' '.join(run.stdout.decode().split())


def test_the_help_output_contains_such_an_example():
    assert '"/bin/checkpassword-pam -s id -- /bin/true"' in help_text()


# 3. Against a remote resource

@needs_account
@pytest.mark.parametrize('password, code', [('secret', '235'), ('Secret', '535')])
def test_use_the_R_flag_to_specify_the_protocol_and_hostname_and_port(home, password, code):
    with ScriptedServer(imap()) as server:
        with Daemon(home, '-R', 'imap://127.0.0.1:%d' % server.port) as daemon:
            with client(daemon) as smtp:
                assert log_in(smtp, 'PLAIN', 'bob', password).startswith(code)


@pytest.mark.parametrize('given, host, port', [
    ('imap', 'localhost', 143), ('imaps', 'localhost', 993), ('pop3', 'localhost', 110),
    ('apop://mail.example.org', 'mail.example.org', 110),
    ('ldap://ldap.example.org/cn=%s', 'ldap.example.org', 389),
    ('ldaps://ldap.example.org:1636/cn=%s', 'ldap.example.org', 1636),
])
def test_optionally_the_hostname_and_port_of_the_server(given, host, port):
    url = remoteurl.parse(given)
    assert (url.host, url.port) == (host, port)


def test_see_the_help_output_for_supported_protocols_and_example_usage():
    text = help_text()
    assert 'PROTO://HOST[:PORT][/DN]' in text
    for protocol in ('imap', 'imaps', 'pop3', 'apop', 'ldap', 'ldaps'):
        assert protocol in text.replace(',', '').split() or protocol + '.' in text
