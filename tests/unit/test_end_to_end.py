# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon as a process, a client and an upstream server: what no part can show alone."""
import smtplib
from pathlib import Path

import pytest
from support.daemon import Daemon, needs_account
from support.proxy import write_home
from support.upstream import Upstream, say

pytestmark = needs_account

MESSAGE = 'From: Bobby <bobby@example.net>\r\nTo: chloe@example.org\r\nSubject: x\r\n\r\nHello\r\n'
FILTER = 'to *@dated.example dated\nto *@sender.example sender\nto * bare\n'
WHO = 'USERNAME = "bobby"\nHOSTNAME = "example.net"'


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield server


@pytest.fixture
def home(tmp_path, upstream):
    """bobby's home: everything that is in use, with the password FooBar."""
    return write_home(tmp_path, upstream.port, FILTER, more=WHO)


def client(daemon):
    connection = smtplib.SMTP('127.0.0.1', daemon.ports[0], timeout=30)
    connection.login('bobby', 'FooBar')
    return connection


def test_dsn_is_offered_once_the_upstream_server_has_offered_it(home, upstream):
    with Daemon(home, '-p127.0.0.1:0') as daemon:
        with client(daemon) as first:
            assert not first.has_extn('dsn')
            first.sendmail('bobby@example.net', ['chloe@example.org'], MESSAGE)
        with client(daemon) as second:
            assert second.has_extn('dsn')
            second.sendmail('bobby@example.net', ['chloe@example.org'], MESSAGE,
                            mail_options=['RET=HDRS', 'ENVID=QQ1'], rcpt_options=['NOTIFY=NEVER'])
    assert 'RET=HDRS' in upstream.messages[1].mail_params
    assert upstream.messages[1].rcpt_params == [['NOTIFY=NEVER']]


def test_dsn_is_not_offered_for_an_upstream_server_without_it(home, upstream):
    upstream.features = ('PIPELINING',)
    with Daemon(home, '-p127.0.0.1:0') as daemon:
        for _ in range(2):
            with client(daemon) as connection:
                assert not connection.has_extn('dsn')
                connection.sendmail('bobby@example.net', ['chloe@example.org'], MESSAGE)


def test_second_try_sends_only_what_is_missing_even_after_a_restart(home, upstream):
    recipients = ['a@dated.example', 'b@sender.example']
    upstream.on('end', say('451 4.3.0 Not now'), match='', skip=1, times=1)
    with Daemon(home, '-p127.0.0.1:0') as daemon:
        with client(daemon) as first, pytest.raises(smtplib.SMTPDataError) as caught:
            first.sendmail('bobby@example.net', recipients, MESSAGE)
        assert caught.value.smtp_code == 451
    assert len(upstream.messages) == 1
    with Daemon(home, '-p127.0.0.1:0') as daemon:
        with client(daemon) as second:
            second.sendmail('bobby@example.net', recipients, MESSAGE)
    delivered = [address for message in upstream.messages for address in message.recipients]
    assert sorted(delivered) == recipients


def test_throttle_script_decides_before_anything_is_sent(home, upstream):
    script = home / 'quota'
    script.write_text('#!/bin/sh\necho "$@" >> "$HOME/asked"\ntest ! -e "$HOME/over"\n')
    script.chmod(0o755)
    with Daemon(home, '-p127.0.0.1:0', '-t', str(script)) as daemon, client(daemon) as connection:
        connection.sendmail('bobby@example.net', ['chloe@example.org'], MESSAGE)
        (home / 'over').touch()
        with pytest.raises(smtplib.SMTPDataError) as caught:
            connection.sendmail('bobby@example.net', ['chloe@example.org'], MESSAGE)
    assert caught.value.smtp_code == 450 and b'quota' in caught.value.smtp_error
    assert len(upstream.messages) == 1
    assert (home / 'asked').read_text() == 'bobby\nbobby\n'


def test_received_is_on_top_and_tells_how_the_message_came(home, upstream):
    with Daemon(home, '-p127.0.0.1:0') as daemon, client(daemon) as connection:
        connection.ehlo('client.example')
        connection.sendmail('bobby@example.net', ['chloe@example.org'], MESSAGE)
    first = upstream.messages[0].data.split(b'\r\n')[0]
    assert first.startswith(b'Received: from client.example (') and b'[127.0.0.1]' in first
    assert b'(tmda-ofmipd) with ESMTPA id ' in first


def test_no_password_in_the_trace_nor_in_the_process_list(home, upstream):
    with Daemon(home, '-p127.0.0.1:0', '-d') as daemon:
        with client(daemon) as connection:
            connection.sendmail('bobby@example.net', ['chloe@example.org'], MESSAGE)
        arguments = Path('/proc/%d/cmdline' % daemon.process.pid).read_bytes()
    said = '\n'.join(daemon.lines)
    assert 'MAIL FROM' in said.upper()
    for secret in ('FooBar', 'Rm9vQmFy', 'AGJvYmJ5'):
        assert secret not in said and secret.encode() not in arguments


def test_configuration_is_executed_anew_for_each_message(home, upstream):
    with open(home / '.tmda/config', 'a') as config:
        config.write('import itertools, os\nADDED_HEADERS_CLIENT = {"X-Login": os.environ["LOGIN"],'
                     ' "X-Size": str(os.path.getsize(os.path.expanduser("~/count")))}\n')
    count = home / 'count'
    count.write_bytes(b'')
    with Daemon(home, '-p127.0.0.1:0') as daemon, client(daemon) as connection:
        for size in range(3):
            count.write_bytes(b'x' * size)
            connection.sendmail('bobby@example.net', ['chloe@example.org'], MESSAGE)
    assert [b'X-Size: %d\r\n' % size in message.data
            for size, message in enumerate(upstream.messages)] == [True] * 3
