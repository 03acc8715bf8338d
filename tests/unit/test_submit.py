"""submit(): whatever happens in a user's files, the client gets an answer and keeps its message."""

import errno
import os

import pytest

from support.upstream import Upstream, say
from TMDA.inject import transport
from TMDA.inject.envelope import Envelope, Recipient
from TMDA.inject.limits import Limits
from TMDA.inject.spool import Spool
from TMDA.inject.submit import Submission, submit
from TMDA.inject.user import User

MESSAGE = b'From: Al <alice@example.net>\r\nSubject: x\r\n\r\nHello\r\n'


class Home:
    """A user's home, and a way to send from it."""

    def __init__(self, path, port):
        self.path = path
        self.data = path / '.tmda'
        (self.data / 'filters').mkdir(parents=True)
        (self.data / 'crypt_key').write_text('0123456789abcdef' * 3)
        (self.data / 'crypt_key').chmod(0o600)
        self.port = port
        self.config('')

    def config(self, text):
        (self.data / 'config').write_text(
            'USERNAME = "alice"\nHOSTNAME = "example.net"\nMAIL_TRANSPORT = "smtp"\n'
            'SMTPHOST = "127.0.0.1:%d"\n%s\n' % (self.port, text))

    def filter(self, text):
        (self.data / 'filters/outgoing').write_text(text)

    def send(self, message=MESSAGE, recipients=('bob@example.org',), **options):
        environ = dict(HOME=str(self.path), PATH=os.environ['PATH'],
                       GLOBAL_TMDARC=str(self.path / 'none'), **options.pop('environ', {}))
        user = User('alice', str(self.path), str(options.pop('config_file', self.data / 'config')),
                    environ)
        envelope = Envelope(options.pop('sender', 'alice@example.net'),
                            tuple(map(Recipient, recipients)))
        with Spool(10 ** 6) as spool:
            spool.write(message)
            return submit(Submission(user, envelope, spool, 'from x by y; z', **options), Limits())


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield server


@pytest.fixture
def home(tmp_path, upstream):
    yield Home(tmp_path, upstream.port)
    transport.close()


@pytest.mark.parametrize('config, words', [
    ('import sys; sys.exit(0)', 'SystemExit'),
    ('raise KeyboardInterrupt', 'KeyboardInterrupt'),
    ('1 / 0', 'ZeroDivisionError'),
    ('print "x"', 'Python 2'),
    ('HMAC_BYTES = "many"', 'HMAC_BYTES'),
    ('ACTION_OUTGOING = "dated=soon"', 'soon'),
    ('CRYPT_KEY_FILE = "~/nothing"', 'nothing'),
    ('MAIL_FOLLOWUP_TO = "~/no-list"', 'no-list'),
    ('ADDED_HEADERS_CLIENT = {"no name": "x"}', 'no name'),
])
def test_broken_configuration_is_deferred(home, upstream, config, words):
    home.config(config)
    outcome = home.send()
    assert (outcome.reply.code, outcome.reply.enhanced) == (451, '4.3.5'), outcome
    assert words in outcome.facts['error'] and '\n' not in outcome.facts['error']
    assert words not in outcome.reply.text
    assert upstream.messages == []


@pytest.mark.parametrize('rules, words', [
    ('foo\n', '[line 1]: "foo": unrecognized filter rule'),
    ('to * python=1/0\n', 'ZeroDivisionError'),
    ('to * shell="exit 3"\n', 'exit status 3'),
    ('to * dated=never\n', 'never'),
    ('to-file ~/missing bare\n', 'missing'),
])
def test_broken_filter_is_deferred(home, upstream, rules, words):
    home.filter(rules)
    outcome = home.send()
    assert (outcome.reply.code, outcome.reply.enhanced) == (451, '4.3.5'), outcome
    assert words in outcome.facts['error']
    assert upstream.messages == []


def test_exit_in_an_expression_is_an_error_not_the_end(home, upstream):
    home.config('import sys')
    home.filter('to * python=sys.exit(0)\n')
    outcome = home.send()
    assert outcome.reply.code == 451 and 'SystemExit' in outcome.facts['error']


def test_error_is_told_to_the_debug_log_with_its_traceback(home):
    home.config('LOGFILE_DEBUG = "~/debug"')
    home.filter('to * python=1/0\n')
    home.send()
    assert 'ZeroDivisionError' in (home.path / 'debug').read_text()


@pytest.mark.parametrize('field', [b'X-TMDA: shell=touch$IFS"$HOME"/ran', b'X-TMDA: python=open("ran","w")'])
def test_override_from_the_network_runs_nothing(home, upstream, field):
    outcome = home.send(field + b'\r\n' + MESSAGE)
    assert outcome.reply.code == 550
    assert not (home.path / 'ran').exists() and upstream.messages == []


def test_override_in_the_subject_runs_nothing(home, upstream):
    home.config('X_TMDA_IN_SUBJECT = True')
    outcome = home.send(b'Subject: X-TMDA shell=date hello\r\n\r\nx')
    assert outcome.reply.code == 550 and upstream.messages == []


def test_success_tells_what_kind_of_tags_were_made(home, upstream):
    home.filter('to bob@* sender\nto * bare\n')
    outcome = home.send(recipients=('bob@example.org', 'eve@example.org'))
    assert outcome.reply.code == 250 and outcome.facts['tags'] == 'bare,sender'
    assert len(upstream.messages) == 2


def test_null_sender_stays_null_and_the_header_is_tagged(home, upstream):
    home.filter('to * keyword=k\n')
    assert home.send(sender='').reply.code == 250
    assert upstream.messages[0].mail_from == ''
    assert b'alice-keyword-k.' in upstream.messages[0].data


def test_recipients_with_the_same_result_share_a_transaction(home, upstream):
    home.filter('to * dated\n')
    assert home.send(recipients=tuple('u%d@example.org' % n for n in range(100))).reply.code == 250
    assert [len(message.recipients) for message in upstream.messages] == [100]


def test_header_too_big_is_refused(home):
    outcome = home.send(b'X: ' + b'y' * (Limits().header_size + 10) + b'\r\n\r\nx')
    assert outcome.reply.code == 552


def test_full_disk_is_452(home, monkeypatch):
    def fail(*unused):
        raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr('TMDA.inject.message.Message.read', fail)
    outcome = home.send()
    assert (outcome.reply.code, outcome.reply.enhanced) == (452, '4.3.1')


def test_sidenotes_are_written_only_after_acceptance(home, upstream):
    home.config('BARE_APPEND = "~/list"\nLOGFILE_OUTGOING = "~/log"')
    home.filter('to * bare=append\n')
    upstream.on('RCPT', say('550 5.1.1 No'), times=1)
    assert home.send().reply.code == 550
    assert not (home.path / 'list').exists() and not (home.path / 'log').exists()
    assert home.send().reply.code == 250
    assert (home.path / 'list').read_text() == 'bob@example.org\n'
    assert 'Actn: to * tag from bare=append' in (home.path / 'log').read_text()


def test_sidenote_that_cannot_be_written_does_not_change_the_answer(home, upstream):
    home.config('LOGFILE_OUTGOING = "~/no/directory/log"')
    outcome = home.send()
    assert outcome.reply.code == 250 and 'no/directory' in outcome.facts['sidenote_error']


def test_configuration_sees_the_environment_of_its_message(home, upstream):
    home.config('import os\nADDED_HEADERS_CLIENT = {"X-Login": os.environ["LOGIN"],'
                ' "X-Local": os.environ["TCPLOCALIP"]}')
    assert home.send(environ={'LOGIN': 'al', 'TCPLOCALIP': '192.0.2.1'}).reply.code == 250
    assert b'X-Local: 192.0.2.1\r\n' in upstream.messages[0].data
    assert b'X-Login: al\r\n' in upstream.messages[0].data
    assert 'TCPLOCALIP' not in os.environ


class TestPureProxy:
    """--pure-proxy: a user without a configuration file has the message passed on as it came."""

    @pytest.fixture
    def program(self, tmp_path):
        path = tmp_path / 'sendmail'
        path.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$HOME/arguments"\ncat > "$HOME/message"\n')
        path.chmod(0o755)
        return {'TMDA_SENDMAIL_PROGRAM': str(path)}

    def test_pure_proxy_message_goes_unaltered(self, home, program):
        outcome = home.send(config_file=home.path / 'none', pure_proxy=True, environ=program,
                            recipients=('-bob@example.org', 'eve@example.org'))
        assert outcome.reply.code == 250, outcome
        arguments = (home.path / 'arguments').read_text().split('\n')
        assert arguments[-4:-1] == ['--', '-bob@example.org', 'eve@example.org']
        assert '-f' in arguments and 'alice@example.net' in arguments
        assert (home.path / 'message').read_bytes() == MESSAGE.replace(b'\r\n', b'\n')

    def test_pure_proxy_user_with_a_configuration_is_tagged(self, home, upstream, program):
        home.filter('to * keyword=k\n')
        assert home.send(pure_proxy=True, environ=program).reply.code == 250
        assert upstream.messages[0].mail_from.startswith('alice-keyword-k.')


def test_configuration_that_forks_sends_once(home, upstream):
    home.config('import os, warnings\nwarnings.simplefilter("ignore")\n'
                'FORKED = os.fork()\nif FORKED: os.waitpid(FORKED, 0)')
    assert home.send().reply.code == 250
    assert len(upstream.messages) == 1
