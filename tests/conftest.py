# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds for every test, however pytest was started.

The environment of whoever runs the tests must not reach them: an account that
uses TMDA has a configuration and variables that would change results, so HOME
is an empty directory and those variables are gone.

tests/run starts pytest up to twice and says by TMDA_TESTS_PART what it wants:
`account` leaves out the tests marked root, `root` takes only those.  Without
the variable root runs all tests and any other account all that it can.  With
TMDA_TESTS_COUNTS the numbers of the closing line go to that file as JSON.

A test that hangs fails: LONGEST seconds are many times what any test needs.
"""
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
LONGEST = 120
COUNTED = ('failed', 'passed', 'skipped', 'xfailed', 'xpassed', 'error')
FOREIGN = (
    'EMAIL', 'LOGIN', 'LOGNAME', 'MAILHOST', 'MAILNAME', 'NAME', 'USER', 'GLOBAL_TMDARC', 'TMDARC',
    'LISTEN_FDS', 'LISTEN_PID', 'LISTEN_FDNAMES', 'NOTIFY_SOCKET', 'REMOTE_HOST',
)
FOREIGN_PREFIXES = ('QMAIL', 'TCPLOCAL', 'TCPREMOTE', 'TMDA')

for directory in (TOP / 'tests', TOP / 'lib'):
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))

part = os.environ.get('TMDA_TESTS_PART', 'all' if os.geteuid() == 0 else 'account')
counts_file = os.environ.get('TMDA_TESTS_COUNTS')
account = os.environ.get('TMDA_TESTS_ACCOUNT', 'nobody')


def pytest_configure(config):
    """Give the run a home of its own."""
    home = tempfile.mkdtemp(prefix='tmda-home-')
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    for name in list(os.environ):
        if name in FOREIGN or name.startswith(FOREIGN_PREFIXES):
            del os.environ[name]
    os.environ['HOME'] = home


def pytest_collection_modifyitems(config, items):
    """Keep the tests of this part of the run."""
    if part == 'all':
        return
    chosen, others = [], []
    for item in items:
        is_root_test = item.get_closest_marker('root') is not None
        (chosen if is_root_test == (part == 'root') else others).append(item)
    if others:
        config.hook.pytest_deselected(items=others)
    items[:] = chosen


def take_too_long(number, frame):
    """Signal handler: end the test that runs."""
    pytest.fail(f'ran for more than {LONGEST} seconds')


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """Run a test with an alarm set."""
    before = signal.signal(signal.SIGALRM, take_too_long)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def pytest_terminal_summary(terminalreporter):
    """Tell tests/run how many tests had which outcome."""
    if counts_file:
        counts = {name: len(terminalreporter.stats.get(name, ())) for name in COUNTED}
        Path(counts_file).write_text(json.dumps(counts), encoding='utf-8')


@pytest.fixture(scope='session')
def unprivileged():
    """Name of an account, not root, under which a test that runs as root may start programs."""
    return account
