# SPDX-License-Identifier: GPL-2.0-or-later
"""The bench works, and what it measures at full scale holds in small: memory, lists, many tags."""
import smtplib
import sys

import pytest

from bench import load, scale, servers, usage
from bench.table import COLUMNS, Bench, Row
from support.daemon import until
from support.upstream import Upstream

pytestmark = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='reads /proc')


@pytest.fixture
def upstream():
    with Upstream(keeps_data=False) as server:
        yield server


@pytest.fixture
def start(upstream):
    """Start a daemon with these rules and options; it is ended in the end."""
    started = []

    def start_daemon(*options, rules=servers.FILTER):
        daemon = servers.Daemon(upstream.port, *options, rules=rules)
        started.append(daemon)
        daemon.start()
        return daemon
    yield start_daemon
    for daemon in started:
        daemon.stop()


def test_bench_table(start, upstream):
    daemon = start('--workers', '2')
    lines = []
    bench = Bench([Row('daemon', daemon, servers.LOGIN)],
                  [COLUMNS[0], COLUMNS[3]], 0.1, 0.3, lines.append)
    bench.run(1)
    assert bench.failures == [] and len(lines) == 2
    cell = bench.cell('daemon', '1 conn')
    assert cell.rate > 0 and cell.p99 >= cell.p50 > 0
    table = bench.tables('daemon')
    assert '8 reconn' in table and '1.00' in table
    assert len(upstream.messages) > 1
    assert all(message.recipients == ['user0@example.org'] for message in upstream.messages)


def test_bench_fails_when_mail_is_refused(start):
    daemon = start()
    with pytest.raises(load.Failed, match='535'):
        load.drive(load.Plan(daemon.port, login='alice:wrong'), 0, 0.2)


def test_bench_counts_processor_and_memory(start):
    daemon = start('--workers', '2')
    until(lambda: len(usage.family(daemon.process)) == 3)  # the parent listens before it forks
    assert usage.processor_seconds(daemon.process) > 0
    memory = usage.memory(daemon.process)  # first: a peak that is read later is no less
    assert usage.peak_memory(daemon.process) >= memory > 1 << 20


def send(daemon, recipients):
    with smtplib.SMTP('127.0.0.1', daemon.port, 'client.example', load.SILENCE) as client:
        client.login(*servers.LOGIN.split(':'))
        client.sendmail('alice@example.net', recipients, load.message(2048)[:-3])


def test_scale_one_tag_is_one_transaction(start, upstream):
    recipients = ['user%d@example.org' % number for number in range(100)]
    send(start(), recipients)
    message, = upstream.messages
    assert message.recipients == recipients
    assert message.mail_from.startswith('alice-dated-')


def test_scale_a_tag_for_each_recipient(start, upstream):
    recipients = ['user%d@example.org' % number for number in range(100)]
    send(start(rules='to * sender\n'), recipients)
    assert sorted(message.recipients for message in upstream.messages) == sorted(
        [recipient] for recipient in recipients)
    assert len({message.mail_from for message in upstream.messages}) == 100
    assert upstream.connections <= 20


def test_scale_large_messages_are_not_in_memory(start, upstream):
    more, _seconds = scale.large_messages(start(), 20, 4 << 20)
    assert more < 64e6
    assert len(upstream.messages) == 21


def test_scale_idle_sessions(start):
    daemon = start()
    assert scale.idle_sessions(daemon, 200) < 100e6


def test_scale_long_list():
    first, later = scale.long_list(5000, 50, 500)
    assert later / 1000 < first, 'the list was read again for each recipient'
