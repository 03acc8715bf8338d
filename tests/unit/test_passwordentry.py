# SPDX-License-Identifier: GPL-2.0-or-later
"""--password USER: what is asked, what the file then holds, and what is refused."""
import io
import os
import pty
import sys

import pytest

from support.daemon import command, needs_account
from TMDA.ofmipd import passwordhashes, terminal
from TMDA.ofmipd.main import main
from TMDA.ofmipd.passwords import PasswordFile
from TMDA.ofmipd.sasl import Password
from TMDA.ofmipd.verdict import YES

pytestmark = needs_account

HASHED = 'chloe:' + passwordhashes.make_scram('baz', 4096) + '\n'


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The default password file of a home, with one user."""
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / '.tmda').mkdir()
    path = tmp_path / '.tmda' / 'tofmipd'
    path.write_text('bobby:FooBar\n')
    path.chmod(0o600)
    return path


@pytest.fixture
def run(monkeypatch, capsys):
    """Call main() with something on stdin; (status, stdout, stderr)."""
    def call(text, *arguments):
        monkeypatch.setattr(sys, 'stdin', io.StringIO(text))
        status = main(list(arguments))
        printed = capsys.readouterr()
        return status, printed.out, printed.err
    return call


def lets_in(path, user, password):
    return PasswordFile(str(path)).check(Password(user, password)).answer == YES


def test_password_of_a_new_user_is_hashed(file, run):
    status, printed, _ = run('correct horse\n', '--password', 'Alice')
    assert status == 0
    lines = printed.splitlines()
    assert lines[0] == '%s: added alice, hashed (SCRAM-SHA-256)' % file
    assert lines[1] == ('CRAM-MD5 is not offered any more: it needs every entry in plain '
                        '(--plain), and 1 of 2 is hashed.')
    assert file.read_text().startswith('bobby:FooBar\nalice:{SCRAM-SHA-256}')
    assert 'horse' not in file.read_text()
    assert lets_in(file, 'alice', 'correct horse') and lets_in(file, 'bobby', 'FooBar')


def test_password_in_plain_keeps_cram_md5(file, run):
    status, printed, _ = run('new\n', '--password', 'bobby', '--plain')
    assert status == 0
    assert printed == ('%s: changed bobby, in plain\n'
                       'CRAM-MD5 is offered: every entry is in plain.\n' % file)
    assert file.read_text() == 'bobby:new\n'


def test_password_in_plain_among_hashes(file, run):
    file.write_text(HASHED)
    _, printed, _ = run('new\n', '--password', 'bobby', '--plain')
    assert printed.endswith('CRAM-MD5 is not offered: it needs every entry in plain (--plain), '
                            'and 1 of 2 is hashed.\n')


@pytest.mark.parametrize('typed, password', [
    ('pass word \n', 'pass word '),
    ('last line', 'last line'),
    ('crlf\r\n', 'crlf'),
    ('one\ntwo\n', 'one'),
    ('pässwörd\n', 'pässwörd'),
])
def test_password_is_one_line_of_stdin(file, run, typed, password):
    assert run(typed, '--password', 'alice')[0] == 0
    assert lets_in(file, 'alice', password)


def test_password_file_is_made(file, run):
    file.unlink()
    assert run('x\n', '--password', 'alice')[0] == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert lets_in(file, 'alice', 'x')


def test_password_file_of_another_name(file, run, tmp_path):
    other = tmp_path / 'other'
    assert run('x\n', '--password', 'alice', '-a', str(other))[0] == 0
    assert lets_in(other, 'alice', 'x')
    assert file.read_text() == 'bobby:FooBar\n'


@pytest.mark.parametrize('typed, arguments, status, complaint', [
    ('\n', ['alice'], 64, 'an empty password; nothing was changed'),
    ('', ['alice'], 64, 'an empty password; nothing was changed'),
    ('a\0b\n', ['alice'], 64, "a password can't hold NUL; nothing was changed"),
    ('x\n', ['a/b'], 64, "--password: 'a/b' can't be a user name: not a single name"),
    ('x\n', ['a:b'], 64, None),
    ('x\n', ['-x'], 64, None),
    (' x\n', ['alice', '--plain'], 64, None),
    ('$6$x\n', ['alice', '--plain'], 64,
     'this password looks like a hash: without --plain it can be kept'),
    ('x\n', ['alice', '-a', '/x', '-a', '/y'], 64, 'which password file? name one with -a'),
    ('x\n', ['alice', '-a', '/none/such/file'], 78,
     '/none/such: no such directory (--setup makes ~/.tmda)'),
])
def test_password_refused(file, run, typed, arguments, status, complaint):
    got, printed, errors = run(typed, '--password', *arguments)
    assert (got, printed) == (status, '')
    assert errors.startswith('tmda-ofmipd: ') and errors.count('\n') == 1
    if complaint:
        assert errors == 'tmda-ofmipd: %s\n' % complaint
    assert file.read_text() == 'bobby:FooBar\n'


@pytest.mark.parametrize('mode, text', [(0o644, 'bobby:x\n'), (0o600, 'no colon\n')])
def test_password_file_that_a_daemon_would_refuse(file, run, mode, text):
    file.write_text(text)
    file.chmod(mode)
    status, _, errors = run('x\n', '--password', 'alice')
    assert status == 78 and str(file) in errors
    assert file.read_text() == text


def test_password_is_no_argument(file, run):
    assert run('', '--password', 'alice', 'secret')[0] == 64


@pytest.mark.parametrize('answers, expected', [
    (['new', 'new'], 'new'),
    (['new', 'other'], None),
    ([''], None),
])
def test_password_is_asked_twice(file, run, monkeypatch, answers, expected):
    monkeypatch.setattr(terminal, 'is_interactive', lambda: True)
    monkeypatch.setattr('getpass.getpass', lambda prompt: answers.pop(0))
    assert run('', '--password', 'bobby')[0] == (0 if expected else 64)
    assert answers == []
    assert lets_in(file, 'bobby', expected or 'FooBar')


@pytest.mark.parametrize('error', [KeyboardInterrupt, EOFError])
def test_password_not_answered(file, run, monkeypatch, error):
    def fail(prompt):
        raise error
    monkeypatch.setattr(terminal, 'is_interactive', lambda: True)
    monkeypatch.setattr('getpass.getpass', fail)
    assert run('', '--password', 'bobby')[0] == 64


def test_password_at_a_terminal_is_not_shown(file):
    process, terminal_end = pty.fork()
    if not process:
        words = command('--password', 'alice')
        os.execv(words[0], words)
    shown = b''
    try:
        while True:
            data = os.read(terminal_end, 4096)
            shown += data
            if data.endswith(b': '):
                os.write(terminal_end, b'TopSecret\n')
    except OSError:
        pass  # the other end was closed
    os.close(terminal_end)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, shown
    assert b'TopSecret' not in shown and b'added alice' in shown
    assert lets_in(file, 'alice', 'TopSecret')
