# SPDX-License-Identifier: GPL-2.0-or-later
"""Real mail clients send through the daemon to a real Postfix; the tags that arrive are genuine.

swaks, msmtp, s-nail and curl each log in by each mechanism and send one message
to two recipients, for whom the filter has different tags.  Postfix delivers to
a Maildir; bin/tmda-check-address verifies the address found there.  The daemon
runs in personal mode, under an account without privileges and with its default
files.
"""
import email
import email.utils
import os
import pwd
import secrets
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from real.postfix import Postfix, free_port

TOP = Path(__file__).resolve().parents[2]
LOGIN, PASSWORD = 'bobby', '8i9/hjuy+33'
AUTHOR = 'bobby@example.org'
DATED, FRIEND = 'stranger@example.org', 'friend@example.org'
BODY = 'Hello.\n\n.A line that begins with a dot.\n'

CONFIG = '''\
MAIL_TRANSPORT = 'smtp'
SMTPHOST = '127.0.0.1:{port}'
'''
FILTER = f'''\
to {FRIEND} sender
to * dated=3d
'''

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason='Postfix needs root'),
    *(pytest.mark.skipif(shutil.which(name) is None, reason=f'{name} is not installed')
      for name in ('postfix', 'swaks', 'msmtp', 's-nail', 'curl')),
]


@pytest.fixture(scope='module')
def upstream():
    server = Postfix()
    try:
        server.start()
        yield server
    finally:
        server.stop()


def write_home(home, account, upstream_port):
    """All that TMDA wants of a user, in home/.tmda; it belongs to the account."""
    directory = home / '.tmda'
    (directory / 'filters').mkdir(parents=True)
    files = {
        directory / 'tofmipd': f'{LOGIN}:{PASSWORD}\n',
        directory / 'config': CONFIG.format(port=upstream_port),
        directory / 'filters/outgoing': FILTER,
        directory / 'crypt_key': secrets.token_hex(64) + '\n',
    }
    for path, text in files.items():
        path.write_text(text, encoding='ascii')
        path.chmod(0o600)
    for path in (home, directory, directory / 'filters', *files):
        os.chown(path, account.pw_uid, account.pw_gid)


def wait_until_it_listens(process, seconds=20):
    """Read the daemon's standard error up to the line that names the listener."""
    seen = b''
    end = time.monotonic() + seconds
    while b'Listening on' not in seen:
        ready = select.select([process.stderr], [], [], max(0, end - time.monotonic()))[0]
        chunk = os.read(process.stderr.fileno(), 4096) if ready else b''
        seen += chunk
        assert chunk, seen.decode()


@pytest.fixture(scope='module')
def daemon(upstream, unprivileged):
    account = pwd.getpwnam(unprivileged)
    identity = {'user': account.pw_uid, 'group': account.pw_gid, 'extra_groups': []}
    readable = [sys.executable, '-c', f'open({str(TOP / "bin/tmda-ofmipd")!r}).close()']
    try:
        subprocess.run(readable, check=True, stderr=subprocess.DEVNULL, cwd='/', **identity)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f'{unprivileged} cannot read this tree or run this Python: start tests/run')
    with tempfile.TemporaryDirectory(prefix='tmda-clients-') as home:
        write_home(Path(home), account, upstream.port)
        identity.update(cwd='/', env=dict(os.environ, HOME=home))
        port = free_port()
        command = [sys.executable, str(TOP / 'bin/tmda-ofmipd'), '-f', '-L',
                   '-p', f'127.0.0.1:{port}']
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              **identity) as process:
            try:
                wait_until_it_listens(process)
                yield SimpleNamespace(port=port, identity=identity)
            finally:
                process.terminate()
                log = process.communicate(timeout=60)[1].decode()
                print(log)
        assert process.returncode == 0, log
        assert PASSWORD not in log


def message(client):
    """The message that a client which composes none itself is to send."""
    return f'From: Bobby <{AUTHOR}>\nTo: {DATED}, {FRIEND}\nSubject: by {client}\n\n{BODY}'


def swaks(port, mechanism, directory):
    return ['swaks', '--server', f'127.0.0.1:{port}', '--from', AUTHOR,
            '--to', f'{DATED},{FRIEND}', '--auth', mechanism, '--auth-user', LOGIN,
            '--auth-password', PASSWORD, '--data', '-'], message('swaks')


def msmtp(port, mechanism, directory):
    return ['msmtp', f'--file={os.devnull}', '--host=127.0.0.1', f'--port={port}', '--tls=off',
            f'--auth={mechanism.lower()}', f'--user={LOGIN}', f'--passwordeval=echo {PASSWORD}',
            f'--from={AUTHOR}', DATED, FRIEND], message('msmtp')


def s_nail(port, mechanism, directory):
    settings = {
        'v15-compat': 'yes', 'mta': f'smtp://127.0.0.1:{port}', 'from': f'Bobby <{AUTHOR}>',
        'smtp-auth': {'PLAIN': 'plain', 'LOGIN': 'login', 'CRAM-MD5': 'cram-md5'}[mechanism],
        'user': LOGIN, 'password': PASSWORD, 'sendwait': 'yes',
    }
    options = [word for item in settings.items() for word in ('-S', '='.join(item))]
    return ['s-nail', '-:/', '-s', 'by s-nail', *options, DATED, FRIEND], BODY


def curl(port, mechanism, directory):
    file = directory / 'message'
    file.write_bytes(message('curl').replace('\n', '\r\n').encode())
    return ['curl', '--silent', '--show-error', '--upload-file', str(file),
            '--url', f'smtp://127.0.0.1:{port}', '--mail-from', AUTHOR,
            '--mail-rcpt', DATED, '--mail-rcpt', FRIEND,
            '--user', f'{LOGIN}:{PASSWORD}', '--login-options', f'AUTH={mechanism}'], ''


def verified(daemon, address, *sender):
    """What tmda-check-address prints for an address, run by the user; it must exit 0."""
    command = [sys.executable, str(TOP / 'bin/tmda-check-address'), address, *sender]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, check=False, **daemon.identity)
    assert run.returncode == 0, f'{address}: {run.stdout.decode()}'
    return run.stdout.decode()


@pytest.mark.parametrize('mechanism', ['PLAIN', 'LOGIN', 'CRAM-MD5'])
@pytest.mark.parametrize('client', [swaks, msmtp, s_nail, curl])
def test_client_sends_and_the_tag_verifies(client, mechanism, daemon, upstream, tmp_path):
    command, text = client(daemon.port, mechanism, tmp_path)
    run = subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, timeout=60, check=False)
    assert run.returncode == 0, run.stdout.decode()
    found = {}
    for content in upstream.messages(2):
        arrived = email.message_from_bytes(content)
        address = email.utils.parseaddr(arrived['From'])[1]
        assert arrived['Return-Path'] == f'<{address}>'
        assert arrived['Subject'] == f'by {client.__name__.replace("_", "-")}'
        assert arrived.get_payload().rstrip('\n') == BODY.rstrip('\n')
        found[arrived['X-Original-To']] = address
    assert set(found) == {DATED, FRIEND}
    assert found[DATED].startswith('bobby-dated-')
    assert 'EXPIRES: ' in verified(daemon, found[DATED])
    assert found[FRIEND].startswith('bobby-sender-')
    assert 'STATUS: VALID' in verified(daemon, found[FRIEND], FRIEND)


def test_client_with_wrong_password_sends_nothing(daemon, upstream, tmp_path):
    command, text = swaks(daemon.port, 'PLAIN', tmp_path)
    command[command.index(PASSWORD)] = 'wrong'
    run = subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, timeout=60, check=False)
    assert run.returncode != 0
    assert b'535 5.7.8' in run.stdout
    assert upstream.messages(0) == []
