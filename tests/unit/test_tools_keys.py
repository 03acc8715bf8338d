# SPDX-License-Identifier: GPL-2.0-or-later
"""tmda-keygen, tmda-address, tmda-check-address: in this process, and as programs."""
from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from TMDA import Version
from TMDA.tools import address, check_address, keygen

BIN = Path(__file__).resolve().parents[2] / 'bin'
TOOLS = {'keygen': keygen, 'address': address, 'check-address': check_address}
NOW = 1732252800


@pytest.fixture(name='home')
def fixture_home(tmp_path, monkeypatch):
    """A home with configuration and key, and an environment that leads to it alone."""
    data = tmp_path / '.tmda'
    data.mkdir()
    (data / 'config').write_text('USERNAME = "alice"\nHOSTNAME = "example.net"\n')
    (data / 'crypt_key').write_text('0123456789abcdef0123456789abcdef01234567')
    (data / 'crypt_key').chmod(0o600)
    for name in ('TMDARC', 'TMDA_TIMEOUT', 'TMDA_FILTER_OUTGOING'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('GLOBAL_TMDARC', os.devnull)
    monkeypatch.setattr(time, 'time', lambda: NOW)
    return tmp_path


@pytest.fixture(name='run')
def fixture_run(home, capsys):
    """A function that runs a tool with arguments: (status, output, errors)."""
    def run(tool, *arguments):
        try:
            status = TOOLS[tool].main(arguments)
        except SystemExit as end:
            status = end.code
        return (status, *capsys.readouterr())
    return run


# What all have in common

@pytest.mark.parametrize('tool', TOOLS)
def test_common_version(run, tool):
    assert run(tool, '--version') == (0, Version.TMDA + '\n', '')
    status, output, _ = run(tool, '-V')
    assert status == 0
    assert output.startswith(Version.TMDA + '\nPython ') and 'SSL' in output


@pytest.mark.parametrize('tool', TOOLS)
def test_common_help(run, tool):
    status, output, _ = run(tool, '-h')
    assert status == 0
    assert output.startswith(f'usage: tmda-{tool} ')


@pytest.mark.parametrize('tool, arguments', [
    ('keygen', ['-x']), ('keygen', ['extra']), ('keygen', ['-b', '--write']),
    ('address', ['-k']), ('address', ['-k', 'a', '-s', 'b']), ('address', ['-d', '-k', 'a']),
    ('address', ['-t', 'soon']), ('address', ['-k', 'a', '-t', '5d']),
    ('address', ['-a', 'alice']),
    ('address', ['extra']), ('address', ['--time', '5d']),
    ('check-address', []), ('check-address', ['a@b', 'c@d', 'e']), ('check-address', ['alice']),
])
def test_common_bad_usage(run, tool, arguments):
    status, output, errors = run(tool, *arguments)
    assert (status, output) == (64, '')
    assert re.fullmatch(rf'tmda-{tool}: .+\n', errors)


@pytest.mark.parametrize('tool, arguments', [
    ('keygen', []), ('keygen', ['--write']), ('address', []), ('check-address', ['a@b']),
])
@pytest.mark.parametrize('trouble', ['syntax', 'value', 'mode', 'missing'])
def test_common_configuration_error(run, home, tool, arguments, trouble):
    config = home / 'other'
    if trouble != 'missing':
        config.write_text('A = (' if trouble == 'syntax' else 'HMAC_BYTES = 0')
        config.chmod(0o666 if trouble == 'mode' else 0o600)
    status, output, errors = run(tool, '-c', str(config), *arguments)
    assert (status, output) == (78, '')
    assert re.fullmatch(rf'tmda-{tool}: {config}.+\n', errors)


def test_common_other_configuration(run, home):
    (home / 'other').write_text('USERNAME = "bob"\nHOSTNAME = "example.org"\n')
    status, output, _ = run('address', '-c', str(home / 'other'))
    assert status == 0
    assert output.startswith('bob-dated-')


@pytest.mark.parametrize('tool', TOOLS)
def test_common_program_runs(home, tmp_path_factory, tool):
    # From another directory and through a link, without PYTHONPATH.
    link = tmp_path_factory.mktemp('link') / 'tool'
    link.symlink_to(BIN / f'tmda-{tool}')
    environ = {'HOME': str(home), 'PATH': os.environ['PATH'], 'PYTHONDONTWRITEBYTECODE': '1'}
    done = subprocess.run([sys.executable, '-W', 'error', str(link), '--version'], cwd='/',
                          env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, Version.TMDA + '\n', b'')


def test_common_program_exit_status(home):
    environ = {'HOME': str(home), 'PATH': os.environ['PATH'], 'GLOBAL_TMDARC': os.devnull,
               'PYTHONDONTWRITEBYTECODE': '1'}
    command = [sys.executable, str(BIN / 'tmda-check-address'), 'alice@example.net']
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (
        1, b'STATUS: No cryptographic information in address.\n')


# tmda-keygen

def test_keygen_bare(run):
    first, second = run('keygen', '-b'), run('keygen', '-b')
    assert first[0] == 0
    assert re.fullmatch('[0-9a-f]{128}\n', first[1])
    assert first[1] != second[1]


def test_keygen_bare_needs_no_configuration(run, home):
    (home / '.tmda' / 'config').write_text('A = (')
    assert run('keygen', '-b')[0] == 0


def test_keygen_says_where_it_goes(run, home):
    status, output, _ = run('keygen')
    assert status == 0
    assert re.match('[0-9a-f]{128}\n', output)
    assert f'chmod 600 {home}/.tmda/crypt_key' in output


def test_keygen_write(run, home):
    (home / '.tmda' / 'config').write_text('DATADIR = "~/data/deep"')
    before = os.umask(0)
    try:
        assert run('keygen', '--write') == (0, f'{home}/data/deep/crypt_key: new key\n', '')
    finally:
        os.umask(before)
    key = home / 'data' / 'deep' / 'crypt_key'
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert re.fullmatch('[0-9a-f]{128}\n', key.read_text())
    assert run('address')[0] == 0


def test_keygen_write_under_any_umask(run, home):
    (home / '.tmda' / 'crypt_key').unlink()
    before = os.umask(0o777)
    try:
        assert run('keygen', '--write')[0] == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((home / '.tmda' / 'crypt_key').stat().st_mode) == 0o600


@pytest.mark.parametrize('link', [False, True])
def test_keygen_write_never_overwrites(run, home, link):
    key = home / '.tmda' / 'crypt_key'
    text = key.read_text()
    if link:
        key.unlink()
        key.symlink_to(home / 'elsewhere')
    status, output, errors = run('keygen', '--write')
    assert (status, output) == (73, '')
    assert errors == f'tmda-keygen: {key} exists; it was left alone\n'
    assert not (home / 'elsewhere').exists()
    assert link or key.read_text() == text


def test_keygen_write_cannot(run, home):
    (home / '.tmda' / 'config').write_text('CRYPT_KEY_FILE = "~/.tmda/config/key"')
    status, _, errors = run('keygen', '--write')
    assert status == 73
    assert re.fullmatch(r'tmda-keygen: .*config/key.*\n', errors)


def test_keygen_write_leaves_no_half_key(run, home, monkeypatch):
    (home / '.tmda' / 'crypt_key').unlink()

    def full(descriptor):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'fsync', full)
    status, _, errors = run('keygen', '--write')
    assert status == 73
    assert errors.endswith('No space left on device\n')
    assert not (home / '.tmda' / 'crypt_key').exists()


# tmda-address

@pytest.mark.parametrize('arguments, expected', [
    ([], 'alice-dated-1732684800.621a29@example.net\n'),
    (['-d'], 'alice-dated-1732684800.621a29@example.net\n'),
    (['-t', '1d'], 'alice-dated-1732339200.ded17d@example.net\n'),
    (['-d', '-t', '1h', '-n'], 'alice-dated-1732256400.1c8905@example.net'),
    (['-a', 'Alice@Example.NET', '-t1d'], 'alice-dated-1732339200.ded17d@example.net\n'),
    (['-k', 'PromoCode'], 'alice-keyword-promocode.df52d1@example.net\n'),
    (['-k', ''], 'alice-keyword-.f4ce68@example.net\n'),
    (['-s', 'bob@example.org'], 'alice-sender-36e005@example.net\n'),
    (['-s', 'Example.org', '-a', 'bob@b.example'], 'bob-sender-71f715@b.example\n'),
])
def test_address(run, arguments, expected):
    assert run('address', *arguments) == (0, expected, '')


# tmda-check-address

@pytest.mark.parametrize('arguments, status, expected', [
    (['alice-dated-1732684800.621a29@example.net'], 0,
     'STATUS: VALID\nEXPIRES: Wed Nov 27 05:20:00 2024 UTC\n'),
    (['alice-dated-1732252799.28e01a@example.net'], 1,
     'STATUS: Dated address has expired.\nEXPIRED: Fri Nov 22 05:19:59 2024 UTC\n'),
    (['alice-dated-1732684800.621a20@example.net'], 1, 'STATUS: Invalid cryptographic tag.\n'),
    (['alice-sender-36e005@example.net', 'bob@example.org'], 0, 'STATUS: VALID\n'),
    (['alice-sender-36e005@example.net', 'eve@example.org'], 1,
     'STATUS: Invalid cryptographic tag.\n'),
    (['alice-sender-36e005@example.net'], 1,
     'STATUS: Sender addresses are verified together with the sender.\n'),
    (['alice-keyword-promo.b3eebd@example.net'], 0, 'STATUS: VALID\n'),
    (['alice@example.net'], 1, 'STATUS: No cryptographic information in address.\n'),
])
def test_check_address(run, arguments, status, expected):
    assert run('check-address', *arguments) == (status, expected, '')


def test_check_address_local_time(run, monkeypatch):
    monkeypatch.setenv('TZ', 'XYZ-3')
    time.tzset()
    try:
        _, output, _ = run('check-address', '-l', 'alice-dated-1732684800.621a29@example.net')
    finally:
        monkeypatch.undo()
        time.tzset()
    assert output == 'STATUS: VALID\nEXPIRES: Wed Nov 27 08:20:00 2024 XYZ\n'


def test_check_address_beyond_the_calendar(run):
    _, made, _ = run('address', '-t', '9999999999Y')
    status, output, _ = run('check-address', made.strip())
    assert status == 0
    assert output.endswith('EXPIRES: 315360001700716800 seconds after 1970\n')
