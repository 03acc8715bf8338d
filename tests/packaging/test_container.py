# SPDX-License-Identifier: GPL-2.0-or-later
"""contrib/Containerfile: no engine builds it here, but what it refers to is there and correct."""
from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from TMDA.ofmipd import options

TOP = Path(__file__).resolve().parents[2]
TEXT = (TOP / 'contrib' / 'Containerfile').read_text(encoding='utf-8')
KNOWN = {'FROM', 'RUN', 'COPY', 'USER', 'WORKDIR', 'VOLUME', 'EXPOSE', 'ENTRYPOINT', 'CMD'}


def instructions():
    """Pairs of an instruction and its argument, in order."""
    lines = [line for line in TEXT.replace('\\\n', ' ').split('\n')
             if line.strip() and not line.startswith('#')]
    return [tuple(line.split(None, 1)) for line in lines]


def arguments(name):
    """The arguments of all instructions of a name."""
    return [argument for word, argument in instructions() if word == name]


def examples():
    """What the comment gives to tmda-ofmipd, behind the name of the image, as lists of words."""
    comment = re.sub(r'(?m)^#  *|^#', '', TEXT.partition('\nFROM')[0]).replace('\\\n', ' ')
    return [shlex.split(found[1]) for found in
            re.finditer(r'(?m)^podman run .* tmda-ofmipd (.*)$', comment)]


def test_every_instruction_is_known():
    words = [word for word, _ in instructions()]
    assert words[0] == 'FROM' and set(words) <= KNOWN


def test_copied_files_are_there():
    for argument in arguments('COPY'):
        source, target = argument.split()
        assert (TOP / source).exists() and target.startswith('/')


@pytest.mark.skipif(not shutil.which('sh'), reason='no sh')
@pytest.mark.parametrize('command', arguments('RUN'))
def test_command_is_one_for_a_shell(command):
    assert subprocess.run(['sh', '-n', '-c', command], check=False).returncode == 0


def test_program_is_one_that_is_copied():
    program = json.loads(arguments('ENTRYPOINT')[0])[0]
    copied = dict(argument.split()[::-1] for argument in arguments('COPY'))
    directory, _, name = program.rpartition('/')
    assert (TOP / copied[directory] / name).is_file()


def test_daemon_is_started_with_options_that_it_knows():
    _, *always = json.loads(arguments('ENTRYPOINT')[0])
    given = options.parse(always + json.loads(arguments('CMD')[0]))
    assert [spec.port for spec in given.listeners] == [int(arguments('EXPOSE')[0])]
    assert not given.background


def test_examples_have_options_that_the_daemon_knows():
    _, *always = json.loads(arguments('ENTRYPOINT')[0])
    assert len(examples()) == 2
    for example in examples():
        assert options.parse(always + example).listeners


def test_daemon_runs_under_an_account_that_is_made():
    account, = arguments('USER')
    made = re.search(r'useradd .*--uid (\d+) (\w+)', arguments('RUN')[0])
    assert made[2] == account
    assert all('uid=' + made[1] in line for line in re.findall(r'--userns=\S+', TEXT))
    assert arguments('VOLUME') == ['/home/%s/.tmda' % account]
