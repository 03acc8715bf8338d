# SPDX-License-Identifier: GPL-2.0-or-later
"""--setup: what it asks, the files that it makes, what it leaves alone, the trial."""
import os
import re
import stat
import sys

import pytest

from support.daemon import needs_account
from support.upstream import Upstream, say
from TMDA import Cookie, Defaults
from TMDA.ofmipd import setup, starter, terminal
from TMDA.ofmipd.failure import UsageError
from TMDA.ofmipd.main import main
from TMDA.ofmipd.passwords import PasswordFile
from TMDA.ofmipd.sasl import Password
from TMDA.ofmipd.starter import Answers
from TMDA.ofmipd.verdict import YES

FILES = ['config', 'crypt_key', 'filters', 'filters/outgoing', 'lists', 'tofmipd']
SECRET = 'upstream secret'


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home directory; the umask is put back."""
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('GLOBAL_TMDARC', str(tmp_path / 'no-global-file'))
    umask = os.umask(0o022)
    yield tmp_path
    os.umask(umask)


@pytest.fixture
def upstream():
    with Upstream(logins={'al': SECRET}) as server:
        yield server


@pytest.fixture
def run(home, capsys):
    """Call main() with --setup; (status, stdout, stderr)."""
    def call(*arguments):
        status = main(['--setup', *arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err
    return call


def given(upstream, *more):
    """The arguments for a working set-up."""
    return ('--name=Al Bert', '--address=al@example.net',
            '--upstream=127.0.0.1:%d' % upstream.port, *more)


def made_in(home):
    return sorted(str(path.relative_to(home / '.tmda')) for path in (home / '.tmda').rglob('*'))


@needs_account
def test_setup_makes_all_files(run, home, upstream):
    status, printed, errors = run(*given(upstream))
    assert (status, errors) == (0, '')
    assert made_in(home) == FILES
    for name in ['', *FILES]:
        path = home / '.tmda' / name
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), name
    settings = Defaults.load({'HOME': str(home)})
    assert (settings.FULLNAME, settings.USERNAME, settings.HOSTNAME) == (
        'Al Bert', 'al', 'example.net')
    assert settings.SMTPHOST == '127.0.0.1:%d' % upstream.port
    assert settings.MAIL_TRANSPORT == 'smtp' and settings.SMTPSSL is False
    assert len(Cookie.read_key(settings.CRYPT_KEY_FILE)) == 64
    assert 'upstream     127.0.0.1:%d: connected\n' % upstream.port in printed
    assert upstream.connections == 1 and upstream.messages == []


@needs_account
@pytest.mark.parametrize('found, typed', [
    (None, '/opt/tmda/bin/tmda-ofmipd'), ('/usr/bin/tmda-ofmipd', 'tmda-ofmipd')])
def test_setup_prints_a_command_that_a_shell_will_find(run, upstream, monkeypatch, found, typed):
    monkeypatch.setattr(sys, 'argv', ['/opt/tmda/bin/tmda-ofmipd'])
    monkeypatch.setattr('shutil.which', lambda name: found)
    _, printed, _ = run(*given(upstream))
    assert 'Start the daemon:  %s\n' % typed in printed
    assert 'Look at a tag:     %s --explain bob@example.org\n' % typed in printed


@needs_account
def test_setup_prints_what_a_mail_client_needs(run, home, upstream):
    _, printed, _ = run(*given(upstream, '-p', 'localhost:8026'))
    rows = dict(re.findall(r'^    (\w+) +(.+)$', printed, re.MULTILINE))
    assert (rows['Server'], rows['Port'], rows['Security']) == ('localhost', '8026', 'none')
    assert rows['Authentication'] == 'encrypted password'
    file = PasswordFile(str(home / '.tmda' / 'tofmipd'))
    assert file.check(Password(rows['User'], rows['Password'])).answer == YES
    assert len(rows['Password']) >= 16
    assert 'Start the daemon:  tmda-ofmipd -p localhost:8026\n' in printed


@needs_account
def test_setup_works_as_made(run, home, upstream, capsys):
    run(*given(upstream))
    assert main(['--check']) == 0
    assert '\n0 errors, 0 warnings\n' in capsys.readouterr().out


@needs_account
def test_setup_never_overwrites(run, home, upstream):
    run(*given(upstream))
    before = {path: path.read_bytes() for path in home.rglob('*') if path.is_file()}
    status, printed, _ = run('--name=Other', '--address=o@p', '--upstream=localhost:1')
    assert status == 0  # it tried what the configuration says
    assert before == {path: path.read_bytes() for path in home.rglob('*') if path.is_file()}
    for name in FILES:
        assert 'left alone   %s/.tmda/%s: exists\n' % (home, name) in printed
    assert 'made' not in printed
    assert re.search(r'Password +as in .*/tofmipd \(--password \S+ sets a new one\)', printed)


@needs_account
@pytest.mark.parametrize('missing', ['config', 'crypt_key', 'filters/outgoing', 'tofmipd'])
def test_setup_makes_only_what_is_missing(run, home, upstream, missing):
    run(*given(upstream))
    path = home / '.tmda' / missing
    path.unlink()
    before = {path: path.read_bytes() for path in home.rglob('*') if path.is_file()}
    _, printed, _ = run(*given(upstream))
    assert path.is_file()
    assert re.findall('^made +(.+?)(?:,|$)', printed, re.MULTILINE) == [str(path)]
    for other, content in before.items():
        assert other.read_bytes() == content


@needs_account
def test_setup_follows_no_link(run, home, upstream):
    (home / '.tmda').mkdir()
    (home / '.tmda' / 'crypt_key').symlink_to(home / 'elsewhere')
    run(*given(upstream))
    assert not (home / 'elsewhere').exists()


@needs_account
def test_setup_takes_places_from_an_existing_configuration(run, home, upstream):
    (home / '.tmda').mkdir()
    (home / '.tmda' / 'config').write_text(
        "DATADIR = '~/data'\nMAIL_TRANSPORT = 'smtp'\nSMTPHOST = '127.0.0.1:%d'\n"
        "FILTER_OUTGOING = '~/rules'\nHOSTNAME = 'example.net'\n" % upstream.port)
    assert run()[0] == 0
    assert sorted(path.name for path in (home / 'data').iterdir()) == ['crypt_key', 'lists']
    assert (home / 'rules').read_text() == starter.FILTER


@needs_account
def test_setup_dry_run_changes_nothing(run, home, upstream):
    status, printed, _ = run(*given(upstream, '--dry-run'))
    assert status == 0
    assert list(home.iterdir()) == []
    for name in FILES:
        assert 'would make   %s/.tmda/%s' % (home, name) in printed
    assert upstream.connections == 1


@needs_account
def test_setup_with_autoconfig(run, upstream):
    _, printed, _ = run(*given(upstream, '--autoconfig'))
    assert '<domain>example.net</domain>' in printed and '\n; DNS records' in printed


# The upstream server

@needs_account
@pytest.mark.parametrize('tls, value', [
    ('none', False), ('starttls', True), ('wrapper', 'wrapper')])
def test_setup_tries_tls_and_login(run, home, monkeypatch, tls, value):
    monkeypatch.setenv(setup.PASSWORD_VARIABLE, SECRET)
    with Upstream(tls='' if tls == 'none' else tls, logins={'al': SECRET}) as server:
        status, printed, _ = run(*given(server, '--upstream-tls=' + tls, '--upstream-login=al'))
    assert status == 0
    steps = 'connected%s, logged in as al' % ('' if tls == 'none' else ', TLS')
    assert 'upstream     127.0.0.1:%d: %s\n' % (server.port, steps) in printed
    settings = Defaults.load({'HOME': str(home)})
    assert settings.SMTPSSL == value
    assert (settings.SMTPAUTH_USERNAME, settings.SMTPAUTH_PASSWORD) == ('al', SECRET)
    assert SECRET not in printed


@needs_account
def test_setup_takes_the_password_from_a_file(run, home, upstream, tmp_path):
    file = tmp_path / 'password'
    file.write_text(SECRET + '\nsecond line\n')
    more = '--upstream-login=al', '--upstream-password-file=%s' % file
    assert run(*given(upstream, *more))[0] == 0
    assert Defaults.load({'HOME': str(home)}).SMTPAUTH_PASSWORD == SECRET


@needs_account
@pytest.mark.parametrize('prepare, cause', [
    (lambda server: server.close(), 'Connection refused'),
    (lambda server: server.on('connect', say('554 go away', then_hang_up=True)), '554 go away'),
    (lambda server: server.on('AUTH', say('535 5.7.8 wrong')), 'login failed'),
    (lambda server: server.features.clear(), 'STARTTLS is wanted and not offered'),
])
def test_setup_says_in_a_line_what_failed(run, home, monkeypatch, prepare, cause):
    monkeypatch.setenv(setup.PASSWORD_VARIABLE, SECRET)
    tls = 'starttls' if 'STARTTLS' in cause else 'none'
    with Upstream(logins={'al': SECRET}) as server:
        prepare(server)
        status, printed, errors = run(*given(server, '--upstream-tls=' + tls,
                                             '--upstream-login=al'))
    assert (status, errors) == (69, '')
    line, = [line for line in printed.splitlines() if line.startswith('upstream ')]
    assert 'failed: 127.0.0.1:%d: ' % server.port in line and cause in line
    assert SECRET not in printed
    assert made_in(home) == FILES  # to be corrected there, and tried again
    assert 'Correct %s/.tmda/config and try it with --setup.' % home in printed


@needs_account
def test_setup_tries_a_sendmail_that_is_configured(run, home):
    (home / '.tmda').mkdir()
    config = home / '.tmda' / 'config'
    config.write_text("MAIL_TRANSPORT = 'sendmail'\nSENDMAIL_PROGRAM = '/bin/sh'\n")
    assert 'upstream     /bin/sh: is there\n' in run()[1]
    config.write_text("MAIL_TRANSPORT = 'sendmail'\nSENDMAIL_PROGRAM = '/none'\n")
    status, printed, _ = run()
    assert status == 69 and "upstream     /none: can't be run\n" in printed


@pytest.mark.parametrize('text, tls, expected', [
    ('mail.example.net', '', ('mail.example.net', 587, 'starttls')),
    ('mail.example.net:465', '', ('mail.example.net', 465, 'wrapper')),
    ('mail.example.net:25', '', ('mail.example.net', 25, 'starttls')),
    ('mail.example.net', 'wrapper', ('mail.example.net', 465, 'wrapper')),
    ('mail.example.net', 'none', ('mail.example.net', 25, 'none')),
    ('localhost', '', ('localhost', 25, 'none')),
    ('127.0.0.2:2525', '', ('127.0.0.2', 2525, 'none')),
    ('[::1]', '', ('[::1]', 25, 'none')),
    ('[2001:db8::1]:26', 'none', ('[2001:db8::1]', 26, 'none')),
])
def test_upstream_has_usual_values(text, tls, expected):
    assert setup.upstream(text, tls) == expected


@pytest.mark.parametrize('text, tls', [
    ('', ''), (':25', ''), ('a b', ''), ('::1', ''), ('host:0', ''), ('host:65536', ''),
    ('host:smtp', ''), ('al@host', ''), ('host/x', ''), ('host', 'ssl'), ("host'\n", ''),
])
def test_upstream_refused(text, tls):
    with pytest.raises(UsageError):
        setup.upstream(text, tls)


# Questions

class Person:
    """Answers what is asked, and remembers the questions."""

    def __init__(self, monkeypatch, *answers):
        self.answers = list(answers)
        self.questions = []
        monkeypatch.setattr(terminal, 'is_interactive', lambda: True)
        monkeypatch.setattr('builtins.input', self.answer)
        monkeypatch.setattr('getpass.getpass', self.answer)

    def answer(self, question):
        self.questions.append(question)
        return self.answers.pop(0)


@needs_account
def test_setup_asks_what_is_not_known(run, home, upstream, monkeypatch):
    person = Person(monkeypatch, 'Al Bert', 'al@example.net', '127.0.0.1:%d' % upstream.port, '',
                    'al', SECRET)
    assert run()[0] == 0
    assert person.answers == []
    assert [question.split()[1].rstrip(':') for question in person.questions] == [
        'name', 'mail', 'that', 'to', 'login', 'of']
    assert '[none]' in person.questions[3]
    assert Defaults.load({'HOME': str(home)}).SMTPAUTH_PASSWORD == SECRET


@needs_account
def test_setup_asks_nothing_that_an_option_says(run, upstream, monkeypatch):
    person = Person(monkeypatch, '')
    assert run(*given(upstream, '--upstream-tls=none'))[0] == 0
    assert len(person.questions) == 1 and 'login' in person.questions[0]


@needs_account
def test_setup_lets_wrong_answers_be_corrected(run, home, upstream, monkeypatch):
    where = '127.0.0.1:%d' % upstream.port
    person = Person(monkeypatch, 'al', 'wrong', 'yes', '', '', '', SECRET)
    status, printed, _ = run(*given(upstream, '--upstream-tls=none'))
    assert status == 0 and person.answers == []
    assert '[%s]' % where in person.questions[3] and '[al]' in person.questions[5]
    assert printed.count('upstream ') >= 2
    assert Defaults.load({'HOME': str(home)}).SMTPAUTH_PASSWORD == SECRET


@needs_account
def test_setup_lets_wrong_answers_stay(run, home, upstream, monkeypatch):
    Person(monkeypatch, 'al', 'wrong', 'no')
    assert run(*given(upstream, '--upstream-tls=none'))[0] == 69
    assert made_in(home) == FILES


@needs_account
@pytest.mark.parametrize('arguments, complaint', [
    ([], '--setup needs --address and --upstream where it can ask nobody'),
    (['--address=a@b'], '--setup needs --upstream where it can ask nobody'),
    (['--address=nobody', '--upstream=localhost'], "'nobody' is no mail address"),
    (['--address=a b@c', '--upstream=localhost'], "'a b@c' is no mail address"),
    (['--address=a@b@c', '--upstream=localhost'], "'a@b@c' is no mail address"),
    (['--address=a@b', '--upstream=x y'],
     "'x y' is not HOST[:PORT]; an IPv6 address needs brackets"),
    (['--address=a@b', '--upstream=x', '--upstream-tls=ssl'],
     "--upstream-tls: 'ssl' is none of starttls, wrapper, none"),
    (['--address=a@b', '--upstream=x', '--upstream-login=al'],
     '--upstream-login needs a password: --upstream-password-file or $TMDA_UPSTREAM_PASSWORD'),
    (['-c', '/'], '--setup is for one account: run it as that account, and without --configdir '
                  'and --vhome-script'),
])
def test_setup_misused(run, home, monkeypatch, arguments, complaint):
    monkeypatch.setattr(terminal, 'is_interactive', lambda: False)
    assert run(*arguments) == (64, '', 'tmda-ofmipd: %s\n' % complaint)
    assert list(home.iterdir()) == []


@needs_account
def test_setup_with_a_broken_configuration(run, home):
    (home / '.tmda').mkdir()
    (home / '.tmda' / 'config').write_text('1/0\n')
    status, _, errors = run('--address=a@b', '--upstream=x')
    assert status == 78 and errors.startswith('tmda-ofmipd: %s/.tmda/config:1: ' % home)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason='only root can start as root')
def test_setup_is_not_for_root(run, home):
    status, _, errors = run('--address=a@b', '--upstream=localhost:1')
    assert status == 64 and 'run it as that account' in errors
    assert list(home.iterdir()) == []


# The texts

ODD = Answers('Ünal "\'\\ \n}%s', "a'b@x\"y", 'h:1', 'starttls', 'l\'"\\', 'p%s\'"\\\n\udcff{}')


def test_configuration_holds_whatever_was_typed(tmp_path):
    path = tmp_path / 'config'
    text = starter.configuration(ODD)
    path.write_text(text, encoding='utf-8')
    values = {}
    exec(compile(text, 'config', 'exec'), values)
    assert values['FULLNAME'] == ODD.name
    assert (values['USERNAME'], values['HOSTNAME']) == tuple(ODD.address.split('@'))
    assert (values['SMTPAUTH_USERNAME'], values['SMTPAUTH_PASSWORD']) == (ODD.login, ODD.password)


def test_configuration_without_login_has_no_password():
    assert 'SMTPAUTH' not in starter.configuration(Answers('A', 'a@b', 'h:25', 'none'))


def test_answers_show_no_password():
    assert ODD.password not in repr(ODD)


def test_filter_has_only_comments():
    assert all(line[:1] in ('', '#') for line in starter.FILTER.split('\n'))


def test_filter_examples_are_right(tmp_path):
    from TMDA import FilterParser
    rules = [line[1:] for line in starter.FILTER.split('\n') if re.match('#(to|from)', line)]
    (tmp_path / 'filter').write_text('\n'.join(rules) + '\n')
    settings = Defaults.load({'HOME': str(tmp_path)})
    assert len(FilterParser.load(str(tmp_path / 'filter'), settings).rules) == len(rules) >= 5


