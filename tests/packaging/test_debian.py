# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian package: built here, installed into a clean Debian, started, used, and purged.

The clean Debian is a directory made by debootstrap, which needs a Debian mirror; it is kept as an
archive in CACHE for the next time.  It shares the network of this machine, so the daemon in it
sends to an upstream of the test.  No service manager runs there: what the unit's ExecStart says
is started by the test.
"""
from __future__ import annotations

import os
import re
import shlex
import shutil
import smtplib
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from TMDA import Version
from support import daemon
from support.upstream import Upstream

TOP = Path(__file__).resolve().parents[2]
CACHE = Path('/var/cache/tmda-ofmipd-tests')
SUITE = 'trixie'
NEEDED = 'adduser,python3'      # what the package depends on
PATH = '/usr/sbin:/usr/bin:/sbin:/bin'
ENVIRON = {'PATH': PATH, 'LANG': 'C.UTF-8', 'DEBIAN_FRONTEND': 'noninteractive',
           'PYTHONDONTWRITEBYTECODE': '1'}
# What may differ after a package was purged: the package manager's own records.
RECORDS = ('var/lib/dpkg/', 'var/log/', 'var/cache/', 'etc/passwd-', 'etc/group-', 'etc/shadow-',
           'etc/gshadow-', 'etc/subuid-', 'etc/subgid-', 'etc/.pwd.lock', 'run/')
ACCOUNT_FILES = ('etc/passwd', 'etc/group', 'etc/shadow', 'etc/gshadow')
PASSWORD = 'correct-horse'

pytestmark = [pytest.mark.root,
              pytest.mark.skipif(os.geteuid() != 0, reason='chroot needs root')]


def run(*command, **keywords):
    """Run a command that must succeed; what it prints."""
    words = [str(word) for word in command]
    keywords.setdefault('env', ENVIRON)
    if 'input' not in keywords:
        keywords['stdin'] = subprocess.DEVNULL
    done = subprocess.run(words, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, **keywords)
    assert done.returncode == 0, '%s\n%s' % (' '.join(words), done.stdout)
    return done.stdout


# What is there

def test_package_has_the_version_of_the_program():
    first = (TOP / 'debian' / 'changelog').read_text(encoding='utf-8').split('\n')[0]
    assert re.match(r'tmda-ofmipd \(%s-\d+\) ' % re.escape(Version.VERSION), first)


@pytest.fixture(scope='module')
def package(tmp_path_factory):
    """The package, built from a copy of the source."""
    if not shutil.which('dpkg-checkbuilddeps', path=PATH):
        pytest.skip('dpkg-dev is not installed')
    lacking = subprocess.run(['dpkg-checkbuilddeps', 'debian/control'], cwd=TOP, env=ENVIRON,
                             check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if lacking.returncode:
        pytest.skip(lacking.stderr.decode().strip())
    directory = tmp_path_factory.mktemp('debian')
    source = shutil.copytree(TOP, directory / 'source', ignore=shutil.ignore_patterns(
        '.git', '.venv', '__pycache__', '*.egg-info'))
    run('dpkg-buildpackage', '-us', '-uc', '-b', cwd=source)
    found, = directory.glob('*.deb')
    return found


def test_package_has_programs_manual_pages_and_documentation(package):
    listed = run('dpkg-deb', '-c', package)
    names = {line.split()[5].lstrip('.') for line in listed.splitlines()}
    wanted = {'/usr/bin/' + path.name for path in (TOP / 'bin').iterdir() if path.is_file()}
    wanted |= {'/usr/share/man/man%s/%s.gz' % (path.suffix[1:], path.name)
               for path in (TOP / 'man').iterdir()}
    wanted |= {'/usr/share/doc/tmda-ofmipd/htdocs/' + path.name
               for path in (TOP / 'htdocs').glob('*.html')}
    wanted |= {'/usr/share/doc/tmda-ofmipd/examples/' + str(path.relative_to(TOP / 'contrib'))
               for path in (TOP / 'contrib').rglob('*')
               if path.is_file() and path.parent.name != 'completion'}
    assert wanted - names == set()
    assert not any('/tests' in name for name in names)


# A clean Debian

def make_root(directory):
    """Fill a directory with the smallest Debian, from CACHE or by debootstrap."""
    archive = CACHE / (SUITE + '.tar')
    if archive.exists():
        run('tar', '-xpf', archive, '-C', directory, '--numeric-owner')
        return
    if not shutil.which('debootstrap', path=PATH):
        pytest.skip('debootstrap is not installed')
    made = subprocess.run(['debootstrap', '--variant=minbase', '--include=' + NEEDED, SUITE,
                           str(directory)], env=dict(os.environ, PATH=PATH), check=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if made.returncode:
        pytest.skip('debootstrap failed: ' + made.stdout.strip().split('\n')[-1])
    shutil.rmtree(directory / 'var/cache/apt/archives', ignore_errors=True)
    CACHE.mkdir(mode=0o755, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=CACHE, delete=False) as file:
        run('tar', '-cf', file.name, '-C', directory, '--numeric-owner', '.')
    os.replace(file.name, archive)


class Root:
    """A directory with a Debian in it."""

    def __init__(self, directory):
        self.path = directory
        self.before = None

    def command(self, *words):
        """The words that run a command in it, as root, with a /proc of its own."""
        return ['unshare', '--mount-proc', '--root', str(self.path), *words]

    def run(self, *command, **keywords):
        """Run a command in it; what it prints."""
        return run(*self.command(*command), **keywords)

    def files(self):
        """Names of all files, without the package manager's records."""
        names = (str(path.relative_to(self.path)) for path in self.path.rglob('*'))
        return {name for name in names if not name.startswith(RECORDS)}

    def accounts(self):
        """What the files say about accounts."""
        return [(self.path / name).read_text() for name in ACCOUNT_FILES]


@pytest.fixture(scope='module')
def clean_root():
    # Not in TMPDIR: that may be a file system that forbids devices.
    directory = Path(tempfile.mkdtemp(prefix='tmda-debian-', dir='/var/tmp'))
    try:
        directory.chmod(0o755)
        make_root(directory)
        yield Root(directory)
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope='module')
def root(clean_root, package):
    """The Debian with the package; `before` is what it was without."""
    before = clean_root.files(), clean_root.accounts()
    shutil.copy(package, clean_root.path / 'tmp')
    clean_root.run('dpkg', '-i', '/tmp/' + package.name)
    (clean_root.path / 'tmp' / package.name).unlink()
    clean_root.before = before
    return clean_root


def test_installation_makes_an_account_that_can_do_nothing(root):
    line, = re.findall(r'(?m)^tofmipd:.*$', (root.path / 'etc/passwd').read_text())
    name, _, uid, _, _, home, shell = line.split(':')
    assert 0 < int(uid) < 1000
    assert (home, shell) == ('/nonexistent', '/usr/sbin/nologin')


def unit(root, name='tofmipd.service'):
    """The text of an installed unit."""
    return (root.path / 'usr/lib/systemd/system' / name).read_text()


def test_service_is_not_enabled_by_the_installation(root):
    assert unit(root)
    assert not list((root.path / 'etc/systemd/system').glob('*.wants/tofmipd*'))


def test_programs_run_with_the_python_of_the_system(root):
    for path in (TOP / 'bin').iterdir():
        first = (root.path / 'usr/bin' / path.name).read_text().split('\n')[0]
        assert first.replace(' ', '') == '#!/usr/bin/python3'
        assert Version.VERSION in root.run(path.name, '--version')
    assert Version.VERSION in root.run('python3', '-m', 'TMDA.ofmipd', '--version')


class InstalledDaemon(daemon.Daemon):
    """What ExecStart says, in a root, on a free port of the loopback interface."""

    def __init__(self, root):
        self.status = 0
        self.lines = []
        self.process = subprocess.Popen(
            root.command(*start_command(unit(root))), stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE, env={'PATH': PATH})
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait_for('event=started')
        self.ports = [int(line.rpartition(':')[2]) for line in self.lines
                      if line.startswith('\tListening on ')]


def start_command(text):
    """The words of ExecStart, with a port that is free."""
    words = shlex.split(re.search(r'(?m)^ExecStart=[-@+!]*(.*)$', text)[1])
    return [word for word in words if '$' not in word] + ['-p', '127.0.0.1:0']


@pytest.fixture
def chloe(root):
    """An account in the root, which is removed afterwards."""
    root.run('useradd', '--create-home', 'chloe')
    yield 'chloe'
    root.run('userdel', '--remove', 'chloe')
    (root.path / 'etc/tofmipd').unlink()


def test_service_sends_a_message_of_a_user(root, chloe):
    with Upstream() as upstream:
        root.run('tmda-ofmipd', '--password', chloe, input=PASSWORD + '\n')
        root.run('setpriv', '--reuid', chloe, '--regid', chloe, '--init-groups', 'env',
                 'HOME=/home/chloe', 'tmda-ofmipd', '--setup', '--name', 'Chloe Example',
                 '--address', 'chloe@example.net', '--upstream-tls', 'none',
                 '--upstream', '127.0.0.1:%d' % upstream.port)
        assert '0 errors' in root.run('tmda-ofmipd', '--check')
        with InstalledDaemon(root) as running:
            with smtplib.SMTP('127.0.0.1', running.ports[0]) as client:
                client.login(chloe, PASSWORD)
                client.sendmail('chloe@example.net', ['bob@example.org'],
                                'From: chloe@example.net\r\nSubject: Hi\r\n\r\nHello\r\n')
        sent, = upstream.messages
    assert sent.recipients == ['bob@example.org']
    assert re.fullmatch(r'chloe-dated-\d+\.[0-9a-f]{6}@example\.net', sent.mail_from)
    assert sent.data.endswith(b'\r\n\r\nHello\r\n')


def test_purged_package_leaves_nothing(root):
    """The last test: the package is gone after it."""
    root.run('dpkg', '-r', 'tmda-ofmipd')
    assert 'tofmipd:' in root.accounts()[0]
    root.run('dpkg', '-P', 'tmda-ofmipd')
    assert (root.files(), root.accounts()) == root.before
