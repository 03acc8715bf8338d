# SPDX-License-Identifier: GPL-2.0-or-later
"""Built and installed as pip does it: what the archives hold, and what is there afterwards.

Nothing comes from the network: some interpreter of this machine must have setuptools, and wheel
or a setuptools that needs no wheel.  It builds; the interpreter that runs the tests installs.
"""
from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from TMDA import Version

TOP = Path(__file__).resolve().parents[2]
BUILD = '''
import sys
from setuptools import build_meta
directory = sys.argv[1]     # setuptools has arguments of its own there
build_meta.build_sdist(directory)
build_meta.build_wheel(directory)
'''
# What the first interpreter that has it is taken for.
NEEDED = '''
import setuptools
try:
    import setuptools.command.bdist_wheel
except ImportError:
    import wheel
'''
PROGRAMS = sorted(path.name for path in (TOP / 'bin').iterdir() if path.is_file())
DATA = 'tmda_ofmipd-%s.data/data/' % Version.VERSION
DOCUMENTATION = 'share/doc/tmda-ofmipd'
COMPLETIONS = {
    'completion/_tmda-ofmipd': 'share/zsh/site-functions/_tmda-ofmipd',
    'completion/tmda-ofmipd.bash': 'share/bash-completion/completions/tmda-ofmipd.bash',
}


def run(*command, directory, **keywords):
    """Run a command without the variables that the tests give to Python; its standard output."""
    environ = {name: value for name, value in os.environ.items()
               if not name.startswith(('PYTHON', 'COVERAGE', 'PIP_'))}
    done = subprocess.run([str(word) for word in command], cwd=directory, check=False,
                          env=dict(environ, PIP_CONFIG_FILE=os.devnull), text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **keywords)
    assert done.returncode == 0, done.stdout
    return done.stdout


def can_build(python):
    """Whether an interpreter has what a wheel is built with."""
    return shutil.which(python) and not subprocess.call(
        [python, '-I', '-c', NEEDED], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture(scope='module')
def builder():
    candidates = (sys.executable, os.path.join(sys.base_prefix, 'bin', 'python3'),
                  '/usr/bin/python3')
    found = next((python for python in candidates if can_build(python)), None)
    if not found:
        pytest.skip('no interpreter here has setuptools and wheel')
    return found


def copy_source(directory):
    """A copy of what belongs to a release."""
    return Path(shutil.copytree(TOP, directory, ignore=shutil.ignore_patterns(
        '.git', '.venv', '__pycache__', '.coverage', '.coverage.*', '*.egg-info', '/build',
        '/dist')))


@pytest.fixture(scope='module')
def built(builder, tmp_path_factory):
    """The directories `source`, and `archives` with an sdist and a wheel of it."""
    directory = tmp_path_factory.mktemp('built')
    source = copy_source(directory / 'source')
    run(builder, '-c', BUILD, directory / 'archives', directory=source)
    return directory


@pytest.fixture(scope='module')
def wheel(built):
    found, = (built / 'archives').glob('*.whl')
    return found


@pytest.fixture(scope='module')
def unpacked(built):
    """The sdist, unpacked."""
    archive, = (built / 'archives').glob('*.tar.gz')
    with tarfile.open(archive) as file:
        for member in file.getmembers():        # tarfile's own filters are those of Python 3.12
            assert not member.name.startswith('/') and '..' not in member.name
            assert member.isfile() or member.isdir()
            file.extract(member, built / 'unpacked', **(
                {'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}))
    found, = (built / 'unpacked').iterdir()
    return found


def files(directory):
    """Names of the files below a directory."""
    return {str(path.relative_to(directory)) for path in directory.rglob('*')
            if path.is_file() and '__pycache__' not in path.parts}


def test_sdist_has_every_file_of_the_release(built, unpacked):
    wanted = {name for name in ('COPYING', 'ChangeLog', 'NEWS', 'README.md', 'setup.py',
                                'pyproject.toml', 'MANIFEST.in', '.coveragerc')}
    for name in ('.ci', 'bin', 'contrib', 'debian', 'htdocs', 'lib', 'man', 'tests'):
        wanted |= {name + '/' + file for file in files(built / 'source' / name)
                   if '.egg-info' not in file}
    assert wanted - files(unpacked) == set()


def test_sdist_has_nothing_that_was_made(unpacked):
    made = {name for name in files(unpacked) if name.endswith(('.pyc', '.pyo'))}
    assert not made and not (unpacked / '.venv').exists() and not (unpacked / '.git').exists()


def test_sdist_builds_the_same_wheel(builder, unpacked, wheel, tmp_path):
    run(builder, '-c', BUILD, tmp_path, directory=unpacked)
    again, = tmp_path.glob('*.whl')
    assert contents(again) == contents(wheel)


def contents(archive):
    """Mode and content of each file in a wheel, the list of them excepted."""
    with zipfile.ZipFile(archive) as file:
        return {info.filename: (info.external_attr >> 16 & 0o777, file.read(info))
                for info in file.infolist() if not info.filename.endswith('/RECORD')}


def test_wheel_has_the_package_and_nothing_of_the_tests(built, wheel):
    names = set(contents(wheel))
    assert {name for name in names if name.startswith('TMDA/')} == {
        name for name in files(built / 'source' / 'lib')
        if name.startswith('TMDA/')}
    assert {name.partition('/')[0] for name in names} == {
        'TMDA', DATA.partition('/')[0], 'tmda_ofmipd-%s.dist-info' % Version.VERSION}


@pytest.fixture(scope='module')
def wanted(built):
    """Name below the prefix of each file that is not code, and the file in the source."""
    source = built / 'source'
    found = {'share/man/man%s/%s' % (path.suffix[1:], path.name): path
             for path in (source / 'man').iterdir()}
    for pattern in ('*.html', '*.css', '*.svg'):
        found.update(('%s/htdocs/%s' % (DOCUMENTATION, path.name), path)
                     for path in (source / 'htdocs').glob(pattern))
    for name in ('COPYING', 'NEWS', 'README.md'):
        found['%s/%s' % (DOCUMENTATION, name)] = source / name
    for name in files(source / 'contrib'):
        place = COMPLETIONS.get(name) or '%s/contrib/%s' % (DOCUMENTATION, name)
        found[place] = source / 'contrib' / name
    return found


def test_wheel_has_manual_pages_documentation_and_contributed_files(wheel, wanted):
    data = {name[len(DATA):]: content for name, content in contents(wheel).items()
            if name.startswith(DATA)}
    assert set(data) == set(wanted)
    for name, path in wanted.items():
        mode, content = data[name]
        assert content == path.read_bytes()
        assert bool(mode & 0o100) == os.access(path, os.X_OK), name


def test_documentation_refers_to_files_that_are_installed(built, wanted):
    for page in (built / 'source' / 'htdocs').glob('*.html'):
        for name in re.findall(r'href="\.\./([^"#]+)', page.read_text(encoding='utf-8')):
            assert '%s/%s' % (DOCUMENTATION, name) in wanted, '%s: %s' % (page.name, name)


# Installed into an empty environment

@pytest.fixture(scope='module')
def environment(wheel, tmp_path_factory):
    """A virtual environment that has the wheel and nothing else, and what it had before."""
    directory = tmp_path_factory.mktemp('installed')
    venv = directory / 'venv'
    try:
        run(sys.executable, '-m', 'venv', venv, directory=directory)
    except AssertionError as error:
        pytest.skip('python3 -m venv cannot install pip here: %s' % str(error).split('\n')[0])
    before = files(venv)
    run(venv / 'bin' / 'python', '-m', 'pip', 'install', '--no-index', wheel, directory=directory)
    return venv, before


@pytest.mark.parametrize('program', PROGRAMS)
def test_installed_program_starts(environment, program, tmp_path):
    venv, _ = environment
    assert Version.VERSION in run(venv / 'bin' / program, '--version', directory=tmp_path)


def test_installed_module_starts(environment, tmp_path):
    venv, _ = environment
    assert run(venv / 'bin' / 'python', '-m', 'TMDA.ofmipd', '--version',
               directory=tmp_path).startswith(Version.TMDA)


@pytest.mark.skipif(os.geteuid() == 0, reason='the demonstration is that of an ordinary account')
def test_installed_program_demonstrates_itself(environment, tmp_path):
    venv, _ = environment
    text = run(venv / 'bin' / 'tmda-ofmipd', '--demo', directory=tmp_path, timeout=60)
    assert 'All of this is as it should be.' in text


def test_installed_files_are_below_the_prefix(environment, wanted):
    venv, _ = environment
    for name, path in wanted.items():
        assert (venv / name).read_bytes() == path.read_bytes(), name


def test_installed_scripts_can_be_run(environment, wanted):
    venv, _ = environment
    for name, path in wanted.items():
        assert os.access(venv / name, os.X_OK) == os.access(path, os.X_OK), name


def test_uninstalled_nothing_stays(environment, wheel):
    venv, before = environment
    pip = (venv / 'bin' / 'python', '-m', 'pip')
    run(*pip, 'uninstall', '--yes', 'tmda-ofmipd', directory=venv)
    try:
        assert files(venv) == before
    finally:
        run(*pip, 'install', '--no-index', wheel, directory=venv)
