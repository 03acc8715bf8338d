# SPDX-License-Identifier: GPL-2.0-or-later
"""The sendmail transport with programs of our own in the place of sendmail."""
import json
import os
import stat
import sys
from types import SimpleNamespace

import pytest

from support import wait_for
from support.deliveries import delivery, envelope, spool_of
from TMDA.inject import sendmail, transport
from TMDA.inject.envelope import Envelope, Recipient
from TMDA.inject.limits import Limits
from TMDA.inject.memory import Memory

ANN, BOB = 'ann@example.com', 'bob@example.com'

PROGRAM = '''#!%s -IS
import json, os, sys
data = sys.stdin.buffer.read()
with open(os.environ['OUT'], 'a') as out:
    json.dump([sys.argv[1:], data.decode('latin-1'), dict(os.environ)], out)
    print(file=out)
%s
'''


@pytest.fixture
def program(tmp_path):
    """A function that makes a sendmail whose last words are the code given; its path."""
    def make(code=''):
        path = tmp_path / 'sendmail'
        path.write_text(PROGRAM % (sys.executable, code))
        path.chmod(stat.S_IRWXU)
        return str(path)
    return make


@pytest.fixture
def runs(tmp_path):
    """A function that lists the runs: arguments, input, environment."""
    def read():
        path = tmp_path / 'out'
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]
    return read


def send(tmp_path, program, *deliveries, memory=None, agent='exim', **limits):
    """Deliver with program."""
    settings = SimpleNamespace(
        MAIL_TRANSPORT='sendmail', SENDMAIL_PROGRAM=program, MAIL_TRANSFER_AGENT=agent,
        environ={'OUT': str(tmp_path / 'out'), 'LOGIN': 'joe'}, expand=lambda path: path)
    return transport.deliver(list(deliveries), envelope(), settings, Limits(**limits), memory,
                             'joe', b'key')


def test_sendmail_arguments_input_environment(tmp_path, program, runs):
    path = program()
    outcome = send(tmp_path, path, delivery('a+x@b.test', ANN, '-oQ/tmp@c', body=b'\r\n.\r\nx'))
    assert outcome.reply == (250, '2.0.0', ('Ok',), False)
    assert outcome.facts['relay'] == path
    [(arguments, text, environ)] = runs()
    assert arguments == ['-i', '-f', 'a+x@b.test', '--', ANN, '-oQ/tmp@c']
    assert text == 'From: ann@example.com\nSubject: test\n\n\n.\nx'
    assert environ['LOGIN'] == 'joe' and 'PATH' not in environ


@pytest.mark.parametrize('agent, sender', [('qmail', ''), ('postfix', ''), ('exim', '<>'),
                                           ('sendmail', '<>')])
def test_sendmail_null_sender(tmp_path, program, runs, agent, sender):
    assert send(tmp_path, program(), delivery('', ANN), agent=agent).reply.code == 250
    assert runs()[0][0][2] == sender


@pytest.mark.parametrize('ending, code, enhanced', [
    ('sys.exit(0)', 250, '2.0.0'),
    ('sys.exit(64)', 554, '5.3.0'), ('sys.exit(65)', 554, '5.6.0'),
    ('sys.exit(67)', 554, '5.1.1'), ('sys.exit(68)', 554, '5.1.2'),
    ('sys.exit(69)', 554, '5.3.0'), ('sys.exit(77)', 554, '5.7.1'),
    ('sys.exit(75)', 451, '4.3.0'), ('sys.exit(1)', 451, '4.3.0'),
    ('sys.exit(66)', 451, '4.3.0'), ('sys.exit(255)', 451, '4.3.0'),
    ('os.kill(os.getpid(), 9)', 451, '4.3.0'), ('os.kill(os.getpid(), 15)', 451, '4.3.0'),
])
def test_sendmail_exit_codes(tmp_path, program, ending, code, enhanced):
    outcome = send(tmp_path, program(ending), delivery('a@b', ANN))
    assert outcome.reply[:2] == (code, enhanced)


def test_sendmail_standard_error_is_for_the_log(tmp_path, program):
    path = program('sys.stderr.write("secret reason" + "x" * 100000); sys.exit(69)')
    outcome = send(tmp_path, path, delivery('a@b', ANN))
    assert 'secret reason' in outcome.facts['error'] and len(outcome.facts['error']) < 3000
    assert 'secret' not in outcome.reply.text


def test_sendmail_does_not_read_its_input(tmp_path):
    outcome = send(tmp_path, '/bin/true', delivery('a@b', ANN, body=b'x' * 1000000))
    assert outcome.reply.code == 250


def test_sendmail_takes_too_long(tmp_path):
    path = tmp_path / 'sendmail'
    path.write_text('#!/bin/sh\n/bin/sleep 60 &\necho $! > %s\nwait\n' % (tmp_path / 'pid'))
    path.chmod(0o700)
    outcome = send(tmp_path, str(path), delivery('a@b', ANN), upstream_seconds=1)
    assert outcome.reply[:2] == (451, '4.3.0') and 'too long' in outcome.facts['error']
    wait_for(lambda: is_dead(int((tmp_path / 'pid').read_text())))  # its children, too


def is_dead(process):
    """Whether process is gone, or only waits for somebody to ask for its exit status."""
    try:
        with open('/proc/%d/stat' % process) as file:
            return file.read().rpartition(')')[2].split()[0] in 'ZX'
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize('name, content, mode', [
    ('missing', None, 0), ('plain', '#!/bin/sh\n', 0o600), ('rubbish/x', None, 0)])
def test_sendmail_cannot_be_started(tmp_path, name, content, mode):
    path = tmp_path / name
    (tmp_path / 'rubbish').write_text('')
    if content:
        path.write_text(content)
        path.chmod(mode)
    outcome = send(tmp_path, str(path), delivery('a@b', ANN))
    assert outcome.reply[:2] == (451, '4.3.5')


def test_sendmail_no_program_format(tmp_path):
    path = tmp_path / 'rubbish'
    path.write_bytes(b'\0\1\2\3')
    path.chmod(0o700)
    assert send(tmp_path, str(path), delivery('a@b', ANN)).reply.code == 451


@pytest.mark.parametrize('address', ['a@b\0', 'a@b\n', 'a b@c'])
def test_sendmail_bad_address(tmp_path, program, runs, address):
    assert send(tmp_path, program(), delivery('a@b', address)).reply[:2] == (553, '5.1.3')
    assert runs() == []


def test_sendmail_disk_full(tmp_path, program, runs, monkeypatch):
    def full(*_arguments):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(sendmail, 'write_unix', full)
    assert send(tmp_path, program(), delivery('a@b', ANN)).reply[:2] == (452, '4.3.1')
    assert runs() == []


FAILS_FOR = 'if %r in sys.argv and not os.path.exists(os.environ["OUT"] + ".mended"): sys.exit(%d)'


@pytest.mark.parametrize('exit_code', [65, 75])
def test_sendmail_first_delivery_fails(tmp_path, program, runs, exit_code):
    memory = Memory(str(tmp_path / 'delivered'))
    path = program(FAILS_FOR % (ANN, exit_code))
    outcome = send(tmp_path, path, delivery('a@b', ANN), delivery('c@d', BOB), memory=memory)
    assert outcome.reply.code == {65: 554, 75: 451}[exit_code]
    assert len(runs()) == 1 and memory.is_empty


@pytest.mark.parametrize('exit_code', [65, 75])
def test_sendmail_retry_reaches_the_missing(tmp_path, program, runs, exit_code):
    path = program(FAILS_FOR % (BOB, exit_code))
    deliveries = [delivery('a@b', ANN), delivery('c@d', BOB)]
    memory_path = str(tmp_path / 'delivered')
    outcome = send(tmp_path, path, *deliveries, memory=Memory(memory_path))
    assert outcome.reply.code == 451 and '1 of 2 recipients' in outcome.reply.text
    (tmp_path / 'out.mended').touch()
    outcome = send(tmp_path, path, *deliveries, memory=Memory(memory_path))
    assert outcome.reply.code == 250
    assert [arguments[-1] for arguments, _text, _environ in runs()] == [ANN, BOB, BOB]
    assert Memory(memory_path).is_empty


def test_sendmail_unaltered(tmp_path, program, runs):
    environ = {'OUT': str(tmp_path / 'out')}
    with spool_of(b'A: b\r\n\r\ntext\r\n') as spool:
        for sender in ('a@b', ''):
            outcome = sendmail.pass_unaltered(
                program(), Envelope(sender, (Recipient(ANN), Recipient(BOB))), spool, environ,
                Limits())
            assert outcome.reply.code == 250
        outcome = sendmail.pass_unaltered(program('sys.exit(67)'), Envelope('a@b', ()), spool,
                                          environ, Limits())
    assert outcome.reply.code == 554 and 'exit code 67' in outcome.facts['error']
    assert [arguments for arguments, _text, _environ in runs()][:2] == [
        ['-i', '-f', 'a@b', '--', ANN, BOB], ['-i', '-f', '<>', '--', ANN, BOB]]
    assert runs()[0][1] == 'A: b\n\ntext\n'


@pytest.mark.parametrize('pieces', [1, 2, 3, 100])
@pytest.mark.parametrize('text', [b'a\r\nb\r\n', b'\r\n\r\n', b'a\rb\r\r\nc\r', b'', b'x\r'])
def test_write_unix_across_pieces(tmp_path, text, pieces):
    with open(tmp_path / 'x', 'wb') as file:
        sendmail.write_unix(file, [text[start:start + pieces]
                                   for start in range(0, len(text), pieces)])
    assert (tmp_path / 'x').read_bytes() == text.replace(b'\r\n', b'\n')


def test_sendmail_leaves_no_files(tmp_path, program, monkeypatch):
    directory = tmp_path / 'temporary'
    directory.mkdir()
    monkeypatch.setattr('tempfile.tempdir', str(directory))
    send(tmp_path, program(), delivery('a@b', ANN))
    send(tmp_path, program('sys.exit(75)'), delivery('a@b', ANN))
    assert os.listdir(directory) == []
