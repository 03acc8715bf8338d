# SPDX-License-Identifier: GPL-2.0-or-later
"""--explain: which rule matches, which address would be used, and what stands in the way."""
import calendar
import os
import re
import time

import pytest

from support.daemon import needs_account
from TMDA import Address, Cookie, Defaults
from TMDA.ofmipd.main import main

pytestmark = needs_account

CONFIG = """\
USERNAME = 'alice'
HOSTNAME = 'example.net'
FULLNAME = 'Alice'
BARE_APPEND = '~/.tmda/appended'
LOGFILE_OUTGOING = '~/.tmda/log'
MAIL_TRANSPORT = 'sendmail'
SENDMAIL_PROGRAM = '/bin/false'
"""
FILTER = """\
# rules

to bob@example.org sender
to *@lists.example
   keyword=lists   # two lines
from work@example.net ext=job
include ~/.tmda/filters/more
"""
MORE = """\
macro shop(x) to *@x dated=4w
to-file ~/.tmda/list  bare=append
shop(shop.example)
to *@tag.example tag from dated=1d reply-to sender x-note "a note" envelope exp=e@example.net
to *@shell.example shell="echo $TMDA_VRECIPIENT-x@example.net"
to *@python.example python=1/0
to *@default.example default
"""
LIST = 'carol@example.com\ndave@example.com  exp=for-dave@example.net\n'


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The home of alice."""
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('GLOBAL_TMDARC', str(tmp_path / 'no-global-file'))
    data = tmp_path / '.tmda'
    (data / 'filters').mkdir(parents=True)
    for name, text in (('config', CONFIG), ('filters/outgoing', FILTER),
                       ('filters/more', MORE), ('list', LIST), ('crypt_key', '12' * 20 + '\n')):
        (data / name).write_text(text)
        (data / name).chmod(0o600)
    return tmp_path


@pytest.fixture
def run(home, capfd):
    """Call main() with --explain; (status, facts as a dict, stderr), the home as HOME."""
    def call(*arguments):
        status = main(['--explain', *arguments])
        printed = capfd.readouterr()
        facts = dict(re.split('  +', line.replace(str(home), 'HOME'), maxsplit=1)
                     for line in printed.out.splitlines())
        return status, facts, printed.err.replace(str(home), 'HOME')
    return call


@pytest.mark.parametrize('recipient, rule, action, kind', [
    ('bob@example.org', 'outgoing:3: to bob@example.org sender', 'sender', 'sender'),
    ('BOB@Example.ORG', 'outgoing:3: to bob@example.org sender', 'sender', 'sender'),
    ('x@lists.example', 'outgoing:4: to *@lists.example keyword=lists', 'keyword=lists',
     'keyword'),
    ('carol@example.com', 'more:2: to-file ~/.tmda/list bare=append', 'bare=append', ''),
    ('y@shop.example', 'more:3: to *@shop.example dated=4w', 'dated=4w', 'dated'),
])
def test_explain_rule(run, recipient, rule, action, kind):
    status, facts, errors = run(recipient)
    assert (status, errors) == (0, '')
    assert facts['recipient'] == recipient
    assert facts['from'] == 'alice@example.net'
    assert facts['rule'] == 'HOME/.tmda/filters/' + rule
    assert facts['action'] == action
    address = facts['envelope sender'].strip('<>')
    assert facts['From'] == 'Alice <%s>' % address
    settings = Defaults.load({'HOME': os.environ['HOME']})
    assert Address.kind(settings, address) == kind
    if kind:
        Address.verify(Cookie.Cookies(settings), address, time.time(), recipient)


def test_explain_action_of_a_list(run):
    _, facts, _ = run('dave@example.com')
    assert facts['rule'] == 'HOME/.tmda/filters/more:2: to-file ~/.tmda/list bare=append'
    assert facts['action'] == 'exp=for-dave@example.net'
    assert facts['envelope sender'] == '<for-dave@example.net>'


def test_explain_from(run):
    _, facts, _ = run('x@y.example', '--from', 'Work <work@example.net>')
    assert facts['from'] == 'work@example.net'
    assert facts['rule'] == 'HOME/.tmda/filters/outgoing:6: from work@example.net ext=job'
    assert facts['From'] == 'Work <work-job@example.net>'


def test_explain_tag_action_shows_all_fields(run):
    _, facts, _ = run('z@tag.example')
    assert facts['From'].startswith('Alice <alice-dated-')
    assert facts['envelope sender'] == '<e@example.net>'
    assert facts['Reply-To'].startswith('Alice <alice-sender-')
    assert facts['X-Note'] == 'a note'


def test_explain_says_until_when(run):
    _, facts, _ = run('y@shop.example')
    until = calendar.timegm(time.strptime(facts['valid until'], '%Y-%m-%d %H:%M:%S UTC'))
    assert abs(until - time.time() - 28 * 86400) < 60


def test_explain_runs_commands(run):
    assert run('q@shell.example')[1]['From'] == 'Alice <q=shell.example-x@example.net>'


def test_explain_without_a_rule(run, home):
    _, facts, _ = run('x@else.example')
    assert facts['rule'] == 'none of HOME/.tmda/filters/outgoing matches'
    assert facts['ACTION_OUTGOING'] == 'dated (the default)'
    assert facts['From'].startswith('Alice <alice-dated-')
    (home / '.tmda' / 'config').write_text(CONFIG + "ACTION_OUTGOING = 'bare'\n")
    assert run('x@else.example')[1]['ACTION_OUTGOING'] == 'bare (HOME/.tmda/config:8)'


def test_explain_default_action(run):
    _, facts, _ = run('x@default.example')
    assert facts['rule'] == 'HOME/.tmda/filters/more:7: to *@default.example default'
    assert facts['ACTION_OUTGOING'] == 'dated (the default)'


def test_explain_without_a_filter(run, home):
    (home / '.tmda' / 'filters' / 'outgoing').unlink()
    assert run('x@y.example')[1]['rule'] == 'none of HOME/.tmda/filters/outgoing matches'


def test_explain_sends_and_writes_nothing(run, home):
    def state():
        return {str(path): path.stat().st_mtime_ns for path in home.rglob('*')}
    before = state()
    for recipient in ('carol@example.com', 'bob@example.org', 'x@else.example'):
        assert run(recipient)[0] == 0
    assert state() == before


def test_explain_pure_proxy(run, home):
    (home / '.tmda' / 'config').unlink()
    status, facts, _ = run('x@y.example', '--pure-proxy')
    assert status == 0
    assert 'passed on unaltered' in facts['action']


@pytest.mark.parametrize('name, text, problems', [
    ('filters/outgoing', 'to\nto x@y\n', [
        'HOME/.tmda/filters/outgoing:1: "to": missing <match> field',
        'HOME/.tmda/filters/outgoing:2: "to": missing or bogus <action> field']),
    ('filters/outgoing', 'to-file ~/none bare\n', None),
    ('config', 'HMAC_BYTES = "x"\n', [
        'HOME/.tmda/config:1: HMAC_BYTES must be a whole number from 1 to 64']),
    ('config', 'import os\nraise SystemExit\n', ['HOME/.tmda/config:2: SystemExit']),
    ('crypt_key', 'no key\n', None),
])
def test_explain_what_defers_mail(run, home, name, text, problems):
    (home / '.tmda' / name).write_text(text)
    status, _, errors = run('x@y.example')
    assert status == 78
    lines = errors.splitlines()
    assert lines and all(line.startswith('tmda-ofmipd: ') for line in lines)
    if problems:
        assert lines == ['tmda-ofmipd: ' + problem for problem in problems]


def test_explain_failing_expression(run):
    status, facts, errors = run('x@python.example')
    assert status == 78
    assert facts['rule'].startswith('HOME/.tmda/filters/more:6: ')
    assert 'python=1/0: ZeroDivisionError' in errors


def test_explain_configuration_of_python_2(run, home):
    (home / '.tmda' / 'config').write_text(
        'import os\nprint "hello"\nos.umask(0077)\nif {}.has_key(1): pass\n')
    status, _, errors = run('x@y.example')
    assert status == 78
    lines = errors.splitlines()
    assert {line.split(': ')[1] for line in lines} == {
        'HOME/.tmda/config:%d' % number for number in (2, 3, 4)}
    assert all('Python 2: ' in line for line in lines)


def test_explain_survives_a_configuration_that_ends_the_process(run, home):
    (home / '.tmda' / 'config').write_text('import os\nos._exit(0)\n')
    status, _, errors = run('x@y.example')
    assert status == 78
    assert 'ended before its time' in errors


def test_explain_with_configdir(run, home, tmp_path):
    directory = tmp_path / 'users' / 'zoe'
    directory.mkdir(parents=True)
    (directory / 'config').write_text("DATADIR = '~'\nUSERNAME = 'zoe'\nHOSTNAME = 'z.example'\n")
    (directory / 'crypt_key').write_text('12' * 20)
    (directory / 'crypt_key').chmod(0o600)
    where = '-c', str(tmp_path / 'users')
    assert run('x@y.example', *where)[0] == 64
    status, facts, _ = run('x@y.example', *where, '--login=zoe')
    assert (status, facts['from']) == (0, 'zoe@z.example')


@pytest.mark.parametrize('arguments, complaint', [
    (['--from'], "--explain: '--from' is no address"),
    (['a@b\n'], "--explain: 'a@b\\n' is no address"),
    (['a@b', '-c', '/'], '--explain needs --login=USER where there are several users'),
    (['a@b', '--login=../x'], None),
])
def test_explain_misused(run, arguments, complaint):
    status, facts, errors = run(*arguments)
    assert status in (64, 78) and not facts
    assert errors.startswith('tmda-ofmipd: ') and errors.count('\n') == 1
    if complaint:
        assert errors == 'tmda-ofmipd: %s\n' % complaint
