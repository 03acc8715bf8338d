# SPDX-License-Identifier: GPL-2.0-or-later
"""A deterministic slice of the fuzzers, and every case that ever broke something."""
import resource
from pathlib import Path

import pytest

from fuzz import files, protocols
from fuzz.engine import Search

HERE = Path(__file__).parent
TARGETS = {target.name: target for target in protocols.TARGETS + files.TARGETS}
SEED = 1982
LEAST_CASES = 100000
MOST_MEMORY = 96 << 10  # KiB by which the process may grow for one target


@pytest.mark.parametrize('name', TARGETS)
def test_target_keeps_its_promises(name):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    search = Search(TARGETS[name], SEED)
    search.run(TARGETS[name].cases)
    for crasher in search.crashers[:1]:
        raise AssertionError(crasher.case) from crasher.error
    assert search.tried == TARGETS[name].cases
    assert search.signatures > 10  # the cases get beyond the first check
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY


def test_targets_make_enough_cases():
    assert sum(target.cases for target in TARGETS.values()) >= LEAST_CASES


def stored():
    """(target, file) of all stored crashers."""
    return [(path.parent.name, path) for path in sorted(HERE.glob('crashers/*/*'))]


@pytest.mark.parametrize('name, path', [
    pytest.param(name, path, id='%s-%s' % (name, path.name)) for name, path in stored()])
def test_crasher_is_mended(name, path):
    TARGETS[name].check(path.read_bytes())


def test_search_is_deterministic():
    def cases(seed):
        tried = []
        target = protocols.GRAMMAR._replace(check=lambda case: tried.append(case) or len(case) % 7)
        Search(target, seed).run(500)
        return tried
    assert cases(1) == cases(1) != cases(2)


def test_search_reports_what_breaks():
    def check(case):
        protocols.promise(b'\0' not in case, 'a NUL')
    search = Search(protocols.GRAMMAR._replace(check=check), SEED)
    search.run(2000)
    assert search.crashers and b'\0' in search.crashers[0].case
