# SPDX-License-Identifier: GPL-2.0-or-later
"""What TMDA's how-to says of tmda-ofmipd: what it is, how it is started, how it is tried.

In tests/howto each test has the name of a sentence of that document.  Sentences about global
mode are not here.
"""
from __future__ import annotations

import email.utils
import os
import re
import signal
import smtplib
import socket
import subprocess
import time
from pathlib import Path

import pytest

from real.launchers import CLIENT, LAUNCHERS, connect, launched, own_name, received, submit
from real.postfix import free_port
from real.servers import listening
from support import wait_for
from support.daemon import Daemon, command, needs_account, signal_process
from support.proxy import AUTHOR, PASSWORD, USER, write_home
from support.talk import PATIENCE, Talk, base64_text
from support.upstream import Upstream

CONTRIB = Path(__file__).resolve().parents[2] / 'contrib'
FRIEND, STRANGER = 'friend@example.org', 'stranger@example.org'
MESSAGE = ('From: Bobby <%s>\r\nTo: %s, %s\r\nSubject: test\r\nX-Other: kept\r\n\r\nHello.\r\n'
           % (AUTHOR, FRIEND, STRANGER))
FILTER = 'to %s bare\nto * dated=3d\n' % FRIEND

pytestmark = needs_account


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield server


@pytest.fixture
def home(tmp_path, upstream):
    return write_home(tmp_path, upstream.port, FILTER)


def send(daemon, recipients=(FRIEND, STRANGER)):
    """Send MESSAGE with smtplib, as any mail client would."""
    with smtplib.SMTP('localhost', daemon.ports[0], timeout=PATIENCE) as client:
        client.login(USER, PASSWORD)
        client.sendmail(AUTHOR, list(recipients), MESSAGE)


# What is it?

def test_allows_users_of_any_mail_client_capable_of_smtp_authentication_to_tag(home, upstream):
    with Daemon(home) as daemon:
        send(daemon, [STRANGER])
    message, = upstream.messages
    assert re.fullmatch(r'bobby-dated-\d+\.[0-9a-f]+@example\.net', message.mail_from)


def test_can_accept_smtp_connections_directly_on_an_available_port(home):
    port = free_port()
    with Daemon(home, '-plocalhost:%d' % port):
        with Talk(socket.create_connection(('localhost', port), PATIENCE)) as talk:
            assert talk.reply().startswith('220 ')


@pytest.mark.parametrize('name', ['xinetd', 'tcpserver'])
def test_can_be_triggered_by_another_server_such_as_xinetd_or_tcpserver(home, upstream, name):
    with launched(name, home) as server, connect(server.port) as client:
        submit(client)
    assert len(upstream.messages) == 1


def test_authenticates_the_user_and_looks_up_the_users_tmda_configuration(home, upstream):
    write_home(home, upstream.port, 'to * dated\n', more='HOSTNAME = "configured.example"\n'
               'USERNAME = "robert"\nOUTGOING_ENVELOPE_SENDER = None\n')
    with Daemon(home, '-d') as daemon:
        with smtplib.SMTP('localhost', daemon.ports[0], timeout=PATIENCE) as client:
            client.login(USER, PASSWORD)
            client.sendmail(AUTHOR, [STRANGER], MESSAGE.replace('Bobby <%s>' % AUTHOR, 'Bobby'))
    assert re.fullmatch(r'robert-dated-.*@configured\.example', upstream.messages[0].mail_from)


def test_for_each_message_the_message_is_processed_according_to_the_outgoing_filter(
        home, upstream):
    with Daemon(home) as daemon:
        send(daemon)
    senders = {message.recipients[0]: message.mail_from for message in upstream.messages}
    assert senders[FRIEND] == AUTHOR
    assert senders[STRANGER].startswith('bobby-dated-')


def test_accepts_the_message_transforms_the_headers_and_hands_it_off_to_the_real_smtp_server(
        home, upstream):
    with Daemon(home) as daemon:
        send(daemon, [STRANGER])
    message, = upstream.messages
    header, _, body = message.data.partition(b'\r\n\r\n')
    assert body == b'Hello.\r\n'
    assert b'X-Other: kept' in header.split(b'\r\n')
    assert b'From: Bobby <%s>' % message.mail_from.encode() in header


def test_does_not_replace_the_real_smtp_server(home, upstream):
    upstream.close()
    with Daemon(home) as daemon, pytest.raises(smtplib.SMTPDataError) as refused:
        send(daemon)
    assert refused.value.smtp_code == 451


# Running

def test_familiarize_yourself_with_the_options_by_reading_the_output_of_help(home):
    run = subprocess.run(command('--help'), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         timeout=60, check=True)
    text = run.stdout.decode()
    for flag in ('-V', '-h', '-d', '-L', '-b', '-f', '-u', '-c', '-p', '-6', '-C', '-1', '-P',
                 '-t', '--ssl', '--tls', '--ssl-cert', '--ssl-key', '--ssl-dh', '--ciphers',
                 '--ssl-no-v2', '--ssl-no-v3', '-a', '-A', '-R', '-m', '-F', '-S', '-v'):
        assert re.search(r'^ +(?:\S+, )?%s\b' % flag, text, re.MULTILINE), flag


def test_personal_by_your_non_privileged_user_account(home, upstream):
    with Daemon(home) as daemon:
        status = Path('/proc/%d/status' % daemon.process.pid).read_text()
        assert not re.search(r'^Uid:.*\b0\b', status, re.MULTILINE)
        send(daemon, [FRIEND])
    assert len(upstream.messages) == 1


# Starting tmda-ofmipd

def test_as_a_standalone_daemon_will_listen_for_connections_on_the_port_you_specify(home):
    first, second = free_port(), free_port()
    with Daemon(home, '-plocalhost:%d' % first, '-p127.0.0.1:%d' % second):
        assert listening(first) and listening(second)


@pytest.mark.parametrize('name', LAUNCHERS)
def test_in_one_session_mode_a_separate_application_is_expected_to_listen_and_spawn(
        home, upstream, name):
    with launched(name, home) as server, connect(server.port, LAUNCHERS[name].tls) as client:
        submit(client)
    assert len(upstream.messages) == 1


def test_a_combination_of_stunnel_on_a_non_privileged_port_and_personal_mode_should_work(
        home, upstream):
    with launched('stunnel', home) as server, connect(server.port, tls=True) as client:
        assert server.port > 1023
        submit(client)
    assert CLIENT in received(upstream.messages[0])


def test_started_at_and_listening_on_localhost_8025(home):
    if listening(8025):
        pytest.skip('something else listens on port 8025')
    with Daemon(home, '-d', '-plocalhost:8025') as daemon:
        started, listens = daemon.lines[:2]
    date = started.partition('tmda-ofmipd started at ')[2]
    assert abs(email.utils.parsedate_to_datetime(date).timestamp() - time.time()) < 60
    assert re.fullmatch(r'[A-Z][a-z]{2}, \d\d? [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}', date)
    assert listens == '\tListening on localhost:8025'


def test_by_default_tmda_ofmipd_runs_on_port_8025_in_daemon_mode(home):
    if listening(8025):
        pytest.skip('something else listens on port 8025')
    with Daemon(home, listeners=0) as daemon:
        assert daemon.ports == [8025]


def test_the_host_port_combination_can_be_changed_using_the_p_option(home):
    port = free_port()
    with Daemon(home, '-p127.0.0.1:%d' % port) as daemon:
        assert '\tListening on 127.0.0.1:%d' % port in daemon.lines
        assert listening(port)


def test_the_d_option_prints_debugging_information_to_stderr(home):
    with Daemon(home, '-d') as daemon, daemon.connect() as talk:
        talk.reply()
        talk.ask('NOOP')
        daemon.wait_for('C: NOOP')
        daemon.wait_for('S: 250 2.0.0 OK')


def test_leave_off_the_f_option_and_it_will_detach_and_run_in_the_background(home):
    port, pid = free_port(), home / 'pid'
    subprocess.run(command('-plocalhost:%d' % port, '--pid-file=%s' % pid), check=True, timeout=60,
                   stdin=subprocess.DEVNULL, env=dict(os.environ, HOME=str(home)))
    process = int(pid.read_text())
    try:
        assert listening(port)
    finally:
        assert signal_process(process, signal.SIGTERM)
        wait_for(lambda: not signal_process(process, 0))


# xinetd and tcpserver

@pytest.mark.parametrize('name', ['xinetd', 'tcpserver'])
def test_uses_tcpremoteip_or_remote_host_to_determine_the_clients_ip_address(home, upstream, name):
    with launched(name, home) as server, connect(server.port) as client:
        submit(client)
    assert '[%s]' % CLIENT in received(upstream.messages[0])


@pytest.mark.parametrize('variable', ['TCPREMOTEIP', 'REMOTE_HOST'])
def test_if_you_use_another_socket_server_arrange_for_one_of_those_variables(
        home, upstream, variable):
    client, server = socket.socketpair()
    with server:
        process = subprocess.Popen(command('-1'), stdin=server, env=dict(
            os.environ, HOME=str(home), **{variable: '192.0.2.9'}))
    with Talk(client) as talk:
        assert talk.reply().startswith('220 ')
        talk.login(USER, PASSWORD)
        for line in ('MAIL FROM:<%s>' % AUTHOR, 'RCPT TO:<%s>' % FRIEND, 'DATA'):
            assert talk.ask(line)[:1] in '23'
        assert talk.ask(MESSAGE + '.').startswith('250 ')
    assert process.wait(PATIENCE) == 0
    assert '[192.0.2.9]' in received(upstream.messages[0])


def test_contrib_ofmipd_stunnel_xinetd_contains_a_more_complete_example():
    """tests/real/test_contrib_stunnel.py runs it."""
    names = {path.name for path in (CONTRIB / 'ofmipd-stunnel-xinetd').iterdir()}
    assert names == {'README.txt', 'tmda-ofmipd.xinetd', 'stunnel-wrapper', 'stunnel.conf',
                     'tmda-ofmipd-wrapper'}


# Testing

def test_telnet_localhost_8025(home):
    with Daemon(home) as daemon, daemon.connect() as talk:
        assert re.fullmatch(r'220 \S+ ESMTP tmda-ofmipd', talk.reply())
        assert talk.ask('quit') == '221 Bye'
        assert talk.at_end()


def test_username_fields_should_match_the_usernames_of_the_tmda_users(home, upstream):
    """A login that is the name of the account uses that account's configuration."""
    write_home(home, upstream.port, FILTER, passwords='%s:secret\n' % own_name())
    with Daemon(home) as daemon, daemon.connect() as talk:
        talk.reply()
        talk.ask('EHLO x')
        assert talk.ask('AUTH PLAIN ' + base64_text('\0%s\0secret' % own_name())).startswith('235')
