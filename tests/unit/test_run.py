# SPDX-License-Identifier: GPL-2.0-or-later
"""tests/run: what it concludes from two runs of pytest, and what it hands on to them."""
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest


@pytest.fixture(scope='module')
def run():
    loader = SourceFileLoader('tests_run', str(Path(__file__).resolve().parents[1] / 'run'))
    module = module_from_spec(spec_from_loader('tests_run', loader))
    loader.exec_module(module)
    return module


@pytest.mark.parametrize('statuses, expected', [
    ([0, 0], 0),
    ([0, 5], 0),
    ([5, 0], 0),
    ([5, 5], 5),
    ([1, 0], 1),
    ([0, 1], 1),
    ([5, 2], 2),
    ([0, -9], -9),
])
def test_exit_status_of_both_runs(run, statuses, expected):
    assert run.exit_status(statuses) == expected


@pytest.mark.parametrize('counts, expected', [
    ([{'passed': 3}], '3 passed in 1.50s'),
    ([{'passed': 3, 'failed': 1}, {'passed': 2}], '1 failed, 5 passed in 1.50s'),
    ([{'passed': 3, 'error': 1}, {'error': 1}], '3 passed, 2 errors in 1.50s'),
    ([{'skipped': 1, 'error': 1}], '1 skipped, 1 error in 1.50s'),
    ([], 'no tests ran in 1.50s'),
])
def test_closing_line_adds_up(run, counts, expected):
    assert run.closing_line(counts, 1.5).strip('= ') == expected


@pytest.mark.parametrize('arguments, expected', [
    (['-W', 'error'], 'error'),
    (['-Werror', '-q', '-W', 'ignore::UserWarning'], 'error,ignore::UserWarning'),
    (['-k', 'a-Wb'], None),
])
def test_environment_hands_warnings_on(run, tmp_path, arguments, expected):
    made = run.environment(tmp_path, Path('/python'), 'account', arguments)
    assert made.get('PYTHONWARNINGS') == expected


def test_environment_keeps_nothing_of_the_caller(run, tmp_path, monkeypatch):
    monkeypatch.setenv('PYTHONPATH', '/elsewhere')
    monkeypatch.setenv('TMDARC', '/elsewhere')
    made = run.environment(tmp_path, Path('/python'), 'account', [])
    assert not {'PYTHONPATH', 'TMDARC'} & set(made)
    assert made['HOME'].startswith(str(tmp_path))


def test_interpreter_copy_finds_its_own_library(run, tmp_path, monkeypatch):
    base = tmp_path / 'base'
    (base / 'bin').mkdir(parents=True)
    (base / 'lib/site-packages').mkdir(parents=True)
    (base / 'lib/os.py').touch()
    executable = base / 'bin' / f'python{run.VERSION}'
    executable.write_bytes(b'ELF\0' + bytes(base / 'lib') + b'\0.')
    monkeypatch.setattr(run.sys, 'base_prefix', str(base))
    copy = run.copy_interpreter(tmp_path / 'copy')
    assert sorted(path.name for path in (tmp_path / 'copy/lib').iterdir()) == ['os.py']
    assert copy.read_bytes().startswith(b'ELF\0$ORIGIN/../lib\0')
    assert copy.stat().st_size == executable.stat().st_size
    assert bytes(base) in executable.read_bytes()
