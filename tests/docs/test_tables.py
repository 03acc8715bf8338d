# SPDX-License-Identifier: GPL-2.0-or-later
"""What the program knows by tables is documented, and what is generated is up to date."""
from __future__ import annotations

import ast
import importlib.util
import re
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

from TMDA.FilterActions import INCOMING, OUTGOING
from TMDA.FilterSources import INCOMING as INCOMING_SOURCES
from TMDA.FilterSources import KINDS, SIDES, find_class
from TMDA.inject.limits import LIMITS
from TMDA.inject.sendmail import PERMANENT
from TMDA.ofmipd import failure
from TMDA.ofmipd.logs import EVENTS
from TMDA.ofmipd.options import OPTIONS
from TMDA.ofmipd.statistics import METRICS
from TMDA.tools import common, inject
from TMDA.Variables import VARIABLES

ROOT = Path(__file__).resolve().parents[2]


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding='utf-8')


def plain_roff(name: str) -> str:
    return re.sub(r'\\f[BIRP]', '', page(name)).replace('\\-', '-')


def generator():
    """htdocs/generate as a module."""
    path = str(ROOT / 'htdocs' / 'generate')
    loader = SourceFileLoader('htdocs_generate', path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader('htdocs_generate',
                                                                             loader))
    before = list(sys.path)
    try:
        loader.exec_module(module)
    finally:
        sys.path[:] = before
    return module


def test_generated_parts_are_up_to_date():
    stale = [str(path.relative_to(ROOT)) for path, old, new in generator().results() if old != new]
    assert not stale, 'run htdocs/generate'


def test_every_marker_is_filled():
    for path in [*(ROOT / 'htdocs').glob('*.html'), *(ROOT / 'man').iterdir()]:
        text = path.read_text(encoding='utf-8')
        begun = re.findall(r'^(?:<!-- |\.\\" )generated ([a-z-]+)', text, re.MULTILINE)
        ended = re.findall(r'^(?:<!-- |\.\\" )end ([a-z-]+)', text, re.MULTILINE)
        assert begun == ended, path.name


@pytest.mark.parametrize('row', OPTIONS, ids=lambda row: row.flags[-1])
def test_option_is_documented(row):
    html, roff = page('htdocs/options.html'), plain_roff('man/tmda-ofmipd.8')
    assert 'id="option-%s"' % row.flags[-1].lstrip('-') in html
    for flag in row.flags:
        assert '<code>%s</code>' % flag in html
        assert re.search(r'(?<![\w-])%s(?![\w-])' % re.escape(flag), roff)
        for name in ('tmda-ofmipd.bash', '_tmda-ofmipd'):
            assert flag in page('contrib/completion/' + name)


@pytest.mark.parametrize('row', LIMITS, ids=lambda row: row.name)
def test_limit_is_documented(row):
    assert 'id="limit-%s"' % row.name in page('htdocs/options.html')
    assert row.name in plain_roff('man/tmda-ofmipd.8')


@pytest.mark.parametrize('name', VARIABLES)
def test_variable_is_documented(name):
    assert 'id="%s"' % name in page('htdocs/configuration.html')
    assert re.search(r'\b%s\b' % name, plain_roff('man/tmdarc.5'))


def logged_events() -> set:
    """The names of events in the source: first arguments of calls of event() and _event()."""
    names = set(EVENTS)
    for path in (ROOT / 'lib').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                if getattr(node.func, 'attr', '') in ('event', '_event'):
                    names.add(node.args[0].value)
    return names


@pytest.mark.parametrize('name', sorted(logged_events()))
def test_event_is_documented(name):
    assert 'id="event-%s"' % name in page('htdocs/logs.html')


@pytest.mark.parametrize('name', EVENTS)
def test_event_is_in_the_manual_page(name):
    assert re.search(r'^%s( \(always\))?$' % re.escape(name), plain_roff('man/tmda-ofmipd.8'),
                     re.MULTILINE)


@pytest.mark.parametrize('metric', METRICS, ids=lambda metric: metric.name)
def test_metric_is_documented(metric):
    assert 'id="metric-%s"' % metric.name in page('htdocs/logs.html')


def statuses(module) -> set:
    return {value for name, value in vars(module).items() if name.isupper() and type(value) is int}


@pytest.mark.parametrize('status', sorted(statuses(failure)))
def test_exit_status_of_the_daemon_is_documented(status):
    assert 'id="exit-%d"' % status in page('htdocs/options.html')
    assert re.search(r'^\.B %d$' % status, page('man/tmda-ofmipd.8'), re.MULTILINE)


@pytest.mark.parametrize('status', sorted(
    {value for name, value in {**vars(common), **vars(inject)}.items() if name.startswith('EX_')}
    | {inject.SENT_FOR_QFILTER}))
def test_exit_status_of_tools_is_documented(status):
    assert '<td class="number">%d</td>' % status in page('htdocs/tools.html')


def test_statuses_of_sendmail_are_documented():
    text = ', '.join(map(str, sorted(PERMANENT)[:-1]))
    assert '%s and %d are permanent' % (text, max(PERMANENT)) in page('htdocs/configuration.html')


@pytest.mark.parametrize('word', sorted(set(OUTGOING) | INCOMING | {'tag', 'envelope'}))
def test_action_is_documented(word):
    assert re.search(r'\b%s\b' % word, plain_roff('man/tmda-filter-format.5'))
    if word not in INCOMING:
        assert re.search(r'<code>%s\b' % word, page('htdocs/filter.html'))


@pytest.mark.parametrize('name', ['to' + '-' * bool(kind) + kind for kind in KINDS])
def test_source_is_documented_with_its_options(name):
    assert set(SIDES) == {'to', 'from'}
    html, roff = page('htdocs/filter.html'), plain_roff('man/tmda-filter-format.5')
    for text in [name] + ['-' + option for option in find_class(name).OPTIONS or ()]:
        assert re.search(r'(?<![\w-])%s\b' % re.escape(text), html)
        assert re.search(r'(?<![\w-])%s\b' % re.escape(text), roff)
    assert html.count('id="%s"' % name) == 1


@pytest.mark.parametrize('name', sorted(INCOMING_SOURCES))
def test_source_of_incoming_filters_is_named(name):
    assert name in plain_roff('man/tmda-filter-format.5')
