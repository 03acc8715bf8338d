# SPDX-License-Identifier: GPL-2.0-or-later
"""The network process's backend against processes of sessions that the test plays itself."""
import os
import socket
import threading

import pytest

from TMDA.inject.envelope import Recipient
from TMDA.inject.limits import Limits
from TMDA.inject.reply import ReplyError, reply
from TMDA.inject.spool import Spool
from TMDA.ofmipd import channels, ipc
from TMDA.ofmipd.backend import Transaction
from TMDA.ofmipd.channels import Channels, Monitor
from TMDA.ofmipd.client import Client
from TMDA.ofmipd.monitor import END, FULL, OPEN, READY, REQUEST
from TMDA.ofmipd.sasl import CramMD5, Password, Scram

TEXT = b'From: ann@example.com\r\n\r\nhello\r\n'
IDENTITY = {'login': 'ann', 'signature': 'sig', 'mechanisms': ['PLAIN']}
OK = dict(ipc.reply_fields(reply(250, '2.0.0', 'Taken')), facts={'relay': 'x'})


class Played:
    """A monitor whose sessions are scripts: each is called in a thread with its link."""

    def __init__(self, *scripts):
        self.ended = []
        self.opened = 0
        self.failures = []
        self._scripts = list(scripts)
        self._threads = []

    def open(self):
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=self._run, args=(self._scripts.pop(0), theirs))
        thread.start()
        self._threads.append(thread)
        self.opened += 1
        return ours, self.opened

    def end(self, number):
        self.ended.append(number)

    def _run(self, script, sock):
        with sock:
            try:
                script(ipc.Link(sock))
            except BaseException as error:
                self.failures.append(error)

    def join(self):
        for thread in self._threads:
            thread.join(10)
        assert not self.failures


def expect(link, kind):
    """The fields of the next frame, which comes from the backend."""
    return link.receive((kind,), None, ipc.LARGE, 1 << 20)


def login(link):
    """Play the login of ann."""
    expect(link, 'client')
    expect(link, 'password')
    link.send('identity', IDENTITY)


def channel_to(*scripts, **limits):
    """(channel, played monitor, backend)."""
    played = Played(*scripts)
    backend = Channels(played, ('SCRAM-SHA-256',), 5, Limits(**limits))
    return backend.open(Client('192.0.2.1', 'client', 1, '192.0.2.9', 25), '1f'), played, backend


def transaction(spool=None):
    """A message; in memory if nothing is given."""
    if spool is None:
        spool = Spool(1 << 20)
        spool.write(TEXT)
    made = Transaction('ann@example.com', session='1f')
    made.recipients.append(Recipient('b@example.net', 'NEVER', ''))
    made.spool, made.received = spool, 'from x'
    return made


def test_login_and_message():
    def script(link):
        assert expect(link, 'client').fields == {
            'session': '1f', 'address': '192.0.2.1', 'name': 'client', 'port': 1,
            'local_address': '192.0.2.9', 'local_port': 25}
        assert expect(link, 'password').fields == {'user': 'ann', 'password': 'secret'}
        link.send('identity', IDENTITY)
        frame = expect(link, 'submit')
        assert (frame.body, frame.descriptor) == (TEXT, None)
        assert frame.fields == {
            'sender': 'ann@example.com', 'recipients': [['b@example.net', 'NEVER', '']],
            'size': len(TEXT), 'body': '', 'smtputf8': False, 'ret': '', 'envid': '',
            'received': 'from x', 'session': '1f'}
        link.send('outcome', OK)

    channel, played, backend = channel_to(script)
    identity = channel.authenticate(Password('ann', 'secret'))
    assert (identity.login, identity.server_signature) == ('ann', b'sig')
    assert backend.mechanisms == ('PLAIN',)
    outcome = channel.submit(transaction())
    assert outcome == (reply(250, '2.0.0', 'Taken'), {'relay': 'x'})
    channel.close()
    channel.close()
    played.join()
    assert played.ended == [1]


def test_large_message_goes_as_a_descriptor():
    def script(link):
        login(link)
        frame = expect(link, 'submit')
        assert frame.body == b''
        assert os.pread(frame.descriptor, 100, 0) == TEXT
        os.close(frame.descriptor)
        link.send('outcome', OK)

    channel, played, _ = channel_to(script)
    channel.authenticate(Password('ann', 'secret'))
    with Spool(3) as spool:
        spool.write(TEXT)
        assert channel.submit(transaction(spool)).reply.code == 250
    channel.close()
    played.join()


@pytest.mark.parametrize('credentials, kind, fields', [
    (CramMD5('ann', b'<1@h>', '0' * 32), 'cram_md5',
     {'user': 'ann', 'challenge': '<1@h>', 'digest': '0' * 32}),
    (Scram('ann', b'\xff', b'\0' * 32), 'scram',
     {'user': 'ann', 'auth_message': '\xff', 'proof': '\0' * 32}),
    (Password('ann', 'p\udcff'), 'password', {'user': 'ann', 'password': 'p\udcff'}),
])
def test_credentials_go_as_they_are(credentials, kind, fields):
    def script(link):
        expect(link, 'client')
        assert expect(link, kind).fields == fields
        link.send('identity', IDENTITY)

    channel, played, _ = channel_to(script)
    channel.authenticate(credentials)
    channel.close()
    played.join()


def test_scram_start_asks_for_the_salt():
    def script(link):
        expect(link, 'client')
        assert expect(link, 'scram_start').fields == {'user': 'ann'}
        link.send('salt', {'salt': '\xff', 'iterations': 7, 'mechanisms': []})

    channel, played, _ = channel_to(script)
    assert channel.scram_start('ann') == (b'\xff', 7)
    channel.close()
    played.join()


def test_name_beyond_measure_is_a_wrong_login():
    channel, played, _ = channel_to()
    with pytest.raises(ReplyError) as caught:
        channel.authenticate(Password('x' * (ipc.LOGIN + 1), 'y'))
    assert caught.value.reply.code == 535
    assert not played.opened


def test_refusal_comes_back_and_the_channel_stays():
    def script(link):
        expect(link, 'client')
        expect(link, 'password')
        link.send('refused', dict(ipc.reply_fields(reply(535, '5.7.8', 'No')), cause='why',
                                  mechanisms=['PLAIN', 'LOGIN']))
        expect(link, 'password')
        link.send('identity', IDENTITY)

    channel, played, backend = channel_to(script)
    with pytest.raises(ReplyError) as caught:
        channel.authenticate(Password('ann', 'wrong'))
    assert (caught.value.reply, caught.value.cause) == (reply(535, '5.7.8', 'No'), 'why')
    assert backend.mechanisms == ('PLAIN', 'LOGIN')
    channel.authenticate(Password('ann', 'secret'))
    channel.close()
    played.join()
    assert played.opened == 1


def close(link):
    """The process has ended."""


def hang(link):
    """The process does nothing more until the other side gives up."""
    _until_closed(link)


def _until_closed(link):
    try:
        while True:
            link.receive(('submit',), None, ipc.LARGE, 1 << 20)
    except ipc.Ended:
        pass


def lie(kind, fields):
    """A script that answers with another frame than was asked for."""
    def script(link):
        expect(link, 'submit')
        link.send(kind, fields)
    return script


@pytest.mark.parametrize('after, cause', [
    (close, 'has ended'), (hang, 'not done'), (lie('identity', IDENTITY), 'another kind'),
    (lie('refused', dict(ipc.reply_fields(reply(250, '', '')), cause='', mechanisms=[])),
     'another kind'),
])
def test_process_that_fails_is_a_temporary_failure(after, cause):
    def script(link):
        login(link)
        after(link)

    channel, played, _ = channel_to(script, submit_seconds=1)
    channel.authenticate(Password('ann', 'secret'))
    with pytest.raises(ReplyError) as caught:
        channel.submit(transaction())
    assert caught.value.reply.code == 451
    assert cause in caught.value.cause
    assert played.ended == [1]
    with pytest.raises(ReplyError) as caught:
        channel.submit(transaction())
    assert (caught.value.reply.code, caught.value.reply.close) == (421, True)
    played.join()


@pytest.mark.parametrize('first', [close, lambda link: (expect(link, 'client'), hang_login(link))])
def test_login_after_a_failure_has_a_new_process(first, monkeypatch):
    monkeypatch.setattr(channels, 'MARGIN_SECONDS', 0)
    channel, played, backend = channel_to(first, login)
    backend.login_seconds = 0.2
    with pytest.raises(ReplyError) as caught:
        channel.authenticate(Password('ann', 'secret'))
    assert caught.value.reply.code == 454
    backend.login_seconds = 5
    assert channel.authenticate(Password('ann', 'secret')).login == 'ann'
    channel.close()
    played.join()
    assert played.ended == [1, 2]


def hang_login(link):
    """Take the credentials and answer nothing."""
    expect(link, 'password')
    _until_closed(link)


def test_message_that_is_not_taken_is_given_up():
    def script(link):
        login(link)
        released.wait(10)

    released = threading.Event()
    channel, played, _ = channel_to(script, submit_seconds=1)
    channel.authenticate(Password('ann', 'secret'))
    spool = Spool(1 << 26)
    spool.write(b'x' * (16 << 20))
    with pytest.raises(ReplyError) as caught:
        channel.submit(transaction(spool))
    assert caught.value.reply.code == 451
    released.set()
    played.join()


@pytest.fixture
def control():
    """The monitor's side of a control socket, and a Monitor at the other."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        yield ours, Monitor(theirs)


def answer(ours, action, number, *descriptors):
    socket.send_fds(ours, [REQUEST.pack(action, number)], descriptors)


def test_monitor_is_asked_for_a_channel(control):
    ours, network = control
    one, other = socket.socketpair()
    with one, other:
        answer(ours, OPEN, 1, one.fileno())
        channel, number = network.open()
        with channel:
            channel.sendall(b'x')
        assert other.recv(1) == b'x'
    assert number == 1
    network.end(number)
    network.ready()
    asked = REQUEST.pack(OPEN, 1), REQUEST.pack(END, 1), REQUEST.pack(READY, 0)
    assert ours.recv(100) == b''.join(asked)


def test_monitor_that_has_no_room_is_a_temporary_failure(control):
    ours, network = control
    answer(ours, FULL, 1)
    with pytest.raises(ReplyError) as caught:
        network.open()
    assert caught.value.reply.code == 454


def test_monitor_that_does_not_answer_is_not_waited_for(control, monkeypatch):
    monkeypatch.setattr(channels, 'OPEN_SECONDS', 0.05)
    ours, network = control
    with pytest.raises(OSError):
        network.open()
    monkeypatch.setattr(channels, 'OPEN_SECONDS', 10)
    one, other = socket.socketpair()
    with one, other:
        answer(ours, OPEN, 1, one.fileno())  # too late: it has to be given back
        answer(ours, OPEN, 2, one.fileno())
        channel, number = network.open()
        channel.close()
    assert number == 2
    assert ours.recv(100) == (REQUEST.pack(OPEN, 1) + REQUEST.pack(OPEN, 2) + REQUEST.pack(END, 1))


def test_monitor_that_is_gone_is_an_error(control):
    ours, network = control
    ours.close()
    with pytest.raises(OSError):
        network.open()
    network.end(1)
