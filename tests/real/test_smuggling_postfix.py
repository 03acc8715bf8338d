# SPDX-License-Identifier: GPL-2.0-or-later
"""SMTP smuggling towards a real Postfix, set as lenient as it ever was.

Its protection is switched off (smtpd_forbid_bare_newline), so that a bare LF.CRLF that got
through would end a message there: each text has to arrive as exactly one all the same.
"""
import os
import random
import re
import shutil
import socket

import pytest
from real.postfix import Postfix

from support.endings import FORMS, SMUGGLED, mixes, normalized, pieces, without_end
from support.proxy import AUTHOR, Proxy, write_home

MIXES = 300
LENIENT = {'smtpd_forbid_bare_newline': 'no', 'smtpd_forbid_unauth_pipelining': 'no'}

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason='Postfix needs root'),
    pytest.mark.skipif(shutil.which('postfix') is None, reason='postfix is not installed'),
]


@pytest.fixture(scope='module')
def upstream():
    server = Postfix(**LENIENT)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(params=['', 'ssl'], ids=['plain', 'tls'])
def proxy(request, upstream, tmp_path):
    with Proxy(write_home(tmp_path, upstream.port), request.param) as running:
        yield running


def send_all(proxy, texts):
    """Send each text as one message, numbered in its Subject, in pieces of random sizes."""
    chance = random.Random(51764)
    with proxy.connect() as talk:
        talk.login()
        for number, text in enumerate(texts):
            header = 'From: %s\r\nSubject: number %d\r\n\r\n' % (AUTHOR, number)
            data = (b'MAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n'
                    + header.encode('ascii') + text + b'\r\n.\r\n')
            for piece in pieces(data, chance):
                talk.send(piece)
            assert [talk.reply()[:3] for _ in range(4)] == ['250', '250', '354', '250']


def arrived(upstream, number):
    """What Postfix delivered: number in the Subject -> body."""
    bodies = {}
    for content in upstream.messages(number, seconds=60):
        header, _, body = content.partition(b'\n\n')
        found = re.search(rb'^Subject: number ([0-9]+)$', header, re.MULTILINE)
        assert found, content
        assert int(found.group(1)) not in bodies
        bodies[int(found.group(1))] = body
    return bodies


def check(upstream, texts):
    bodies = arrived(upstream, len(texts))
    for number, text in enumerate(texts):
        assert bodies[number] == normalized(text + b'\r\n').replace(b'\r\n', b'\n')
    log = upstream.log()
    assert 'victim@example.org' not in log and 'admin@example.org' not in log
    assert upstream.messages(0) == []


def test_form_is_one_message_for_postfix(proxy, upstream):
    texts = [without_end(b'before' + form + SMUGGLED) for form in FORMS]
    send_all(proxy, texts)
    check(upstream, texts)


def test_random_mixes_are_one_message_each_for_postfix(proxy, upstream):
    texts = mixes(27305, MIXES // 2)
    send_all(proxy, texts)
    check(upstream, texts)


def test_postfix_would_have_been_deceived(upstream):
    """The test is worth something: the same octets, sent directly, make two messages there."""
    data = (b'Subject: one\r\n\r\ntext\n.\r\nMAIL FROM:<a@example.net>\r\n'
            b'RCPT TO:<victim@example.org>\r\nDATA\r\nSubject: two\r\n\r\ntext\r\n.\r\n')
    with socket.create_connection(('127.0.0.1', upstream.port), 20) as sock, \
            sock.makefile('rb') as file:
        for command in (b'', b'EHLO x\r\n', b'MAIL FROM:<a@example.net>\r\n',
                        b'RCPT TO:<b@example.org>\r\n', b'DATA\r\n', data, b'QUIT\r\n'):
            sock.sendall(command)
            while file.readline()[3:4] == b'-':
                pass
        while file.readline():
            pass
    assert len(upstream.messages(2)) == 2
