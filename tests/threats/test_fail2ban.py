# SPDX-License-Identifier: GPL-2.0-or-later
"""contrib/fail2ban: Debian's fail2ban-regex finds who guesses, in lines that the program wrote."""
import base64
import configparser
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from support.daemon import Daemon, make_home, needs_account
from TMDA.ofmipd.logs import FileSink, Log

FOLDER = Path(__file__).resolve().parents[2] / 'contrib' / 'fail2ban'
FILTER = FOLDER / 'filter.d' / 'tmda-ofmipd.conf'
INJECTED = 'x" event=login-failed session=ab client=198.51.100.99 user="y'

# It is a Python program itself, which what tests/run asks of Python does not concern.
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith('PYTHON')}

needs_fail2ban = pytest.mark.skipif(shutil.which('fail2ban-regex') is None,
                                    reason='fail2ban is not installed')


def banned(log):
    """The addresses that the filter finds in a file."""
    run = subprocess.run(['fail2ban-regex', '-o', 'ip', str(log), str(FILTER)], check=False,
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, env=ENVIRON)
    text = run.stdout.decode()
    assert run.returncode == 0, text
    return text.split()


@pytest.fixture
def log(tmp_path):
    """Log lines of several events, as the program writes them; (Log, path)."""
    path = tmp_path / 'log'
    sink = FileSink(str(path))
    yield Log(sink, events=True), path
    sink.close()


@needs_fail2ban
def test_fail2ban_finds_failed_logins(log):
    writer, path = log
    for address in ('192.0.2.7', '2001:db8::7'):
        writer.event('login-failed', '1f2e3d4c', address, 'bobby', mechanism='PLAIN', cause='no')
    writer.event('login-failed', '1f2e3d4c', '192.0.2.8', '', mechanism='PLAIN')
    assert banned(path) == ['192.0.2.7', '2001:db8::7', '192.0.2.8']


@needs_fail2ban
def test_fail2ban_finds_nobody_else(log):
    writer, path = log
    for event in ('login', 'login-unsure', 'connect', 'disconnect', 'message', 'session-failed'):
        writer.event(event, '1f2e3d4c', '192.0.2.7', 'bobby', cause='login-failed')
    writer.event('login-failed', '1f2e3d4c', '', 'bobby', mechanism='PLAIN')  # nobody knows who
    assert banned(path) == []


@needs_fail2ban
@pytest.mark.parametrize('user', [
    INJECTED, 'event=login-failed session=ab client=198.51.100.99 ', '198.51.100.99', 'ünal',
    'x\n2026-01-01T00:00:00+0000 event=login-failed session=ab client=198.51.100.99 user=y',
    'x client=198.51.100.99', '" client=198.51.100.99 user="'])
def test_fail2ban_is_not_deceived_by_the_user_name(log, user):
    writer, path = log
    writer.event('login-failed', '1f2e3d4c', '192.0.2.7', user, mechanism='PLAIN', cause=user)
    writer.event('message', '1f2e3d4c', '192.0.2.9', user, sender=user, reply=user)
    assert banned(path) == ['192.0.2.7']


@needs_fail2ban
def test_fail2ban_reads_syslog(log, tmp_path):
    writer, path = log
    writer.event('login-failed', '1f2e3d4c', '192.0.2.7', 'bobby', mechanism='PLAIN')
    event = path.read_text().partition(' ')[2]
    stamp = time.strftime('%b %d %H:%M:%S')
    other = tmp_path / 'mail.log'
    other.write_text('%s mail tmda-ofmipd[1234]: %s%s mail other[1]: %s' % (
        stamp, event, stamp, event.replace('192.0.2.7', '192.0.2.8')))
    assert banned(other) == ['192.0.2.7']


@needs_account
@needs_fail2ban
def test_fail2ban_finds_who_guesses_at_the_program(tmp_path):
    log = tmp_path / 'log'
    with Daemon(make_home(tmp_path)) as daemon, daemon.connect() as talk:
        talk.reply()
        talk.ask('EHLO x')
        secret = base64.b64encode(b'\0%s\0wrong' % INJECTED.encode()).decode()
        assert talk.ask('AUTH PLAIN ' + secret).startswith('535')
        daemon.wait_for('event=login-failed')
        log.write_text('\n'.join(daemon.events('login-failed')) + '\n')
    assert banned(log) == ['127.0.0.1']


def test_jail_names_the_filter():
    jail = configparser.ConfigParser()
    jail.read(FOLDER / 'jail.d' / 'tmda-ofmipd.conf')
    settings = jail['tmda-ofmipd']
    assert (FOLDER / 'filter.d' / (settings['filter'] + '.conf')).is_file()
    assert settings['backend'] == 'systemd'
    assert re.fullmatch(r'journalmatch = _SYSTEMD_UNIT=tofmipd\.service',
                        next(line for line in FILTER.read_text().split('\n')
                             if line.startswith('journalmatch')))
