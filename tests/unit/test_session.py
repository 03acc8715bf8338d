# SPDX-License-Identifier: GPL-2.0-or-later
"""What of a session cannot be told as a dialogue; see tests/dialogs for the rest."""
import base64
import hashlib
import hmac
import threading
import time

import pytest
from support.fake_backend import HOSTNAME, FakeBackend, FakeChannel, FakeLog, make_service
from support.talk import PATIENCE, Running, base64_text, server_context

from TMDA.ofmipd import grammar, sasl, session, wire
from TMDA.ofmipd.client import Client
from TMDA.ofmipd.session import Session
from TMDA.ofmipd.verbs import ANY, GREETED, MAIL, RCPT, READY, START, VERBS, refusal
from TMDA.ofmipd.wire import Shutdown

MESSAGE = b'From: bobby@example.org\r\n\r\nHello\r\n.\r\n'


def send_message(talk, recipient='chloe@example.com', sender='bobby@example.org'):
    """A transaction; returns the answer to DATA."""
    assert talk.ask('MAIL FROM:<%s>' % sender).startswith('250')
    assert talk.ask('RCPT TO:<%s>' % recipient).startswith('250')
    assert talk.ask('DATA').startswith('354')
    talk.send(MESSAGE)
    return talk.reply()


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# The verb table

def test_every_verb_has_a_method():
    for row in VERBS.values():
        assert callable(getattr(Session, row.method))


def test_every_method_has_a_verb():
    methods = {name for name in vars(Session) if name.startswith('do_')}
    assert methods == {row.method for row in VERBS.values()}


@pytest.mark.parametrize('state', [START, READY, MAIL, RCPT])
@pytest.mark.parametrize('verb', VERBS)
def test_verb_in_state(verb, state):
    argument = b'' if VERBS[verb].argument == 'nothing' else b'x'
    answer = refusal(verb, argument, state, False, True)
    legal = {'STARTTLS': GREETED, 'AUTH': READY, 'MAIL': READY, 'RCPT': MAIL | RCPT, 'DATA': RCPT}
    if state & legal.get(verb, ANY):
        assert answer is None
    else:
        assert answer[:2] == (503, '5.5.1')


@pytest.mark.parametrize('verb', VERBS)
def test_verb_before_tls_and_login(verb):
    argument = b'' if VERBS[verb].argument == 'nothing' else b'x'
    free = verb in ('HELO', 'EHLO', 'STARTTLS', 'RSET', 'NOOP', 'HELP', 'QUIT')
    for state in (READY, MAIL, RCPT):
        if not free:
            assert refusal(verb, argument, state, True, True)[:2] == (530, '5.7.0')
        if not free and verb != 'AUTH':
            assert refusal(verb, argument, state, False, False)[:2] == (530, '5.7.0')


# The message as the backend gets it

def test_submitted_message():
    backend = FakeBackend()
    with Running(make_service(backend)) as running:
        talk = running.talk
        assert talk.line() == '220 %s ESMTP tmda-ofmipd' % HOSTNAME
        talk.login()
        assert send_message(talk) == '250 2.0.0 Message accepted'
        assert len(running.session.id) == 8
        assert talk.ask('QUIT') == '221 Bye'
        assert talk.at_end()
    message, = backend.submitted
    assert message.login == 'bobby'
    assert message.envelope.sender == 'bobby@example.org'
    assert [each.address for each in message.envelope.recipients] == ['chloe@example.com']
    assert message.text == b'From: bobby@example.org\r\n\r\nHello\r\n'
    start = 'from client.example (unknown [192.0.2.7]) by %s (tmda-ofmipd) with ESMTPA id %s; ' % (
        HOSTNAME, running.session.id)
    assert message.received.startswith(start)
    assert not backend.channels


def test_received_over_tls():
    backend = FakeBackend()
    service = make_service(backend, tls_mode='on', tls_context=server_context)
    with Running(service) as running:
        talk = running.talk
        talk.line()
        talk.ask('EHLO x')
        assert talk.ask('STARTTLS').startswith('220 2.0.0')
        talk.start_tls()
        talk.login()
        send_message(talk)
    received = backend.submitted[0].received
    assert '(using TLSv1.3 with cipher TLS_' in received
    assert ' with ESMTPSA id ' in received


def test_session_ids_differ():
    service = make_service()
    ids = set()
    for _ in range(20):
        with Running(service) as running:
            running.talk.line()
            ids.add(running.session.id)
    assert len(ids) == 20


# Mechanisms that compute

def test_login_with_cram_md5():
    with Running(make_service()) as running:
        talk = running.talk
        talk.line()
        talk.ask('EHLO x')
        challenge = base64.b64decode(talk.ask('AUTH CRAM-MD5').partition(' ')[2])
        digest = hmac.new(b'FooBar', challenge, 'md5').hexdigest()
        assert talk.ask(base64_text('bobby ' + digest)) == '235 2.7.0 Authentication successful'


def scram(talk, password, last=''):
    """A SCRAM-SHA-256 exchange as the client does it; the last reply."""
    bare = 'n=bobby,r=clientnonce'
    answer = talk.ask('AUTH SCRAM-SHA-256 ' + base64_text('n,,' + bare))
    first = base64.b64decode(answer[4:]).decode()
    nonce, salt, iterations = (word[2:] for word in first.split(','))
    salt, iterations = base64.b64decode(salt), int(iterations)
    stored_key, server_key = sasl.scram_keys(password, salt, iterations)
    final = 'c=biws,r=' + nonce
    message = ','.join((bare, first, final)).encode()
    # ClientProof is ClientKey XOR ClientSignature; only the client knows ClientKey.
    salted = hashlib.pbkdf2_hmac('sha256', password.encode(), salt, iterations)
    client_key = hmac.new(salted, b'Client Key', 'sha256').digest()
    signature = hmac.new(stored_key, message, 'sha256').digest()
    proof = bytes(a ^ b for a, b in zip(client_key, signature))
    answer = talk.ask(base64_text(final + ',p=' + base64.b64encode(proof).decode()))
    if not answer.startswith('334'):
        return answer
    expected = hmac.new(server_key, message, 'sha256').digest()
    assert base64.b64decode(answer[4:]) == b'v=' + base64.b64encode(expected)
    return talk.ask(last)


def test_login_with_scram():
    backend = FakeBackend(('SCRAM-SHA-256', 'PLAIN'))
    with Running(make_service(backend)) as running:
        talk = running.talk
        talk.line()
        assert 'AUTH SCRAM-SHA-256 PLAIN' in talk.ask('EHLO x')
        assert scram(talk, 'wrong') == '535 5.7.8 Authentication failed'
        assert scram(talk, 'FooBar', last='*').startswith('501')
        assert not backend.channels
        assert talk.ask('MAIL FROM:<a@b>').startswith('530')
        assert scram(talk, 'FooBar').startswith('235')
        assert send_message(talk).startswith('250')


def test_mechanisms_that_we_cannot_speak_are_not_offered():
    with Running(make_service(FakeBackend(('GSSAPI', 'LOGIN')))) as running:
        running.talk.line()
        assert '250 AUTH LOGIN' in running.talk.ask('EHLO x').split('\n')
        assert running.talk.ask('AUTH GSSAPI').startswith('504')


# Guessing

def test_failed_login_is_delayed_and_logged():
    log = FakeLog()
    service = make_service(log=log, limits={'login_delay': 0.2, 'login_failures': 5})
    with Running(service) as running:
        talk = running.talk
        talk.line()
        talk.ask('EHLO x')
        times = []
        for user in ('bobby', 'nobody'):
            started = time.monotonic()
            reply = talk.ask('AUTH PLAIN ' + base64_text('\0%s\0guess' % user))
            times.append(time.monotonic() - started)
            assert reply == '535 5.7.8 Authentication failed'
    assert times[0] >= 0.2 and times[1] >= 0.4
    failed = log.named('login-failed')
    assert [(facts['user'], facts['client'], facts['mechanism']) for facts in failed] == [
        ('bobby', '192.0.2.7', 'PLAIN'), ('nobody', '192.0.2.7', 'PLAIN')]
    assert 'guess' not in repr(log.events)


def test_delay_of_one_address_is_not_that_of_another():
    service = make_service(limits={'login_delay': 0.05})
    for _ in range(10):
        service.guard.failed(Client('198.51.100.1'))
    with Running(service) as running:
        running.talk.line()
        running.talk.ask('EHLO x')
        started = time.monotonic()
        assert running.talk.ask('AUTH PLAIN ' + base64_text('\0a\0b')).startswith('535')
        assert time.monotonic() - started < 2


def test_login_right_in_the_end_is_forgiven():
    service = make_service(limits={'login_delay': 0.01})
    client = Client('192.0.2.7')
    with Running(service, client) as running:
        running.talk.line()
        running.talk.ask('EHLO x')
        running.talk.ask('AUTH PLAIN ' + base64_text('\0bobby\0guess'))
        assert service.guard.delay(client) > 0
        running.talk.login()
        assert service.guard.delay(client) == 0


def test_source_that_cannot_tell_costs_time_too():
    log = FakeLog()
    service = make_service(log=log)
    with Running(service) as running:
        running.talk.line()
        running.talk.ask('EHLO x')
        reply = running.talk.ask('AUTH PLAIN ' + base64_text('\0unsure\0x'))
        assert reply == '454 4.7.0 Temporary authentication failure'
        reply = running.talk.ask('AUTH PLAIN ' + base64_text('\0broken\0x'))
        assert reply == '454 4.7.0 Temporary authentication failure'
    causes = [facts['cause'] for facts in log.named('login-unsure')]
    assert causes == ['server down', 'internal error']
    assert 'out of order' in log.named('session-failed')[0]['cause']
    assert service.guard.delay(Client('192.0.2.7')) == 0  # login_delay is 0 here
    assert service.guard._failures


def test_time_that_the_backend_takes_is_not_the_clients():
    class SlowBackend(FakeBackend):
        def open(self, client, session_id):
            time.sleep(0.8)
            return super().open(client, session_id)

    with Running(make_service(SlowBackend(), limits={'login_seconds': 0.7})) as running:
        running.talk.line()
        running.talk.ask('EHLO x')
        assert running.talk.ask('AUTH PLAIN ' + base64_text('\0bobby\0no')).startswith('535')
        assert running.talk.ask('NOOP').startswith('250')


# Time and shutdown

def test_login_time_is_a_total():
    log = FakeLog()
    service = make_service(log=log, limits={'login_seconds': 0.3})
    with Running(service) as running:
        running.talk.line()
        started = time.monotonic()
        replies = []
        while not replies or replies[-1].startswith('250'):
            replies.append(running.talk.ask('NOOP'))
        assert replies[-1] == '421 4.4.2 %s timeout' % HOSTNAME
        assert time.monotonic() - started < 3
    assert log.named('disconnect')[0]['cause'] == 'timeout'


def test_silence_after_login_ends_with_command_seconds():
    with Running(make_service(limits={'command_seconds': 0.3, 'login_seconds': 60})) as running:
        running.talk.line()
        running.talk.login()
        assert running.talk.reply().startswith('421 4.4.2')
        assert running.talk.at_end()


@pytest.mark.parametrize('mode', ['ssl', 'on'])
def test_handshake_that_hangs_ends_with_tls_seconds(mode, monkeypatch):
    monkeypatch.setattr(wire, 'CLOSING_SECONDS', 0.1)
    service = make_service(tls_mode=mode, tls_context=server_context, limits={'tls_seconds': 0.2})
    with Running(service) as running:
        if mode == 'on':
            running.talk.line()
            running.talk.ask('EHLO x')
            assert running.talk.ask('STARTTLS').startswith('220')
        started = time.monotonic()
        assert running.talk.at_end()  # and no 421 in the middle of a handshake
        assert time.monotonic() - started < 5


@pytest.mark.parametrize('pipes', [False, True])
def test_shutdown_between_commands(pipes):
    shutdown = Shutdown()
    with Running(make_service(), shutdown=shutdown, pipes=pipes) as running:
        running.talk.line()
        running.talk.ask('EHLO x')
        shutdown.begin()
        assert running.talk.reply() == '421 4.3.2 %s shutting down' % HOSTNAME
        assert running.talk.at_end()
    shutdown.close()


def test_shutdown_during_a_message():
    shutdown = Shutdown()
    backend = FakeBackend()
    with Running(make_service(backend), shutdown=shutdown) as running:
        talk = running.talk
        talk.line()
        talk.login()
        talk.ask('MAIL FROM:<a@b>')
        talk.ask('RCPT TO:<c@d>')
        talk.ask('DATA')
        talk.send(b'first half, ')
        shutdown.begin()
        talk.send(b'second half\r\n.\r\n')
        assert talk.reply() == '250 2.0.0 Message accepted'
        assert talk.reply().startswith('421 4.3.2')
        assert talk.at_end()
    assert backend.submitted[0].text == b'first half, second half\r\n'
    shutdown.close()


def test_shutdown_during_a_login_delay():
    shutdown = Shutdown()
    log = FakeLog()
    service = make_service(log=log, limits={'login_delay': 15})
    with Running(service, shutdown=shutdown) as running:
        running.talk.line()
        running.talk.ask('EHLO x')
        running.talk.send(b'AUTH PLAIN ' + base64_text('\0a\0b').encode() + b'\r\n')
        wait_for(lambda: log.named('login-failed'))
        shutdown.begin()
        assert running.talk.reply().startswith('421 4.3.2')
    shutdown.close()


# STARTTLS

@pytest.mark.parametrize('behind', [
    b'NOOP\r\n', b'AUTH PLAIN AGJvYmJ5AEZvb0Jhcg==\r\nMAIL FROM:<a@b>\r\n'])
def test_starttls_drops_what_came_in_the_clear_behind_it(behind):
    """CVE-2011-0411."""
    backend = FakeBackend()
    service = make_service(backend, tls_mode='optional', tls_context=server_context)
    with Running(service) as running:
        talk = running.talk
        talk.line()
        talk.ask('EHLO x')
        talk.send(b'STARTTLS\r\n' + behind)
        assert talk.reply() == '220 2.0.0 Ready to start TLS'
        talk.start_tls()
        assert talk.ask('VRFY x').startswith('530')  # the next reply is to this, not to `behind`
        assert not backend.channels


def test_starttls_forgets_login_and_transaction():
    backend = FakeBackend()
    service = make_service(backend, tls_mode='optional', tls_context=server_context)
    with Running(service) as running:
        talk = running.talk
        talk.line()
        talk.login()
        talk.ask('MAIL FROM:<a@b>')
        talk.ask('STARTTLS')
        talk.start_tls()
        wait_for(lambda: not backend.channels)
        assert talk.ask('RCPT TO:<c@d>').startswith('530')
        assert talk.ask('AUTH PLAIN x') == '503 5.5.1 EHLO first'
        talk.login()
        assert talk.ask('RCPT TO:<c@d>') == '503 5.5.1 MAIL first'
        assert send_message(talk).startswith('250')
    assert len(backend.submitted) == 1


def test_starttls_with_a_broken_certificate():
    def broken():
        raise OSError('no certificate')

    log = FakeLog()
    with Running(make_service(log=log, tls_mode='on', tls_context=broken)) as running:
        running.talk.line()
        running.talk.ask('EHLO x')
        assert running.talk.ask('STARTTLS').startswith('454 4.7.0')
        assert running.talk.ask('NOOP').startswith('250')
    assert log.named('session-failed')


def test_failed_handshake_ends_the_session_and_is_logged():
    log = FakeLog()
    service = make_service(log=log, tls_mode='on', tls_context=server_context)
    with Running(service) as running:
        running.talk.line()
        running.talk.ask('EHLO x')
        running.talk.ask('STARTTLS')
        running.talk.send(b'MAIL FROM:<still@plain>\r\n')
        running.talk.sock.shutdown(1)
        running.join()
    assert log.named('tls-failed')


@pytest.mark.parametrize('address, needed', [
    ('127.0.0.1', False), ('::1', False), ('192.0.2.7', True), ('', True)])
def test_localoptional_asks_for_tls_off_loopback(address, needed):
    service = make_service(tls_mode='localoptional', tls_context=server_context)
    with Running(service, Client(address)) as running:
        running.talk.line()
        offered = running.talk.ask('EHLO x')
        assert 'STARTTLS' in offered
        assert ('AUTH' in offered) is not needed
        reply = running.talk.ask('AUTH PLAIN ' + base64_text('\0bobby\0FooBar'))
        assert reply.startswith('530 5.7.0' if needed else '235')


# Faults of ours

@pytest.mark.parametrize('recipient', ['raise@x', 'exit@x'])
def test_backend_that_raises_gives_451_with_the_session_id(recipient):
    log = FakeLog()
    with Running(make_service(log=log)) as running:
        talk = running.talk
        talk.line()
        talk.login()
        assert send_message(talk, recipient) == (
            '451 4.3.0 Internal error, session ' + running.session.id)
        assert send_message(talk).startswith('250')
    failed, = log.named('session-failed')
    assert failed['session'] == running.session.id and failed['user'] == 'bobby'
    assert failed['where'].startswith('fake_backend.py:')


def test_command_that_raises_gives_451_and_the_session_goes_on(monkeypatch):
    monkeypatch.setattr(Session, 'do_vrfy', lambda self, argument: 1 // 0)
    log = FakeLog()
    with Running(make_service(log=log)) as running:
        running.talk.line()
        running.talk.login()
        assert running.talk.ask('VRFY x').startswith('451 4.3.0')
        assert running.talk.ask('NOOP') == '250 2.0.0 OK'
    assert 'ZeroDivisionError' in log.named('session-failed')[0]['cause']


def test_fault_while_reading_a_message_ends_the_session(monkeypatch):
    """The rest of the text must not be read as commands."""
    def fail(*unused):
        raise MemoryError

    monkeypatch.setattr(session, 'read_data', fail)
    with Running(make_service()) as running:
        talk = running.talk
        talk.line()
        talk.login()
        talk.ask('MAIL FROM:<a@b>')
        talk.ask('RCPT TO:<c@d>')
        talk.send(b'DATA\r\n')
        assert talk.reply().startswith('354')
        assert talk.reply().startswith('451 4.3.0')
        assert talk.at_end()


def test_disk_full_is_452_and_the_next_message_goes_through(monkeypatch):
    full = [True]
    write = session.Spool.write

    def maybe_full(self, data):
        if full[0]:
            raise OSError(28, 'No space left on device')
        write(self, data)

    monkeypatch.setattr(session.Spool, 'write', maybe_full)
    backend = FakeBackend()
    with Running(make_service(backend)) as running:
        running.talk.line()
        running.talk.login()
        assert send_message(running.talk) == '452 4.3.1 Insufficient storage'
        full[0] = False
        assert send_message(running.talk).startswith('250')
    assert len(backend.submitted) == 1


def test_certificate_that_cannot_be_loaded_is_logged():
    def broken():
        raise OSError('no certificate')

    log = FakeLog()
    with Running(make_service(log=log, tls_mode='ssl', tls_context=broken)) as running:
        assert running.talk.reply().startswith('421 4.3.0')
    assert 'no certificate' in log.named('session-failed')[0]['cause']


def test_channel_that_cannot_be_closed_harms_nobody(monkeypatch):
    monkeypatch.setattr(FakeChannel, 'close', lambda self: 1 // 0)
    log = FakeLog()
    with Running(make_service(log=log)) as running:
        running.talk.line()
        running.talk.login()
        assert running.talk.ask('QUIT') == '221 Bye'
        assert running.talk.at_end()
    assert [name for name, _facts in log.events] == [
        'connect', 'login', 'session-failed', 'disconnect']


def test_client_that_never_reads_is_cut_off(monkeypatch):
    monkeypatch.setattr(wire, 'CLOSING_SECONDS', 0.1)
    log = FakeLog()
    with Running(make_service(log=log, limits={'login_seconds': 0.5})) as running:
        with pytest.raises(OSError):
            while True:
                running.talk.send(b'HELP\r\n' * 1000)
        running.join()
    assert log.named('disconnect')[0]['cause'] == 'timeout'


def test_client_that_leaves_is_logged_and_its_channel_closed():
    backend, log = FakeBackend(), FakeLog()
    with Running(make_service(backend, log)) as running:
        running.talk.line()
        running.talk.login()
        assert len(backend.channels) == 1
    assert not backend.channels
    assert log.named('disconnect')[0]['cause'] == 'closed by the client'


def test_client_that_leaves_in_a_message_sends_nothing():
    backend = FakeBackend()
    with Running(make_service(backend)) as running:
        running.talk.line()
        running.talk.login()
        running.talk.ask('MAIL FROM:<a@b>')
        running.talk.ask('RCPT TO:<c@d>')
        running.talk.ask('DATA')
        running.talk.send(b'Hello\r\n.\r')
    assert not backend.submitted


# Log and trace

def test_events_of_a_session():
    log = FakeLog()
    with Running(make_service(log=log)) as running:
        running.talk.line()
        running.talk.login()
        send_message(running.talk, 'refuse-550-5.1.1@x')
        running.talk.ask('QUIT')
    assert [name for name, _facts in log.events] == ['connect', 'login', 'message', 'disconnect']
    assert {facts['session'] for _name, facts in log.events} == {running.session.id}
    message, = log.named('message')
    assert message['user'] == 'bobby' and message['sender'] == 'bobby@example.org'
    assert message['recipients'] == 1 and message['size'] == 34
    assert message['reply'] == '550 5.1.1 As you wish' and message['cause'] == 'upstream'


def test_trace_marks_what_is_secret():
    log = FakeLog(tracing=True)
    with Running(make_service(log=log)) as running:
        talk = running.talk
        talk.line()
        talk.ask('EHLO x')
        talk.ask('AUTH LOGIN')
        talk.ask(base64_text('bobby'))
        talk.ask(base64_text('FooBar'))
        talk.ask('NOOP')
    open_text = b''.join(data for _direction, data, secret in log.traces if not secret)
    assert base64_text('FooBar').encode() not in open_text
    assert base64_text('bobby').encode() not in open_text
    assert b'NOOP' in open_text and b'235 2.7.0' in open_text
    assert [direction for direction, _data, _secret in log.traces].count('C') == 5


def test_trace_is_not_called_when_off():
    log = FakeLog()
    with Running(make_service(log=log)) as running:
        running.talk.line()
        running.talk.login()
    assert log.traces == []


def test_no_thread_is_left_behind():
    before = threading.active_count()
    with Running(make_service()) as running:
        running.talk.line()
    assert threading.active_count() <= before


def test_a_small_message_costs_little():
    """MAIL, RCPT, DATA and 2 kB in lockstep; generous, since machines differ."""
    service = make_service()
    text = b'Subject: x\r\n\r\n' + b'x' * 70 * 28 + b'\r\n.\r\n'
    with Running(service) as running:
        talk = running.talk
        talk.line()
        talk.login()
        started = time.thread_time()
        process = time.process_time()
        for _ in range(200):
            talk.ask('MAIL FROM:<a@b>')
            talk.ask('RCPT TO:<c@d>')
            talk.ask('DATA')
            talk.send(text)
            assert talk.reply().startswith('250')
        client = time.thread_time() - started
        per_message = (time.process_time() - process - client) / 200
    assert per_message < 0.002


def test_fault_that_comes_back_at_every_command_ends_the_session(monkeypatch):
    def broken(line):
        raise RuntimeError('out of order')

    monkeypatch.setattr(grammar, 'split_command', broken)
    service = make_service()
    with Running(service) as running:
        running.talk.line()
        answers = [running.talk.ask('NOOP') for _ in range(service.limits.bad_commands)]
        assert all(answer.startswith('451 4.3.0') for answer in answers)
        assert running.talk.reply().startswith('421')
        running.join()
