# SPDX-License-Identifier: GPL-2.0-or-later
"""Completion in bash completes; that for zsh is a program for zsh."""
from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

DIRECTORY = Path(__file__).resolve().parents[2] / 'contrib' / 'completion'

COMPLETE = '''
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_tmda_ofmipd
printf '%s\\n' "${COMPREPLY[@]}"
'''


def completed(words, directory=None):
    """What bash would offer for the last of the words behind the program's name."""
    done = subprocess.run(['bash', '--norc', '-c', COMPLETE, 'bash',
                           str(DIRECTORY / 'tmda-ofmipd.bash'), 'tmda-ofmipd', *words],
                          cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False)
    return done.stdout.decode().split('\n')[:-1]


@pytest.mark.skipif(not shutil.which('bash'), reason='bash is not installed')
@pytest.mark.parametrize('words,expected', [
    (['--pro'], ['--proxyport', '--proxy-protocol']),
    (['--tls', ''], ['optional', 'localoptional', 'on']),
    (['--tls', '=', 'o'], ['optional', 'on']),
    (['--tls', '='], ['optional', 'localoptional', 'on']),
    (['-f', '--upstream-tls', 'w'], ['wrapper']),
    (['--name', 'C'], ['']),
    (['-u', 'roo'], ['root']),
    (['--no-such'], ['']),
])
def test_bash_completes(words, expected):
    assert completed(words) == expected


@pytest.mark.skipif(not shutil.which('bash'), reason='bash is not installed')
def test_bash_completes_names_of_files(tmp_path):
    (tmp_path / 'password-file').touch()
    assert completed(['--authfile', 'pass'], tmp_path) == ['password-file']


@pytest.mark.skipif(not shutil.which('zsh'), reason='zsh is not installed')
def test_zsh_can_read_it():
    done = subprocess.run(['zsh', '-f', '-n', str(DIRECTORY / '_tmda-ofmipd')],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert (done.returncode, done.stdout) == (0, b'')
