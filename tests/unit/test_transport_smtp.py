# SPDX-License-Identifier: GPL-2.0-or-later
"""The smtp transport against scripted servers: what the client is told, and what was delivered."""
import re
import socket
import threading
import tracemalloc

import pytest

from support import wait_for
from support.deliveries import HEADER, delivery, envelope, smtp_settings, spool_of
from support.upstream import CERTIFICATE, FEATURES, Upstream, drip, hang_up, say, stall
from TMDA.inject import pool, smtplink, transport
from TMDA.inject.envelope import Recipient
from TMDA.inject.limits import Limits
from TMDA.inject.memory import Memory
from TMDA.inject.reply import ReplyError
from TMDA.inject.smtplink import Peer
from TMDA.inject.smtpreply import Answer, accepted_text, passed_on

ANN, BOB, CAT = 'ann@example.com', 'bob@example.com', 'cat@example.com'
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


def send(upstream, *deliveries, memory=None, limits=None, parameters=None, **settings):
    """Deliver to upstream; the Outcome."""
    return transport.deliver(list(deliveries), parameters or envelope(),
                             smtp_settings(upstream, **settings),
                             limits or Limits(upstream_seconds=20, connect_seconds=20),
                             memory, 'user', lambda: b'digest of the message')


def one():
    return [delivery('from@a.test', ANN)]


def two():
    return [delivery('from+ann@a.test', ANN), delivery('from+bob@a.test', BOB)]


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


def test_failure_of_the_body_cuts_the_connection(upstream):
    class Broken:
        size = 300000

        @staticmethod
        def chunks():
            yield b'x' * 200000
            raise OSError(28, 'No space left on device')

    broken = delivery('from@a.test', ANN)
    object.__setattr__(broken, 'body', Broken)
    outcome = send(upstream, broken)
    assert (outcome.reply.code, outcome.reply.enhanced) == (452, '4.3.1')
    wait_for(lambda: upstream.open_sessions() == 0)
    assert upstream.messages == []


# One delivery: what goes over the wire.

def test_content_arrives(upstream):
    outcome = send(upstream, *one())
    message = upstream.messages[0]
    assert outcome.reply == (250, '2.0.0', ('Ok: queued as 1-0',), False)
    assert outcome.facts['relay'] == '127.0.0.1:%d' % upstream.port
    assert (message.mail_from, message.recipients) == ('from@a.test', [ANN])
    assert message.data == HEADER + b'Hello.\r\n'
    assert message.mail_params == ['SIZE=%d' % message.size]


def test_content_ehlo_name(upstream):
    send(upstream, *one())
    send(upstream, *one(), HOSTNAME='nöt a name', SMTPHOST='localhost:%d' % upstream.port)
    assert [line for _connection, line in upstream.commands if line.startswith(b'ehlo')] == [
        b'ehlo client.test', b'ehlo [127.0.0.1]']


def test_content_null_sender(upstream):
    assert send(upstream, delivery('', ANN)).reply.code == 250
    assert upstream.messages[0].mail_from == ''


def test_pipelining_one_write(upstream):
    send(upstream, *one())
    assert upstream.reads[-1][1].endswith(b'RCPT TO:<ann@example.com>\r\nDATA\r\n')
    assert upstream.reads[-1][1].startswith(b'MAIL FROM:<from@a.test>')


def test_pipelining_not_offered():
    with Upstream(LOCKSTEP) as upstream:
        send(upstream, delivery('from@a.test', ANN, BOB))
        assert [data.count(b'\r\n') for _connection, data in upstream.reads] == [1] * 5
        assert upstream.delivered() == [ANN, BOB]


def test_pipelining_is_bounded(upstream):
    everybody = ['user%d@example.com' % number for number in range(350)]
    assert send(upstream, delivery('from@a.test', *everybody)).reply.code == 250
    assert upstream.messages[0].recipients == everybody
    assert max(data.count(b'\r\n') for _connection, data in upstream.reads) <= smtplink.BATCH


@pytest.mark.parametrize('features', [FEATURES, LOCKSTEP], ids=['pipelining', 'lockstep'])
def test_recipient_refused_nobody_gets_it(features):
    with Upstream(features) as upstream:
        upstream.on('RCPT', say('550 5.1.1 No such user'), match='bob@')
        outcome = send(upstream, delivery('from@a.test', ANN, BOB, CAT))
        assert outcome.reply == (550, '5.1.1', ('No such user', '<bob@example.com>'), False)
        assert upstream.messages == []
        upstream.clear()
        assert send(upstream, *one()).reply.code == 250
        assert upstream.delivered() == [ANN]


def test_recipient_refused_for_good_comes_first(upstream):
    upstream.on('RCPT', say('450 4.2.0 Later'), match='ann@')
    upstream.on('RCPT', say('550 5.1.1 No such <"b b"@example.com>'), match='"b b"@')
    outcome = send(upstream, delivery('from@a.test', ANN, '"b b"@example.com'))
    assert outcome.reply == (550, '5.1.1', ('No such <"b b"@example.com>',), False)


def test_recipient_refused_alone_keeps_the_connection(upstream):
    upstream.on('RCPT', say('550 No'), times=1)
    assert send(upstream, *one()).reply == (550, '5.0.0', ('No',), False)
    assert send(upstream, *one()).reply.code == 250
    assert upstream.connections == 1
    assert upstream.verbs() == ['EHLO', 'MAIL', 'RCPT', 'DATA', 'RSET', 'MAIL', 'RCPT', 'DATA']


def test_sender_refused_needs_no_rset(upstream):
    upstream.on('MAIL', say('553 5.1.8 No'), times=1)
    assert send(upstream, *one()).reply.code == 553
    assert send(upstream, *one()).reply.code == 250
    assert 'RSET' not in upstream.verbs() and upstream.connections == 1


@pytest.mark.parametrize('address', [
    'a@b\r\nRCPT TO:<evil@example.com>', 'a@b\n', 'a b@c', 'a@b> SIZE=1', '<a@b', 'a@b\0',
    '"a\r\n"@b', '"a" <b@c', 'a\x7f@b', 'a\t@b', '\udc80@b',
])
@pytest.mark.parametrize('place', ['sender', 'recipient'])
def test_envelope_injection(upstream, address, place):
    bad = delivery(address, ANN) if place == 'sender' else delivery('a@b', ANN, address)
    assert send(upstream, bad).reply[:2] == (553, '5.1.3')
    assert upstream.commands == []


@pytest.mark.parametrize('address', ['"a b"@c.test', '"<x>"@c.test', '"a\\"b"@c.test', '"a>b"@c'])
def test_envelope_quoted_local_part(upstream, address):
    assert send(upstream, delivery('a@b', address)).reply.code == 250
    assert upstream.messages[0].recipients == [address]


# Extensions.

@pytest.mark.parametrize('features, parameters, header, mail, rcpt', [
    (('DSN', '8BITMIME', 'SIZE'), {'body': '8BITMIME', 'ret': 'HDRS', 'envid': 'x+2By'}, HEADER,
     ['SIZE=48', 'BODY=8BITMIME', 'RET=HDRS', 'ENVID=x+2By'],
     ['NOTIFY=SUCCESS,FAILURE', 'ORCPT=rfc822;a+2Bb@c']),
    ((), {'body': '8BITMIME', 'ret': 'HDRS', 'envid': 'x+2By'}, HEADER, [], []),
    (('SMTPUTF8', '8BITMIME'), {'smtputf8': True, 'body': '8BITMIME'}, HEADER,
     ['BODY=8BITMIME', 'SMTPUTF8'], []),
    ((), {'smtputf8': True}, HEADER, [], []),
    (('8BITMIME',), {}, 'Subject: ö\r\n\r\n'.encode(), [], []),
])
def test_extension_parameters(features, parameters, header, mail, rcpt):
    with Upstream(features) as upstream:
        recipient = Recipient(ANN, 'SUCCESS,FAILURE', 'rfc822;a+2Bb@c')
        outcome = send(upstream, delivery('from@a.test', recipient, header=header),
                       parameters=envelope(**parameters))
        assert outcome.reply.code == 250
        assert upstream.messages[0].mail_params == mail
        assert upstream.messages[0].rcpt_params == [rcpt]


@pytest.mark.parametrize('sender, recipient, header', [
    ('ö@a.test', ANN, HEADER), ('a@a.test', 'ö@ö.test', HEADER),
    ('a@a.test', ANN, 'Subject: ö\r\n\r\n'.encode()),
])
def test_extension_smtputf8_needed(sender, recipient, header):
    wide = delivery(sender, recipient, header=header)
    with Upstream(LOCKSTEP) as upstream:
        assert send(upstream, wide, parameters=envelope(smtputf8=True)).reply.code == 250
        assert 'SMTPUTF8' in upstream.messages[0].mail_params
    with Upstream(()) as upstream:
        outcome = send(upstream, wide, parameters=envelope(smtputf8=True))
        assert outcome.reply[:2] == (550, '5.6.7')
        assert 'MAIL' not in upstream.verbs()


def test_extension_size_exceeded():
    with Upstream(('SIZE 100',)) as upstream:
        outcome = send(upstream, delivery('a@b', ANN, body=b'x' * 100 + b'\r\n'))
        assert outcome.reply[:2] == (552, '5.3.4')
        assert 'MAIL' not in upstream.verbs()


@pytest.mark.parametrize('feature', ['SIZE', 'SIZE 0', 'SIZE \xb2', 'SIZE lots'])
def test_extension_size_without_a_limit(feature):
    with Upstream((feature,)) as upstream:
        assert send(upstream, *one()).reply.code == 250


def test_extension_none_but_helo(upstream):
    upstream.on('EHLO', say('502 What?'))
    assert send(upstream, *one()).reply.code == 250
    assert upstream.messages[0].mail_params == []


# Content: nothing inside may end it, all of it arrives.

@pytest.mark.parametrize('body', [
    b'', b'.', b'.\r\n', b'..\r\n', b'\r\n.\r\n', b'a\r\n.\r\nb\r\n', b'.\r\n.\r\n.\r\n',
    b'a\r\n..\r\n.b\r\n', b'no end of line', b'a\r\n.', b'\r\n\r\n',
    b'\r\n.\r\nMAIL FROM:<x@y>\r\n', b'\0\x80\xff\r\n', b'x' * 998 + b'\r\n', b'From me\r\n',
])
@pytest.mark.parametrize('pieces', [None, 1, 2, 3])
def test_smuggling_out_dots(upstream, body, pieces):
    message = delivery('a@b', ANN, body=body)
    if pieces:
        class InPieces:
            size = len(body)

            @staticmethod
            def chunks():
                return (body[start:start + pieces] for start in range(0, len(body), pieces))
        object.__setattr__(message, 'body', InPieces)
    assert send(upstream, message).reply.code == 250
    expected = HEADER + body + (b'' if (HEADER + body).endswith(b'\r\n') else b'\r\n')
    assert [message.data for message in upstream.messages] == [expected]
    assert upstream.verbs() == ['EHLO', 'MAIL', 'RCPT', 'DATA']


@pytest.mark.parametrize('header', [
    b'A: b\n.\r\nc: d\r\n\r\n', b'A: b\r.\r\n', b'A: b\r\n.\n\r\n', b'A: b\n', b'.\r\n', b'',
    b'A: b\n.\nMAIL FROM:<x@y>\n', b'\n.\r\n',
])
def test_smuggling_out_header(upstream, header):
    assert send(upstream, delivery('a@b', ANN, header=header, body=b'')).reply.code == 250
    assert len(upstream.messages) == 1
    raw = upstream.messages[0].raw
    assert raw.count(b'\r\n') == raw.count(b'\r') == raw.count(b'\n')
    assert re.sub(rb'\r\n?|\n', b'\n', header) == upstream.messages[0].data.replace(b'\r\n', b'\n')
    assert upstream.verbs() == ['EHLO', 'MAIL', 'RCPT', 'DATA']


def test_content_large_is_streamed():
    size = 24 * 1024 * 1024
    line = b'.' + b'x' * 61 + b'\r\n'
    with Upstream(keeps_data=False) as upstream, spool_of(b'', memory_limit=0) as spool:
        for _block in range(size // (len(line) * 1024)):
            spool.write(line * 1024)
        large = delivery('a@b', ANN)
        object.__setattr__(large, 'body', spool)
        tracemalloc.start()
        try:
            assert send(upstream, large).reply.code == 250
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert upstream.messages[0].size == len(HEADER) + size + size // len(line)
        assert peak < 4 * 1024 * 1024


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


# TLS and login.

@pytest.fixture
def not_loopback(monkeypatch):
    """Treat the test server as one elsewhere; trust nobody but it."""
    monkeypatch.setattr(smtplink, 'is_loopback', lambda sock: False)
    monkeypatch.setenv('SSL_CERT_FILE', CERTIFICATE)
    smtplink._tls_context.cache_clear()
    yield monkeypatch
    smtplink._tls_context.cache_clear()


@pytest.mark.parametrize('tls, setting', [('starttls', True), ('starttls', 'yes'),
                                          ('wrapper', 'wrapper')])
def test_tls(tls, setting):
    with Upstream(tls=tls) as upstream:
        for _time in range(2):
            assert send(upstream, *two(), SMTPSSL=setting).reply.code == 250
        assert [message.tls for message in upstream.messages] == [True] * 4
        assert upstream.connections == 2


@pytest.mark.parametrize('tls, setting', [('starttls', True), ('wrapper', 'wrapper')])
def test_tls_certificate_verified(not_loopback, tls, setting):
    with Upstream(tls=tls) as upstream:
        host = 'localhost:%d' % upstream.port
        assert send(upstream, *one(), SMTPSSL=setting, SMTPHOST=host).reply.code == 250
        not_loopback.setenv('SSL_CERT_FILE', '/dev/null')
        smtplink._tls_context.cache_clear()
        pool.shared.close()
        outcome = send(upstream, *one(), SMTPSSL=setting, SMTPHOST=host)
        assert outcome.reply[:2] == (451, '4.7.5')
        assert len(upstream.messages) == 1


def test_tls_certificate_for_another_name(not_loopback):
    with Upstream(tls='starttls', host='127.0.0.1') as upstream:
        not_loopback.setattr(smtplink.socket, 'create_connection',
                             lambda address, timeout: _connected(upstream.port, timeout))
        outcome = send('mail.example.com:%d' % upstream.port, *one(), SMTPSSL=True)
        assert outcome.reply[:2] == (451, '4.7.5')


def _connected(port, timeout):
    sock = socket.socket()
    sock.settimeout(timeout)
    sock.connect(('127.0.0.1', port))
    return sock


def test_tls_not_offered(upstream):
    outcome = send(upstream, *one(), SMTPSSL=True)
    assert outcome.reply[:2] == (451, '4.7.4')
    assert 'MAIL' not in upstream.verbs()


@pytest.mark.parametrize('text, enhanced', [('454 4.7.0 No', '4.7.4'), ('501 5.5.4 No', '4.7.4')])
def test_tls_refused(text, enhanced):
    with Upstream(tls='starttls') as upstream:
        upstream.on('STARTTLS', say(text))
        assert send(upstream, *one(), SMTPSSL=True).reply[:2] == (451, enhanced)
        assert 'MAIL' not in upstream.verbs()


def test_tls_response_injection():
    with Upstream(tls='starttls', logins={'joe': 'secret'}) as upstream:
        upstream.on('STARTTLS', say(b'220 Go\r\n250-injected\r\n250 AUTH PLAIN\r\n'))
        outcome = send(upstream, *one(), SMTPSSL=True, SMTPAUTH_USERNAME='joe',
                       SMTPAUTH_PASSWORD='secret')
        assert outcome.reply[:2] == (451, '4.4.1')
        assert upstream.verbs() == ['EHLO', 'STARTTLS']


def test_tls_bad_client_certificate(tmp_path):
    with Upstream(tls='starttls') as upstream:
        for path in (str(tmp_path / 'missing'), __file__):
            outcome = send(upstream, *one(), SMTPSSL=True, SMTPSSL_CERTFILE=path)
            assert outcome.reply[:2] == (451, '4.3.5')


@pytest.mark.parametrize('mechanisms', ['PLAIN', 'LOGIN', 'CRAM-MD5', 'CRAM-MD5 PLAIN LOGIN'])
def test_login(mechanisms):
    with Upstream(logins={'joe': 'secret'}, mechanisms=mechanisms) as upstream:
        outcome = send(upstream, *one(), SMTPAUTH_USERNAME='joe', SMTPAUTH_PASSWORD='secret')
        assert outcome.reply.code == 250
        assert upstream.messages[0].login == 'joe'


@pytest.mark.parametrize('password', ['wr0ngpass', 'wröng'])
@pytest.mark.parametrize('logins, mechanisms', [
    ({'joe': 'secret'}, 'PLAIN LOGIN'), ({'joe': 'secret'}, 'CRAM-MD5'), ({}, ''),
    ({'joe': 'secret'}, 'GSSAPI')])
def test_login_failed(password, logins, mechanisms):
    with Upstream(logins=logins, mechanisms=mechanisms) as upstream:
        outcome = send(upstream, *one(), SMTPAUTH_USERNAME='joe', SMTPAUTH_PASSWORD=password)
        assert outcome.reply[:2] == (451, '4.3.5')
        assert password not in repr(outcome) and upstream.messages == []


def test_login_connections_are_not_shared():
    with Upstream(logins={'joe': 'secret', 'ann': 'other'}) as upstream:
        for user, password in (('joe', 'secret'), ('ann', 'other'), ('joe', 'secret')):
            send(upstream, *one(), SMTPAUTH_USERNAME=user, SMTPAUTH_PASSWORD=password)
        assert [message.login for message in upstream.messages] == ['joe', 'ann', 'joe']
        assert upstream.connections == 2
        assert send(upstream, *one(), SMTPAUTH_USERNAME='joe',
                    SMTPAUTH_PASSWORD='guess').reply.code == 451


# Values.

@pytest.mark.parametrize('host, tls, expected', [
    ('localhost', False, ('localhost', 25, '')),
    ('mail.example.com:587', True, ('mail.example.com', 587, 'starttls')),
    ('mail.example.com', 'wrapper', ('mail.example.com', 465, 'wrapper')),
    ('[::1]:2525', False, ('::1', 2525, '')),
    ('[::1]', False, ('::1', 25, '')),
])
def test_peer_of_settings(host, tls, expected):
    assert Peer.of(smtp_settings(host, SMTPSSL=tls))[:3] == expected


@pytest.mark.parametrize('host', ['', 'a b', 'host:', 'host:x', 'host:70000', '::1', '[::1',
                                  'a\r\nb', 'host:25\n'])
def test_peer_of_broken_settings(host):
    with pytest.raises(ReplyError) as caught:
        Peer.of(smtp_settings(host))
    assert caught.value.reply[:2] == (451, '4.3.5')


def test_peer_hides_its_password():
    peer = Peer('h', 25, '', 'joe', 'secret')
    assert 'secret' not in repr(peer) + str(peer)


def test_peer_over_ipv6():
    with Upstream(host='::1') as upstream:
        assert send(upstream, *one(), SMTPHOST='[::1]:%d' % upstream.port).reply.code == 250


@pytest.mark.parametrize('code, lines, expected', [
    (550, (b'5.1.1 No such user',), (550, '5.1.1', ('No such user',), False)),
    (550, (b'No such user',), (550, '5.0.0', ('No such user',), False)),
    (450, (b'4.2.0 one', b'4.2.0 two'), (450, '4.2.0', ('one', 'two'), False)),
    (421, (b'4.7.0 Slow down',), (451, '4.7.0', ('Slow down',), False)),
    (421, (b'Bye',), (451, '4.3.2', ('Bye',), False)),
    (550, (b'4.1.1 wrong class',), (550, '5.0.0', ('wrong class',), False)),
    (552, (b'',), (552, '5.0.0', ('',), False)),
])
def test_passed_on(code, lines, expected):
    assert passed_on(Answer(code, lines)) == expected


def test_passed_on_is_bounded():
    refusal = passed_on(Answer(550, tuple([b'x' * 5000] * 100)))
    assert len(refusal.to_bytes()) < 5000


def test_passed_on_is_sanitized():
    raw = passed_on(Answer(550, ('5.1.1 ü\x1b[2J\u2028'.encode(),))).to_bytes()
    assert raw.startswith(b'550 5.1.1 ') and raw.count(b'\n') == 1 and b'\x1b' not in raw


@pytest.mark.parametrize('text, expected', [
    (b'2.0.0 Ok: queued as 12', 'Ok: queued as 12'), (b'OK id=1a', 'Ok: id=1a'), (b'ok', 'Ok'),
    (b'', 'Ok'), (b'2.6.0 <x@y> Queued mail', 'Ok: <x@y> Queued mail'),
])
def test_accepted_text(text, expected):
    assert accepted_text(Answer(250, (text,))) == expected


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
