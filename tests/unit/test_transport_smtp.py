# SPDX-License-Identifier: GPL-2.0-or-later
"""The smtp transport against scripted servers: what the client is told, and what was delivered."""
import socket
import threading

import pytest

from support import wait_for
from support.deliveries import ANN, BOB, CAT, delivery, one, send, two
from support.upstream import FEATURES, Upstream, drip, hang_up, say, stall
from TMDA.inject import pool, transport
from TMDA.inject.limits import Limits
from TMDA.inject.memory import Memory

LOCKSTEP = tuple(feature for feature in FEATURES if feature != 'PIPELINING')


@pytest.fixture(autouse=True)
def own_pool(monkeypatch):
    """Each test has a pool of its own."""
    own = pool.Pool()
    monkeypatch.setattr(pool, 'shared', own)
    yield own
    own.close()


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield server


GARBAGE = say(b'\x80what?\r\n', then_hang_up=True)
REFUSED = say('554 5.7.1 Not you', then_hang_up=True)
DEFERRED = say('450 4.7.1 Not now', then_hang_up=True)
CLOSING = say('421 4.3.2 Going down', then_hang_up=True)
FAILURES = [  # behavior, code, enhanced code before the first MAIL, enhanced code later, text
    ('refused', REFUSED, 554, '5.7.1', '5.7.1', 'Not you'),
    ('deferred', DEFERRED, 450, '4.7.1', '4.7.1', 'Not now'),
    ('closing', CLOSING, 451, '4.3.2', '4.3.2', 'Going down'),
    ('hung up', hang_up(), 451, '4.4.1', '4.4.2', ''),
    ('stalled', stall(), 451, '4.4.1', '4.4.2', ''),
    ('garbage', GARBAGE, 451, '4.4.1', '4.5.0', ''),
]
STAGES = ('connect', 'EHLO', 'MAIL', 'RCPT', 'DATA', 'body', 'end')
TABLE = [pytest.param(stage, *failure[1:], id='%s %s' % (stage, failure[0]))
         for stage in STAGES for failure in FAILURES]


def check_refusal(outcome, stage, code, early, late, text):
    """The reply is the upstream's own."""
    assert outcome.reply.code == code
    assert outcome.reply.enhanced == (early if stage in ('connect', 'EHLO') else late)
    assert text in outcome.reply.text
    assert not outcome.reply.close
    assert str(outcome.facts['error'])


def quick(behavior):
    """Limits that make a stall short."""
    return Limits(upstream_seconds=0.15 if behavior.stalls else 20, connect_seconds=20)


@pytest.mark.parametrize('features', [FEATURES, LOCKSTEP], ids=['pipelining', 'lockstep'])
@pytest.mark.parametrize('stage, behavior, code, early, late, text', TABLE)
def test_failure_one_delivery(features, stage, behavior, code, early, late, text):
    with Upstream(features) as upstream:
        upstream.on(stage, behavior)
        outcome = send(upstream, *one(), limits=quick(behavior))
        check_refusal(outcome, stage, code, early, late, text)
        assert upstream.delivered() == []


@pytest.mark.parametrize('features', [FEATURES, LOCKSTEP], ids=['pipelining', 'lockstep'])
@pytest.mark.parametrize('stage, behavior, code, early, late, text', TABLE)
def test_failure_two_deliveries_first(features, stage, behavior, code, early, late, text,
                                      tmp_path):
    with Upstream(features) as upstream:
        upstream.on(stage, behavior)
        memory = Memory(str(tmp_path / 'delivered'))
        outcome = send(upstream, *two(), limits=quick(behavior), memory=memory)
        check_refusal(outcome, stage, code, early, late, text)
        assert upstream.delivered() == []
        assert memory.is_empty


@pytest.mark.parametrize('features', [FEATURES, LOCKSTEP], ids=['pipelining', 'lockstep'])
@pytest.mark.parametrize('stage, behavior, code, early, late, text',
                         [row for row in TABLE if row.values[0] not in ('connect', 'EHLO')])
def test_failure_two_deliveries_second(features, stage, behavior, code, early, late, text,
                                       tmp_path):
    path = str(tmp_path / 'delivered')
    with Upstream(features) as upstream:
        upstream.on(stage, behavior, skip=1)
        outcome = send(upstream, *two(), limits=quick(behavior), memory=Memory(path))
        if stage in ('MAIL', 'RCPT'):  # before the first DATA: nothing is sent
            check_refusal(outcome, stage, code, early, late, text)
            assert upstream.delivered() == []
        else:
            assert outcome.reply.code == 451
            assert '1 of 2 recipients' in outcome.reply.text and text in outcome.reply.text
            assert upstream.delivered() == [ANN]
        upstream.clear()
        outcome = send(upstream, *two(), memory=Memory(path))  # after a restart of the daemon
        assert outcome.reply.code == 250
        assert upstream.delivered() == [ANN, BOB]
        assert Memory(path).is_empty


def test_failure_second_connection_makes_do_with_first(upstream):
    upstream.on('connect', say('421 4.7.0 Too many connections', then_hang_up=True), skip=1)
    outcome = send(upstream, *two())
    assert outcome.reply.code == 250
    assert upstream.delivered() == [ANN, BOB]
    assert {message.connection for message in upstream.messages} == {1}


@pytest.mark.parametrize('stage', ['RSET', 'QUIT', 'NOOP'])
@pytest.mark.parametrize('behavior', [REFUSED, DEFERRED, hang_up(), stall(), GARBAGE],
                         ids=['refused', 'deferred', 'hung up', 'stalled', 'garbage'])
def test_failure_of_less_important_commands(upstream, stage, behavior):
    upstream.on(stage, behavior)
    upstream.on('RCPT', say('550 5.1.1 Unknown'), times=1)
    limits = quick(behavior)
    assert send(upstream, *one(), limits=limits).reply.code == 550
    outcome = send(upstream, *one(), limits=limits)
    if stage == 'RSET' and behavior.stalls:
        assert outcome.reply.code == 451
        outcome = send(upstream, *one(), limits=limits)
    assert outcome.reply.code == 250
    assert upstream.delivered() == [ANN]


def test_failure_nobody_listens():
    with socket.create_server(('127.0.0.1', 0)) as unused:
        port = unused.getsockname()[1]
    outcome = send('127.0.0.1:%d' % port, *one())
    assert outcome.reply.code == 451 and outcome.reply.enhanced == '4.4.1'


def test_failure_drip_does_not_renew_the_time(upstream):
    upstream.on('end', drip('250 2.0.0 ' + 'x' * 400, interval=0.02))
    outcome = send(upstream, *one(), limits=Limits(upstream_seconds=0.3))
    assert outcome.reply.code == 451 and outcome.reply.enhanced == '4.4.2'


def test_failure_last_words_during_a_large_body(upstream):
    upstream.on('body', say('552 5.3.4 Too big for me', then_hang_up=True))
    large = delivery('from@a.test', ANN, body=b'x' * 20000000)
    assert send(upstream, large).reply == (552, '5.3.4', ('Too big for me',), False)


def test_failure_endless_reply(upstream):
    upstream.on('end', say(b'250-' + b'x' * 70000))
    assert send(upstream, *one()).reply.enhanced == '4.5.0'


def test_failure_verdict_makes_no_sense(upstream):
    upstream.on('end', say('354 More?'), times=1)
    assert send(upstream, *one()).reply[:2] == (451, '4.5.0')
    assert send(upstream, *one()).reply.code == 250
    assert upstream.connections == 2


def test_failure_of_the_body_cuts_the_connection(upstream):
    class Broken:
        size = 300000

        @staticmethod
        def chunks():
            yield b'x' * 200000
            raise OSError(28, 'No space left on device')

    broken = delivery('from@a.test', ANN)._replace(body=Broken)
    outcome = send(upstream, broken)
    assert (outcome.reply.code, outcome.reply.enhanced) == (452, '4.3.1')
    wait_for(lambda: upstream.open_sessions() == 0)
    assert upstream.messages == []


# Connections that died in the pool.

def test_stale_connection_closed_while_idle(upstream):
    send(upstream, *one())
    upstream.drop_connections()
    assert send(upstream, *one()).reply.code == 250
    assert (upstream.connections, len(upstream.messages)) == (2, 2)


@pytest.mark.parametrize('features', [FEATURES, LOCKSTEP], ids=['pipelining', 'lockstep'])
@pytest.mark.parametrize('behavior', [hang_up(), CLOSING], ids=['hung up', '421'])
def test_stale_connection_found_at_the_first_command(features, behavior):
    with Upstream(features) as upstream:
        send(upstream, *one())
        upstream.on('MAIL', behavior, times=1)
        assert send(upstream, *one()).reply.code == 250
        assert (upstream.connections, len(upstream.messages)) == (2, 2)


def test_stale_connection_replaced_only_once(upstream):
    send(upstream, *one())
    upstream.on('MAIL', hang_up())
    assert send(upstream, *one()).reply[:2] == (451, '4.4.2')
    assert upstream.connections == 2


def test_stale_connection_after_the_first_answer_is_not_replaced(upstream):
    send(upstream, *one())
    upstream.on('RCPT', hang_up())
    assert send(upstream, *one()).reply[:2] == (451, '4.4.2')
    assert upstream.connections == 1


def test_stale_connection_stall_is_not_repeated(upstream):
    limits = Limits(upstream_seconds=0.2)
    assert send(upstream, *one(), limits=limits).reply.code == 250
    upstream.on('MAIL', stall())
    assert send(upstream, *one(), limits=limits).reply.code == 451
    assert upstream.connections == 1


def test_stale_connections_two_deliveries(upstream):
    send(upstream, *two())
    upstream.on('MAIL', hang_up(), times=2)
    assert send(upstream, *two()).reply.code == 250
    assert upstream.delivered() == [ANN, ANN, BOB, BOB]


def test_sessions_per_connection(upstream):
    for _number in range(5):
        assert send(upstream, *one(), SMTP_MAX_SESSIONS_PER_CONNECTION=2).reply.code == 250
    assert [message.connection for message in upstream.messages] == [1, 1, 2, 2, 3]


def test_sessions_per_connection_many_tags(upstream):
    everybody = [delivery('from+%d@a.test' % number, 'u%d@b.test' % number)
                 for number in range(9)]
    outcome = send(upstream, *everybody, SMTP_MAX_SESSIONS_PER_CONNECTION=1,
                   limits=Limits(message_connections=3))
    assert outcome.reply.code == 250
    assert len({message.connection for message in upstream.messages}) == 9


# Many deliveries.

def many(count):
    return [delivery('from+%d@a.test' % number, 'user%d@b.test' % number)
            for number in range(count)]


@pytest.mark.parametrize('features', [FEATURES, LOCKSTEP], ids=['pipelining', 'lockstep'])
def test_many_deliveries_over_few_connections(features):
    with Upstream(features) as upstream:
        outcome = send(upstream, *many(100), limits=Limits(message_connections=7))
        assert outcome.reply == (250, '2.0.0', ('Ok: 100 deliveries',), False)
        assert upstream.connections == 7
        assert sorted((message.mail_from, message.recipients[0])
                      for message in upstream.messages) == sorted(
            (one.envelope_sender, one.recipients[0].address) for one in many(100))


@pytest.mark.parametrize('position', [0, 3, 6, 7, 50, 99])
def test_many_deliveries_one_refused_nothing_sent(upstream, position):
    upstream.on('RCPT', say('550 5.1.1 No'), match='user%d@' % position)
    outcome = send(upstream, *many(100), limits=Limits(message_connections=7))
    assert outcome.reply == (550, '5.1.1', ('No',) + outcome.reply.lines[1:], False)
    assert 'user%d@' % position in outcome.facts['error']
    assert upstream.messages == [] and 'DATA' not in upstream.verbs()


def test_many_deliveries_later_failure_leaves_little_out(upstream, tmp_path):
    memory = Memory(str(tmp_path / 'delivered'))
    upstream.on('end', say('554 5.6.0 Bad'), match='user9@')
    upstream.on('end', hang_up(), match='user4@')
    limits = Limits(message_connections=3, upstream_seconds=20)
    outcome = send(upstream, *many(12), limits=limits, memory=memory)
    assert outcome.reply.code == 451
    assert outcome.reply.lines[0].startswith('10 of 12 recipients')
    assert len(upstream.messages) == 10
    upstream.clear()
    outcome = send(upstream, *many(12), limits=limits, memory=memory)
    assert outcome.reply.code == 250 and outcome.facts['delivered_before'] == 10
    assert upstream.delivered() == sorted('user%d@b.test' % number for number in range(12))
    assert memory.is_empty


def test_many_deliveries_accepted_then_refused_at_sending(upstream, tmp_path):
    memory = Memory(str(tmp_path / 'delivered'))
    upstream.on('RCPT', say('550 5.1.1 Gone'), match='user5@', skip=1)
    limits = Limits(message_connections=2)
    outcome = send(upstream, *many(8), limits=limits, memory=memory)
    assert outcome.reply.code == 451 and '5.1.1 Gone' in outcome.reply.text
    assert len(upstream.messages) == 7


def test_retry_refused_for_good_stays_temporary(upstream, tmp_path):
    memory = Memory(str(tmp_path / 'delivered'))
    upstream.on('end', say('554 5.6.0 Bad'), match='bob@')
    deliveries = two() + [delivery('from+cat@a.test', CAT)]
    for _try in range(2):
        outcome = send(upstream, *deliveries, memory=memory)
        assert outcome.reply.code == 451 and '5.6.0 Bad' in outcome.reply.text
        assert upstream.delivered() == [ANN, CAT]
    upstream.clear()
    assert send(upstream, *deliveries, memory=memory).reply.code == 250
    assert upstream.delivered() == [ANN, BOB, CAT]


def test_retry_after_a_kill_before_the_answer(upstream, tmp_path, monkeypatch):
    path = str(tmp_path / 'delivered')
    monkeypatch.setattr(transport.Record, 'forget', lambda self: None)
    send(upstream, *two(), memory=Memory(path))
    monkeypatch.undo()
    assert send(upstream, *two(), memory=Memory(path)).reply.code == 250
    assert upstream.delivered() == [ANN, BOB]


def test_retry_same_message_again_is_sent_again(upstream, tmp_path):
    memory = Memory(str(tmp_path / 'delivered'))
    for _time in range(2):
        assert send(upstream, *two(), memory=memory).reply.code == 250
    assert upstream.delivered() == [ANN, ANN, BOB, BOB]


def test_memory_unusable_is_no_obstacle(upstream, tmp_path):
    memory = Memory(str(tmp_path / 'missing' / 'delivered'))
    outcome = send(upstream, *two(), memory=memory)
    assert outcome.reply.code == 250 and 'missing' in outcome.facts['memory']


def test_no_deliveries():
    assert send('127.0.0.1:1').reply.code == 250


def test_unknown_transport():
    outcome = send('127.0.0.1:1', *one(), MAIL_TRANSPORT='pigeon')
    assert outcome.reply[:2] == (451, '4.3.5') and 'pigeon' in outcome.facts['error']


def test_threads_share_the_pool(upstream):
    replies = []

    def work():
        for _number in range(10):
            replies.append(send(upstream, *two()).reply.code)

    threads = [threading.Thread(target=work) for _number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == [250] * 60
    assert len(upstream.messages) == 120
    assert upstream.connections <= 12
