# SPDX-License-Identifier: GPL-2.0-or-later
"""-1: one session on descriptor 0, as xinetd, tcpserver, stunnel and systemd start it."""
import os
import signal
import socket
import subprocess

import pytest

from support.daemon import command, make_home, needs_account
from support.talk import CERTIFICATE, KEY, PATIENCE, PipeSocket, Talk

pytestmark = needs_account


@pytest.fixture
def home(tmp_path):
    return make_home(tmp_path)


class OneSession:
    """The program on a TCP connection (or pipes), with `talk` at the other end."""

    def __init__(self, home, *arguments, environ=None, pipes=False, stderr=None):
        keywords = dict(env=dict(os.environ, HOME=str(home), **(environ or {})))
        line = command('-1', '-L', *arguments)
        if pipes:
            self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=subprocess.PIPE, **keywords)
            self.talk = Talk(PipeSocket(os.dup(self.process.stdout.fileno()),
                                        os.dup(self.process.stdin.fileno())))
            self.process.stdin.close()
            self.process.stdout.close()
            self.process.stdin = self.process.stdout = None
        else:
            with socket.create_server(('127.0.0.1', 0)) as listening:
                self.talk = Talk(socket.create_connection(listening.getsockname(), PATIENCE))
                theirs, _ = listening.accept()
            self.process = subprocess.Popen(line, stdin=theirs, stdout=theirs,
                                            stderr=stderr and theirs or subprocess.PIPE, **keywords)
            theirs.close()

    def end(self):
        """Wait for the end; (status, stderr)."""
        self.talk.close()
        text = self.process.communicate(timeout=PATIENCE)[1]
        return self.process.returncode, (text or b'').decode()


def converse(talk):
    assert talk.reply().startswith('220 ')
    talk.login()
    assert talk.ask('QUIT') == '221 Bye'
    assert talk.at_end()


def test_one_session_socket(home):
    session = OneSession(home)
    port = session.talk.sock.getsockname()[1]
    converse(session.talk)
    status, log = session.end()
    assert status == 0
    assert 'client=127.0.0.1 user=- port=%d' % port in log


@pytest.mark.parametrize('environ, facts', [
    ({}, 'event=connect session='),
    ({'TCPREMOTEIP': '192.0.2.7', 'TCPREMOTEPORT': '4711', 'TCPREMOTEHOST': 'client.example'},
     'client=192.0.2.7 user=- port=4711'),
    ({'REMOTE_HOST': '192.0.2.8'}, 'client=192.0.2.8'),
    ({'TCPREMOTEIP': '192.0.2.7', 'REMOTE_HOST': '192.0.2.8'}, 'client=192.0.2.7'),
], ids=['nobody', 'tcpserver', 'xinetd', 'both'])
@pytest.mark.parametrize('pipes', [False, True], ids=['socket', 'pipes'])
def test_one_session_client(home, environ, facts, pipes):
    session = OneSession(home, environ=environ, pipes=pipes)
    converse(session.talk)
    status, log = session.end()
    assert status == 0
    line, = [line for line in log.splitlines() if 'event=connect' in line]
    assert facts in line
    if not environ:
        assert ('client=- ' in line) is pipes


def test_one_session_tls(home):
    session = OneSession(home, '--ssl', '--ssl-cert', str(CERTIFICATE), '--ssl-key', str(KEY))
    session.talk.start_tls()
    converse(session.talk)
    assert session.end()[0] == 0


def test_one_session_ends_with_its_client(home):
    session = OneSession(home)
    session.talk.reply()
    assert session.end()[0] == 0


def test_one_session_sigterm(home):
    session = OneSession(home)
    session.talk.reply()
    session.process.send_signal(signal.SIGTERM)
    assert session.talk.reply().startswith('421')
    assert session.end()[0] == 0


def test_one_session_logs_nothing_to_the_client(home):
    session = OneSession(home, '-d', stderr='client')
    converse(session.talk)
    assert session.end()[0] == 0


def test_one_session_that_cannot_start_says_421(home):
    (home / '.tmda' / 'tofmipd').chmod(0o644)
    session = OneSession(home, stderr='client')
    assert session.talk.reply() == '421 4.3.0 Service not available'
    assert session.talk.at_end()
    assert session.end()[0] == 78


def test_certificate_that_is_broken_shows_at_starttls(tmp_path):
    """-1 reads it then, because its client would wait for that; a missing file shows at the start."""
    broken = tmp_path / 'broken.pem'
    broken.write_text('no certificate\n')
    home = make_home(tmp_path)
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(command('-1', '--tls=on', '--ssl-cert=%s' % broken, '--ssl-key=%s' % broken),
                               stdin=theirs, stdout=theirs, stderr=subprocess.PIPE,
                               env=dict(os.environ, HOME=str(home)))
    theirs.close()
    talk = Talk(ours)
    assert talk.line().startswith('220 ')
    talk.ask('EHLO client.example')
    assert talk.ask('STARTTLS').startswith('454 4.7.0')
    talk.ask('QUIT')
    talk.close()
    assert b'there is no PEM certificate in it' in process.communicate()[1]
