# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs in bin/: they find the package, from wherever and by whatever name they start."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from TMDA import Version

TOP = Path(__file__).resolve().parents[2]
PROGRAMS = sorted(path.name for path in (TOP / 'bin').iterdir() if path.is_file())


def output(command, directory, **variables):
    """What a command prints to standard output; it must exit 0 and complain of nothing."""
    run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, timeout=60, check=False, cwd=str(directory),
                         env=dict(os.environ, **variables))
    assert (run.returncode, run.stderr.decode()) == (0, '')
    return run.stdout.decode()


@pytest.mark.parametrize('program', PROGRAMS)
def test_program_starts_from_elsewhere(program, tmp_path):
    command = [sys.executable, str(TOP / 'bin' / program), '--version']
    assert Version.VERSION in output(command, tmp_path)


def test_program_starts_through_a_symbolic_link(tmp_path):
    (tmp_path / 'proxy').symlink_to(TOP / 'bin/tmda-ofmipd')
    assert Version.VERSION in output([sys.executable, 'proxy', '--version'], tmp_path)


@pytest.mark.parametrize('program', PROGRAMS)
def test_program_is_executable_and_python_3(program):
    path = TOP / 'bin' / program
    assert os.access(path, os.X_OK)
    assert path.read_text(encoding='utf-8').startswith('#!/usr/bin/env python3\n')


def test_package_runs_as_a_module(tmp_path):
    path = os.pathsep.join(filter(None, [str(TOP / 'lib'), os.environ.get('PYTHONPATH')]))
    command = [sys.executable, '-m', 'TMDA.ofmipd', '--version']
    assert Version.VERSION in output(command, tmp_path, PYTHONPATH=path)


def test_setup_installs_every_program():
    listed = re.findall(r"'bin/([\w-]+)'", (TOP / 'setup.py').read_text(encoding='utf-8'))
    assert sorted(listed) == PROGRAMS


def test_setup_installs_every_package():
    text = (TOP / 'setup.py').read_text(encoding='utf-8')
    listed = re.search(r'packages=\[(.*?)\]', text).group(1)
    there = {'.'.join(path.parent.relative_to(TOP / 'lib').parts)
             for path in (TOP / 'lib').rglob('*.py')}
    assert set(re.findall(r"'([\w.]+)'", listed)) == there
