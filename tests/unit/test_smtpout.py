# SPDX-License-Identifier: GPL-2.0-or-later
"""What one delivery looks like on the wire: commands, extensions, content."""
import re
import tracemalloc

import pytest

from support.deliveries import ANN, BOB, CAT, HEADER, delivery, envelope, one, send, spool_of
from support.upstream import FEATURES, Upstream, say
from TMDA.inject import pool, smtplink
from TMDA.inject.envelope import Recipient

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
        message = message._replace(body=InPieces)
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
        large = large._replace(body=spool)
        tracemalloc.start()
        try:
            assert send(upstream, large).reply.code == 250
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert upstream.messages[0].size == len(HEADER) + size + size // len(line)
        assert peak < 4 * 1024 * 1024
