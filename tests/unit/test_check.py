# SPDX-License-Identifier: GPL-2.0-or-later
"""--check: a verdict for each file, with its line; old Python; certificates; many users."""
import dbm.dumb
import os
import re
import shutil
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from support.daemon import needs_account
from support.talk import CERTIFICATE, KEY
from TMDA import Cdb
from TMDA.ofmipd import certificates, findings, oldpython, users
from TMDA.ofmipd.main import main

KEY_TEXT = '12' * 20 + '\n'
SENDMAIL = "\nSENDMAIL_PROGRAM = '/bin/true'\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with a key and a password file."""
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('GLOBAL_TMDARC', str(tmp_path / 'no-global-file'))
    data = tmp_path / '.tmda'
    (data / 'filters').mkdir(parents=True)
    for name, text in (('crypt_key', KEY_TEXT), ('tofmipd', 'bobby:FooBar\n'),
                       ('config', SENDMAIL),
                       ('filters/outgoing', 'to a@b bare\n')):
        (data / name).write_text(text)
        (data / name).chmod(0o600)
    return tmp_path


@pytest.fixture
def run(capfd, tmp_path):
    """Call main() with --check; (status, lines), tmp_path as HOME."""
    def call(*arguments):
        status = main(['--check', *map(str, arguments)])
        printed = capfd.readouterr()
        assert printed.err == ''
        return status, [re.sub('  +', ' ', line)
                        for line in printed.out.replace(str(tmp_path), 'HOME').splitlines()]
    return call


@needs_account
def test_check_of_a_good_home(home, run):
    status, lines = run()
    assert status == 0
    assert lines == [
        'ok HOME/.tmda/tofmipd: password file, 1 user, 1 in plain',
        'ok AUTH offers SCRAM-SHA-256, CRAM-MD5, PLAIN, LOGIN',
        lines[2],
        '',
        'User bobby',
        'ok HOME/.tmda/config: configuration',
        'ok HOME/.tmda/crypt_key: key, 160 bits, for tags of TMDA 1.1',
        'ok HOME/.tmda/filters/outgoing: filter, 1 rule',
        '',
        '0 errors, 0 warnings']
    assert lines[2].startswith('note listens on ')


@needs_account
def test_check_changes_nothing(home, run):
    def state():
        return {str(path): path.stat().st_mtime_ns for path in home.rglob('*')}
    (home / 'list').write_text('x@y\n')
    (home / '.tmda' / 'filters' / 'outgoing').write_text('to-file -autocdb ~/list bare\n')
    before = state()
    assert run()[0] == 0
    assert state() == before


def put(home, name, text, mode=0o600):
    if name == '.tmda/config' and not text.startswith('[') and 'SENDMAIL' not in text:
        text += SENDMAIL  # behind it, as lines are counted; not every machine has one
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')
    path.chmod(mode)


MISTAKES = [
    ('.tmda/config', '\n1/0\n', 'HOME/.tmda/config:2: ZeroDivisionError: division by zero'),
    ('.tmda/config', 'HMAC_BYTES = 0\n',
     'HOME/.tmda/config:1: HMAC_BYTES must be a whole number from 1 to 64'),
    ('.tmda/config', "ACTION_OUTGOING = 'dated=soon'\n",
     'HOME/.tmda/config: ACTION_OUTGOING: Invalid timeout value: soon'),
    ('.tmda/config', "SENDMAIL_PROGRAM = '/none'\n",
     'SENDMAIL_PROGRAM: /none: No such file or directory'),
    ('.tmda/config', "SENDMAIL_PROGRAM = '~/.tmda/config'\n",
     'SENDMAIL_PROGRAM: HOME/.tmda/config: not executable'),
    ('.tmda/config', "LOGFILE_OUTGOING = '~/none/log'\n",
     'LOGFILE_OUTGOING: HOME/none/log: No such file or directory'),
    ('.tmda/config', "BARE_APPEND = '~/.tmda'\n", 'BARE_APPEND: HOME/.tmda: is a directory'),
    ('.tmda/config', "MAIL_FOLLOWUP_TO = '~/lists'\n",
     'MAIL_FOLLOWUP_TO: HOME/lists: No such file or directory'),
    ('.tmda/config', "CRYPT_KEY_FILE = '~/none'\n", "Can't find key file: HOME/none"),
    ('.tmda/config', "CRYPT_KEY_FILE_ROLLOVER = '~/none'\n", "Can't find key file: HOME/none"),
    ('.tmda/crypt_key', 'xyz\n',
     'HOME/.tmda/crypt_key: not a key; it must hold an even number of hex digits'),
    ('.tmda/tofmipd', 'bobby\n', 'HOME/.tmda/tofmipd:1: no colon: write USER:PASSWORD'),
    ('.tmda/filters/outgoing', '\nto x\n',
     'HOME/.tmda/filters/outgoing:2: "to": missing or bogus <action> field'),
    ('.tmda/filters/outgoing', 'include ~/none\n',
     'HOME/.tmda/filters/outgoing:1: "~/none": file not found'),
    ('.tmda/filters/outgoing', '# c\nto-file ~/none bare\n',
     'HOME/.tmda/filters/outgoing:2: "to-file": HOME/none: no such file'),
    ('.tmda/filters/outgoing', 'to-file ~ bare\n', None),
    ('.tmda/filters/outgoing', 'to-cdb ~/.tmda/tofmipd bare\n', None),
    ('.tmda/filters/outgoing', 'to-dbm ~/none bare\n',
     'HOME/.tmda/filters/outgoing:1: "to-dbm": HOME/none: no such file'),
    ('.tmda/filters/outgoing', 'to-mailman -attr=x ~/none bare\n', None),
    ('.tmda/filters/outgoing', 'to-sql -wildcards "SELECT x" bare\n', None),
    ('.tmda/filters/outgoing', 'to * python=print(1\n', None),
    ('.tmda/filters/outgoing', 'to * tag x-y python=`date`\n', None),
]


@needs_account
@pytest.mark.parametrize('name, text, line', MISTAKES)
def test_check_finds_a_mistake(home, run, name, text, line):
    put(home, name, text)
    status, lines = run()
    assert status == 78
    errors = [found for found in lines if found.startswith('error ')]
    assert len(errors) == 1
    assert errors[0] == 'error ' + line if line else re.match(
        r'error HOME/\.tmda/filters/outgoing:1: ', errors[0])
    assert lines[-1] == '1 error, 0 warnings'


@needs_account
@pytest.mark.parametrize('name, mode', [
    ('.tmda/config', 0o666), ('.tmda/crypt_key', 0o644), ('.tmda/tofmipd', 0o644),
    ('.tmda/filters/outgoing', 0o666)])
def test_check_finds_an_unsafe_mode(home, run, name, mode):
    (home / name).chmod(mode)
    status, lines = run()
    assert status == 78
    assert 'HOME/%s' % name in ''.join(line for line in lines if line.startswith('error '))


@needs_account
def test_check_finds_all_mistakes_of_a_filter(home, run):
    put(home, '.tmda/filters/outgoing', 'to x\nfoo y bare\n\n  z\n')
    lines = run()[1]
    assert [line.split(':')[1] for line in lines if line.startswith('error')] == ['1', '2', '4']


@needs_account
def test_check_names_each_file_of_a_filter(home, run):
    put(home, '.tmda/filters/outgoing', 'include ~/.tmda/filters/more\nto a@b bare\n')
    put(home, '.tmda/filters/more', 'to-file ~/list bare\nto-file -optional ~/none bare\n')
    put(home, 'list', '# c\nx@y\nz@y  tag from dated\n')
    status, lines = run()
    assert status == 0
    assert lines[-6:-2] == [
        'ok HOME/.tmda/filters/outgoing: filter, 1 rule',
        'ok HOME/.tmda/filters/more: filter, 2 rules',
        'ok HOME/list: list, 2 entries',
        'note HOME/none: no such file, which is fine with -optional']


@needs_account
def test_check_reads_every_line_of_a_list(home, run):
    put(home, '.tmda/filters/outgoing', 'to-file ~/list bare\n')
    put(home, 'list', 'a@b\nc@d bogus\ne@f dated=5x\ng@h ok\n')
    status, lines = run()
    assert status == 78
    assert [line for line in lines if line.startswith('error')] == [
        'error HOME/list:2: no action: bogus',
        'error HOME/list:3: Invalid timeout value: 5x']


@needs_account
def test_check_opens_databases(home, run):
    Cdb.write(str(home / 'l.cdb'), [(b'a@b', b'')])
    with dbm.dumb.open(str(home / 'l'), 'c') as database:
        database[b'a@b'] = b''
    put(home, '.tmda/filters/outgoing',
        'to-cdb ~/l.cdb bare\nto-dbm ~/l bare\nto-ezmlm ~/e bare\n')
    put(home, 'e/subscribers/A', 'Ta@b\0')
    status, lines = run()
    assert status == 0
    assert 'ok HOME/.tmda/filters/outgoing:1: "to-cdb" HOME/l.cdb' in lines
    assert 'ok HOME/.tmda/filters/outgoing:2: "to-dbm" HOME/l' in lines
    assert 'ok HOME/.tmda/filters/outgoing:3: "to-ezmlm" HOME/e' in lines


@needs_account
def test_check_of_files_for_each_recipient(home, run):
    put(home, '.tmda/filters/outgoing', 'to-file ~/${TMDA_RECIPIENT} bare\n'
                                        'to-file ~/${TMDA_VRECIPIENT} bare\n')
    status, lines = run()
    assert status == 0
    assert ('note HOME/.tmda/filters/outgoing:2: "to-file": another file for each recipient'
            in lines)


@needs_account
@pytest.mark.parametrize('name, text, line', [
    ('.tmda/config', "ACTION_OUTGOING = 'bogus'\n",
     "warning HOME/.tmda/config: ACTION_OUTGOING: 'bogus' is no action: mail leaves untagged"),
    ('.tmda/config', 'def f():\n    return {}.has_key(1)\n',
     'warning HOME/.tmda/config:2: Python 2: write KEY in DICT for DICT.has_key(KEY)'),
    ('.tmda/config', "COOKIE_FORMAT = '1.3'\n",
     'ok HOME/.tmda/crypt_key: key, 160 bits, for tags of TMDA 1.3'),
    ('no-global-file', 'HMAC_BYTES = 4\n', 'ok HOME/no-global-file: configuration of all users'),
    ('.tmda/old', 'ab' * 16 + '\n', None),
])
def test_check_goes_on(home, run, name, text, line):
    put(home, name, text)
    if line is None:
        put(home, '.tmda/config', "CRYPT_KEY_FILE_ROLLOVER = '~/.tmda/old'\n")
        line = 'ok HOME/.tmda/old: former key, 128 bits, for tags of TMDA 1.1'
    status, lines = run()
    assert status == 0
    assert line in lines


@needs_account
def test_check_of_a_readable_password(home, run):
    put(home, '.tmda/config', "SMTPAUTH_PASSWORD = 'x'\n", 0o640)
    assert ('warning HOME/.tmda/config: holds a password, and others may read it: '
            'chmod 600 HOME/.tmda/config') in run()[1]


@needs_account
@pytest.mark.parametrize('missing, note', [
    ('config', 'note HOME/.tmda/config: no such file: defaults apply'),
    ('filters/outgoing', 'note HOME/.tmda/filters/outgoing: no such file: dated for everybody'),
])
def test_check_of_files_that_need_not_be_there(home, run, monkeypatch, missing, note):
    put(home, 'no-global-file', "SENDMAIL_PROGRAM = '/bin/true'\n")
    (home / '.tmda' / missing).unlink()
    status, lines = run()
    assert status == 0 and note in lines


@needs_account
def test_check_with_pure_proxy(home, run):
    (home / '.tmda' / 'config').unlink()
    (home / '.tmda' / 'crypt_key').unlink()
    status, lines = run('--pure-proxy')
    assert status == 0
    assert lines[-3] == ('note HOME/.tmda/config: no such file: mail is passed on unaltered '
                         '(--pure-proxy)')


@needs_account
def test_check_of_an_ini_configuration(home, run):
    put(home, 'no-global-file', 'CONFIG_EXEC = False\n')
    put(home, '.tmda/config', '[TMDA_CONFIG]\nsendmail_program: /bin/true\ndated_timeout: 0600d\n')
    status, lines = run()
    assert status == 0 and lines[-1] == '0 errors, 0 warnings'


# Python 2

OLD = '''\
# print "no"
import ConfigParser
text = """
print "no"
"""
print "yes"
os.umask(0077)
try:
    execfile('x')
except IOError, error:
    raise ValueError, 'no'
if {}.has_key('print "no"'): pass
for key in {}.iterkeys(): pass
isinstance(text, (unicode, str)); 1 <> 2
print >>log, 'x'
name = `text`
string.join([]); string.capwords('x')
'''
OLD_LINES = [2, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17]


def test_old_python_is_found_on_every_line():
    found = oldpython.find(OLD)
    assert [line for line, _ in found] == OLD_LINES
    assert all(advice.startswith('Python 2: ') for _, advice in found)


@pytest.mark.parametrize('source', [
    '', 'x = 1\n', 'print("x")\n', 'import os\nos.umask(0o077)\n', 'file = 1\nf(file)\n',
    'def cmp(a, b): pass\ncmp(1, 2)\n', 's = "print 1"\n', "'''\nprint 1\n'''\n",
    'import reload\nreload(x)\n', 'from x import y as long\nlong(1)\n', 'x.file(1)\n',
    's = "a \\" 0777"\n', 'broken = "never ends\n', 'broken = """never ends\nprint 1\n',
])
def test_old_python_is_not_found_in_new(source):
    assert oldpython.find(source) == []


@needs_account
def test_check_of_a_configuration_of_python_2(home, run):
    put(home, '.tmda/config', OLD)
    status, lines = run()
    assert status == 78
    errors = [line for line in lines if line.startswith('error')]
    assert sorted(int(line.split(':')[1]) for line in errors) == OLD_LINES
    assert all('Python 2: ' in line for line in errors)


# What belongs to the daemon

@needs_account
@pytest.mark.parametrize('arguments, line', [
    (['-a', 'HOME/none'], None),
    (['-R', 'gopher://x'], None),
    (['-R', 'ldap://x'], None),
    (['-m', '../x'], "PAM service '../x': write the name of a file in /etc/pam.d"),
    (['-t', 'HOME/none'], '--throttle-script: HOME/none: No such file or directory'),
    (['-c', 'HOME/none', '-a', 'HOME/empty'],
     '--configdir: HOME/none: No such file or directory'),
    (['-t', 'HOME/.tmda/config'], '--throttle-script: HOME/.tmda/config: not executable'),
    (['--log-file', 'HOME/none/log'],
     '--log-file: HOME/none/log: No such file or directory'),
    (['--stats', 'HOME/.tmda'], '--stats: HOME/.tmda: is a directory'),
    (['--tls=on', '--ssl-cert=HOME/.tmda/config'], None),
    (['--tls=on', '--ssl-cert=%s' % CERTIFICATE, '--ssl-key=%s' % KEY, '--ciphers=NONE-SUCH'],
     "--ciphers: OpenSSL finds no cipher in 'NONE-SUCH'"),
])
def test_check_of_options(home, run, arguments, line):
    put(home, 'empty', '')
    status, lines = run(*[word.replace('HOME', str(home)) for word in arguments])
    assert status == 78
    errors = [found for found in lines if found.startswith('error ')]
    assert errors if line is None else errors == ['error ' + line]


@needs_account
def test_check_of_good_options(home, run):
    status, lines = run('-t', '/bin/true', '--log-file', home / 'log', '-R', 'imap', '-a',
                        home / '.tmda' / 'tofmipd', '-p', ':465/ssl', '--ssl-cert', CERTIFICATE,
                        '--ssl-key', KEY)
    assert status == 0
    assert 'ok /bin/true: --throttle-script' in lines
    assert 'ok HOME/log: --log-file' in lines
    assert 'ok imap://localhost:143, asked for passwords' in lines
    assert 'ok AUTH offers PLAIN, LOGIN' in lines
    assert not (home / 'log').exists()
    assert any(line.startswith('note listens on ') and line.endswith(':465, security: SSL/TLS')
               for line in lines)
    assert any('certificate, valid from 2020-01-01 00:00 to 2120-01-01 00:00 UTC' in line
               for line in lines)


@needs_account
def test_check_of_ipauthmap(home, run):
    assert any('ipauthmap: no such file' in line for line in run('-R', 'imap://0.0.0.0')[1])
    put(home, '.tmda/ipauthmap', '127.0.0.1 127.0.0.2\nnonsense\n')
    status, lines = run('-R', 'imap://0.0.0.0')
    assert status == 0
    assert any(line.startswith('warning HOME/.tmda/ipauthmap:2: skipped: ') for line in lines)


def test_certificate_dates():
    validity, = certificates.read(str(CERTIFICATE))
    assert (validity.begin.year, validity.end.year) == (2020, 2120)  # in both forms of a time


@pytest.mark.parametrize('text', [
    '-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n' % body
    for body in ('', 'AAAA', 'MA==', 'MIIC', 'MAIwAA==', 'MIH/MAA=')])
def test_certificate_that_is_none(tmp_path, text):
    (tmp_path / 'cert').write_text(text)
    with pytest.raises(ValueError):
        certificates.read(str(tmp_path / 'cert'))


@needs_account
@pytest.mark.parametrize('days, verdict', [(400, 'ok'), (13, 'warning'), (-1, 'error')])
def test_check_of_the_end_of_a_certificate(home, run, monkeypatch, days, verdict):
    now = datetime.now(timezone.utc)
    monkeypatch.setattr(certificates, 'read', lambda path: [
        certificates.Validity(now - timedelta(days=30), now + timedelta(days=days))])
    status, lines = run('--tls=on', '--ssl-cert', CERTIFICATE, '--ssl-key', KEY)
    assert status == (78 if verdict == 'error' else 0)
    line, = [line for line in lines if ': certificate, valid from ' in line]
    assert line.startswith(verdict + ' ')


# Many users

@pytest.fixture
def configdir(home):
    """Three users' directories: one good, one broken, one that ends the process."""
    configs = {'ann': "DATADIR = '~'\nSENDMAIL_PROGRAM = '/bin/true'\n", 'ben': '1/0\n',
               'cat': 'import os\nos._exit(0)\n'}
    for name, text in configs.items():
        put(home, 'users/%s/config' % name, text)
    put(home, 'users/ann/crypt_key', KEY_TEXT)
    put(home, 'users/.hidden', '')
    return home / 'users'


def blocks(lines):
    """The lines of each user."""
    found, current = {}, []
    for line in lines:
        if line.startswith('User '):
            current = found.setdefault(line[5:], [])
        elif line:
            current.append(line)
    return found


@needs_account
def test_check_of_every_user(configdir, run):
    status, lines = run('-c', configdir)
    assert status == 78
    found = blocks(lines[:-1])
    assert sorted(found) == ['ann', 'ben', 'bobby', 'cat']
    assert not any(line.startswith('error') for line in found['ann'])
    assert found['ben'] == ['error HOME/users/ben/config:1: ZeroDivisionError: division by zero']
    assert 'ended before its time' in found['cat'][0]


@needs_account
@pytest.mark.parametrize('login, status', [('ann', 0), ('ben', 78), ('../ann', 78)])
def test_check_of_one_user(configdir, run, login, status):
    got, lines = run('-c', configdir, '--login', login)
    assert got == status
    assert list(blocks(lines[:-1])) == [login]


@needs_account
def test_check_of_virtual_users(home, run):
    put(home, 'script', '#!/bin/sh\n[ "$1" = zoe ] && echo "$HOME/virtual"\n', 0o700)
    put(home, 'virtual/.tmda/config', "SENDMAIL_PROGRAM = '/bin/true'\n")
    put(home, 'virtual/.tmda/crypt_key', KEY_TEXT)
    put(home, '.tmda/tofmipd', 'zoe@example.net:x\nyan@example.net:y\n')
    status, lines = run('-S', home / 'script')
    assert status == 78
    found = blocks(lines[:-1])
    assert 'ok HOME/virtual/.tmda/config: configuration' in found['zoe@example.net']
    assert found['yan@example.net'][0].startswith('error ')


def test_find_logins_of_one_home(home, monkeypatch):
    from TMDA.ofmipd.options import Options
    monkeypatch.setattr(os, 'geteuid', lambda: 4711)
    assert users.find_logins(Options(), ['b-phone', 'a-desk']) == ['a-desk']
    assert users.find_logins(Options(), []) == [users.own_login()] == ['4711']


def test_apart_ends_what_takes_too_long(monkeypatch):
    import time

    from TMDA.ofmipd.failure import StartError
    monkeypatch.setattr(users, 'SECONDS', 0.05)
    with pytest.raises(StartError, match='not done'):
        users.apart(lambda: time.sleep(60))


def test_apart_has_no_terminal_and_no_files():
    reader, writer = os.pipe()
    try:
        found = users.apart(lambda: [os.path.exists('/dev/fd/%d' % reader), os.isatty(0),
                                     os.getsid(0) == os.getpid()])
    finally:
        os.close(reader)
        os.close(writer)
    assert found == [False, False, True]


@pytest.fixture
def root_home(unprivileged):
    """A directory that everybody may enter, with a --configdir that belongs to an account."""
    directory = Path(tempfile.mkdtemp(prefix='tmda-check-'))
    directory.chmod(0o755)
    put(directory, 'users/zoe/config', 'import os\nraise ValueError(os.getresuid())\n')
    put(directory, 'passwords', 'zoe:x\nroot:y\n')
    for path in (directory / 'users' / 'zoe', directory / 'users' / 'zoe' / 'config'):
        shutil.chown(path, unprivileged)
    yield directory
    shutil.rmtree(directory)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason='only root can change accounts')
def test_check_as_root_runs_each_configuration_as_its_user(root_home, unprivileged, capfd):
    import pwd
    uid = pwd.getpwnam(unprivileged).pw_uid
    assert main(['--check', '-u', unprivileged, '-a', str(root_home / 'passwords'),
                 '-c', str(root_home / 'users')]) == 78
    printed = capfd.readouterr().out
    assert 'account %s, uid %d, for the network side' % (unprivileged, uid) in printed
    assert 'ValueError: (%d, %d, %d)' % (uid, uid, uid) in printed
    assert 'nobody may log in as root' in printed


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason='only root can change accounts')
def test_check_as_root_without_the_account(root_home, capfd):
    assert main(['--check', '-u', 'no-such-account', '-a', str(root_home / 'passwords'),
                 '-c', str(root_home / 'users'), '--login=zoe']) == 78
    assert '-u: there is no account no-such-account' in capfd.readouterr().out


# The form

def test_findings_are_one_line_each():
    found = findings.Findings()
    found.error('a\nb\x1b[2J\u2028\udcff')
    assert found.text() == 'error    a\\nb\\x1b[2J\\u2028\\udcff\n'


@pytest.mark.parametrize('number, word, expected', [
    (0, 'rule', '0 rules'), (1, 'rule', '1 rule'), (2, 'entry', '2 entries')])
def test_plural(number, word, expected):
    assert findings.plural(number, word) == expected


