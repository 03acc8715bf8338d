# SPDX-License-Identifier: GPL-2.0-or-later
"""What root does, as far as it can be tried without root; tests/root has the rest."""
import ast
import io
import os
import pwd
import socket
import stat
import time
import tokenize
from pathlib import Path
from types import SimpleNamespace

import pytest

from TMDA.ofmipd import duties as duties_module
from TMDA.ofmipd import monitor, privileges
from TMDA.ofmipd.client import Client
from TMDA.ofmipd.sasl import Password
from TMDA.ofmipd.verdict import NO, UNSURE, YES, Verdict

LINES = 300  # of code that may run as root


def code_lines(module):
    """How many lines in a module's functions are code: no blanks, comments, documentation.

    Left out are the constructors, which are called at the start.
    """
    source = Path(module.__file__).read_text(encoding='utf-8')
    inside, documentation = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name != '__init__':
            inside |= set(range(node.body[0].lineno, node.end_lineno + 1))
            if ast.get_docstring(node) is not None:
                documentation |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    blank = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
             tokenize.ENDMARKER)
    code = {number for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type not in blank for number in range(token.start[0], token.end[0] + 1)}
    return len(code & inside - documentation)


def test_code_that_runs_as_root_is_little():
    assert sum(map(code_lines, (privileges, monitor, duties_module))) < LINES


def text_of(descriptor):
    return os.pread(descriptor, 1 << 20, 0)


def forked(work):
    """The exit status of a process that does work(); 99 if that raises."""
    process = os.fork()
    if not process:
        status = 99
        try:
            status = work() or 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.mark.parametrize('name, error', [
    ('root', privileges.Refused), ('no-such-account', KeyError), ('', KeyError),
    ('a\0b', ValueError),
])
def test_account_that_nobody_may_become(name, error):
    with pytest.raises(error):
        privileges.find(name)


def test_account_of_the_network_side_is_refused():
    entry = pwd.getpwnam('nobody')
    network = privileges.find('nobody')
    assert network[:3] == ('nobody', entry.pw_uid, entry.pw_gid)
    with pytest.raises(privileges.Refused):
        privileges.find('nobody', network)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may change its ids')
def test_become_without_the_right_to_ends_the_process():
    assert forked(lambda: privileges.become(privileges.find('nobody'))) == privileges.NOT_PERMITTED


def test_copy_has_content_and_mode(tmp_path):
    path = tmp_path / 'secret'
    path.write_bytes(b'a:b\n' * 1000)
    path.chmod(0o640)
    copy = privileges.copy_for(None, str(path))
    assert text_of(copy) == path.read_bytes()
    assert stat.S_IMODE(os.fstat(copy).st_mode) == 0o640
    assert not os.get_inheritable(copy)
    os.close(copy)


@pytest.mark.parametrize('make', [lambda path: path.mkdir(), lambda path: os.mkfifo(path),
                                  lambda path: path.symlink_to('nowhere'), lambda path: None])
def test_copy_of_what_is_no_file_fails(tmp_path, make):
    make(tmp_path / 'x')
    before = len(os.listdir('/dev/fd'))
    with pytest.raises(OSError):
        privileges.copy_for(None, str(tmp_path / 'x'))
    assert len(os.listdir('/dev/fd')) == before


@pytest.mark.parametrize('work, answer', [
    (lambda: 'ünal', 'ünal'), (lambda: '', ''), (lambda: os._exit(3), ''),
])
def test_apart_returns_what_was_found(work, answer):
    assert privileges.apart(work) == answer


def test_apart_keeps_memory_apart():
    found = []
    assert privileges.apart(lambda: str(found.append('secret'))) == 'None'
    assert not found


@pytest.fixture
def secret(tmp_path):
    """A Secret that finds every file good that begins with "good"."""
    path = tmp_path / 'passwords'
    path.write_text('good 1')

    def check(copy, name):
        return '' if Path(copy).read_text().startswith('good') else name + ': bad'

    made = privileges.Secret(str(path), None, check)
    yield made
    made.close()


def write(secret, text):
    """Write a new version, in a way that shows in the time stamps whatever their granularity."""
    path = Path(secret.path)
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(time.time_ns(), before + 1000))


def test_secret_is_read_again_when_it_changes(secret):
    assert secret.refresh() == ''
    assert text_of(secret.descriptor) == b'good 1'
    first = secret.descriptor
    assert secret.refresh() == ''
    assert secret.descriptor == first
    write(secret, 'good 2')
    assert secret.refresh() == ''
    assert text_of(secret.descriptor) == b'good 2'


def test_secret_stays_when_a_new_version_is_bad(secret):
    secret.refresh()
    write(secret, 'evil')
    assert secret.refresh() == secret.path + ': bad'
    assert secret.refresh() == ''  # said once
    assert text_of(secret.descriptor) == b'good 1'


def test_secret_stays_when_the_file_goes(secret):
    secret.refresh()
    os.unlink(secret.path)
    assert 'No such file' in secret.refresh()
    assert secret.refresh() == ''
    assert text_of(secret.descriptor) == b'good 1'
    write(secret, 'good again')
    assert secret.refresh() == ''
    assert text_of(secret.descriptor) == b'good again'


def test_secret_that_was_never_good_says_so(tmp_path):
    secret = privileges.Secret(str(tmp_path / 'none'), None, lambda copy, name: '')
    assert 'No such file' in secret.refresh()
    assert secret.descriptor == -1


def test_files_are_handed_over(tmp_path):
    (tmp_path / 'cert').write_text('certificate')
    ours, theirs = socket.socketpair()
    with ours, theirs:
        privileges.hand_over(theirs, {'c': str(tmp_path / 'cert')}, str(tmp_path / 'log'), None)
        letters, descriptors, _, _ = socket.recv_fds(ours, 16, 16)
    assert letters == b'cl.'
    assert text_of(descriptors[0]) == b'certificate'
    os.write(descriptors[1], b'line')
    assert (tmp_path / 'log').read_text() == 'line'
    for descriptor in descriptors:
        os.close(descriptor)


def test_log_file_is_not_opened_through_a_symlink(tmp_path):
    (tmp_path / 'log').symlink_to(tmp_path / 'elsewhere')
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(OSError):
        privileges.hand_over(theirs, {}, str(tmp_path / 'log'), None)
    assert not (tmp_path / 'elsewhere').exists()


class Source:
    """A source that says what the user's name says."""

    seconds = 5

    def ask(self, user, password, client, deadline):
        if user == b'broken':
            raise OSError(5, 'broken')
        return Verdict(user.decode(), '%s from %s' % (password.decode(), client.address))


def test_source_is_asked_in_a_process_of_its_own():
    from TMDA.ofmipd.child import RootSource
    ours, theirs = socket.socketpair()
    with ours, theirs:
        source = RootSource('pam:x', 5, privileges.ask_as_root(Source(), theirs))
        client = Client('192.0.2.1')
        for user, verdict in (('yes', Verdict(YES, 'pass from 192.0.2.1')),
                              ('no', Verdict(NO, 'pass from 192.0.2.1')),
                              ('broken', Verdict(UNSURE, '[Errno 5] broken'))):
            assert source.check(Password(user, 'pass'), client) == verdict
        source._questions.close()
    os.wait()


def test_source_whose_process_is_gone_cannot_tell():
    from TMDA.ofmipd.child import RootSource
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    source = RootSource('pam:x', 5, ours)
    for _ in range(2):
        verdict = source.check(Password('a', 'b'), Client())
        assert verdict.answer == UNSURE


def test_descriptors_are_closed_but_some():
    def work():
        kept, lost = os.pipe()
        privileges.close_all_but(kept)
        assert len(os.listdir('/dev/fd')) == 5  # the last lists the others
        os.fstat(kept)
        assert os.fstat(2).st_rdev == os.stat('/dev/null').st_rdev
        with pytest.raises(OSError):
            os.fstat(lost)

    assert forked(work) == 0


def ourselves():
    entry = pwd.getpwuid(os.geteuid())
    return privileges.Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def duties(answer, serve, account=None):
    """What session() calls; with an account the asker is a process of its own."""
    return SimpleNamespace(account=account, root_sources={}, mute=lambda: None,
                           ask=lambda channel, rooted: answer, serve=serve)


def test_session_without_a_login_ends():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert forked(lambda: privileges.session(theirs, duties('', lambda *unused: 5))) == 0


def test_session_with_a_login_serves_in_a_group_of_its_own():
    ours, theirs = socket.socketpair()

    def serve(channel, found):
        groups = os.getpgrp() == os.getpid()
        channel.sendall(b'%s %d %d' % (found.encode(), groups, len(os.listdir('/dev/fd'))))

    with ours, theirs:
        assert forked(lambda: privileges.session(theirs, duties('ann\nrest\nmore', serve))) == 0
        # 0, 1, 2, the channel, and the one that lists them
        assert ours.recv(100) == b'rest\nmore 1 5'


def test_session_whose_asker_dies_ends():
    ours, theirs = socket.socketpair()
    broken = duties('', None, ourselves())
    broken.ask = lambda channel, rooted: os._exit(1)
    with ours, theirs:
        assert forked(lambda: privileges.session(theirs, broken)) == 0
