# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings: reading order, Python and ini files, their errors, values and defaults."""
from __future__ import annotations

import os
import pwd
import socket
import threading

import pytest

from TMDA import ConfigFile, Defaults, FileCache
from TMDA.Errors import ConfigError, IntervalError


class Home:
    """A user's home in a temporary directory, and what is loaded from it."""

    def __init__(self, path):
        self.path = path
        self.config = path / '.tmda' / 'config'
        self.config.parent.mkdir()
        self.globals = path / 'tmdarc'
        self.environ = {'HOME': str(path), 'GLOBAL_TMDARC': str(self.globals),
                        'USER': 'alice', 'NAME': 'Alice', 'TMDAHOST': 'example.net'}

    def load(self, config=None, globals_=None, **options):
        """Settings after these texts were written to the two files."""
        for file, text in ((self.config, config), (self.globals, globals_)):
            if text is not None:
                file.write_bytes(text if isinstance(text, bytes) else text.encode())
                file.chmod(0o644)
        return Defaults.load(self.environ, **options)

    def error(self, config=None, globals_=None, **options):
        """The text of the ConfigError that these files give."""
        with pytest.raises(ConfigError) as caught:
            self.load(config, globals_, **options)
        return str(caught.value)


@pytest.fixture(name='home')
def fixture_home(tmp_path):
    return Home(tmp_path)


# Reading order

def test_files_none_gives_defaults(home):
    settings = home.load()
    assert not settings.config_found
    assert settings.config_file == str(home.config)
    assert settings.global_file == str(home.globals)
    assert settings.ACTION_OUTGOING == 'dated'


def test_files_user_wins_over_global(home):
    settings = home.load('HMAC_BYTES = 7', 'HMAC_BYTES = 4\nFULLNAME = "G"')
    assert settings.config_found
    assert (settings.HMAC_BYTES, settings.FULLNAME) == (7, 'G')


def test_files_user_sees_names_of_global(home):
    settings = home.load('domain += ".example"', 'domain = "g"')
    assert settings.namespace['domain'] == 'g.example'


@pytest.mark.parametrize('argument, environ, from_global, expected', [
    (None, None, None, '.tmda/config'),
    (None, None, '~/from-global', 'from-global'),
    (None, '~/from-environ', '~/from-global', 'from-environ'),
    ('~/from-argument', '~/from-environ', '~/from-global', 'from-argument'),
])
def test_files_place_of_users_file(home, argument, environ, from_global, expected):
    if environ:
        home.environ['TMDARC'] = environ
    settings = home.load(globals_=f'TMDARC = {from_global!r}', config_file=argument)
    assert settings.config_file == str(home.path / expected)


def test_files_global_computes_place_with_users_home(home):
    text = 'import os\nTMDARC = os.path.expanduser("~/.tmdarc2")'
    (home.path / '.tmdarc2').write_text('USERNAME = "two"')
    assert home.load(globals_=text).USERNAME == 'two'


def test_files_global_argument_wins_over_environment(home):
    home.globals.write_text('USERNAME = "global"')
    other = home.path / 'other'
    other.write_text('USERNAME = "other"')
    assert home.load(global_file=str(other)).USERNAME == 'other'


def test_files_null_device_is_empty(home):
    assert home.load('USERNAME = "u"', global_file=os.devnull).USERNAME == 'u'


# What a Python configuration finds

@pytest.mark.parametrize('word', ['ON', 'On', 'on', 'YES', 'Yes', 'yes', 'TRUE', 'true', 'True'])
def test_python_word_for_true(home, word):
    assert home.load(f'X_TMDA_IN_SUBJECT = {word}').X_TMDA_IN_SUBJECT is True


@pytest.mark.parametrize('word', ['OFF', 'Off', 'off', 'NO', 'No', 'no',
                                  'FALSE', 'false', 'False'])
def test_python_word_for_false(home, word):
    assert home.load(f'X_TMDA_IN_SUBJECT = {word}').X_TMDA_IN_SUBJECT is False


@pytest.mark.parametrize('expression, expected', [
    ('os.environ["LOGIN"]', 'bob@example.net'),
    ('os.getenv("LOGIN")', 'bob@example.net'),
    ('os.environ.get("PATH", "unset")', 'unset'),
    ('os.path.expandvars("$LOGIN/${LOGIN}/$NONE")', 'bob@example.net/bob@example.net/$NONE'),
    ('os.path.expanduser("~")', '{home}'),
    ('os.path.expanduser("~/x")', '{home}/x'),
    ('os.path.expanduser("~root/x")', pwd.getpwnam('root').pw_dir.rstrip('/') + '/x'),
    ('os.path.join("a", "b")', 'a/b'),
    ('os.sep', '/'),
    ('__import__("os").environ["LOGIN"]', 'bob@example.net'),
    ('__file__', '{home}/.tmda/config'),
])
def test_python_os_speaks_of_the_message(home, expression, expected):
    home.environ['LOGIN'] = 'bob@example.net'
    settings = home.load(f'value = {expression}')
    assert settings.namespace['value'] == expected.format(home=home.path)


@pytest.mark.parametrize('text', [
    'import os\nvalue = os.environ["LOGIN"]',
    'from os import environ\nvalue = environ["LOGIN"]',
    'from os import *\nvalue = getenv("LOGIN")',
    'import os.path\nvalue = os.path.expandvars("$LOGIN")',
    'import os.path as p\nvalue = p.expandvars("$LOGIN")',
    'from os.path import expandvars\nvalue = expandvars("$LOGIN")',
    'def f():\n    import os\n    return os.environ["LOGIN"]\nvalue = f()',
])
def test_python_import_of_os(home, text):
    home.environ['LOGIN'] = 'bob'
    assert home.load(text).namespace['value'] == 'bob'


def test_python_environment_is_the_messages_alone(home):
    before = dict(os.environ)
    given = dict(home.environ)
    settings = home.load('import os\nos.environ["ADDED"] = "x"')
    assert settings.environ['ADDED'] == 'x'
    assert home.environ == given
    assert dict(os.environ) == before


def test_python_runs_anew_each_time(home):
    home.environ['WHO'] = 'first'
    assert home.load('import os\nwho = os.environ["WHO"]').namespace['who'] == 'first'
    home.environ['WHO'] = 'second'
    assert home.load().namespace['who'] == 'second'


@pytest.mark.parametrize('text, expected', [
    ('value = USERNAME + "@" + HOSTNAME', 'alice@example.net'),
    ('value = (lambda: DATADIR)()', '{home}/.tmda'),
    ('def f():\n    return [TAGS_DATED[0] for _ in "12"]\nvalue = f()', ['dated', 'dated']),
    ('value = HMAC_BYTES', 3),
    ('COOKIE_FORMAT = "1.3"\nvalue = HMAC_BYTES', 5),
    ('value = FILTER_OUTGOING\nDATADIR = "~/d"\nvalue = FILTER_OUTGOING', '~/d/filters/outgoing'),
])
def test_python_sees_defaults(home, text, expected):
    value = home.load(text).namespace['value']
    assert value == (expected.format(home=home.path) if isinstance(expected, str) else expected)


def test_python_may_append_to_a_default(home):
    settings = home.load('PURGED_HEADERS_CLIENT.append("x-mailer")')
    assert settings.PURGED_HEADERS_CLIENT == ['bcc', 'resent-bcc', 'x-mailer']
    assert home.load('').PURGED_HEADERS_CLIENT == ['bcc', 'resent-bcc']


def test_python_latin1_with_coding_line(home):
    text = '# -*- coding: latin-1 -*-\nFULLNAME = "Al\xedce"'.encode('latin-1')
    assert home.load(text).FULLNAME == 'Al\xedce'


# Changes of the file

def test_cache_sees_a_change_at_once(home):
    for name in 'abcdefgh':
        assert home.load(f'USERNAME = "{name}"').USERNAME == name


def test_cache_keeps_compiled_code(home, monkeypatch):
    monkeypatch.setattr(FileCache, 'SETTLED_NS', 0)
    home.load('USERNAME = "kept"')
    monkeypatch.setattr(ConfigFile, '_compile', None)
    assert home.load().USERNAME == 'kept'


def test_cache_stays_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(FileCache, 'SETTLED_NS', 0)
    cache = FileCache.FileCache(entries=2)
    status = os.stat(tmp_path)
    for name in 'abc':
        cache.put(name, status, name)
    assert [cache.get(name, status) for name in 'abc'] == [None, None, 'c']


def test_load_in_threads_keeps_users_apart(tmp_path):
    homes = []
    for number in range(4):
        path = tmp_path / str(number)
        path.mkdir()
        homes.append(Home(path))
        homes[-1].environ['LOGIN'] = str(number)
    shared = tmp_path / 'shared'
    shared.write_text('import os\nFULLNAME = os.environ["LOGIN"] + os.path.expanduser("~")')
    wrong = []

    def work(home):
        for _ in range(50):
            settings = Defaults.load(home.environ, str(shared))
            if settings.FULLNAME != home.environ['LOGIN'] + str(home.path):
                wrong.append(settings.FULLNAME)
    threads = [threading.Thread(target=work, args=(home,)) for home in homes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# Ini files

INI = 'CONFIG_EXEC = False'


@pytest.mark.parametrize('text, name, expected', [
    ('HMAC_BYTES: 4', 'HMAC_BYTES', 4),
    ('hmac_bytes = 10', 'HMAC_BYTES', 10),
    ('fullname = Alice Ini', 'FULLNAME', 'Alice Ini'),
    ('FULLNAME: 7', 'FULLNAME', '7'),
    ('RECIPIENT_DELIMITER: +', 'RECIPIENT_DELIMITER', '+'),
    ('SMTPAUTH_PASSWORD = 0123', 'SMTPAUTH_PASSWORD', '0123'),
    ('SMTPAUTH_PASSWORD = a%b%(c)s', 'SMTPAUTH_PASSWORD', 'a%b%(c)s'),
    ('SMTPAUTH_PASSWORD = [x', 'SMTPAUTH_PASSWORD', '[x'),
    ('X_TMDA_IN_SUBJECT = False', 'X_TMDA_IN_SUBJECT', False),
    ('X_TMDA_IN_SUBJECT = True', 'X_TMDA_IN_SUBJECT', True),
    ('X_TMDA_IN_SUBJECT = 0', 'X_TMDA_IN_SUBJECT', False),
    ('X_TMDA_IN_SUBJECT = Yes', 'X_TMDA_IN_SUBJECT', True),
    ('LOGFILE_OUTGOING = None', 'LOGFILE_OUTGOING', None),
    ('LOGFILE_OUTGOING = ~/log', 'LOGFILE_OUTGOING', '{home}/log'),
    ('COOKIE_FORMAT = 1.3', 'COOKIE_FORMAT', '1.3'),
    ('TAGS_DATED = ["d", "dated"]', 'TAGS_DATED', ['d', 'dated']),
    ('TAGS_DATED = d, dated', 'TAGS_DATED', ['d', 'dated']),
    ('ADDED_HEADERS_CLIENT = {"X-A": "1",\n  "X-B": "2"}', 'ADDED_HEADERS_CLIENT',
     {'X-A': '1', 'X-B': '2'}),
    ('HMAC_BYTES: 4 ; four', 'HMAC_BYTES', 4),
    ('# HMAC_BYTES: 4', 'HMAC_BYTES', 3),
    ('HMAC_BYTES: 4\nHMAC_BYTES: 5', 'HMAC_BYTES', 5),
])
def test_ini_value(home, text, name, expected):
    settings = home.load(f'[TMDA_CONFIG]\n{text}\n', INI)
    if isinstance(expected, str):
        expected = expected.format(home=home.path) if '{' in expected else expected
    value = getattr(settings, name)
    assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize('text, expected', [
    ('own = 12', 12), ('own = -3', -3), ('own = 0', 0), ('own = 012', '012'), ('own = 1.5', 1.5),
    ('own = 1.2.3', '1.2.3'), ('own = None', None), ('own = none', 'none'),
    ('own = [1, 2]', [1, 2]),
    ('own =', ''),
])
def test_ini_value_of_own_name(home, text, expected):
    settings = home.load(f'[TMDA_CONFIG]\n{text}\n', INI)
    assert settings.namespace['OWN'] == expected


def test_ini_empty_sets_nothing(home):
    assert home.load('', INI).ACTION_OUTGOING == 'dated'


def test_ini_values_are_not_shared(home, monkeypatch):
    monkeypatch.setattr(FileCache, 'SETTLED_NS', 0)
    home.load('[TMDA_CONFIG]\nown = [1]\n', INI).namespace['OWN'].append(2)
    assert home.load().namespace['OWN'] == [1]


@pytest.mark.parametrize('text, place, part', [
    ('USERNAME = "alice"\n', ':1: ', 'begins with a line [TMDA_CONFIG]'),
    ('[OTHER]\na = b\n', ': ', 'no section [TMDA_CONFIG]'),
    ('[TMDA_CONFIG]\nA = 1\nnonsense\n', ':3: ', 'not a line of an ini file'),
    ('[TMDA_CONFIG]\nA = 1\nB = [1, 2\n', ':3: ', 'B: value cannot be read: [1, 2'),
    ('[TMDA_CONFIG]\nA = 1\nB = [os.system("x")]\n', ':3: ', 'B: value cannot be read'),
    ('[TMDA_CONFIG]\nA = 1\nhmac_bytes: x\n', ':3: ', 'HMAC_BYTES must be a whole number'),
])
def test_ini_error(home, text, place, part):
    message = home.error(text, INI)
    assert message.startswith(str(home.config) + place)
    assert part in message


# Errors in Python files

@pytest.mark.parametrize('text, line, part', [
    ('A = 1\nprint "x"', 2, 'Python 2: print is a function'),
    ('if 1: print "x"', 1, 'Python 2: print is a function'),
    ('import sys\nprint >>sys.stderr, "x"', 2, 'Python 2: print is a function'),
    ('exec "A = 1"', 1, 'Python 2: exec is a function'),
    ('import os\n\nos.umask(0077)', 3, 'Python 2: octal numbers begin with 0o'),
    ('A = 0600L', 1, 'Python 2: octal numbers begin with 0o'),
    ('A = 10L', 1, 'Python 2: long numbers need no L'),
    ('A = 1 <> 2', 1, 'Python 2: write != for <>'),
    ('A = `1`', 1, 'Python 2: write repr(...)'),
    ('A = ur"x"', 1, 'Python 2: write r"..."'),
    ('try:\n    pass\nexcept IOError, e:\n    B = e', 3,
     'Python 2: write "except ERROR as NAME:"'),
    ('raise ValueError, "x"', 1, 'Python 2: write "raise ERROR(TEXT)"'),
    ('if 1:\n        A = 1\n\tB = 2', 3, 'Python 2: indent with tabs or with spaces'),
    ('execfile("/x")', 1, 'Python 2: write exec(open(FILE).read())'),
    ('A = 1\n\nB = unicode("x")', 3, 'Python 2: write str for unicode'),
    ('A = {}.has_key("x")', 1, 'Python 2: write KEY in DICT'),
    ('import ConfigParser', 1, 'Python 2: this module has another name'),
    ('import string\nA = string.lower("X")', 2, 'Python 2: use the methods of str'),
    ('A = (', 1, ''),
    ('A = "0600" +', 1, 'invalid syntax'),
    ('A = undefined', 1, "NameError: name 'undefined' is not defined"),
    ('A = 1\nimport sys\nsys.exit(0)', 3, 'SystemExit: 0'),
    ('raise KeyboardInterrupt', 1, 'KeyboardInterrupt'),
    ('def f():\n    return 1 // 0\n\nf()', 2, 'ZeroDivisionError'),
    ('def f():\n    f()\n\nf()', 2, 'RecursionError'),
    ('class E(Exception):\n    def __str__(self):\n        1 // 0\nraise E', 4, ''),
])
def test_python_error(home, text, line, part):
    if part.endswith('"except ERROR as NAME:"') and compiles(text):
        pytest.skip('this Python reads it as a list of exceptions')
    message = home.error(text)
    assert message.startswith(f'{home.config}:{line}: ')
    assert part in message
    assert '\n' not in message


def compiles(text):
    try:
        compile(text, 'text', 'exec')
    except SyntaxError:
        return False
    return True


def test_python_error_in_global_file(home):
    message = home.error('', 'A = 1\nB = nothing')
    assert message.startswith(f'{home.globals}:2: NameError')


@pytest.mark.parametrize('text, part', [
    (b'FULLNAME = "Al\xedce"\n', 'say the encoding in the first line'),
    (b'A = "\0"\n', 'null bytes'),
])
def test_python_error_in_octets(home, text, part):
    message = home.error(text)
    assert message.startswith(str(home.config))
    assert part in message


def test_python_quoted_text_is_no_python_2(home):
    assert 'octal' not in home.error('A = "0600" "print" +')


# Files that are refused

@pytest.mark.parametrize('mode', [0o646, 0o666, 0o602])
def test_file_refused_writable_by_anyone(home, mode):
    home.config.write_text('')
    home.config.chmod(mode)
    assert home.error() == f'{home.config}: anyone may write this file; take that away (chmod o-w)'


@pytest.mark.parametrize('mode', [0o664, 0o660, 0o600, 0o444])
def test_file_accepted_mode(home, mode):
    home.config.write_text('USERNAME = "u"')
    home.config.chmod(mode)
    assert home.load().USERNAME == 'u'


@pytest.mark.parametrize('which', ['config', 'globals'])
def test_file_refused_owner(home, which):
    file = getattr(home, which)
    file.write_text('')
    message = home.error(owners=(os.geteuid() + 1,))
    assert message.startswith(f'{file}: belongs to user {os.geteuid()}')


def test_file_accepted_owner(home):
    assert home.load('USERNAME = "u"', owners={os.geteuid()}).USERNAME == 'u'


def test_file_refused_mode_change_while_cached(home, monkeypatch):
    monkeypatch.setattr(FileCache, 'SETTLED_NS', 0)
    home.load('USERNAME = "u"')
    home.config.chmod(0o666)
    assert 'anyone may write' in home.error()


def test_file_refused_directory(home):
    home.config.mkdir()
    assert home.error() == f'{home.config}: not a regular file'


def test_file_refused_fifo(home):
    os.mkfifo(home.config)
    assert home.error() == f'{home.config}: not a regular file'


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_file_refused_unreadable(home):
    home.config.write_text('')
    home.config.chmod(0)
    assert home.error() == f'{home.config}: Permission denied'


def test_file_refused_symlink_loop(home):
    home.config.symlink_to(home.config)
    assert home.error().startswith(f'{home.config}: Too many levels')


def test_file_below_a_file_is_absent(home):
    home.config.write_text('')
    assert not home.load(config_file=str(home.config / 'x')).config_found


# Values

@pytest.mark.parametrize('text, name, expected', [
    ('DATADIR = "~/data/"', 'DATADIR', '{home}/data/'),
    ('DATADIR = "~/data/"', 'CRYPT_KEY_FILE', '{home}/data/crypt_key'),
    ('DATADIR = "~/data/"', 'FILTER_OUTGOING', '{home}/data/filters/outgoing'),
    ('import pathlib\nDATADIR = pathlib.Path("/d")', 'DATADIR', '/d'),
    ('LOGFILE_OUTGOING = "~/log"', 'LOGFILE_OUTGOING', '{home}/log'),
    ('LOGFILE_OUTGOING = "/log/~x"', 'LOGFILE_OUTGOING', '/log/~x'),
    ('LOGFILE_OUTGOING = "~"', 'LOGFILE_OUTGOING', '{home}'),
    ('LOGFILE_OUTGOING = "logs/x"', 'LOGFILE_OUTGOING', '{home}/logs/x'),
    ('MAIL_TRANSFER_AGENT = "Postfix"', 'MAIL_TRANSFER_AGENT', 'postfix'),
    ('MAIL_TRANSPORT = "SMTP"', 'MAIL_TRANSPORT', 'smtp'),
    ('SMTPHOST = "h"', 'SMTPHOST', 'h'),
    ('SMTPHOST = "h:25"', 'SMTPHOST', 'h:25'),
    ('SMTPHOST = "[::1]:25"', 'SMTPHOST', '[::1]:25'),
    ('SMTPHOST = "::1"', 'SMTPHOST', '::1'),
    ('SMTPSSL = True', 'SMTPSSL', True),
    ('SMTPSSL = 1', 'SMTPSSL', True),
    ('SMTPSSL = "wrapper"', 'SMTPSSL', 'wrapper'),
    ('FULLNAME = "Alice\\n"', 'FULLNAME', 'Alice'),
    ('FULLNAME = ""', 'FULLNAME', ''),
    ('FULLNAME = None', 'FULLNAME', 'Alice'),
    ('FULLNAME = b"Al\\xc3\\xadce"', 'FULLNAME', 'Al\xedce'),
    ('COOKIE_FORMAT = 1.3', 'COOKIE_FORMAT', '1.3'),
    ('HMAC_ALGO = "P2SHA512"', 'HMAC_ALGO', 'p2sha512'),
    ('HMAC_BYTES = "4"', 'HMAC_BYTES', 4),
    ('TAGS_DATED = ("d", "dated")', 'TAGS_DATED', ['d', 'dated']),
    ('TAGS_DATED = "d"', 'TAGS_DATED', ['d']),
    ('TAGS_DATED = None', 'TAGS_DATED', ['dated']),
    ('PURGED_HEADERS_CLIENT = []', 'PURGED_HEADERS_CLIENT', []),
    ('PURGED_HEADERS_CLIENT = None', 'PURGED_HEADERS_CLIENT', []),
    ('MAIL_FOLLOWUP_TO = "~/.lists"', 'MAIL_FOLLOWUP_TO', '{home}/.lists'),
    ('MAIL_FOLLOWUP_TO = ["a@b"]', 'MAIL_FOLLOWUP_TO', ['a@b']),
    ('ADDED_HEADERS_CLIENT = {"X-A": 1}', 'ADDED_HEADERS_CLIENT', {'X-A': '1'}),
    ('MESSAGE_FROM_STYLE = "parens"', 'MESSAGE_FROM_STYLE', 'parens'),
    ('MAIL_TRANSFER_AGENT = "postfix"', 'DELIVERY', None),
    ('DELIVERY = 5', 'DELIVERY', 5),
    ('FILTER_INCOMING = "~/x"', 'FILTER_INCOMING', '~/x'),
    ('DB_CONNECTION = len', 'DB_CONNECTION', len),
])
def test_value_accepted(home, text, name, expected):
    if isinstance(expected, str):
        expected = expected.format(home=home.path)
    assert getattr(home.load(text), name) == expected


@pytest.mark.parametrize('name, value', [
    ('HMAC_BYTES', 'x'), ('HMAC_BYTES', 0), ('HMAC_BYTES', -1), ('HMAC_BYTES', True),
    ('HMAC_BYTES', 2.5), ('HMAC_ROUNDS', 10), ('HMAC_ALGO', 'nosuch'), ('HMAC_ALGO', 'p2'),
    ('HMAC_ALGO', 'p2nosuch'), ('HMAC_ALGO', 'shake_128'), ('HMAC_ALGO', 5),
    ('HMAC_ALGO_ROLLOVER', 'nosuch'), ('HMAC_BYTES_ROLLOVER', 'x'),
    ('COOKIE_FORMAT', '1.2'), ('COOKIE_FORMAT', ['1.1']),
    ('MAIL_TRANSPORT', 'uucp'), ('MAIL_TRANSFER_AGENT', 'postfx'),
    ('SMTPHOST', 'h:0'), ('SMTPHOST', 'h:99999'), ('SMTPHOST', 'h:x'), ('SMTPHOST', ''),
    ('SMTPHOST', 'a b'), ('SMTPSSL', 'maybe'), ('SMTPSSL', []),
    ('SMTP_MAX_SESSIONS_PER_CONNECTION', -1), ('SMTPAUTH_USERNAME', 'a\nb'),
    ('RECIPIENT_DELIMITER', ''), ('RECIPIENT_DELIMITER', '@'), ('RECIPIENT_DELIMITER', ' '),
    ('RECIPIENT_DELIMITER', 'x'), ('USERNAME', 'alice@example.net'), ('USERNAME', ''),
    ('HOSTNAME', '@example.net'), ('HOSTNAME', 'a b'), ('FULLNAME', 'a\r\nBcc: x'),
    ('FULLNAME', ['a']), ('TAGS_DATED', []), ('TAGS_DATED', ['a b']), ('TAGS_SENDER', ['']),
    ('TAGS_KEYWORD', 5), ('PURGED_HEADERS_CLIENT', 5), ('FINGERPRINT', {'a': 'b'}),
    ('ADDED_HEADERS_CLIENT', ['a']), ('ADDED_HEADERS_CLIENT', {'a': None}),
    ('DATED_TIMEOUT', '5'), ('DATED_TIMEOUT', 'week'), ('DATED_TIMEOUT', 5),
    ('DATADIR', 5), ('DATADIR', ''), ('CRYPT_KEY_FILE', 'a\0b'), ('X_TMDA_IN_SUBJECT', 'maybe'),
    ('ALLOW_MODE_640', 'perhaps'), ('MAIL_FOLLOWUP_TO', 5),
])
def test_value_refused(home, name, value):
    message = home.error(f'A = 1\n{name} = {value!r}\nB = 2')
    assert message.startswith(f'{home.config}:2: {name} must be ')


def test_value_refused_in_global_file(home):
    message = home.error('A = 1', 'HMAC_BYTES = "x"')
    assert message.startswith(f'{home.globals}:1: HMAC_BYTES must be ')


def test_value_refused_where_no_line_shows_it(home):
    message = home.error('globals()["HMAC_BYTES"] = "x"')
    assert message.startswith(f'{home.config}: HMAC_BYTES must be ')


def test_value_refused_from_environment(home):
    home.environ['TMDA_TIMEOUT'] = 'soon'
    message = home.error('DATED_TIMEOUT = "5d"')
    assert message.startswith('DATED_TIMEOUT must be an interval')
    assert message.endswith('(set by $TMDA_TIMEOUT)')


@pytest.mark.parametrize('variable, name, value, expected', [
    ('TMDA_FILTER_OUTGOING', 'FILTER_OUTGOING', '~/other', '{home}/other'),
    ('TMDA_TIMEOUT', 'DATED_TIMEOUT', '12h', '12h'),
])
def test_value_from_environment_wins(home, variable, name, value, expected):
    home.environ[variable] = value
    settings = home.load(f'{name} = "7d"')
    assert getattr(settings, name) == expected.format(home=home.path)


# Defaults

@pytest.mark.parametrize('name, expected', [
    ('DATADIR', '{home}/.tmda'), ('MAIL_TRANSFER_AGENT', 'qmail'), ('RECIPIENT_DELIMITER', '-'),
    ('ALLOW_MODE_640', False), ('MAIL_TRANSPORT', 'sendmail'), ('SMTPHOST', 'localhost'),
    ('SMTPAUTH_USERNAME', None), ('SMTPAUTH_PASSWORD', None), ('SMTPSSL', False),
    ('SMTPSSL_KEYFILE', None), ('SMTPSSL_CERTFILE', None),
    ('SMTP_MAX_SESSIONS_PER_CONNECTION', 0), ('BARE_APPEND', None), ('DB_BARE_APPEND', None),
    ('DB_CONNECTION', None), ('FILTER_OUTGOING', '{home}/.tmda/filters/outgoing'),
    ('ACTION_OUTGOING', 'dated'), ('FINGERPRINT', None), ('LOGFILE_DEBUG', None),
    ('LOGFILE_OUTGOING', None), ('MESSAGE_FROM_STYLE', 'angles'),
    ('MESSAGE_TAG_HEADER_STYLE', 'angles'), ('ADDED_HEADERS_CLIENT', None),
    ('PURGED_HEADERS_CLIENT', ['bcc', 'resent-bcc']), ('TAGS_CONFIRM', ['confirm']),
    ('TAGS_DATED', ['dated']), ('TAGS_KEYWORD', ['keyword']), ('TAGS_SENDER', ['sender']),
    ('TMDAINJECT', None), ('MAIL_FOLLOWUP_TO', None), ('DATED_TIMEOUT', '5d'),
    ('X_TMDA_IN_SUBJECT', False), ('CRYPT_KEY_FILE', '{home}/.tmda/crypt_key'),
    ('COOKIE_FORMAT', '1.1'), ('HMAC_BYTES', 3), ('HMAC_ALGO', 'sha1'), ('HMAC_ROUNDS', 5),
    ('HMAC_ENCODING_COMPAT', False), ('CRYPT_KEY_FILE_ROLLOVER', None),
    ('USERNAME', 'alice'), ('HOSTNAME', 'example.net'), ('FULLNAME', 'Alice'),
    ('DELIVERY', None), ('FILTER_INCOMING', None), ('CGI_URL', None),
])
def test_default(home, name, expected):
    if isinstance(expected, str):
        expected = expected.format(home=home.path)
    assert getattr(home.load(), name) == expected


@pytest.mark.parametrize('text, expected', [
    ('', ('1.1', 'sha1', 3)),
    ('COOKIE_FORMAT = "1.1"', ('1.1', 'sha1', 3)),
    ('COOKIE_FORMAT = "1.3"', ('1.3', 'p2sha256', 5)),
    ('HMAC_ALGO = "sha1"', ('1.3', 'sha1', 5)),
    ('HMAC_ROUNDS = 4', ('1.3', 'p2sha256', 5)),
    ('HMAC_BYTES = 5', ('1.1', 'sha1', 5)),
    ('HMAC_ALGO_ROLLOVER = "sha1"', ('1.1', 'sha1', 3)),
    ('COOKIE_FORMAT = "1.1"\nHMAC_ALGO = "sha256"', ('1.1', 'sha256', 3)),
    ('COOKIE_FORMAT = None\nHMAC_ALGO = None', ('1.1', 'sha1', 3)),
])
def test_default_cookie_format(home, text, expected):
    settings = home.load(text)
    assert (settings.COOKIE_FORMAT, settings.HMAC_ALGO, settings.HMAC_BYTES) == expected


def test_default_rollover_is_as_the_current_key(home):
    settings = home.load('HMAC_ALGO = "sha512"\nHMAC_BYTES = 7')
    assert (settings.HMAC_ALGO_ROLLOVER, settings.HMAC_ROUNDS_ROLLOVER,
            settings.HMAC_BYTES_ROLLOVER) == ('sha512', 5, 7)


@pytest.mark.parametrize('name, variables, rest', [
    ('FULLNAME', ['TMDANAME', 'QMAILNAME', 'NAME', 'MAILNAME'], None),
    ('USERNAME', ['TMDAUSER', 'QMAILUSER', 'USER', 'LOGNAME'], None),
    ('HOSTNAME', ['TMDAHOST', 'QMAILHOST', 'MAILHOST'], 'fqdn.example'),
])
def test_default_from_environment_in_order(home, monkeypatch, name, variables, rest):
    monkeypatch.setattr('TMDA.Variables._own_domain_name', lambda: 'fqdn.example')
    home.environ.update({variable: variable.lower() for variable in variables})
    for variable in variables:
        assert getattr(home.load(), name) == variable.lower()
        home.environ[variable] = ''
    if rest:
        assert getattr(home.load(), name) == rest


class Account:
    """A passwd entry."""

    pw_name = 'alice'
    pw_gecos = 'Alice Liddell,Room 1,,'


def test_default_names_from_passwd(home, monkeypatch):
    def unknown(name):
        raise KeyError(name)
    monkeypatch.setattr(pwd, 'getpwnam', unknown)
    monkeypatch.setattr(pwd, 'getpwuid', lambda uid: Account)
    home.environ = {'HOME': str(home.path)}
    settings = home.load()
    assert (settings.FULLNAME, settings.USERNAME) == ('Alice Liddell', 'alice')


def test_default_names_without_passwd(home, monkeypatch):
    def unknown(key):
        raise KeyError(key)
    monkeypatch.setattr(pwd, 'getpwnam', unknown)
    monkeypatch.setattr(pwd, 'getpwuid', unknown)
    home.environ = {'HOME': str(home.path)}
    settings = home.load()
    assert (settings.FULLNAME, settings.USERNAME) == ('', str(os.geteuid()))


def test_default_user_name_of_a_virtual_user(home):
    home.environ['USER'] = 'bob@virtual.example'
    assert home.load().USERNAME == 'bob'


def test_default_host_name_is_asked_for_once(home, monkeypatch):
    from TMDA import Variables
    Variables._own_domain_name.cache_clear()
    asked = []
    monkeypatch.setattr(socket, 'getfqdn', lambda: asked.append(1) or 'fqdn.example')
    del home.environ['TMDAHOST']
    settings = home.load()
    assert not asked
    assert settings.HOSTNAME == home.load().HOSTNAME == 'fqdn.example'
    assert asked == [1]
    Variables._own_domain_name.cache_clear()


def test_default_that_cannot_be_computed(home):
    home.environ['TMDAHOST'] = 'two words'
    with pytest.raises(ConfigError, match='HOSTNAME must be one word'):
        home.load().check()


def test_default_home_from_the_process_without_HOME():
    settings = Defaults.load({}, os.devnull, os.devnull)
    assert settings.home == os.path.expanduser('~')


# Settings

def test_settings_check_computes_everything(home):
    home.load().check()


def test_settings_unknown_attribute(home):
    with pytest.raises(AttributeError):
        home.load().NO_SUCH_VARIABLE


def test_settings_repr_shows_no_password(home):
    assert 'sesam' not in repr(home.load('SMTPAUTH_PASSWORD = "sesam"'))


@pytest.mark.parametrize('path, expected', [
    ('~', '{home}'), ('~/x', '{home}/x'), ('/x/~', '/x/~'), ('x', 'x'), ('', ''),
    ('~nosuchuser/x', '~nosuchuser/x'),
])
def test_settings_expand(home, path, expected):
    assert home.load().expand(path) == expected.format(home=home.path)


def test_namespace_knows_defaults_and_own_names(home):
    namespace = home.load('partner = "example.org"\nPARTS = [partner]').namespace
    assert namespace['partner'] == namespace.get('partner') == 'example.org'
    assert namespace['USERNAME'] == namespace.get('USERNAME') == 'alice'
    assert 'USERNAME' in namespace and 'partner' in namespace
    assert 'nothing' not in namespace and namespace.get('nothing', 1) == 1
    with pytest.raises(KeyError):
        namespace['nothing']
    assert eval('(lambda: partner + USERNAME)()', namespace) == 'example.orgalice'


def test_variables_table_is_complete():
    for name, variable in Defaults.VARIABLES.items():
        assert variable.name == name
        assert variable.direction in ('in', 'out')
        assert variable.meaning
        assert variable.kind.__doc__


# Intervals

@pytest.mark.parametrize('text, seconds', [
    ('1Y', 31536000), ('2M', 5184000), ('3w', 1814400), ('5d', 432000), ('10h', 36000),
    ('6m', 360), ('7s', 7), ('0d', 0), ('007s', 7),
])
def test_interval(text, seconds):
    assert Defaults.interval_seconds(text) == seconds


@pytest.mark.parametrize('text', ['', '5', 'd', '5D', '5y', '1.5d', '5 d', ' 5d', '5d\n', '5d5h',
                                  '-5d', '\u0665d', '9' * 5000 + 'd', None, 5])
def test_interval_refused(text):
    with pytest.raises(IntervalError, match='Invalid timeout value'):
        Defaults.interval_seconds(text)
