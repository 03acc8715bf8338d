# SPDX-License-Identifier: GPL-2.0-or-later
"""Adding and changing lines of a password file."""
import os
import stat
from pathlib import Path

import pytest

from TMDA.ofmipd import passwordhashes
from TMDA.ofmipd.passwordedit import add_or_change
from TMDA.ofmipd.passwords import PasswordFile
from TMDA.ofmipd.sasl import Password
from TMDA.ofmipd.verdict import YES

BEFORE = 'bobby:FooBar\nchloe:baz_bap\n'


@pytest.fixture
def file(tmp_path):
    """A function that makes a password file with this content."""
    def make(content, mode=0o600):
        path = tmp_path / 'tofmipd'
        path.write_text(content, encoding='utf-8')
        path.chmod(mode)
        return str(path)
    return make


def lets_in(path, user, password):
    """Whether the file's new content says yes."""
    return PasswordFile(path).check(Password(user, password)).answer == YES


@pytest.mark.parametrize('before, after, existed', [
    ('', 'bob:new\n', False),
    (BEFORE, BEFORE + 'bob:new\n', False),
    (BEFORE.rstrip('\n'), BEFORE + 'bob:new\n', False),
    ('# c\n\nBOB : old\nalice:x\n', '# c\n\nbob:new\nalice:x\n', True),
    ('bob:1\nalice:x\nbob:2\n', 'alice:x\nbob:new\n', True),
    ('#bob:old\nno colon', '#bob:old\nno colon\nbob:new\n', False),
    ('bob:old', 'bob:new', True),
])
def test_edit_content(file, before, after, existed):
    path = file(before)
    assert add_or_change(path, 'bob', 'new') is existed
    assert Path(path).read_text() == after


@pytest.mark.parametrize('mode', [0o600, 0o400])
def test_edit_keeps_mode_and_replaces_at_once(file, mode):
    path = file(BEFORE, mode)
    with open(path, 'rb') as old:
        add_or_change(path, 'bobby', passwordhashes.make_scram('pencil', 4096))
        assert old.read() == BEFORE.encode()
    assert stat.S_IMODE(os.stat(path).st_mode) == mode
    assert os.listdir(os.path.dirname(path)) == ['tofmipd']
    assert lets_in(path, 'bobby', 'pencil')


def test_edit_makes_a_file(tmp_path):
    path = str(tmp_path / 'new')
    assert add_or_change(path, 'bob', 'secret') is False
    assert lets_in(path, 'bob', 'secret')


def test_edit_follows_a_link(file, tmp_path):
    path = file(BEFORE)
    link = tmp_path / 'link'
    link.symlink_to(path)
    add_or_change(str(link), 'bobby', 'new')
    assert link.is_symlink() and lets_in(path, 'bobby', 'new')


@pytest.mark.parametrize('user, entry', [
    ('', 'x'), ('bob', ''), ('bob:x', 'y'), ('bob', 'x\ny'), ('bo\nb', 'x'), ('#bob', 'x'),
    (' bob', 'x'), ('bob', ' x'), ('bob', 'x\0'), ('bob', '$6$broken'),
])
def test_edit_refuses_what_a_file_cannot_hold(file, user, entry):
    path = file(BEFORE)
    with pytest.raises(ValueError):
        add_or_change(path, user, entry)
    assert Path(path).read_text() == BEFORE


def test_edit_failing_leaves_nothing(file, monkeypatch):
    def fail(*_):
        raise OSError('no')
    path = file(BEFORE)
    monkeypatch.setattr(os, 'rename', fail)
    with pytest.raises(OSError):
        add_or_change(path, 'bob', 'x')
    assert os.listdir(os.path.dirname(path)) == ['tofmipd']


def test_edit_names_the_file_that_could_not_be_changed(file, monkeypatch):
    def fail(*_):
        raise PermissionError(1, 'Operation not permitted')
    path = file(BEFORE)
    monkeypatch.setattr(os, 'fchmod', fail)
    with pytest.raises(PermissionError, match='tofmipd'):
        add_or_change(path, 'bob', 'x')
