# SPDX-License-Identifier: GPL-2.0-or-later
"""--workers: who serves, what happens when one dies, and that signals reach all."""
import re
import signal

import pytest

from support.daemon import Daemon, make_home, needs_account, signal_process, until
from support.talk import PATIENCE
from TMDA.ofmipd.workers import share


@pytest.fixture
def home(tmp_path):
    return make_home(tmp_path)


def processes(daemon):
    """Ids of all workers that have started, in order."""
    return [int(re.search(r'process=(\d+)', line).group(1)) for line in daemon.events('started')]


@pytest.mark.parametrize('connections, workers, shares', [
    (10, 3, [4, 3, 3]), (2, 2, [1, 1]), (0, 2, [0, 0]), (5, 1, [5]),
])
def test_share(connections, workers, shares):
    assert [share(connections, workers, index) for index in range(workers)] == shares


@needs_account
def test_workers_serve_and_end(home):
    with Daemon(home, '--workers=2') as daemon:
        daemon.wait_for('event=started', 2)
        workers = processes(daemon)
        assert len(set(workers)) == 2 and daemon.process.pid not in workers
        talks = [daemon.connect() for _ in range(20)]
        for talk in talks:
            assert talk.reply().startswith('220 ')
            talk.login()
        daemon.signal(signal.SIGTERM)
        for talk in talks:
            assert talk.reply().startswith('421')
            talk.close()
        assert daemon.process.wait(PATIENCE) == 0
        assert not any(signal_process(worker, 0) for worker in workers)


@needs_account
def test_workers_are_replaced(home):
    with Daemon(home, '--workers=2') as daemon:
        daemon.wait_for('event=started', 2)
        victim = processes(daemon)[0]
        signal_process(victim, signal.SIGKILL)
        daemon.wait_for('event=started', 3)
        assert 'process=%d status=-9' % victim in daemon.events('worker-died')[0]
        with daemon.connect() as talk:
            assert talk.reply().startswith('220 ')
        signal_process(processes(daemon)[2], signal.SIGTERM)  # also one that ends in good order
        daemon.wait_for('event=started', 4)


@needs_account
def test_workers_reload_and_counters(home):
    with Daemon(home, '--workers=2') as daemon:
        daemon.wait_for('event=started', 2)
        daemon.signal(signal.SIGUSR1)
        daemon.wait_for('event=counters', 2)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for('event=reloaded', 3)


@needs_account
def test_workers_end_when_their_parent_is_gone(home):
    with Daemon(home, '--workers=2', status=-signal.SIGKILL) as daemon:
        daemon.wait_for('event=started', 2)
        daemon.process.kill()
        daemon.process.wait(PATIENCE)
        until(lambda: not any(signal_process(worker, 0) for worker in processes(daemon)))


@needs_account
def test_workers_no_more_than_connections(home):
    with Daemon(home, '--workers=4', '-C', '1') as daemon:
        assert processes(daemon) == [daemon.process.pid]
