# SPDX-License-Identifier: GPL-2.0-or-later
"""A short soak for each mode."""
import pytest

from chaos.storm import MODES
from soak.measure import SPARE_DESCRIPTORS, SPARE_THREADS
from soak.soak import Plan, soak
from support.daemon import needs_account

MOST_GROWTH = 4 << 20
LONGEST_WAIT = 2.0  # seconds; tests/soak/run is stricter, but has the machine for itself


@needs_account
@pytest.mark.parametrize('mode', MODES)
def test_soak_leaves_nothing_behind(mode, tmp_path):
    report = soak(Plan(mode, sessions=1000, vanishing=300, idle=200), tmp_path)
    assert report.errors == []
    assert report.growth < MOST_GROWTH
    for held in (report.after, report.end):
        assert held[0] <= report.before.processes
        assert held.descriptors <= report.before.descriptors + SPARE_DESCRIPTORS
        assert held.threads <= report.before.threads + SPARE_THREADS
    assert max(report.slowest_vanishing, report.slowest_idle) < LONGEST_WAIT
