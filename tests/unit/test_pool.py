# SPDX-License-Identifier: GPL-2.0-or-later
"""Kept upstream connections: which is taken, how many are kept and for how long."""
import socket
import time

import pytest

from support import wait_for
from support.deliveries import smtp_settings
from support.upstream import Upstream, hang_up, say
from TMDA.inject import smtplink
from TMDA.inject.limits import Limits
from TMDA.inject.pool import Pool
from TMDA.inject.smtplink import DATA, RSET, Peer

LIMITS = Limits(upstream_seconds=20, connect_seconds=20)
MAIL, RCPT = b'MAIL FROM:<a@b>\r\n', b'RCPT TO:<c@d>\r\n'


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield server


@pytest.fixture
def links(upstream):
    """A function that makes a connection; all are closed at the end."""
    made = []

    def connect():
        made.append(smtplink.connect(Peer.of(smtp_settings(upstream)), 'client.test', LIMITS))
        return made[-1]

    yield connect
    for link in made:
        link.abort()


def test_pool_takes_the_last_given(links):
    pool = Pool()
    first, second = links(), links()
    pool.give(first, LIMITS)
    pool.give(second, LIMITS)
    assert pool.take(first.peer) is second
    assert pool.take(first.peer) is first
    assert pool.take(first.peer) is None


def test_pool_takes_only_equal_peers(links):
    pool = Pool()
    link = links()
    pool.give(link, LIMITS)
    assert pool.take(link.peer._replace(username='joe', password='secret')) is None
    assert pool.take(link.peer._replace(tls='starttls')) is None
    assert pool.take(link.peer) is link
    assert link.reused and not link.answered


def test_pool_number_is_bounded_oldest_go(links, upstream):
    pool = Pool()
    kept = [links() for _number in range(5)]
    for link in kept:
        pool.give(link, Limits(idle_connections=3))
    wait_for(lambda: upstream.open_sessions() == 3)
    assert [pool.take(kept[0].peer) for _number in range(4)] == kept[:1:-1] + [None]
    wait_for(lambda: upstream.verbs().count('QUIT') == 2)


def test_pool_keeps_none_if_told(links, upstream):
    pool = Pool()
    pool.give(links(), Limits(idle_connections=0))
    wait_for(lambda: upstream.open_sessions() == 0)


def test_pool_idle_time_is_bounded(links, upstream):
    pool = Pool()
    old, young = links(), links()
    pool.give(old, LIMITS)
    pool.give(young, LIMITS)
    old.idle_since -= LIMITS.idle_seconds + 1
    pool.expire(LIMITS)
    wait_for(lambda: upstream.open_sessions() == 1)
    assert pool.take(young.peer) is young
    assert pool.take(young.peer) is None


def test_pool_close(links, upstream):
    pool = Pool()
    pool.give(links(), LIMITS)
    pool.give(links(), LIMITS)
    pool.close()
    wait_for(lambda: upstream.open_sessions() == 0)
    assert upstream.verbs().count('QUIT') == 2


def test_pool_drops_what_the_server_closed(links, upstream):
    pool = Pool()
    link, other = links(), links()
    pool.give(link, LIMITS)
    pool.give(other, LIMITS)
    upstream.drop_connections()
    assert pool.take(link.peer) is None


def test_pool_drops_what_speaks_unasked():
    listener = socket.create_server(('127.0.0.1', 0))
    with listener:
        peer = Peer('127.0.0.1', listener.getsockname()[1])
        client = smtplink._Client(peer, 'client.test', LIMITS)
        client.sock = socket.create_connection(listener.getsockname())
        server, _address = listener.accept()
        link = smtplink.Link(peer, client, LIMITS)
        pool = Pool()
        with server:
            pool.give(link, LIMITS)
            server.sendall(b'421 4.4.2 Timeout\r\n')
            wait_for(link.stale)
            assert pool.take(peer) is None


def test_pool_worn_connection_ends(links, upstream):
    pool = Pool()
    link = links()
    link.messages = 3
    pool.give(link, LIMITS, most_messages=4)
    assert pool.take(link.peer) is link
    pool.give(link, LIMITS, most_messages=3)
    assert pool.take(link.peer) is None


def test_pool_open_transaction_is_given_up(links, upstream):
    pool = Pool()
    link = links()
    link.start([MAIL, RCPT])
    assert [answer.code for answer in link.finish()] == [250, 250]
    pool.give(link, LIMITS)
    assert pool.take(link.peer) is link
    link.start([MAIL, RCPT, RSET])
    assert [answer.code for answer in link.finish()] == [250, 250, 250]
    assert upstream.verbs() == ['EHLO', 'MAIL', 'RCPT', 'RSET', 'MAIL', 'RCPT', 'RSET']


@pytest.mark.parametrize('commands, is_finished', [([MAIL, RCPT], False),
                                                   ([MAIL, RCPT, DATA], True)])
def test_pool_unknown_state_is_cut(links, upstream, commands, is_finished):
    pool = Pool()
    link = links()
    link.start(commands)
    if is_finished:
        link.finish()
    pool.give(link, LIMITS)
    assert pool.take(link.peer) is None
    wait_for(lambda: upstream.open_sessions() == 0)
    assert 'QUIT' not in upstream.verbs() and upstream.messages == []


def test_pool_reset_not_possible(links, upstream):
    pool = Pool()
    link = links()
    link.start([MAIL, RCPT])
    link.finish()
    link.abort()
    pool.give(link, LIMITS)
    assert pool.take(link.peer) is None


@pytest.mark.parametrize('behavior', [hang_up(), say('500 5.5.1 What?')],
                         ids=['hung up', 'refused'])
def test_pool_reset_failed_shows_as_lost(links, upstream, behavior):
    pool = Pool()
    link = links()
    upstream.on('RSET', behavior)
    link.start([MAIL, RCPT])
    link.finish()
    pool.give(link, LIMITS)
    assert pool.take(link.peer) is link
    with pytest.raises(smtplink.Lost) as caught:
        link.start([MAIL, RCPT])
        link.finish()
    assert not link.answered and not caught.value.timed_out


def test_pool_knows_whether_its_servers_carry_dsn():
    class Idle:
        idle_since = time.monotonic()

        def __init__(self, *features):
            self.features = dict.fromkeys(features, '')

    pool = Pool()
    assert not pool.carries_dsn
    pool._idle = [Idle('dsn', 'size'), Idle('dsn')]
    assert pool.carries_dsn
    pool._idle.append(Idle('size'))
    assert not pool.carries_dsn
