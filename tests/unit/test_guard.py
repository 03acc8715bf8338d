# SPDX-License-Identifier: GPL-2.0-or-later
from TMDA.inject.limits import Limits
from TMDA.ofmipd.client import Client
from TMDA.ofmipd.guard import QUIET_SECONDS, Guard

HOME, AWAY = Client('192.0.2.1'), Client('192.0.2.2')


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_delay_doubles_up_to_the_most():
    guard = Guard(Limits())
    delays = []
    for _ in range(7):
        guard.failed(HOME)
        delays.append(guard.delay(HOME))
    assert delays == [1, 2, 4, 8, 15, 15, 15]
    assert guard.delay(AWAY) == 0


def test_thousands_of_failures_do_not_overflow():
    guard = Guard(Limits())
    for _ in range(5000):
        guard.failed(HOME)
    assert guard.delay(HOME) == 15


def test_success_forgives():
    guard = Guard(Limits())
    guard.failed(HOME)
    guard.succeeded(HOME)
    guard.succeeded(AWAY)
    assert guard.delay(HOME) == 0


def test_quiet_time_forgives():
    clock = Clock()
    guard = Guard(Limits(), clock)
    guard.failed(HOME)
    guard.failed(HOME)
    clock.now += QUIET_SECONDS
    assert guard.delay(HOME) == 0
    guard.failed(HOME)
    assert guard.delay(HOME) == 1


def test_addresses_remembered_are_bounded():
    guard = Guard(Limits(guess_addresses=100))
    for number in range(1000):
        guard.failed(Client('10.0.%d.%d' % divmod(number, 256)))
    assert len(guard._failures) == 100
    assert guard.delay(Client('10.0.0.0')) == 0
    assert guard.delay(Client('10.0.3.231')) == 1


def test_ipv6_counts_by_network():
    guard = Guard(Limits())
    guard.failed(Client('2001:db8::1'))
    guard.failed(Client('2001:db8::ffff'))
    assert guard.delay(Client('2001:db8:0:0:9::1')) == 2
    assert guard.delay(Client('2001:db8:0:1::1')) == 0


def test_unknown_clients_count_together():
    guard = Guard(Limits())
    guard.failed(Client())
    assert guard.delay(Client('', 'a name')) == 1
