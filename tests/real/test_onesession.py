# SPDX-License-Identifier: GPL-2.0-or-later
"""-1 for real: under tcpserver, xinetd, stunnel and systemd, and on plain sockets and pipes.

A message goes through each, and the client's address is in its Received field.
"""
from __future__ import annotations

import os
import socket
import subprocess

import pytest

from real.launchers import (CLIENT, LAUNCHERS, MESSAGE, RECIPIENT, connect, launched, one_session,
                            received, submit)
from support import wait_for
from support.daemon import needs_account
from support.proxy import AUTHOR, write_home
from support.talk import CERTIFICATE, KEY, PATIENCE, PipeSocket, Talk, client_context
from support.upstream import Upstream

pytestmark = needs_account
TLS = ('--tls=on', '--ssl-cert=%s' % CERTIFICATE, '--ssl-key=%s' % KEY)


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield server


@pytest.fixture
def home(tmp_path, upstream):
    return write_home(tmp_path, upstream.port)


def submit_by_hand(talk: Talk) -> None:
    """Send MESSAGE over a connection that smtplib does not know how to make."""
    assert talk.reply().startswith('220 ')
    talk.login()
    for command in ('MAIL FROM:<%s>' % AUTHOR, 'RCPT TO:<%s>' % RECIPIENT):
        assert talk.ask(command).startswith('250 ')
    assert talk.ask('DATA').startswith('354 ')
    assert talk.ask(MESSAGE + '.').startswith('250 ')
    assert talk.ask('QUIT') == '221 Bye'
    assert talk.at_end()


@pytest.mark.parametrize('name', LAUNCHERS)
def test_launcher(name, home, upstream):
    with launched(name, home) as server:
        with connect(server.port, LAUNCHERS[name].tls) as client:
            submit(client)
    message, = upstream.messages
    assert received(message).startswith('from client.example (unknown [%s]) by ' % CLIENT)
    assert message.recipients == [RECIPIENT]


@pytest.mark.parametrize('name', [name for name in LAUNCHERS if not LAUNCHERS[name].tls])
def test_launcher_starttls(name, home, upstream):
    with launched(name, home, *TLS) as server:
        with connect(server.port) as client:
            client.starttls(context=client_context())
            submit(client)
    message, = upstream.messages
    assert received(message).startswith(
        'from client.example (unknown [%s]) (using TLSv1.3 ' % CLIENT)
    assert ' with ESMTPSA id ' in received(message)


@pytest.mark.parametrize('name', LAUNCHERS)
def test_launcher_client_that_leaves_ends_the_process(name, home):
    with launched(name, home) as server:
        connect(server.port, LAUNCHERS[name].tls).close()
        wait_for(lambda: ended_sessions(home, CLIENT) == 1)


def ended_sessions(home, address):
    """How many sessions with a client the log saw end."""
    log = home / 'log'
    lines = log.read_text().splitlines() if log.exists() else []
    return sum('event=disconnect' in line and 'client=%s' % address in line for line in lines)


@pytest.mark.parametrize('name', LAUNCHERS)
def test_launcher_that_cannot_start_says_so(name, home):
    (home / '.tmda' / 'tofmipd').chmod(0o644)
    with launched(name, home) as server:
        with pytest.raises(OSError) as told:  # smtplib's exceptions are OSErrors
            connect(server.port, LAUNCHERS[name].tls)
    code = getattr(told.value, 'smtp_code', None)
    text = (server.output.read_bytes() + (home / 'log').read_bytes()).decode()
    assert code == 421 or 'mode is 644, must be 600 or 400' in text


def test_socket(home, upstream):
    with socket.create_server(('127.0.0.1', 0)) as server:
        address = server.getsockname()
        sock = socket.create_connection(address, PATIENCE, (CLIENT, 0))
        theirs, _ = server.accept()
    with theirs:
        process = start(home, theirs, theirs)
    with Talk(sock) as talk:
        submit_by_hand(talk)
    assert process.wait(PATIENCE) == 0
    assert '(unknown [%s]) by ' % CLIENT in received(upstream.messages[0])


@pytest.mark.parametrize('variables, peer', [
    ({'REMOTE_HOST': '192.0.2.8'}, '(unknown [192.0.2.8])'),
    ({'TCPREMOTEIP': '192.0.2.7', 'TCPREMOTEHOST': 'pc.example'}, '(pc.example [192.0.2.7])'),
    ({}, '(unknown)'),
])
def test_pipes(home, upstream, variables, peer):
    talk, process = over_pipes(home, variables)
    with talk:
        submit_by_hand(talk)
    assert process.wait(PATIENCE) == 0
    assert received(upstream.messages[0]).startswith('from client.example %s by ' % peer)


def start(home, reader, writer, **variables) -> subprocess.Popen:
    """One session on these descriptors."""
    return subprocess.Popen(one_session(home), stdin=reader, stdout=writer,
                            env=dict(os.environ, HOME=str(home), **variables))


def over_pipes(home, variables) -> tuple[Talk, subprocess.Popen]:
    """One session on two pipes, and their other ends."""
    their_input, our_output = os.pipe()
    our_input, their_output = os.pipe()
    process = start(home, their_input, their_output, **variables)
    os.close(their_input)
    os.close(their_output)
    return Talk(PipeSocket(our_input, our_output)), process


# What a configuration prints, reads, or has other programs do, is not the client's.

NOISE = r'''
import os, subprocess, sys
print('250 noise', flush=sys.stdout is not None)
os.write(1, b'250 noise\r\n')
os.write(2, b'250 noise\r\n')
subprocess.call(['sh', '-c', 'echo 250 noise; echo 250 noise >&2; cat'])
assert os.read(0, 99) == b''
'''


@pytest.mark.parametrize('pipes', [False, True], ids=['socket', 'pipes'])
def test_configuration_that_prints_does_not_disturb(home, upstream, pipes):
    write_home(home, upstream.port, more=NOISE)
    if pipes:
        talk, process = over_pipes(home, {})
    else:
        ours, theirs = socket.socketpair()
        process = subprocess.Popen(one_session(home), stdin=theirs, stdout=theirs, stderr=theirs,
                                   env=dict(os.environ, HOME=str(home)))
        theirs.close()
        talk = Talk(ours)
    with talk:
        submit_by_hand(talk)
    assert process.wait(PATIENCE) == 0
    assert len(upstream.messages) == 1


def test_standard_output_that_is_closed(home, upstream):
    write_home(home, upstream.port, more=NOISE)
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(['sh', '-c', 'exec "$@" >&-', 'sh', *one_session(home)],
                                   stdin=theirs, env=dict(os.environ, HOME=str(home)))
    with Talk(ours) as talk:
        submit_by_hand(talk)
    assert process.wait(PATIENCE) == 0
    assert len(upstream.messages) == 1
