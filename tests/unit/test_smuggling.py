# SPDX-License-Identifier: GPL-2.0-or-later
"""SMTP smuggling, from the client's socket to the upstream server's (RFC 5321 2.3.8, 4.1.1.4).

Whatever octets a client sends as one message arrive upstream as one message: its lines end with
CRLF, nothing in it was read as a command, here or there, and the text is the same.
"""
import random
import threading

import pytest

from support.endings import FORMS, SMUGGLED, mixes, normalized, pieces, without_end
from support.proxy import AUTHOR, Proxy, write_home
from support.upstream import Upstream

HEADER = b'From: ' + AUTHOR.encode('ascii') + b'\r\nSubject: x\r\n\r\n'
ENVELOPE = b'MAIL FROM:<%s>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n' % AUTHOR.encode('ascii')
MIXES = 10000
SESSIONS = 4  # at a time


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield server


@pytest.fixture(params=['', 'ssl'], ids=['plain', 'tls'])
def proxy(request, upstream, tmp_path):
    with Proxy(write_home(tmp_path, upstream.port), request.param) as running:
        yield running


def submit(talk, text, chance):
    """Send text as one message, pipelined with the NOOP behind it, in pieces; the replies."""
    data = ENVELOPE + HEADER + text + b'\r\n.\r\nNOOP\r\n'
    for piece in pieces(data, chance):
        talk.send(piece)
    return [talk.reply()[:3] for _ in range(5)]


def check(text, message):
    """message is what upstream got for text."""
    header, _, body = message.raw.partition(b'\r\n\r\n')
    bare = message.raw.replace(b'\r\n', b'')
    assert b'\r' not in bare and b'\n' not in bare
    assert b'\r\n.\r\n' not in b'\r\n' + message.raw
    assert message.recipients == ['b@example.org']
    assert header.count(b'\r\nSubject: x') == 1
    body = message.data.partition(b'\r\n\r\n')[2]
    assert body == normalized(text + b'\r\n')


def test_there_are_enough_forms():
    assert len(set(FORMS)) == len(FORMS) >= 40


def test_form_is_one_message(proxy, upstream):
    chance = random.Random(51764)
    texts = [without_end(b'before' + form + SMUGGLED + after)
             for form in FORMS for after in (b'', form)]
    with proxy.connect() as talk:
        talk.login()
        for text in texts:
            assert submit(talk, text, chance) == ['250', '250', '354', '250', '250'], text
            check(text, upstream.messages[-1])
    assert len(upstream.messages) == len(texts)
    check_commands(upstream)


def test_form_in_the_header_is_one_message(proxy, upstream):
    with proxy.connect() as talk:
        talk.login()
        for form in FORMS:
            text = without_end(HEADER[:-2] + b'X-A: a' + form + SMUGGLED)
            talk.send(ENVELOPE + text + b'\r\n.\r\nNOOP\r\n')
            assert [talk.reply()[:3] for _ in range(5)] == ['250', '250', '354', '250', '250']
            raw = upstream.messages[-1].raw
            bare = raw.replace(b'\r\n', b'')
            assert b'\r' not in bare and b'\n' not in bare
            assert b'\r\n.\r\n' not in raw
    assert len(upstream.messages) == len(FORMS)
    check_commands(upstream)


def test_random_mixes_are_one_message_each(proxy, upstream):
    share = mixes(5321, MIXES // 2)
    failures = []

    def send(number):
        chance = random.Random(number)
        try:
            with proxy.connect() as talk:
                talk.login()
                for text in share[number::SESSIONS]:
                    text = b'%d|' % len(text) + text
                    assert submit(talk, text, chance) == ['250', '250', '354', '250', '250'], text
        except Exception as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=send, args=(number,)) for number in range(SESSIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(upstream.messages) == len(share)
    for message in upstream.messages:
        assert b'\r\n.\r\n' not in b'\r\n' + message.raw
    expected = sorted(normalized(b'%d|' % len(text) + text + b'\r\n') for text in share)
    bodies = sorted(message.data.partition(b'\r\n\r\n')[2] for message in upstream.messages)
    assert bodies == expected
    for body in bodies:
        bare = body.replace(b'\r\n', b'')
        assert b'\r' not in bare and b'\n' not in bare
    check_commands(upstream)


def test_end_of_data_is_found_at_every_cut(proxy, upstream):
    """The five octets of the end, cut everywhere, with and without text in front."""
    with proxy.connect() as talk:
        talk.login()
        for cut in range(1, 6):
            talk.send(ENVELOPE)
            assert [talk.reply()[:3] for _ in range(3)] == ['250', '250', '354']
            end = HEADER + b'a\r\n.\r\n'
            talk.send(end[:-cut])
            talk.send(end[-cut:])
            assert talk.reply().startswith('250')
            assert upstream.messages[-1].data.endswith(b'\r\n\r\na\r\n')


def test_after_a_message_that_is_refused_the_rest_is_no_command(upstream, tmp_path):
    """Too big: its lines were text, and the next command is the one behind the end of data."""
    with Proxy(write_home(tmp_path, upstream.port), message_size=1000) as proxy:
        with proxy.connect() as talk:
            talk.login()
            talk.send(ENVELOPE + HEADER + b'x' * 2000 + b'\n.\n' + SMUGGLED + b'\r\n.\r\nNOOP\r\n')
            replies = [talk.reply()[:3] for _ in range(5)]
            assert replies == ['250', '250', '354', '552', '250']
    assert upstream.messages == []


def check_commands(upstream):
    """Upstream read no command but ours."""
    lines = [line for _, line in upstream.commands]
    allowed = (b'ehlo ', b'MAIL FROM:<%s>' % AUTHOR.encode('ascii'), b'RCPT TO:<b@example.org>',
               b'DATA', b'QUIT')
    assert [line for line in lines if not line.startswith(allowed)] == []
    assert lines.count(b'DATA') == len(upstream.messages)
