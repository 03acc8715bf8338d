# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames between processes: what arrives as it was sent, and everything that must not arrive."""
import json
import os
import socket
from time import monotonic

import pytest

from TMDA.inject.reply import Reply, reply
from TMDA.ofmipd import ipc

SUBMIT = {'sender': 'a@example.com', 'recipients': [['b@example.net', '', '']], 'size': 3,
          'body': '', 'smtputf8': False, 'ret': '', 'envid': '', 'received': 'from x', 'session': '1f'}
PASSWORD = {'user': 'bobby', 'password': 'FooBar'}


@pytest.fixture
def pair():
    """Two links and their sockets."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ipc.Link(ours), ipc.Link(theirs), ours, theirs


def soon():
    """A deadline for what should come at once."""
    return monotonic() + 10


def octets(header, body=b''):
    """A frame with a header of any kind."""
    if not isinstance(header, bytes):
        header = json.dumps(header).encode()
    return ipc.PREFIX.pack(len(header), len(body)) + header + body


def descriptors_open():
    """How many descriptors this process has."""
    return len(os.listdir('/dev/fd'))


@pytest.mark.parametrize('kind, fields', [
    ('password', PASSWORD),
    ('password', {'user': 'ünal', 'password': 'p\udcff\u2028'}),
    ('cram_md5', {'user': 'x', 'challenge': '<1@h>\xff', 'digest': '0' * 32}),
    ('salt', {'salt': '\x00\xff', 'iterations': 4096, 'mechanisms': ['PLAIN']}),
    ('submit', SUBMIT),
])
def test_frame_arrives_as_sent(pair, kind, fields):
    pair[0].send(kind, fields, soon())
    assert pair[1].receive((kind,), soon()) == ipc.Frame(kind, fields)


def test_frame_carries_a_body(pair):
    pair[0].send('submit', SUBMIT, soon(), b'a\0\xff')
    assert pair[1].receive(('submit',), soon(), body_limit=3).body == b'a\0\xff'


def test_frame_carries_a_descriptor(pair):
    reader, writer = os.pipe()
    pair[0].send('submit', SUBMIT, soon(), descriptor=reader)
    os.close(reader)
    frame = pair[1].receive(('submit',), soon(), body_limit=0)
    os.write(writer, b'x')
    assert os.read(frame.descriptor, 1) == b'x'
    assert not os.get_inheritable(frame.descriptor)
    os.close(writer)
    os.close(frame.descriptor)


def test_frames_in_a_row_are_kept_apart(pair):
    for user in ('one', 'two'):
        pair[0].send('scram_start', {'user': user})
    users = [pair[1].receive(('scram_start',), soon()).fields['user'] for _ in range(2)]
    assert users == ['one', 'two']


@pytest.mark.parametrize('data', [
    octets(['submit', SUBMIT]),                                   # not asked for
    octets(['no such kind', {}]),
    octets(['password', {'user': 'x'}]),                          # a field is missing
    octets(['password', dict(PASSWORD, more='')]),                # one too many
    octets(['password', dict(PASSWORD, user=1)]),
    octets(['password', dict(PASSWORD, user=None)]),
    octets(['password', dict(PASSWORD, user=['x'])]),
    octets(['password', dict(PASSWORD, user='x' * (ipc.LOGIN + 1))]),
    octets(['password', PASSWORD, 'more']),
    octets(['password']),
    octets('password'),
    octets(None),
    octets([['password'], PASSWORD]),
    octets(['password', list(PASSWORD)]),
    octets(b'not json'),
    octets(b'\xff'),
    octets(b''),
    octets(b'[' * 100000),                                        # as deep as can be
    octets(['password', PASSWORD], b'body'),                      # none is taken here
    ipc.PREFIX.pack(ipc.SMALL + 1, 0),
    ipc.PREFIX.pack(0xffffffff, 0xffffffff),
])
def test_frame_that_is_wrong_is_broken(pair, data):
    pair[2].sendall(data)
    with pytest.raises(ipc.Broken):
        pair[1].receive(('password',), soon())


@pytest.mark.parametrize('name, value', [
    ('sender', None), ('sender', 'x' * 4097), ('recipients', {}),
    ('recipients', ['b@example.net']),
    ('recipients', [['b@example.net', '']]), ('recipients', [[1, '', '']]), ('size', -1),
    ('size', True), ('size', 1.0), ('size', '3'), ('body', 'BINARYMIME'), ('smtputf8', 0),
])
def test_submit_with_a_wrong_field_is_broken(pair, name, value):
    pair[2].sendall(octets(['submit', dict(SUBMIT, **{name: value})]))
    with pytest.raises(ipc.Broken, match=name):
        pair[1].receive(('submit',), soon(), body_limit=10)


@pytest.mark.parametrize('facts', [
    {'event': 'login-failed'}, {'session': 'x'}, {'client': '1.2.3.4'}, {'user': 'x'},
    {'a b': 'x'},    {'a\n': 'x'}, {'': 'x'}, {'A': 'x'}, {'a': None}, {'a': ['x']}, {'a': 'x' * (ipc.TEXT + 1)},
    {'x%s' % chr(97 + number // 26) + chr(97 + number % 26): 1 for number in range(ipc.FACTS + 1)},
])
def test_outcome_with_foreign_facts_is_broken(pair, facts):
    fields = dict(ipc.reply_fields(reply(250, '2.0.0', 'OK')), facts=facts)
    pair[2].sendall(octets(['outcome', fields]))
    with pytest.raises(ipc.Broken, match='facts'):
        pair[1].receive(('outcome',), soon())


@pytest.mark.parametrize('number, body_limit', [
    (1, -1), (2, 0), (2, 10), (ipc.DESCRIPTORS + 3, 10)])
def test_descriptors_too_many_are_broken_and_closed(pair, number, body_limit):
    before = descriptors_open()
    socket.send_fds(pair[2], [octets(['password', PASSWORD])], [0] * number)
    with pytest.raises(ipc.Broken, match='descriptor'):
        pair[1].receive(('password',), soon(), body_limit=body_limit)
    assert descriptors_open() == before


def test_link_that_closes_between_frames_has_ended(pair):
    pair[2].close()
    with pytest.raises(ipc.Ended):
        pair[1].receive(('password',), soon())


def test_link_that_closes_in_a_frame_has_ended(pair):
    pair[2].sendall(octets(['password', PASSWORD])[:-1])
    pair[2].close()
    with pytest.raises(ipc.Ended):
        pair[1].receive(('password',), soon())


def test_link_that_closes_ends_sending(pair):
    pair[3].close()
    with pytest.raises(ipc.Ended):
        pair[0].send('password', PASSWORD, soon())


def test_deadline_holds_when_nothing_comes(pair):
    pair[2].sendall(octets(['password', PASSWORD])[:-1])
    with pytest.raises(ipc.TimedOut):
        pair[1].receive(('password',), monotonic() + 0.05)


def test_deadline_holds_when_nothing_is_taken(pair):
    with pytest.raises(ipc.TimedOut):
        pair[0].send('submit', SUBMIT, monotonic() + 0.05, b'x' * (16 << 20))


def test_reply_survives_the_way():
    answer = Reply(550, '5.7.1', ('no', 'never'), True)
    assert ipc.reply_of(ipc.reply_fields(answer)) == answer


def test_reply_that_is_too_long_is_cut_to_what_a_frame_holds(pair):
    fields = ipc.reply_fields(Reply(250, 'x' * 99, ('y' * 9999,) * 999))
    pair[0].send('refused', dict(fields, cause='', mechanisms=[]), soon())
    assert pair[1].receive(('refused',), soon(), ipc.LARGE).fields == dict(
        fields, cause='', mechanisms=[])


def test_facts_are_cut_to_what_a_frame_holds():
    given = {'relay': 'x' * 9999, 'size': 3, 'user': 'root', 'error': OSError('no')}
    assert ipc.fact_fields(given) == {'relay': 'x' * ipc.TEXT, 'size': 3, 'error': 'no'}
