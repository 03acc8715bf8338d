# SPDX-License-Identifier: GPL-2.0-or-later
"""The filters of the recorded cases: each is read, and refused or matched as it was then.

Which action was taken is seen in what the recorded releases delivered: for actions whose address
can be told without a key (`bare`, `ext`, `exp`), and otherwise by the kind of the tag.  The
addresses themselves are compared in tests/vectors.
"""
from __future__ import annotations

import dbm
import json
import pickle
import re
from pathlib import Path

import pytest

from TMDA import Cdb, Defaults, FilterParser
from TMDA.Errors import FilterError, MatchError

CASES = json.loads((Path(__file__).parents[1] / 'vectors' / 'outgoing.json').read_text('utf-8'))
FILTER = '.tmda/filters/outgoing'
SENDER = 'alice@example.net'
PROBLEM = re.compile(r'\[line +(\d+)\]: (.*)')

# A filter that is wrong, or an action without a readable interval, is refused when it is read.
REFUSED = ('ParsingError', 'ValueError')
# What those releases say instead of the operating system's message.
OTHER_WORDS = {
    'source/to-dbm-missing': "No such file or directory: '~/.tmda/lists/none.db'",
    'include/self': 'already included by "FILTER_OUTGOING"',
}
# Wrong there, right here: peer_bug.
RIGHT = {
    'source/to-file-override-tag-action': 'tag from dated',
    'source/from-matches-domain-after-from-file': 'ext=next',
    'source/to-mailman': 'ext=hit',
    'action/incoming-action-in-outgoing-filter': 'ok',
    'action/upper-case-action': 'DATED',
}
KINDS = {'dated': '-dated-', 'keyword': '-keyword-', 'sender': '-sender-', 'domain': '-sender-'}


def cases(wanted):
    """Parameters: the cases that have a filter and are wanted."""
    return [pytest.param(case, id=f'{case["series"]}-{case["name"]}') for case in CASES
            if FILTER in case['files'] and wanted(case)]


def is_of_filter(case):
    """Whether a refusal has its cause in the filter."""
    area = case['name'].split('/')[0]
    return area in ('source', 'macro', 'include', 'variable', 'layout', 'parse-error', 'action')


class Case:
    """The files of a case below a home, and the settings that it gives."""

    def __init__(self, case, home):
        self.case = case
        self.home = home
        for name, text in case['files'].items():
            self._path(name).write_text(text, encoding='utf-8')
        for name, entries in case.get('cdb_files', {}).items():
            Cdb.write(str(self._path(name)),
                      [(key.encode(), data.encode()) for key, data in entries.items()])
        for name, entries in case.get('dbm_files', {}).items():
            with dbm.open(str(self._path(name)), 'c') as database:
                for key, data in entries.items():
                    database[key.encode()] = data.encode()
        for name, attributes in case.get('mailman_files', {}).items():
            self._path(name).write_bytes(pickle.dumps(attributes, 0))
        self.settings = Defaults.load(
            self._environ(), str(self._config('.tmda/config', case['config'])),
            str(self._config('tmdarc', case.get('global_config'))))

    def _path(self, name):
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _config(self, name, text):
        path = self._path(name)
        path.write_text(text or '', encoding='utf-8')
        return path

    def _environ(self):
        environ = {name: str(self.home) + value[1:] if value.startswith('~/') else value
                   for name, value in self.case['env'].items()}
        return {**environ, 'HOME': str(self.home)}

    def load(self):
        return FilterParser.load(str(self.home / FILTER), self.settings)

    def match(self, recipient):
        return self.load().match(FilterParser.Query(recipient, SENDER, self.settings))

    def close(self):
        database = self.settings.DB_CONNECTION
        if database is not None:
            database.d.close()


@pytest.fixture
def run(tmp_path):
    made = []

    def make(case):
        made.append(Case(case, tmp_path))
        return made[-1]

    yield make
    for case in made:
        case.close()


def own_text(text, home):
    return text.replace(str(home), '~')


@pytest.mark.parametrize('case', cases(lambda case: case.get('expect_error_class') in REFUSED))
def test_vector_filter_is_refused(case, run):
    with pytest.raises(FilterError) as caught:
        run(case).load()
    found = [(line, own_text(text, run(case).home)) for _, line, text in caught.value.problems]
    if case['expect_error_class'] == 'ValueError':
        assert found == [(1, f'"to": {case["expect_error"]}')]
        return
    recorded = [(int(line), text) for line, text in PROBLEM.findall(case['expect_error'])]
    if case['name'] in OTHER_WORDS:
        assert [line for line, _ in found] == [line for line, _ in recorded]
        assert found[0][1].endswith(OTHER_WORDS[case['name']])
    else:
        assert found == recorded


def is_refused_at_a_match(case):
    return ('expect_error' in case and case['expect_error_class'] not in REFUSED
            and is_of_filter(case) and case['name'] not in RIGHT)


@pytest.mark.parametrize('case', cases(is_refused_at_a_match))
def test_vector_rule_is_refused(case, run):
    started = run(case)
    with pytest.raises(MatchError) as caught:
        started.match(case['recipients'][0])
    recorded = PROBLEM.findall(case['expect_error'])
    assert caught.value.line == (int(recorded[0][0]) if recorded else 1)
    wanted = recorded[0][1] if recorded else case['expect_error']
    wanted = OTHER_WORDS.get(case['name'], wanted)
    assert own_text(caught.value.text, started.home).endswith(wanted)


@pytest.mark.parametrize('case', cases(lambda case: case['name'] in RIGHT))
def test_vector_where_the_releases_were_wrong(case, run):
    assert run(case).match(case['recipients'][0]).action.text == RIGHT[case['name']]


def is_delivered(case):
    return ('expect_error' not in case and case['name'] not in RIGHT and case['recipients']
            and 'X-TMDA' not in json.dumps(case['expect']) and is_of_filter(case))


@pytest.mark.parametrize('case', cases(is_delivered))
def test_vector_action(case, run):
    started = run(case)
    for delivery in case['expect']['deliveries']:
        match = started.match(delivery['envelope_recipient'])
        action = match.action if match else FilterParser.parse_action(
            started.settings.ACTION_OUTGOING)
        tags = dict(action.tags)
        action = tags.get('envelope') or tags.get('from') or action
        if action.kind == 'default':
            action = FilterParser.parse_action(started.settings.ACTION_OUTGOING)
        assert_address(action, delivery['envelope_sender'])


def assert_address(action, address):
    if action.kind in KINDS:
        assert KINDS[action.kind] in address
    elif action.kind == 'ext':
        assert address == f'alice-{action.option}@example.net'
    elif action.kind == 'exp':
        assert address == action.option.replace('<>', '')
    elif action.kind not in ('shell', 'python'):
        assert address == SENDER


@pytest.mark.parametrize('case', cases(lambda case: case['name'].startswith('log/')
                                       and case['name'] != 'log/x-tmda-multi-word'))
def test_vector_log_text(case, run):
    started = run(case)
    log = case['expect']['files_after']['.tmda/logs/outgoing']
    logged = re.findall(r'^Actn: (.*?) +\(\d+\)$', log, re.MULTILINE)
    shown = [started.match(recipient).text for recipient in case['recipients']]
    # The order of the pairs of a tag action means nothing.
    assert list(map(as_words, shown)) == list(map(as_words, logged))


def as_words(text):
    return sorted(re.findall(r'"[^"]*"|\S+', text))


@pytest.mark.parametrize('case', cases(lambda case: 'expect_error' not in case))
def test_vector_filter_is_read(case, run):
    assert isinstance(run(case).load().rules, list)


def test_vectors_are_all_there():
    assert sum(1 for case in CASES if FILTER in case['files']) > 250
