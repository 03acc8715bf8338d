# SPDX-License-Identifier: GPL-2.0-or-later
"""Sources of filter rules: patterns, lists, databases, mailing lists, SQL; files that change."""
from __future__ import annotations

import collections
import contextlib
import dbm
import dbm.dumb
import importlib
import marshal
import os
import pickle
import random
import sqlite3
import sys
import threading
import time
import types

import pytest

from TMDA import Cdb, FilterDatabases, FilterFiles, FilterLists, FilterSql
from TMDA.Errors import MatchError
from TMDA.FilterFiles import ContentCache
from TMDA.FilterLists import ListIndex, matcher, read_index
from support.filters import LONG_AGO, FilterHome


@pytest.fixture
def home(tmp_path):
    return FilterHome(tmp_path)


def refused(home, rule, recipient='bob@example.org', **variables):
    """The text of the MatchError that a rule ends in."""
    with pytest.raises(MatchError) as caught:
        home.match('\n' + rule, recipient, **variables)
    assert (caught.value.file, caught.value.line) == (home.filter_path, 2)
    return caught.value.text


# Patterns.

@pytest.mark.parametrize('pattern, matching, others', [
    ('bob@example.org', ['bob@example.org'], ['xbob@example.org', 'bob@example.orgs']),
    ('BOB@*.Org', ['bob@example.org'], ['bob@org']),
    ('*@example.org', ['x@example.org', '@example.org'], ['x@sub.example.org', 'x@example.orgs']),
    ('?ob@x', ['bob@x'], ['ob@x', 'blob@x']),
    ('[bc]ob@x', ['bob@x', 'cob@x'], ['dob@x']),
    ('[B-D]ob@x', ['cob@x'], ['aob@x']),
    ('[!bc]ob@x', ['dob@x'], ['bob@x']),
    ('[bob@x', ['[bob@x'], ['bob@x']),
    ('[z-a]ob@x', [], ['bob@x', 'zob@x']),
    ('[[]x@y', ['[x@y'], ['x@y']),
    ('*@=example.org', ['x@example.org', 'x@a.b.example.org'],
     ['x@notexample.org', 'example.org']),
    ('bob@=x.y', ['bob@x.y', 'bob@z.x.y'], ['bo@x.y', 'x.y']),
    ('@=x.y', [], ['bob@x.y']),
    ('b+b(c)|d@x', ['b+b(c)|d@x'], ['bb@x', 'd@x']),
    ('b.b@x', ['b.b@x'], ['bob@x']),
    ('*', ['', 'x', 'x@y\nz'], []),
    ('jürgen@*', ['jürgen@x'], []),
    ('JÜRGEN@*', ['jürgen@x'], []),
])
def test_pattern(pattern, matching, others):
    index = ListIndex([(1, pattern, '')])
    for key in matching:
        assert matcher(pattern)(key)
        assert index.find(key) == ''
    for key in others:
        assert not matcher(pattern)(key)
        assert index.find(key) is None


def test_pattern_of_stars_is_not_slow():
    start = time.monotonic()
    assert not matcher('*a' * 15 + 'b')('a' * 200 + 'c')
    assert time.monotonic() - start < 5


def test_plain_rules_never_look_at_the_domain(home):
    home.write('none', 'zed@example.net')
    text = 'from-file ~/none ext=file\nfrom example.net ext=x\nto example.org ext=y\nto * ext=z'
    assert home.action(text, 'bob@example.org') == 'ext=z'


# List files.

def test_list_lines(home):
    home.write('list', '\ufeff# my list\r\n\r\nbob@example.org\r\n*@example.edu   # a university\n'
               'example.com\n   carol@example.org\t kw=carol \nDAN@Example.Org dated=2h#x\n'
               'eve@example.org#kw=x\n*@=partner.example tag from  dated\n*.sub.example bare')
    for recipient, action in [
            ('bob@example.org', 'ext=hit'), ('z@example.edu', 'ext=hit'),
            ('z@a.example.edu', None),
            ('q@example.com', 'ext=hit'), ('q@sub.example.com', None),
            ('Carol@Example.org', 'kw=carol'), ('dan@example.org', 'dated=2h'),
            ('eve@example.org', 'ext=hit'), ('p@eu.partner.example', 'tag from dated'),
            ('p@a.sub.example', 'bare'), ('nobody@example.org', None), ('no-at-sign', None)]:
        assert home.action('to-file ~/list ext=hit', recipient) == action, recipient


def test_list_first_line_wins_and_address_before_domain():
    index = read_index(b'example.org ext=dom\n*@example.org ext=wild\n'
                       b'bob@example.org ext=exact\nbob@example.org ext=again\n')
    assert index.find('bob@example.org') == 'ext=wild'
    assert index.find_first(('bob@example.net', 'example.org')) == 'ext=dom'
    assert index.find_first(('bob@example.org', 'example.org')) == 'ext=wild'


FORMS = ('{u}@{d}', '*@{d}', '*@=={d}', '*@={d}', '*.{d}', '*@*.{d}', '{u}*', '*{d}', '?{u}@{d}',
         '*@*@={d}', '[ab]*@{d}', '*[.]{d}', '{u}@=a.{d}', '*', '{d}', '@{d}', '*@.{d}',
         '*{u}*{d}*')


def test_list_index_answers_like_a_scan():
    chance = random.Random(3)
    users, domains = ('a', 'b', 'aa', 'a.b'), ('x.y', 'y', 'a.x.y', 'b')
    keys = [f'{user}@{domain}' for user in users for domain in domains] + list(domains) + [
        '', '@', '.', 'a@b@x.y', '@x.y', 'a@.x.y', 'a.x.y@b', '@a@x.y']
    for _ in range(400):
        lines = [(number, chance.choice(FORMS).format(u=chance.choice(users),
                                                      d=chance.choice(domains)), str(number))
                 for number in range(1, chance.randrange(2, 12))]
        index = ListIndex(lines)
        for key in keys:
            scanned = next(
                (action for _, pattern, action in lines if matcher(pattern)(key)), None)
            assert index.find(key) == scanned, (lines, key)


def test_list_with_octets_that_are_not_utf8(home):
    home.write('list', b'# K\xf6ln\nj\xf6rg@example.org # x\nbob@example.org kw=a')
    assert home.action('to-file ~/list bare', 'bob@example.org') == 'kw=a'


@pytest.mark.parametrize('rule', [
    'to-file ~/none ext=hit', 'to-file -autocdb ~/none ext=hit',
    'from-file -autodbm ~/none ext=hit', 'to-cdb ~/none ext=hit',
    'to-dbm ~/none ext=hit', 'to-dbm ~/none.db ext=hit',
    'to-ezmlm ~/none ext=hit', 'to-mailman -attr=members ~/none ext=hit'])
def test_missing_file(home, rule):
    assert 'No such file' in refused(home, rule)
    assert f'{home.path}/none' in refused(home, rule)
    optional = rule.replace(' ~', ' -optional ~') + '\nto * ext=next'
    assert home.action(optional, 'bob@example.org') == 'ext=next'


@pytest.mark.parametrize('rule', [
    'to-file ~/x bare', 'to-file -autocdb ~/x bare', 'to-cdb ~/x bare'])
def test_fifo_does_not_wait(home, rule):
    os.mkfifo(home.path / 'x')
    assert 'not a regular file' in refused(home, rule)


def test_relative_name_is_below_the_home(home):
    home.write('lists/wl', 'bob@example.org')
    assert home.action('to-file lists/wl bare', 'bob@example.org') == 'bare'


# What is kept of files.

def test_list_change_is_seen(home):
    text = 'to-file ~/list bare\nto * ext=next'
    home.write('list', 'bob@example.org')
    assert home.action(text, 'bob@example.org') == 'bare'
    home.write('list', 'rob@example.org', time=LONG_AGO + 1)
    assert home.action(text, 'bob@example.org') == 'ext=next'
    os.rename(home.write('new', 'bob@example.org'), home.path / 'list')
    assert home.action(text, 'bob@example.org') == 'bare'
    os.unlink(home.path / 'list')
    assert 'No such file' in refused(home, 'to-file ~/list bare')


def test_list_change_in_the_same_tick_is_seen(home):
    for number in range(30):
        with open(home.path / 'list', 'w', encoding='utf-8') as file:
            file.write(f'bob@example.org ext={number % 10}')
        assert home.action('to-file ~/list bare', 'bob@example.org') == f'ext={number % 10}'


def counting_cache():
    made = []

    def make(data):
        made.append(data)
        return len(made)

    return ContentCache(make), made


def test_content_is_made_once_for_the_same_content(home):
    cache, made = counting_cache()
    path = str(home.write('x', 'one'))
    assert [cache.get(path), cache.get(path)] == [1, 1]
    home.write('x', 'one', time=LONG_AGO + 5)
    assert cache.get(path) == 1
    home.write('x', 'two')
    assert cache.get(path) == 2
    assert made == [b'one', b'two']


def test_content_read_once_when_settled(home, monkeypatch):
    cache, _ = counting_cache()
    path = str(home.write('x', 'one'))
    cache.get(path)
    monkeypatch.setattr(FilterFiles, 'read', None)
    assert cache.get(path) == 1


@pytest.mark.parametrize('limit, value', [('CACHE_FILES', 3), ('CACHE_OCTETS', 3000)])
def test_content_kept_is_bounded(home, monkeypatch, limit, value):
    monkeypatch.setattr(FilterFiles, limit, value)
    cache, made = counting_cache()
    paths = [str(home.write(f'x{number}', f'{number}' * 1000)) for number in range(5)]
    for path in paths:
        cache.get(path)
        cache.get(paths[0])
    assert len(cache._entries) == 3
    assert cache.get(paths[0]) == 1
    assert cache.get(paths[1]) == 6
    assert len(made) == 6


def test_content_larger_than_the_bound_is_kept_alone(home, monkeypatch):
    monkeypatch.setattr(FilterFiles, 'CACHE_OCTETS', 10)
    cache, _ = counting_cache()
    big = str(home.write('big', 'x' * 100))
    assert [cache.get(big), cache.get(big)] == [1, 1]


def test_content_in_threads_is_made_once(home):
    cache, made = counting_cache()
    path = str(home.write('x', 'one'))
    threads = [threading.Thread(target=cache.get, args=(path,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [b'one']


def large_list():
    """100,000 addresses, and 100 wildcards of all forms among them."""
    lines = [f'user{number}@host{number % 1000}.example.net' for number in range(100000)]
    for number in range(100):
        form = ('*@wild{}.example.org', '*@=wild{}.example.com', 'news-{}-*@lists.example.net',
                '*part{}*@*.example')[number % 4]
        lines.insert(number * 1000, form.format(number) + f' kw=w{number}')
    return '\n'.join(lines)


def calls(work):
    """(how many functions work() calls, what it returns): what depends on no machine."""
    counted = []
    sys.setprofile(lambda frame, event, argument: counted.append(event))
    try:
        result = work()
    finally:
        sys.setprofile(None)
    return sum(event.endswith('call') for event in counted), result


def test_large_list_is_not_scanned(home):
    home.write('list', large_list())
    rules = home.load('to-file ~/list bare')
    settings = home.settings()
    from TMDA.FilterParser import Query
    for recipient, action in [
            ('user99999@host999.example.net', 'bare'), ('x@wild96.example.org', 'kw=w96'),
            ('x@a.wild97.example.com', 'kw=w97'), ('news-98-x@lists.example.net', 'kw=w98'),
            ('xpart99x@a.example', 'kw=w99'), ('nobody@host1.example.net', None)]:
        query = Query(recipient, 'alice@example.net', settings)
        rules.match(query)  # reads the list
        number, match = calls(lambda: rules.match(query))
        assert (match and match.action.text) == action
        assert number < 300, f'{recipient}: {number} calls for 100,000 lines'


# cdb and dbm files.

def write_cdb(home, name, entries):
    Cdb.write(str(home.path / name),
              [(key.encode(), data.encode()) for key, data in entries.items()])


ENTRIES = {'bob@example.org': '', 'carol@example.org': 'kw=carol ', 'example.com': 'dated=1h',
           '*@example.edu': '', 'dan@example.org': 'tag from bare envelope kw=e'}
ANSWERS = [('BOB@example.org', 'ext=hit'), ('CAROL@example.org', 'kw=carol'),
           ('x@example.com', 'dated=1h'), ('y@example.edu', None), ('z@sub.example.com', None),
           ('dan@example.org', 'tag from bare envelope kw=e')]


def test_cdb_source(home):
    write_cdb(home, 'wl.cdb', ENTRIES)
    for recipient, action in ANSWERS:
        assert home.action('to-cdb ~/wl.cdb ext=hit', recipient) == action


def test_cdb_source_damaged(home):
    home.write('wl.cdb', b'no cdb')
    assert 'not a cdb' in refused(home, 'to-cdb -optional ~/wl.cdb bare')


DBM_MODULES = []
for module_name in ('dbm.gnu', 'dbm.ndbm', 'dbm.sqlite3', 'dbm.dumb'):
    with contextlib.suppress(ImportError):
        DBM_MODULES.append(importlib.import_module(module_name))


@pytest.mark.parametrize('module', DBM_MODULES, ids=lambda module: module.__name__)
@pytest.mark.parametrize('made, named', [('wl.db', 'wl.db'), ('wl', 'wl'), ('wl', 'wl.db')])
def test_dbm_source(home, module, made, named):
    with module.open(str(home.path / made), 'n') as database:
        for key, data in ENTRIES.items():
            database[key.encode()] = data.encode()
    for recipient, action in ANSWERS:
        assert home.action(f'to-dbm ~/{named} ext=hit', recipient) == action


def test_dbm_source_change_is_seen(home):
    for action in ('kw=a', 'kw=b'):
        with dbm.open(str(home.path / 'wl.db'), 'c') as database:
            database[b'bob@example.org'] = action.encode()
        assert home.action('to-dbm ~/wl.db bare', 'bob@example.org') == action


@pytest.mark.parametrize('files', [
    {'wl': b'no database at all'},
    {'wl.dir': b'no index', 'wl.dat': b''},
    {'wl.dir': b"'bob@example.org', (0, -1, 2)\n", 'wl.dat': b''},
    {'wl.dir': b"'bob@example.org', ('', 1)\n", 'wl.dat': b''},
    {'wl.dir': b"'bob@example.org', (0, 1)\n", 'wl.dat': None},
])
def test_dbm_source_damaged(home, files):
    for name, content in files.items():
        if content is None:
            (home.path / name).mkdir()
            home.write(name + '/x', b'')
        else:
            home.write(name, content)
    assert refused(home, 'to-dbm -optional ~/wl bare').startswith(
        f'{home.path}/wl: not a usable dbm file') or files.get('wl.dat', b'') is None


# Databases made of lists.

LIST = ('# list\nbob@example.org\nCarol@example.org kw=carol\nexample.com ext=dom\n*@example.edu\n'
        'bob@example.org ext=late\n')


@pytest.mark.parametrize('option', ['-autocdb', '-autodbm'])
def test_made_database(home, option):
    home.write('list', LIST)
    os.chmod(home.path / 'list', 0o640)
    rule = f'to-file {option} ~/list ext=hit'
    for recipient, action in [('bob@example.org', 'ext=hit'), ('carol@example.org', 'kw=carol'),
                              ('x@example.com', 'ext=dom'), ('x@example.edu', None)]:
        assert home.action(rule, recipient) == action
    made = sorted(set(os.listdir(home.path)) - {'list', 'filter'})
    suffix = {'-autocdb': '.cdb', '-autodbm': '.db'}[option]
    assert made and all(name.startswith('list' + suffix) for name in made)
    assert {(home.path / name).stat().st_mode & 0o777 for name in made} == {0o640}


@pytest.mark.parametrize('option', ['-autocdb', '-autodbm'])
def test_made_database_is_kept_and_made_anew(home, option, monkeypatch):
    rule = f'to-file {option} ~/list bare\nto * ext=next'
    home.write('list', 'bob@example.org kw=a')
    assert home.action(rule, 'bob@example.org') == 'kw=a'
    with monkeypatch.context() as changed:
        changed.setattr(FilterDatabases, '_make', None)
        assert home.action(rule, 'bob@example.org') == 'kw=a'
    home.write('list', 'bob@example.org kw=b', time=time.time() + 10)
    assert home.action(rule, 'bob@example.org') == 'kw=b'


@pytest.mark.parametrize('option', ['-autocdb', '-autodbm'])
def test_made_database_of_a_list_that_changes_in_the_same_tick(home, option):
    for number in range(20):
        with open(home.path / 'list', 'w', encoding='utf-8') as file:
            file.write(f'bob@example.org ext={number % 10}')
        rule = f'to-file {option} ~/list bare'
        assert home.action(rule, 'bob@example.org') == f'ext={number % 10}'


@pytest.mark.parametrize('option', ['-autocdb', '-autodbm'])
def test_made_database_falls_back_to_the_list(home, option, monkeypatch):
    home.write('list', 'bob@example.org\n*@example.edu ext=wild')

    def refuse(*_):
        raise PermissionError('the directory can not be written')

    with monkeypatch.context() as changed:
        changed.setattr('tempfile.mkdtemp', refuse)
        assert home.action(f'to-file {option} ~/list bare', 'x@example.edu') == 'ext=wild'
        assert home.action(f'to-file {option} ~/list bare', 'bob@example.org') == 'bare'
    assert sorted(os.listdir(home.path)) == ['filter', 'list']


def test_made_database_that_is_damaged_is_made_anew(home):
    home.write('list', 'bob@example.org kw=a')
    home.write('list.cdb', 'damaged', time=LONG_AGO + 1)
    home.write('list.db', 'damaged', time=LONG_AGO + 1)
    for option in ('-autocdb', '-autodbm'):
        assert home.action(f'to-file {option} ~/list bare', 'bob@example.org') == 'kw=a'
    assert Cdb.read(str(home.path / 'list.cdb')).close() is None


def test_made_database_list_changed_meanwhile(home, monkeypatch):
    path = home.write('list', 'bob@example.org kw=a')
    entries = FilterDatabases._entries

    def change(data):
        yield from entries(data)
        home.write('list', 'bob@example.org kw=b', time=LONG_AGO + 1)

    with monkeypatch.context() as changed:
        changed.setattr(FilterDatabases, '_entries', change)
        assert home.action('to-file -autocdb ~/list bare', 'bob@example.org') == 'kw=b'
    assert not os.path.exists(f'{path}.cdb')


def test_made_database_in_threads(home):
    home.write('list', '\n'.join(f'user{number}@example.org' for number in range(2000)))
    home.write('filter', 'to-file -autocdb ~/list bare')
    wrong = []

    def ask(number):
        from TMDA.FilterParser import Query
        query = Query(f'user{number}@example.org', '', home.settings())
        if home.load().match(query) is None:
            wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# Mailing lists.

def test_ezmlm(home):
    home.write('chat/subscribers/A', b'Tbob@example.org\0Tcarol@example.org\0')
    home.write('chat/subscribers/B', b'TDan@Example.ORG\0Xno@example.org\0\0Topen@example.org')
    (home.path / 'chat/subscribers/sub').mkdir()
    rule = 'to-ezmlm ~/chat bare\nto * ext=next'
    for name in ('bob', 'carol', 'Dan', 'open'):
        assert home.action(rule, f'{name}@example.org') == 'bare'
    assert home.action(rule, 'no@example.org') == 'ext=next'
    home.write('chat/subscribers/A', b'Teve@example.org\0', time=LONG_AGO + 1)
    assert home.action(rule, 'bob@example.org') == 'ext=next'
    assert home.action('from-ezmlm ~/chat bare', 'x@y', sender='Eve@example.org') == 'bare'


ATTRIBUTES = {'members': {'bob@example.org': 0}, 'owner': ['Carol@example.org', 5],
              'moderator': ('dan@example.org',), 'max_days': 7}


@pytest.mark.parametrize('name, dump', [
    ('config.pck', lambda value: pickle.dumps(value, 0)),
    ('config.pck', lambda value: pickle.dumps(value, 2)),
    ('config.pck', lambda value: pickle.dumps(value, 4)),
    ('config.db', lambda value: marshal.dumps(value, 0)),
    ('config.db', lambda value: marshal.dumps(
        {key.encode(): {b'bob@example.org': 0} if key == 'members' else item
         for key, item in value.items()}, 0)),
])
def test_mailman(home, name, dump):
    home.write(f'chat/{name}', dump(ATTRIBUTES))
    for attribute, member in [('members', 'bob'), ('owner', 'carol'), ('moderator', 'dan')]:
        rule = f'to-mailman -attr={attribute} ~/chat bare\nto * ext=next'
        assert home.action(rule, f'{member}@example.org') == 'bare'
        assert home.action(rule, 'eve@example.org') == 'ext=next'
        assert home.action(rule, 'example.org') == 'ext=next'


def test_mailman_as_python_2_wrote_it(home):
    # A str with an octet beyond ASCII, and an instance of a class of Mailman's, in protocol 0.
    home.write('chat/config.pck', b"(dp1\nS'members'\np2\n(dp3\nS'b\\xf6b@example.org'\np4\nI0\nsS"
               b"'bob@example.org'\np5\n(iMailman.Bouncer\n_BounceInfo\np6\n(dp7\nS'score'\np8\n"
               b"F1.0\nsbss.")
    assert home.action('to-mailman -attr=members ~/chat bare', 'Bob@example.org') == 'bare'
    assert home.action('to-mailman -attr=members ~/chat bare', 'b\xf6b@example.org') == 'bare'


class Reduced:
    """Pickled as a call."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('protocol', [0, 1, 2, 4])
def test_mailman_pickle_runs_nothing(home, protocol):
    target = home.path / 'made'
    code = f'__import__("os").mkdir({str(target)!r})'
    evil = [Reduced(os.mkdir, (str(target),)), Reduced(eval, (code,)),
            Reduced(importlib.import_module, ('this',)), types.SimpleNamespace(a=1), {1, 2},
            collections.OrderedDict(a=1), collections.deque([1, 2])]
    home.write('chat/config.pck', pickle.dumps(
        {'evil': evil, 'members': {'bob@example.org': evil}}, protocol))
    assert home.action('to-mailman -attr=members ~/chat bare', 'bob@example.org') == 'bare'
    assert not target.exists()


@pytest.mark.parametrize('content', [
    b'', b'garbage', b'I5\n.', pickle.dumps([1]), pickle.dumps(ATTRIBUTES)[:-5], b'\x80\xff.',
    b"cos\nsystem\n(S'true'\ntR.", b'Pid\n.'])
def test_mailman_damaged(home, content):
    home.write('chat/config.pck', content)
    text = refused(home, 'to-mailman -attr=members -optional ~/chat bare')
    assert f'{home.path}/chat/config.pck: ' in text


def test_mailman_damaged_marshal(home):
    home.write('chat/config.db', b'{garbage')
    assert 'config.db: not a Mailman list' in refused(home, 'to-mailman -attr=x ~/chat bare')


def test_mailman_without_attribute(home):
    home.write('chat/config.pck', pickle.dumps(ATTRIBUTES, 0))
    assert refused(home, 'to-mailman ~/chat bare') == '"to-mailman" missing -attr argument'
    assert 'no attribute "nosuch"' in refused(home, 'to-mailman -attr=nosuch ~/chat bare')
    assert 'no attribute "max_days"' in refused(home, 'to-mailman -attr=max_days ~/chat bare')


# SQL.

ROWS = [
    ('alice@example.net', 'bob@example.org', None),
    ('alice@example.net', 'carol@example.org', 'kw=c '),
    ('alice@example.net', 'example.com', 'dated=1h'),
    ('other@example.net', 'dan@example.org', 'bare'),
    ('alice@example.net', '*@=wild.example', 'tag from dated'),
    ('alice@example.net', None, 'bare'),
]


@pytest.fixture
def connection():
    with contextlib.closing(sqlite3.connect(':memory:')) as database:
        database.execute('create table wl (uid text, address text, action text)')
        database.executemany('insert into wl values (?, ?, ?)', ROWS)
        yield database


def sql_action(home, rule, recipient, connection):
    return home.action(rule, recipient, DB_CONNECTION=connection, USERNAME='alice',
                       HOSTNAME='example.net')


EXACT = ('to-sql -addr_column=address {} "select action from wl where uid = %(recipient)s and '
         '%(criteria)s" ext=hit')


@pytest.mark.parametrize('recipient, action', [
    ('bob@example.org', 'ext=hit'), ('carol@example.org', 'kw=c'), ('Carol@example.org', None),
    ('x@example.com', 'dated=1h'), ('dan@example.org', None), ("o'x%(a)s@example.org", None)])
def test_sql_exact(home, connection, recipient, action):
    assert sql_action(home, EXACT.format('-action_column=ACTION'), recipient, connection) == action
    without = sql_action(home, EXACT.format(''), recipient, connection)
    assert without == (action and 'ext=hit')


@pytest.mark.parametrize('recipient, action', [
    ('bob@example.org', 'ext=hit'), ('Carol@Example.org', 'kw=c'), ('x@example.com', 'dated=1h'),
    ('dan@example.org', None), ('q@a.wild.example', 'tag from dated')])
def test_sql_wildcards(home, connection, recipient, action):
    rule = ('to-sql -wildcards "select address, action from wl where uid = %(username)s || '
            '\'@\' || %(hostname)s and address not like \'%%@nowhere\'" ext=hit')
    assert sql_action(home, rule, recipient, connection) == action
    rule = 'to-sql -wildcards "select address from wl where uid = %(recipient)s" ext=hit'
    assert sql_action(home, rule, recipient, connection) == (action and 'ext=hit')


@pytest.mark.parametrize('rule, cause', [
    ('to-sql "select 1" bare', '"to-sql": missing -wildcards or -addr_column argument'),
    ('to-sql -wildcards "select x from no" bare', '"to-sql": OperationalError: no such table'),
    ('to-sql -wildcards "select %(nosuch)s" bare', 'unknown parameter %(nosuch)s'),
    ('to-sql -addr_column=address "select 1 from wl" bare', 'no %(criteria)s'),
    ('to-sql -addr_column="a b" "select 1 from wl where %(criteria)s" bare',
     'no name of a column'),
    ('to-sql -addr_column=address -action_column=x "select 1 from wl where %(criteria)s" bare',
     'no column "x"'),
])
def test_sql_unusable(home, connection, rule, cause):
    assert cause in refused(home, rule, DB_CONNECTION=connection, USERNAME='alice', HOSTNAME='x')


def test_sql_without_connection(home):
    assert refused(home, 'to-sql -wildcards "select 1" bare', DB_CONNECTION=None) == (
        '"to-sql": DB_CONNECTION is not set')


@pytest.mark.parametrize('style, text, values', [
    ('pyformat', 'a %(x)s %% %(y)s %(x)s', {'x': '1', 'y': '2'}),
    ('named', 'a :x % :y :x', {'x': '1', 'y': '2'}),
    ('format', 'a %s %% %s %s', ('1', '2', '1')),
    ('qmark', 'a ? % ? ?', ('1', '2', '1')),
    ('numeric', 'a :1 % :2 :3', ('1', '2', '1')),
])
def test_sql_parameter_styles(style, text, values):
    given = {'x': '1', 'y': '2', 'unused': '3'}
    assert FilterSql.convert('a %(x)s %% %(y)s %(x)s', given, style) == (text, values)


def test_sql_style_of_a_driver(connection, monkeypatch):
    assert FilterSql.paramstyle(connection) == sqlite3.paramstyle
    assert FilterSql.paramstyle(object()) == 'pyformat'
    for name, style in (('maker', None), ('maker.driver', 'numeric')):
        module = types.ModuleType(name)
        if style:
            module.paramstyle = style
        monkeypatch.setitem(importlib.import_module('sys').modules, name, module)
    driver = type('Connection', (), {'__module__': 'maker.driver.connection'})
    assert FilterSql.paramstyle(type('Mine', (driver,), {})()) == 'numeric'
