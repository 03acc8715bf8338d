# SPDX-License-Identifier: GPL-2.0-or-later
"""Filters: lines, words, macros, variables, includes, actions, mistakes, and what is kept."""
from __future__ import annotations

import os
import random
import threading

import pytest

from TMDA import FilterActions, FilterMacros, FilterParser
from TMDA.Errors import FilterError, MatchError
from TMDA.FilterActions import Action
from TMDA.FilterParser import parse_action, statements
from support.filters import LONG_AGO, FilterHome


@pytest.fixture
def home(tmp_path):
    return FilterHome(tmp_path)


@pytest.mark.parametrize('text, found', [
    ('', []),
    ('\n \n\t\n# nothing\n  # at all\n', []),
    ('to a bare', [(1, 'to a bare')]),
    ('to a bare\r\nto b bare\r\n', [(1, 'to a bare'), (2, 'to b bare')]),
    ('\n\nto a\n  bare\n', [(3, 'to a bare')]),
    ('to a\n\tbare\n# no end\n  # nor this\n  please\n', [(1, 'to a bare please')]),
    ('to a\n# one\n\n  bare\n', [(1, 'to a'), (4, None)]),
    ('to a # x\n bare\t# y # z\n', [(1, 'to a bare')]),
    ('to a#b bare\n', [(1, 'to a#b bare')]),
    ('  to a bare\n', [(1, None)]),
    ('to "a #b" bare', [(1, 'to "a')]),
    ('to a\x0bb\u2028c bare\x1c', [(1, 'to a\x0bb\u2028c bare\x1c')]),
])
def test_statements(text, found):
    assert list(statements(text)) == found


@pytest.mark.parametrize('text, words', [
    ('', []),
    (' a \t b ', ['a', 'b']),
    ('"a b" \'c d\'', ['a b', 'c d']),
    (r'"a \" b" ' + r"'it\'s'", ['a " b', "it's"]),
    (r'"a \' b"', [r"a \' b"]),
    ('"" x', ['', 'x']),
    ('"a', ['"a']),
    ('"a b', ['"a', 'b']),
    ('"a b"c d', ['"a', 'b"c', 'd']),
    ('kw=a"b', ['kw=a"b']),
    ('kw="ab"', ['kw="ab"']),
    ('shell="date -u" x', ['shell=date -u', 'x']),
    ("shell='date -u'", ['shell=date -u']),
    ('-attr="a"', ['-attr=a']),
    ('-attr="a b"c', ['-attr="a', 'b"c']),
])
def test_words(text, words):
    assert [word.text for word in FilterActions.split(text)] == words


def test_words_quoted_is_no_option():
    assert [word.quoted for word in FilterActions.split('"-a" -b')] == [True, False]


@pytest.mark.parametrize('text, kind, option', [
    ('bare', 'bare', None),
    ('BARE=append', 'bare', 'append'),
    ('dated', 'dated', None),
    ('Dated=5d', 'dated', '5d'),
    ('sender=a@example.org', 'sender', 'a@example.org'),
    ('domain', 'domain', None),
    ('exp=<>', 'exp', '<>'),
    ('explicit=a@b', 'exp', 'a@b'),
    ('as=a@b', 'exp', 'a@b'),
    ('exp', 'exp', None),
    ('ext=x', 'ext', 'x'),
    ('extension=x', 'ext', 'x'),
    ('kw=Ab=c', 'keyword', 'Ab=c'),
    ('keyword=', 'keyword', ''),
    ('shell=a|b', 'shell', 'a|b'),
    ('"python=1 + 1"', 'python', '1 + 1'),
    ('default', 'default', None),
    ('ok', 'incoming', None),
    ('drop', 'incoming', None),
    ('Confirm', 'incoming', None),
    ('deliver=~/Mail/', 'incoming', '~/Mail/'),
    ('barefoot', 'unknown', None),
    ('nosuch=x', 'unknown', None),
    ('dated please', 'unknown', None),
    ('', 'unknown', None),
    ('tag', 'unknown', None),
    ('tag from', 'unknown', None),
    ('tag from: bare', 'unknown', None),
])
def test_action(text, kind, option):
    action = parse_action(text)
    assert (action.kind, action.option, action.tags) == (kind, option, ())


def test_action_tag():
    action = parse_action('TAG From dated=1d envelope exp=<> x-A "two words" X-a last '
                          'x-b barefoot x-c "dated last week" x-d ok x-e ""')
    assert action.kind == 'tag'
    assert action.text.startswith('TAG From dated=1d envelope exp=<> x-A "two words" X-a last')
    assert action.tags == (
        ('from', Action('dated', '1d', (), 'dated=1d')),
        ('envelope', Action('exp', '<>', (), 'exp=<>')),
        ('x-a', Action('text', 'last', (), 'last')),
        ('x-b', Action('text', 'barefoot', (), 'barefoot')),
        ('x-c', Action('text', 'dated last week', (), 'dated last week')),
        ('x-d', Action('text', 'ok', (), 'ok')),
        ('x-e', Action('text', '', (), '')),
    )


@pytest.mark.parametrize('text, problems', [
    ('foo a bare', [(1, '"foo": unrecognized filter rule')]),
    ('to- a bare', [(1, '"to-": unrecognized filter rule')]),
    ('body-cdb a bare', [(1, '"body-cdb": unrecognized filter rule')]),
    ('to', [(1, '"to": missing <match> field')]),
    ('to a', [(1, '"to": missing or bogus <action> field')]),
    ('to a bogus', [(1, '"to": missing or bogus <action> field')]),
    ('to a bare x', [(1, '"to": garbage at end of line')]),
    ('to a tag', [(1, '"to": malformed header field or missing <action>')]),
    ('to a tag x: bare', [(1, '"to": malformed header field or missing <action>')]),
    ('to a tag "x y" bare', [(1, '"to": malformed header field or missing <action>')]),
    ('to a dated=5x', [(1, '"to": Invalid timeout value: 5x')]),
    ('to a dated=', [(1, '"to": Invalid timeout value: ')]),
    ('to a tag reply-to dated=soon', [(1, '"to": Invalid timeout value: soon')]),
    ('to -x a bare', [(1, '"x": unrecognized argument')]),
    ('to-file -attr=x a bare', [(1, '"attr": unrecognized argument')]),
    ('to-file -optional=x a bare', [(1, '"optional": takes no option')]),
    ('to-mailman -attr a bare', [(1, '"attr": missing option')]),
    ('to-mailman -attr= a bare', [(1, '"attr" followed by "=" but no option')]),
    ('to-file -? a bare', [(1, 'argument contains garbage characters')]),
    ('to-file - a bare', [(1, 'argument contains garbage characters')]),
    ('include', [(1, "incomplete 'include' statement")]),
    ('include -optional', [(1, "incomplete 'include' statement")]),
    ('include -x a', [(1, '"x": unrecognized argument')]),
    ('include a b', [(1, '"include": garbage at end of line')]),
    ('include ~/none', [(1, '"~/none": file not found')]),
    ('include "~/is missing"', [(1, '"~/is missing": file not found')]),
    ('include ~/.', [(1, '"~/.": cannot be read: not a regular file')]),
    (' to a bare\n\tx\n', [(1, 'line is improperly indented'),
                           (2, 'line is improperly indented')]),
    ('to a\0b bare\nto-file a\0b bare\ninclude a\0b', [
        (2, "'a\\x00b' can not name a file"), (3, "'a\\x00b' can not name a file")]),
    ('bad a\n\nto b\n  bogus\nto-file -zz a bare\nto c bare', [
        (1, '"bad": unrecognized filter rule'),
        (3, '"to": missing or bogus <action> field'),
        (5, '"zz": unrecognized argument')]),
])
def test_problems(home, text, problems):
    assert home.problems(text) == problems


def test_problems_as_text(home):
    home.write('filter', '\nbad\nworse')
    with pytest.raises(FilterError) as caught:
        home.load()
    assert str(caught.value) == (
        f'{home.filter_path}: filter has errors\n'
        '[line 2]: "bad": unrecognized filter rule\n[line 3]: "worse": unrecognized filter rule')


@pytest.mark.parametrize('rule, recipient', [
    ('body "a b" bare', 'x@y'),
    ('headers -case "Subject: x" bare', 'x@y'),
    ('body-file -optional -any=thing ~/none bare', 'x@y'),
    ('headers-file ~/none ok', 'x@y'),
    ('size <100 drop', 'x@y'),
    ('pipe "grep -q x" confirm', 'x@y'),
    ('pipe-headers true hold', 'x@y'),
])
def test_incoming_sources_never_match(home, rule, recipient):
    assert home.action(f'{rule}\nto * ext=next', recipient) == 'ext=next'


@pytest.mark.parametrize('text', [
    'to "bob@example.org" bare',
    "TO 'bob@example.org' bare",
    'to\tbob@example.org\tbare',
    'to bob@example.org "bare"',
    'to "-odd" ext=x\nto bob@example.org bare',
    '\ufeffto bob@example.org bare',
])
def test_rule_forms(home, text):
    assert home.action(text, 'bob@example.org') == 'bare'


def test_rule_with_octets_that_are_not_utf8(home):
    action = home.match(b'to * tag x-city "K\xf6ln"', 'a@b').action
    assert action.tags[0][1].option.encode('utf-8', 'surrogateescape') == b'K\xf6ln'


@pytest.mark.parametrize('rule, shown', [
    ('to *@example.org kw=news', 'to *@example.org tag from kw=news'),
    ('TO "*@example.org"   DATED', 'to *@example.org tag from DATED'),
    ('to * "shell=date -u"', 'to * tag from "shell=date -u"'),
    ('to * tag  envelope ext=env from "bare"', 'to * tag envelope ext=env from bare'),
    ('to * tag x-note "two words"', 'to * tag x-note "two words"'),
    ('to * ok', 'to * ok'),
])
def test_match_text(home, rule, shown):
    assert home.match(rule, 'bob@example.org').text == shown


def test_match_names_the_rule(home):
    home.write('more', '\nto b@* bare\n')
    match = home.match('to a@* bare\ninclude ~/more\n', 'b@example.org')
    assert (match.rule.file, match.rule.line) == (str(home.path / 'more'), 2)
    assert match.rule.text == 'to b@* bare'


def test_match_text_of_a_list_line(home):
    home.write('list', 'bob@example.org kw=c\ncarol@example.org tag x-a "b c"\n')
    text = 'to-file -optional ~/list dated=2d'
    assert home.match(text, 'bob@example.org').text == 'to-file -optional ~/list tag from kw=c'
    match = home.match(text, 'carol@example.org')
    assert match.text == 'to-file -optional ~/list tag x-a "b c"'
    assert match.rule.text == text


@pytest.mark.parametrize('line, cause', [
    ('bob@example.org Bob Smith', "missing or bogus <action> field: 'Bob Smith', listed for bob@"),
    ('bob@example.org tag from', "missing or bogus <action> field: 'tag from'"),
    ('bob@example.org dated=soon', 'Invalid timeout value: soon'),
])
def test_match_with_a_bad_list_line(home, line, cause):
    home.write('list', line)
    with pytest.raises(MatchError) as caught:
        home.match('\nto-file ~/list bare', 'bob@example.org')
    assert (caught.value.file, caught.value.line) == (home.filter_path, 2)
    assert cause in caught.value.text


# Macros.

@pytest.mark.parametrize('definitions, text, expanded', [
    (['FRIEND bob@example.org'], 'to friend X-FRIEND "FRIEND" FRIENDS 1FRIEND',
     'to bob@example.org X-bob@example.org "bob@example.org" FRIENDS 1FRIEND'),
    (['A B', 'B C', 'C A x'], 'A', 'A x'),
    (['A A A'], 'a', 'A A'),
    (['A one', 'a two'], 'A', 'two'),
    (['M(a, b) b a'], 'M(x,y z)', 'y z x'),
    (['M(a, b) b a'], 'M (x,y) M', 'M (x,y) M'),
    (['M(A) a a-a aa'], 'm( x )', 'x x-x aa'),
    (['M() none'], 'M() M( )', 'none none'),
    (['M (a) x'], 'M', '(a) x'),
    (['M(a, b) a b'], 'M(b, a)', 'b a'),
    (['DOM example.org', 'L(n) n@DOM'], 'L(chat) L(DOM)',
     'chat@example.org example.org@example.org'),
    (['X ${Y}'], 'X', '${Y}'),
])
def test_macro_expands(definitions, text, expanded):
    macros = FilterMacros.Macros()
    for definition in definitions:
        macros.define(definition)
    assert macros.expand(text) == expanded


@pytest.mark.parametrize('text, problem', [
    ('macro', 'incomplete macro definition'),
    ('MACRO\t', 'incomplete macro definition'),
    ('macro 9lives x', 'invalid macro name: valid chars: _, 0-9, a-z, A-Z'),
    ('macro a-b x', 'invalid macro name: valid chars: _, 0-9, a-z, A-Z'),
    ('macro (a) x', 'invalid macro name: valid chars: _, 0-9, a-z, A-Z'),
    ('macro EMPTY', '"EMPTY": macro name without definition'),
    ('macro EMPTY(a)', '"EMPTY": macro name without definition'),
    ('macro M(a to a bare', '"M": missing ")"'),
    ('macro M(a, 9) x', '"M": invalid name of a parameter: valid chars: _, 0-9, a-z, A-Z'),
    ('macro M(a,b) to a b\nm(x)', '"M": expected 2 arguments, got 1'),
    ('macro M(a,b) to a b\nM()', '"M": expected 2 arguments, got 0'),
    ('macro M(a) to a bare\nM(x', '"M": missing ")"'),
])
def test_macro_problems(home, text, problem):
    assert [found for _, found in home.problems(text)] == [problem]


def test_macro_name_that_begins_like_the_word(home):
    assert home.problems('macros a b') == [(1, '"macros": unrecognized filter rule')]


def test_macro_growth_is_bounded(home):
    lines = [f'macro m{number} m{number + 1} m{number + 1}' for number in range(60)]
    problems = home.problems('\n'.join(lines + ['to a@b m0']))
    assert problems == [(61, 'too long when its macros and variables are expanded')]


def test_macro_depth_is_bounded(home):
    lines = [f'macro m{number} m{number + 1}' for number in range(1000)]
    problems = home.problems('\n'.join(lines + ['to a@b m0']))
    assert problems == [(1001, 'too long when its macros and variables are expanded')]


# Variables.

def test_variable_of_the_configuration_comes_first(home):
    home.namespace.update(A='${B}', B='bob', N=5, EMPTY='')
    home.environ.update(B='env', E='example.org', EMPTY='full')
    text = 'to ${A}${N}@${E} ext=${EMPTY}'
    assert home.action(text, 'bob5@example.org') == 'ext=full'


@pytest.mark.parametrize('name', ['NoSuchVariable', '', 'EMPTY', 'a b'])
def test_variable_without_value(home, name):
    home.namespace['EMPTY'] = ''
    assert home.problems('to ${%s} bare' % name) == [
        (1, '${%s} not found in the Defaults namespace nor the environment.' % name)]


@pytest.mark.parametrize('value', ['${A}', '${A}${A}', 'x${B}'])
def test_variable_that_holds_itself(home, value):
    home.namespace.update(A=value, B='${A}')
    assert home.problems('to ${A} bare') == [
        (1, 'too long when its macros and variables are expanded')]


def test_variable_may_be_several_words(home):
    home.namespace['WHAT'] = 'tag from dated x-a "b c"'
    match = home.match('to * ${WHAT}', 'a@b')
    assert [header for header, _ in match.action.tags] == ['from', 'x-a']


def test_variable_of_the_recipient(home):
    text = 'to * tag x-for "${TMDA_RECIPIENT} as ${TMDA_VRECIPIENT}"'
    for name in ('Bob@Example.org', 'carol@example.org'):
        values = dict(home.match(text, name).action.tags)
        assert values['x-for'].text == f'{name} as {name.replace("@", "=")}'


def test_variable_of_the_message_is_one_word(home):
    home.environ['TMDA_ELSE'] = 'x bare'
    assert dict(home.match('to * tag x-a ${TMDA_ELSE}', 'a@b').action.tags)['x-a'].text == 'x bare'


def test_variable_of_blanks_is_no_rule(home):
    home.namespace['NOTHING'] = ' '
    assert home.load('${NOTHING}').rules == []


HOSTILE = '"x y" reply-to shell=touch${IFS}gone \' # $(id) `id`; \\"@example.org'


@pytest.mark.parametrize('rule', [
    'to * tag x-for ${TMDA_RECIPIENT}',
    'to * tag x-for "${TMDA_RECIPIENT}"',
    "to * tag x-for '${TMDA_RECIPIENT}'",
])
def test_recipient_is_one_word_of_text(home, rule):
    assert home.match(rule, HOSTILE).action.tags == (
        ('x-for', Action('text', HOSTILE, (), HOSTILE)),)


@pytest.mark.parametrize('recipient', ['shell=reboot', 'python=exit()', 'bare', 'tag'])
def test_recipient_is_no_command(home, recipient):
    address = recipient + '@example.org'
    action = home.match('to * tag x-for ${TMDA_RECIPIENT}', address).action
    assert action.tags == (('x-for', Action('text', address, (), address)),)


@pytest.mark.parametrize('kind', ['shell', 'python'])
def test_recipient_in_a_command_has_nothing_special(home, kind):
    rule = f'to * "{kind}=f ${{TMDA_RECIPIENT}} ${{TMDA_VRECIPIENT}}"'
    action = home.match(rule, HOSTILE).action
    inserted = action.option[len('f '):]
    assert not set(inserted.replace(' ', '', 1)) & set(' \t"\'$`;|&<>()#\\{}/')
    assert action.kind == kind
    rule = f'to * {kind}=f(${{TMDA_VRECIPIENT}})'
    assert home.match(rule, 'bob-x@example.org').action.option == 'f(bob-x=example.org)'


def test_recipient_names_no_file_elsewhere(home):
    home.write('secret', 'secret')
    home.write('lists/a@example.org', 'a@example.org')
    rule = 'to-file -optional ~/lists/${TMDA_RECIPIENT} bare'
    assert home.action(rule, 'a@example.org') == 'bare'
    assert home.action(rule.replace(' bare', '/../../secret bare'), '../secret') is None
    source = home.match(rule + '\nto * bare', '../secret').rule.source
    assert isinstance(source, FilterParser.FilterSources.PatternSource)


def test_recipient_as_pattern(home):
    assert home.action('to ${TMDA_RECIPIENT} bare', 'a!b/c@example.org') == 'bare'


# Included files.

def test_include_in_place_and_twice(home):
    home.write('one', 'to bob@* ext=one\n')
    text = 'to x@* ext=x\ninclude ~/one\nto * ext=last\ninclude ~/one\n'
    assert [rule.line for rule in home.load(text).rules] == [1, 1, 3, 1]
    assert home.action(text, 'bob@example.org') == 'ext=one'


def test_include_relative_name_and_macros(home):
    home.write('one', 'to WHO bare\nmacro WHO carol@*\n')
    text = 'macro WHO bob@*\nmacro FILE one\nINCLUDE FILE\nto WHO ext=late\n'
    assert home.action(text, 'bob@example.org') == 'bare'
    assert home.action(text, 'carol@example.org') == 'ext=late'


def test_include_optional(home):
    assert home.action('include -optional ~/none\nto * bare', 'a@b') == 'bare'
    assert home.action('include -optional ~/filter/none\nto * bare', 'a@b') == 'bare'


def test_include_itself(home):
    assert home.problems('to * bare\ninclude ~/filter') == [
        (2, '"~/filter" already included by "FILTER_OUTGOING"')]


def test_include_in_a_circle(home):
    home.write('one', '\ninclude ~/two')
    home.write('two', 'include ~/link')
    os.symlink('one', home.path / 'link')
    with pytest.raises(FilterError) as caught:
        home.load('include ~/one')
    assert caught.value.problems == [
        (str(home.path / 'two'), 1, f'"~/link" already included by "{home.filter_path}"')]


def test_include_with_mistakes_names_that_file(home):
    home.write('one', 'bad\nto a bogus\n')
    with pytest.raises(FilterError) as caught:
        home.load('worse\ninclude ~/one\nworst')
    assert [(file, line) for file, line, _ in caught.value.problems] == [
        (str(home.path / 'one'), 1), (str(home.path / 'one'), 2)]
    assert str(caught.value).startswith(f'{home.path}/one: filter has errors\n[line 1]: "bad"')


def test_include_too_deep(home):
    for number in range(60):
        home.write(f'f{number}', f'include ~/f{number + 1}')
    assert home.problems('include ~/f0') == [(1, '"~/f50": too many included files')]


def test_include_too_many(home, monkeypatch):
    monkeypatch.setattr(FilterParser, 'MOST_INCLUDED', 10)
    home.write('same', '')
    assert home.problems('include ~/same\n' * 10) == []
    assert home.problems('include ~/same\n' * 12) == [
        (11, '"~/same": too many included files'), (12, '"~/same": too many included files')]


def test_include_repeated_in_repeated_files_is_bounded(home):
    for number in range(40):
        home.write(f'f{number}', f'include ~/f{number + 1}\n' * 2)
    home.write('f40', 'to a bare\n')
    assert 'too many included files' in home.problems('include ~/f0')[0][1]


# Files.

def test_filter_absent(home):
    assert home.load().rules == []
    assert home.load().match(FilterParser.Query('a@b', 'c@d', home.settings())) is None
    assert home.action('to * bare', 'a@b') == 'bare'


def test_filter_dev_null(home):
    assert FilterParser.load(os.devnull, home.settings()).rules == []


def test_filter_fifo_does_not_wait(home):
    os.mkfifo(home.filter_path)
    with pytest.raises(FilterError, match='not a regular file'):
        home.load()


def test_filter_directory(home):
    os.mkdir(home.filter_path)
    with pytest.raises(FilterError, match='cannot be read: not a regular file'):
        home.load()


@pytest.mark.parametrize('name', ['filter', 'more'])
def test_filter_that_anyone_may_write(home, name):
    home.write('filter', 'include ~/more')
    home.write('more', 'to * bare')
    os.chmod(home.path / name, 0o646)
    with pytest.raises(FilterError, match='anyone may write'):
        home.load()
    os.chmod(home.path / name, 0o664)
    assert len(home.load().rules) == 1


# What is kept.

def test_load_unchanged_is_one_stat_per_file(home, monkeypatch):
    home.write('one', 'to * bare')
    first = home.load('include ~/one\ninclude -optional ~/none\n')
    asked = []
    stat = os.stat
    monkeypatch.setattr(os, 'stat', lambda path, **more: asked.append(path) or stat(path, **more))
    again = home.load()
    monkeypatch.undo()
    assert again is first
    assert len(asked) == 3


def test_load_notices_changes(home):
    assert home.load('include -optional ~/one\nto * bare').rules[0].line == 2
    home.write('one', 'to * ext=a')
    assert home.load().rules[0].action.option == 'a'
    home.write('one', 'to * ext=b', time=LONG_AGO + 1)
    assert home.load().rules[0].action.option == 'b'
    os.unlink(home.path / 'one')
    assert home.load().rules[0].line == 2


def test_load_notices_a_change_in_the_same_tick(home):
    for number in range(20):
        with open(home.filter_path, 'w', encoding='utf-8') as file:
            file.write(f'to * ext={number % 10}')
        assert home.load().rules[0].action.option == str(number % 10)


def test_load_notices_variables(home):
    home.namespace['A'] = 'one'
    text = 'to * ext=${A}${B}'
    home.environ['B'] = 'x'
    first = home.load(text)
    assert home.load() is first
    home.namespace['A'] = 'two'
    assert home.load().rules[0].action.option == 'twox'
    home.environ['B'] = 'y'
    assert home.load().rules[0].action.option == 'twoy'


def test_load_for_two_homes(tmp_path):
    shared = tmp_path / 'filter'
    shared.write_text('to-file ~/list bare', encoding='utf-8')
    for name in ('a', 'b'):
        home = FilterHome(tmp_path / name)
        home.write('list', f'{name}@example.org')
        rules = FilterParser.load(str(shared), home.settings())
        query = FilterParser.Query(f'{name}@example.org', '', home.settings())
        assert rules.match(query)


def test_load_keeps_a_bounded_number(tmp_path):
    for number in range(FilterParser.CACHE_FILTERS + 10):
        FilterHome(tmp_path / str(number)).load('to * bare')
    assert len(FilterParser._kept) <= FilterParser.CACHE_FILTERS


def test_load_mistakes_are_not_kept(home):
    assert home.problems('bad')
    assert home.load('to * bare', time=LONG_AGO).rules


def test_load_in_threads(home):
    home.write('filter', 'to-file ~/list bare\nto * ext=${TMDA_RECIPIENT}')
    home.write('list', '\n'.join(f'user{number}@example.org' for number in range(1000)))
    wrong = []

    def ask(thread):
        for number in range(0, 1000, 50):
            rules = home.load()
            for name, wanted in ((f'user{number}', 'bare'), (f'x{thread}', 'ext')):
                query = FilterParser.Query(f'{name}@example.org', '', home.settings())
                if rules.match(query).action.kind != wanted:
                    wrong.append(name)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# Garbage.

PIECES = (
    'to', 'from', 'to-file', 'from-cdb', 'to-sql', 'macro', 'include', '-optional', '-x=', 'M',
    'M(', ')', ',', '(a,b)', ' ', '\t', '\n', '\n ', '#', ' #', '"', "'", '\\', '${', '}', '$',
    'HOME', '~', '~x', '/', '*', '[', ']', '!', '@', '@=', 'a@b.c', 'bare', 'dated=5d', 'tag',
    'from', 'shell=', ':', '=', '\0', '\r', '\x0b', '\xff', '\u2028', '\ud800', 'é')


def test_garbage_ends_in_an_error_of_ours(home):
    chance = random.Random(7)
    for number in range(1500):
        text = ''.join(chance.choice(PIECES) + chance.choice(('', ' ', '\n'))
                       for _ in range(chance.randrange(1, 30)))
        home.write('filter', text.encode('utf-8', 'surrogatepass'), time=LONG_AGO + number)
        try:
            rules = home.load()
            rules.match(FilterParser.Query('a@b.c', 'd@e', home.settings(DB_CONNECTION=None)))
        except (FilterError, MatchError) as error:
            assert str(error)


def test_random_octets_end_in_an_error_of_ours(home):
    chance = random.Random(8)
    for number in range(500):
        home.write('filter', bytes(chance.choices(range(256), k=chance.randrange(200))),
                   time=LONG_AGO + number)
        try:
            home.load()
        except FilterError:
            pass


def test_long_lines_are_read_quickly(home):
    home.load('to * tag ' + ' '.join(f'x-{number} "a' for number in range(20000)))
    assert home.problems('to ' + '"a ' * 50000)


def test_match_speed(home):
    import time
    rules = home.load('to *@example.org kw=a\nfrom bob@* bare\nto @=example.com dated\n'
                      'to carol@example.net tag from dated reply-to bare\n')
    settings = home.settings()
    best = 1.0
    for _ in range(500):
        start = time.perf_counter()
        rules.match(FilterParser.Query('carol@example.net', 'alice@example.net', settings))
        best = min(best, time.perf_counter() - start)
    assert best < 15e-6
