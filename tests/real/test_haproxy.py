# SPDX-License-Identifier: GPL-2.0-or-later
"""Two daemons behind a real haproxy, which passes TLS through and tells the client's address."""
from __future__ import annotations

import smtplib
import ssl
import subprocess
import threading

import pytest

from real.launchers import skip_without
from real.logins import CERTIFICATE_OPTIONS
from real.postfix import free_port
from support.daemon import Daemon, needs_account, until
from support.proxy import write_home
from support.upstream import Upstream

pytestmark = needs_account

CONFIGURATION = """\
defaults
    mode tcp
    retries 5
    option redispatch
    timeout connect 2s
    timeout client 1m
    timeout server 1m
listen submissions
    bind 127.0.0.1:%d
    server one 127.0.0.1:%d send-proxy-v2 check inter 50ms rise 1 fall 1
    server two 127.0.0.1:%d send-proxy check inter 50ms rise 1 fall 1
"""
CLIENT = '127.0.0.7'  # the client's end, so that it differs from haproxy's
MESSAGE = 'From: Bobby <bobby@example.net>\r\nSubject: %s\r\n\r\nHello\r\n'
WHO = 'USERNAME = "bobby"\nHOSTNAME = "example.net"'


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield server


@pytest.fixture
def home(tmp_path, upstream):
    return write_home(tmp_path, upstream.port, 'to * dated\n', more=WHO)


def daemon(home, port):
    return Daemon(home, '-p127.0.0.1:%d/ssl' % port, '--proxy-protocol=127.0.0.1',
                  *CERTIFICATE_OPTIONS)


@pytest.fixture
def balancer(tmp_path):
    """start(port, port) -> the port of an haproxy in front of these."""
    skip_without('haproxy')
    started = []

    def start(one, two):
        port = free_port()
        configuration = tmp_path / 'haproxy.cfg'
        configuration.write_text(CONFIGURATION % (port, one, two))
        started.append(subprocess.Popen(['haproxy', '-db', '-f', str(configuration)],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        until(lambda: answers(port), 'haproxy does not answer')
        return port

    yield start
    for process in started:
        process.terminate()
        process.wait(20)


def connect(port):
    client = smtplib.SMTP_SSL('127.0.0.1', port, timeout=30, source_address=(CLIENT, 0),
                              context=ssl._create_unverified_context())
    client.login('bobby', 'FooBar')
    return client


def answers(port):
    try:
        with connect(port) as client:
            return client.noop()[0] == 250
    except (OSError, smtplib.SMTPException):
        return False


def test_address_of_the_client_reaches_both_daemons_through_tls(home, upstream, balancer):
    ports = free_port(), free_port()
    with daemon(home, ports[0]) as one, daemon(home, ports[1]) as two:
        port = balancer(*ports)
        until(lambda: one.events('login') and two.events('login') or not answers(port))
        for number in range(4):
            with connect(port) as client:
                client.sendmail('bobby@example.net', ['chloe@example.org'], MESSAGE % number)
        for each in (one, two):
            assert all('client=%s ' % CLIENT in line for line in each.events('login'))
    for message in upstream.messages:
        received = message.data.split(b'\r\n')[0]
        assert b'[%s]' % CLIENT.encode() in received and b'with ESMTPSA' in received
    assert len(upstream.messages) == 4


class Sender(threading.Thread):
    """Sends numbered messages, each until it is answered with 250, as a mail client does."""

    def __init__(self, port, name, stop):
        super().__init__(daemon=True)
        self.accepted = []
        self._port, self._prefix, self._ended = port, name, stop

    def run(self):
        number = 0
        while not self._ended.is_set():
            subject = '%s-%d' % (self._prefix, number)
            try:
                with connect(self._port) as client:
                    client.sendmail('bobby@example.net', ['chloe@example.org'], MESSAGE % subject)
            except (OSError, smtplib.SMTPException):
                continue
            self.accepted.append(subject)
            number += 1


def test_daemon_stopped_and_started_under_load_loses_no_message(home, upstream, balancer):
    ports = free_port(), free_port()
    stop = threading.Event()
    with daemon(home, ports[0]):
        second = daemon(home, ports[1])
        port = balancer(*ports)
        senders = [Sender(port, 's%d' % number, stop) for number in range(3)]
        for sender in senders:
            sender.start()

        def more(count):
            wanted = sum(len(sender.accepted) for sender in senders) + count
            until(lambda: sum(len(sender.accepted) for sender in senders) >= wanted)

        for _ in range(3):
            more(10)
            second.__exit__()
            more(10)
            second = daemon(home, ports[1])
        more(10)
        stop.set()
        for sender in senders:
            sender.join(60)
        second.__exit__()
    subjects = [line[9:].decode() for message in upstream.messages
                for line in message.data.split(b'\r\n') if line.startswith(b'Subject: ')]
    accepted = [subject for sender in senders for subject in sender.accepted]
    assert set(accepted) <= set(subjects)
    assert len(accepted) >= 70
