# SPDX-License-Identifier: GPL-2.0-or-later
"""Homes of TMDA 1.1 and 1.3 users, as recorded in tests/vectors, under this program: unchanged.

Each goes through --check, through --explain for every recipient, and some through a daemon with a
message.  What the administrator adds is a global file, which says how mail leaves this host and,
for 1.3, whose cookies the users have.
"""
import base64
import email
import email.policy
import json
import os
import re
import time
from pathlib import Path

import pytest

from support.daemon import Daemon, needs_account
from TMDA import Address, Cdb, Cookie, Defaults
from TMDA.inject.memory import FILE_NAME
from TMDA.ofmipd.main import main

pytestmark = needs_account

VECTORS = Path(__file__).resolve().parents[1] / 'vectors'
CASES = {(case['series'], case['name']): case for case in
         json.loads((VECTORS / 'outgoing.json').read_text(encoding='utf-8'))}
NAMES = [
    'action/domain-address', 'action/kw-upper', 'action/sender', 'config/global-only',
    'config/ini', 'config/user-over-global', 'hmac/bytes-5', 'include/order', 'key/mode-400',
    'log/to-file', 'macro/nested', 'recipients/one-action-each', 'source/to-cdb',
    'source/to-ezmlm', 'source/to-file-kinds-of-lines', 'source/to-sql-exact', 'tag/mix',
    'tags/plus-delimiter', 'variable/from-config',
]
SENT = ['config/ini', 'log/to-file', 'recipients/one-action-each', 'tag/mix']
SERIES = ['1.1', '1.3']
GLOBAL = "SENDMAIL_PROGRAM = '%s'\n%s%s"
COOKIES = {'1.1': '', '1.3': "COOKIE_FORMAT = '1.3'\n"}
SENDMAIL = '#!/bin/sh\nprintf "%%s\\n" "$@" > %(dir)s/$$.words\ncat > %(dir)s/$$.text\n'
TAG = re.compile(r'(dated)[-+]\d+\.\w+')


class Home:
    """The home of a case, and a directory beside it for what the administrator has."""

    def __init__(self, case, directory):
        self.case = case
        self.path = directory / 'home'
        self.admin = directory / 'admin'
        self.admin.mkdir()
        for name, text in case['files'].items():
            self._write(name, text)
        if case['config'] is not None:
            self._write('.tmda/config', case['config'])
        self._write('.tmda/crypt_key', case['crypt_key'] + '\n')
        for name, items in case.get('cdb_files', {}).items():
            Cdb.write(str(self._place(name)), [(key.encode(), value.encode())
                                               for key, value in items.items()])
        sendmail = self.admin / 'sendmail'
        sendmail.write_text(SENDMAIL % {'dir': self.admin})
        sendmail.chmod(0o755)
        (self.admin / 'tmdarc').write_text(
            GLOBAL % (sendmail, COOKIES[case['series']], case.get('global_config', '')))
        self.environ = {name: str(self.path) + value[1:] if value[:2] == '~/' else value
                        for name, value in case['env'].items() if name[:5] != 'TMDA_'}
        self.environ.update(GLOBAL_TMDARC=str(self.admin / 'tmdarc'))
        self.before = self.files()

    def _place(self, name):
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _write(self, name, text):
        path = self._place(name)
        path.write_text(text, encoding='utf-8')
        if name.endswith(('crypt_key', 'tofmipd')):
            path.chmod(0o600)

    def files(self):
        return {str(path): path.read_bytes() for path in self.path.rglob('*') if path.is_file()}

    def add_password(self):
        self._write('.tmda/tofmipd', 'bobby:FooBar\n')

    @property
    def message(self):
        """Octets with CRLF."""
        return re.sub(rb'\r\n|\r|\n', b'\r\n', base64.b64decode(self.case['message_base64']))

    @property
    def author(self):
        return email.message_from_bytes(self.message, policy=email.policy.compat32)['From']

    def sent(self):
        """(words, message) of each call of sendmail."""
        return [(path.read_text().split('\n')[:-1],
                 email.message_from_bytes(path.with_suffix('.text').read_bytes()))
                for path in self.admin.glob('*.words')]

    def check_dated(self, address):
        """A dated address was made with the key of this home."""
        settings = Defaults.load(dict(self.environ, HOME=str(self.path)))
        if Address.kind(settings, address) == 'dated':
            assert Address.verify(Cookie.Cookies(settings), address, time.time()) > time.time()
        if settings.DB_CONNECTION is not None:
            settings.DB_CONNECTION.d.close()  # the recorded wrapper's sqlite3 connection


def timeless(text):
    """text without what depends on the clock."""
    return TAG.sub(r'\1', text)


@pytest.fixture
def home(request, tmp_path, monkeypatch):
    series, name = request.param
    made = Home(CASES[series, name], tmp_path)
    assert CASES[series, name]['expect']['deliveries']
    for variable, value in dict(made.environ, HOME=str(made.path)).items():
        monkeypatch.setenv(variable, value)
    return made


def homes(names):
    cases = [(series, name) for series in SERIES for name in names]
    return pytest.mark.parametrize('home', cases, indirect=True, ids='-'.join)


@homes(NAMES)
def test_old_home_is_checked(home, capfd):
    home.add_password()
    before = home.files()
    status = main(['--check'])
    printed = capfd.readouterr().out
    assert status == 0, printed
    assert 'error ' not in printed
    for name in ('crypt_key', 'config'):
        path = home.path / '.tmda' / name
        assert not path.exists() or 'ok       %s: ' % path in printed
    assert home.files() == before


@homes(NAMES)
def test_old_home_is_explained(home, capfd):
    for delivery in home.case['expect']['deliveries']:
        assert main(['--explain', delivery['envelope_recipient'], '--from', home.author]) == 0
        printed = capfd.readouterr().out
        facts = dict(re.split('  +', line, maxsplit=1) for line in printed.splitlines())
        address = facts['envelope sender'].strip('<>')
        assert timeless(address) == timeless(delivery['envelope_sender']).replace('<>', '')
        author, = [value for name, value in delivery['headers'] if name == 'From']
        assert timeless(facts['From']) == timeless(author)
        home.check_dated(address)
    assert home.files() == home.before


@homes(SENT)
def test_old_home_sends_a_message(home):
    home.add_password()
    with Daemon(home.path, environ=home.environ) as daemon, daemon.connect() as talk:
        talk.reply()
        talk.login()
        assert talk.ask('MAIL FROM:<client@example.net>').startswith('250')
        for recipient in home.case['recipients']:
            assert talk.ask('RCPT TO:<%s>' % recipient).startswith('250')
        assert talk.ask('DATA').startswith('354')
        talk.send(home.message)
        assert talk.ask('.').startswith('250'), daemon.text
    assert without_order(home.sent()) == sorted(
        (timeless(delivery['envelope_sender']).replace('<>', ''), delivery['envelope_recipient'],
         timeless(dict(delivery['headers'])['From']))
        for delivery in home.case['expect']['deliveries'])
    changed = {path for path, content in home.files().items() if home.before.get(path) != content}
    allowed = {'.tmda/tofmipd', '.tmda/' + FILE_NAME, *home.case['expect']['files_after']}
    assert {os.path.relpath(path, home.path) for path in changed} <= allowed


def without_order(sent):
    """(envelope sender, recipient, From) of all that was sent."""
    found = []
    for words, message in sent:
        sender = words[words.index('-f') + 1]
        for recipient in words[words.index('--') + 1:]:
            found.append((timeless(sender), recipient, timeless(message['From'])))
    return sorted(found)
