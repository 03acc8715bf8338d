# SPDX-License-Identifier: GPL-2.0-or-later
"""A short storm for each mode, and the books that tell whether anything was lost."""
import sys
from types import ModuleType

import pytest

from chaos.ledger import NONE, Arrival, Ledger
from chaos.storm import MODES, Plan, Storm
from support.daemon import needs_account
from TMDA.ofmipd import assembly

BOB, ANN = 'bob@example.org', 'ann@example.org'


@needs_account
@pytest.mark.parametrize('mode', MODES)
def test_storm_loses_nothing_and_repeats_nothing(mode, tmp_path):
    storm = Storm(Plan(mode, cuts=25, terms=4, kills=3, clients=4, seed=7), tmp_path)
    storm.run()
    assert storm.faults == []
    assert storm.ledger.problems() == {'lost': [], 'twice': [], 'refused': [], 'altered': []}
    counts = storm.ledger.counts
    assert counts['cuts'] >= 25 and counts['SIGTERM'] == 4 and counts['SIGKILL'] == 3
    assert counts['answered 2xx'] > 10


@pytest.mark.parametrize('answers, arrivals, problem', [
    ([250], [(BOB, 1, True), (ANN, 1, True)], ''),
    ([250], [(BOB, 1, True)], 'lost'),
    ([451, 250], [(BOB, 1, True), (ANN, 2, True)], ''),
    ([451, 250], [(BOB, 1, True), (BOB, 2, True), (ANN, 2, True)], 'twice'),
    ([451, 250], [(BOB, 1, False), (BOB, 2, True), (ANN, 2, True)], ''),
    ([NONE, 250], [(BOB, 1, True), (BOB, 2, True), (ANN, 2, True)], ''),
    ([451, NONE, 250], [(BOB, 1, True), (BOB, 3, True), (ANN, 2, True), (ANN, 3, True)], ''),
    ([451, 451, 250], [(BOB, 1, True), (BOB, 3, True), (ANN, 2, True)], 'twice'),
    ([250], [(BOB, 1, True), (BOB, 1, True), (ANN, 1, True)], 'twice'),
    ([451, 451], [(BOB, 1, True)], ''),
    ([550], [(BOB, 1, True)], 'refused'),
    ([550], [(BOB, 1, False)], ''),
])
def test_ledger_finds_the_problem(answers, arrivals, problem):
    ledger = Ledger()
    ledger.sent(1, (BOB, ANN))
    for attempt, code in enumerate(answers, 1):
        ledger.answered(1, attempt, code)
    for recipient, attempt, told in arrivals:
        ledger.arrived(1, [recipient], Arrival(attempt, told), True)
    found = [name for name, serials in ledger.problems().items() if serials]
    assert found == [problem] * bool(problem)


def test_ledger_finds_what_was_altered():
    ledger = Ledger()
    ledger.sent(1, (BOB,))
    ledger.answered(1, 1, 250)
    ledger.arrived(1, [BOB], Arrival(1, True), False)
    assert ledger.problems()['altered'] == [1]


# What storms have found

def test_pool_that_another_thread_is_importing_is_none(monkeypatch):
    """A session's first EHLO while another session's first message loads the transport."""
    monkeypatch.setitem(sys.modules, 'TMDA.inject.pool', ModuleType('TMDA.inject.pool'))
    assert not assembly._upstream_carries_dsn()
