# SPDX-License-Identifier: GPL-2.0-or-later
"""Workers that share their sockets: each gets its part of the connections."""
import os
import signal

from support.daemon import Daemon, make_home, needs_account
from TMDA.ofmipd.balance import Balance, alone


def test_balance_fewest_sessions_first():
    balance = Balance(2)
    one, other = balance.place(0), balance.place(1)
    assert not one.yields() and not other.yields()
    one.record(3)
    other.record(1)
    assert one.yields() and not other.yields()
    assert not balance.place(0).yields(), 'a worker that begins has no sessions'


def test_balance_is_shared_with_a_child():
    balance = Balance(2)
    ours = balance.place(0)
    ours.record(1)
    assert ours.yields()
    child = os.fork()
    if not child:
        balance.place(1).record(5)
        os._exit(0)
    os.waitpid(child, 0)
    assert not ours.yields()


def test_balance_alone():
    place = alone()
    place.record(9)
    assert not place.yields()


@needs_account
def test_balance_of_connections(tmp_path):
    with Daemon(make_home(tmp_path), '--workers=2', '-L') as daemon:
        daemon.wait_for('event=started', 2)
        talks = []
        for _ in range(20):
            talks.append(daemon.connect())
            talks[-1].reply()
        daemon.signal(signal.SIGUSR1)
        daemon.wait_for('event=counters', 2)
        now = [line.partition(' now=')[2].split()[0] for line in daemon.events('counters')]
        assert sum(map(int, now)) == 20 and min(map(int, now)) >= 6
        for talk in talks:
            talk.close()
