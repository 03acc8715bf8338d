# SPDX-License-Identifier: GPL-2.0-or-later
"""What a start with -1 loads before the client has its greeting: every connection pays for it.

tests/bench/banner measures the time; this test does not depend on any.
"""
from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from support.daemon import PROGRAM, make_home, needs_account
from support.talk import CERTIFICATE, KEY, PATIENCE, Talk

# Runs the program as bin/tmda-ofmipd does, and has what was imported printed at the first flush.
REPORT = '''
import sys
program, report = sys.argv[1:3]
sys.argv[:3] = [program]
sys.path.insert(0, program.rpartition('/bin/')[0] + '/lib')
before = set(sys.modules)
from TMDA.ofmipd import main, wire
flush = wire.Wire.flush

def first_flush(self):
    wire.Wire.flush = flush
    flush(self)
    with open(report, 'w') as file:
        file.write(' '.join(set(sys.modules) - before))

wire.Wire.flush = first_flush
sys.exit(main.main())
'''
HEAVY = {
    'ssl', 'smtplib', 'imaplib', 'poplib', 'argparse', 'logging', 'subprocess', 'configparser',
    'ctypes', 'tempfile', 'sqlite3', 'dbm', 'pickle', 'json', 'datetime', 'ipaddress', 'urllib',
    'dataclasses', 'inspect', 'ast', 'traceback', 'secrets', 'random', 'hashlib', 'hmac', 'shutil',
    'socketserver', 'pathlib', 'locale', 'gettext', 'stringprep', 'base64', 'encodings.idna',
}
if sys.version_info >= (3, 14):
    HEAVY -= {'ast'}  # there it is a part of typing
# What is for messages, for other modes and for other options.
OURS = {
    'TMDA.Defaults', 'TMDA.Cookie', 'TMDA.FilterParser', 'TMDA.inject.submit',
    'TMDA.inject.transport', 'TMDA.ofmipd.grammar', 'TMDA.ofmipd.login', 'TMDA.ofmipd.sasl',
    'TMDA.ofmipd.server', 'TMDA.ofmipd.daemon', 'TMDA.ofmipd.listeners', 'TMDA.ofmipd.tls',
    'TMDA.ofmipd.remote', 'TMDA.ofmipd.checkpassword', 'TMDA.ofmipd.pam',
    'TMDA.ofmipd.proxyprotocol', 'TMDA.ofmipd.privileges', 'TMDA.ofmipd.shared',
}
MODULES = 90  # of all kinds; more than that is to be noticed


def loaded(home, *options):
    """The modules that were loaded when the greeting left."""
    ours, theirs = socket.socketpair()
    report = home / 'modules'
    with theirs:
        process = subprocess.Popen([sys.executable, '-I', '-c', REPORT, PROGRAM, str(report), '-1',
                                    *options], stdin=theirs, env=dict(os.environ, HOME=str(home)))
    with Talk(ours) as talk:
        assert talk.reply().startswith('220 ')
        talk.login()  # what is loaded late is there when it is needed
    assert process.wait(PATIENCE) == 0
    return set(report.read_text().split())


@needs_account
@pytest.mark.parametrize('options', [(), ('-L',), ('-a', '{home}/.tmda/tofmipd')])
def test_start_loads_little(tmp_path, options):
    home = make_home(tmp_path)
    modules = loaded(home, *(option.format(home=home) for option in options))
    assert not {name.partition('.')[0] for name in modules} & {'email', 'concurrent', 'asyncio'}
    assert not modules & (HEAVY | OURS)
    assert len(modules) < MODULES


@needs_account
def test_start_with_starttls_loads_no_tls_yet(tmp_path):
    modules = loaded(make_home(tmp_path), '--tls=optional', '--ssl-cert=%s' % CERTIFICATE,
                     '--ssl-key=%s' % KEY)
    assert not modules & (HEAVY | OURS)
