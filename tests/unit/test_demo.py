"""--demo: the README's first command, as any account and as root."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import wait_for

TOP = Path(__file__).resolve().parents[2]


def demo(top, *options, **environ):
    variables = dict(PATH=os.environ['PATH'], PYTHONDONTWRITEBYTECODE='1', **environ)
    return subprocess.run([sys.executable, '-W', 'error', str(top / 'bin/tmda-ofmipd'), '--demo', *options],
                          env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
                          check=False, text=True, cwd='/')


def check(done):
    assert (done.returncode, done.stderr) == (0, '')
    for tag in ('tag: keyword, valid\n', 'tag: sender, valid\n', 'tag: dated, valid until ',
                'tag: none, as the rule says\n'):
        assert done.stdout.count(tag) == 1
    assert 'answer to the client: 550 5.1.1 No such user here' in done.stdout
    assert done.stdout.endswith('All of this is as it should be.\n')


def test_demo_shows_four_tags_and_a_refusal(tmp_path):
    check(demo(TOP, HOME=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_demo_needs_no_home():
    check(demo(TOP, HOME='/nonexistent'))


def test_demo_leaves_no_files_behind(tmp_path):
    check(demo(TOP, HOME='/nonexistent', TMPDIR=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_demo_that_is_wrong_says_so(tmp_path):
    shutil.copytree(TOP / 'bin', tmp_path / 'bin')
    shutil.copytree(TOP / 'lib', tmp_path / 'lib', ignore=shutil.ignore_patterns('__pycache__'))
    actions = tmp_path / 'lib/TMDA/inject/actions.py'
    actions.write_text(actions.read_text().replace(
        "'sender': _sender", "'sender': lambda *unused: 'mallory@example.net'"))
    done = demo(tmp_path, HOME='/nonexistent')
    assert done.returncode == 1
    assert 'the demonstration failed: ' in done.stderr and 'should have a sender tag' in done.stderr


def test_demo_keep_listens_until_it_is_ended(tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(TOP / 'bin/tmda-ofmipd'), '--demo', '--keep'], stdout=subprocess.PIPE,
        env=dict(PATH=os.environ['PATH'], HOME='/nonexistent', TMPDIR=str(tmp_path),
                 PYTHONDONTWRITEBYTECODE='1'), text=True)
    try:
        said = ''
        while 'what the upstream server would get' not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        port, password = re.search(r'port +(\d+)\n.*\n.*\n +password +(\S+)', said).groups()
        import smtplib
        with smtplib.SMTP('127.0.0.1', int(port), timeout=20) as client:
            client.login('alice', password)
            client.sendmail('alice@example.net', ['bob@example.org'], 'Subject: x\r\n\r\nHello\r\n')
        wait_for(lambda: 'MAIL FROM:<alice-sender-' in process.stdout.readline(), 20)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.root
def test_demo_as_root_from_a_checkout_that_only_root_can_read(tmp_path):
    os.chmod(tmp_path, 0o700)
    shutil.copytree(TOP / 'bin', tmp_path / 'p/bin')
    shutil.copytree(TOP / 'lib', tmp_path / 'p/lib', ignore=shutil.ignore_patterns('__pycache__'))
    os.chmod(tmp_path / 'p', 0o700)
    check(demo(tmp_path / 'p', HOME='/root'))


@pytest.mark.root
def test_demo_as_root_gives_up_being_root(tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(TOP / 'bin/tmda-ofmipd'), '--demo', '--keep'], stdout=subprocess.PIPE,
        env=dict(PATH=os.environ['PATH'], PYTHONDONTWRITEBYTECODE='1'), text=True)
    try:
        while 'port ' not in process.stdout.readline():
            pass
        status = Path('/proc/%d/status' % process.pid).read_text()
        for name in ('Uid', 'Gid'):
            assert '0' not in re.search(r'%s:\t(.*)' % name, status).group(1).split()
        assert re.search(r'Groups:\t *\n', status)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
