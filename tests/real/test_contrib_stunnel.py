# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of contrib/ofmipd-stunnel-* at work, with other paths, ports and accounts.

install() replaces what has to differ on a machine where a test may not be root, and nothing else.
"""
from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from real.launchers import (CLIENT, Launched, connect, own_name, received, run_xinetd,
                            skip_without, submit, variables)
from real.postfix import free_port
from real.servers import PATH, listening
from support import wait_for
from support.daemon import PROGRAM, needs_account
from support.proxy import write_home
from support.talk import CERTIFICATE, KEY
from support.upstream import Upstream

CONTRIB = Path(__file__).resolve().parents[2] / 'contrib'

pytestmark = needs_account


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield server


@pytest.fixture
def home(tmp_path, upstream):
    """A home, with a directory that stands for /etc/tmda-ofmipd and a tmda-ofmipd that logs."""
    etc = tmp_path / 'etc'
    etc.mkdir()
    shutil.copy(CERTIFICATE, etc / 'cert.pem')
    shutil.copy(KEY, etc / 'key.pem')
    (etc / 'key.pem').chmod(0o600)
    script = tmp_path / 'tmda-ofmipd'
    script.write_text('#!/bin/sh\nexec env %s "$@" --log-file=%s/log\n' % (
        shlex.join([*variables(tmp_path), sys.executable, PROGRAM]), tmp_path))
    script.chmod(0o755)
    return write_home(tmp_path, upstream.port)


def install(home, name, *substitutes):
    """Copy a file of contrib to home/etc with each (old, new) replaced; the new file."""
    source = CONTRIB / name
    text = source.read_text()
    for old, new in substitutes:
        assert old in text, '%s: no %s' % (name, old)
        text = text.replace(old, new)
    text = text.replace('/etc/tmda-ofmipd', str(home / 'etc'))
    text = text.replace('/usr/local/bin/tmda-ofmipd', str(home / 'tmda-ofmipd'))
    target = home / 'etc' / source.name
    target.write_text(text)
    shutil.copymode(source, target)
    return target


def test_xinetd_stunnel(home, upstream):
    skip_without('xinetd', 'stunnel')
    port = free_port()
    directory = 'ofmipd-stunnel-xinetd/'
    install(home, directory + 'stunnel-wrapper',
            ('/usr/bin/stunnel', shutil.which('stunnel', path=PATH)))
    install(home, directory + 'stunnel.conf')
    install(home, directory + 'tmda-ofmipd-wrapper',
            ('/etc/tofmipd', str(home / '.tmda' / 'tofmipd')))
    service = install(home, directory + 'tmda-ofmipd.xinetd', ('= 465', '= %d' % port),
                      ('= root', '= ' + own_name()))
    with Launched(run_xinetd(home, service.read_text()), port, home):
        with connect(port, tls=True) as client:
            submit(client)
    message, = upstream.messages
    assert received(message).startswith('from client.example (unknown [%s]) by ' % CLIENT)
    assert 'client=%s' % CLIENT in (home / 'log').read_text()


def test_stunnel_before_a_daemon(home, upstream):
    skip_without('stunnel')
    port, inner = free_port(), free_port()
    directory = 'ofmipd-stunnel-daemons/'
    settings = install(home, directory + 'stunnel.conf', (':::465', '127.0.0.1:%d' % port),
                       ('127.0.0.1:8025', '127.0.0.1:%d' % inner),
                       ('foreground = no', 'foreground = yes'),
                       ('setuid = stunnel4\n', ''), ('setgid = stunnel4\n', ''))
    start = install(home, directory + 'tmda-ofmipd-start',
                    ('127.0.0.1:8025', '127.0.0.1:%d' % inner))
    with Launched([str(start), '-f'], inner, home):
        with Launched(['stunnel', str(settings)], port, home):
            with connect(port, tls=True) as client:
                submit(client)
    message, = upstream.messages
    assert received(message).startswith('from client.example (unknown [%s]) by ' % CLIENT)
    assert 'event=login session' in (home / 'log').read_text()


def test_stunnel_before_a_daemon_header_is_required(home):
    inner = free_port()
    start = install(home, 'ofmipd-stunnel-daemons/tmda-ofmipd-start',
                    ('127.0.0.1:8025', '127.0.0.1:%d' % inner))
    with Launched([str(start), '-f'], inner, home):
        assert listening(inner)
        wait_for(lambda: 'event=proxy-refused client=127.0.0.1' in (home / 'log').read_text())


@pytest.mark.parametrize('directory', ['ofmipd-stunnel-xinetd', 'ofmipd-stunnel-daemons'])
def test_readme_names_every_file(directory):
    text = (CONTRIB / directory / 'README.txt').read_text()
    listed = set(re.findall(r'^    (\S+)  ', text.partition('\nFiles\n')[2].partition('\n\n\n')[0],
                            re.MULTILINE))
    files = {path.name for path in (CONTRIB / directory).iterdir()} - {'README.txt'}
    assert files <= listed
