"""tmda-inject and tmda-sendmail: the same tagging as the daemon, from standard input."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.upstream import Upstream, say
from TMDA.inject.spool import Spool
from TMDA.tools import common
from TMDA.tools import inject as inject_module
from TMDA.tools import sendmail as sendmail_module

BIN = Path(__file__).resolve().parents[2] / 'bin'
MESSAGE = b'From: Al <alice@example.net>\nTo: bob@example.org\nBcc: eve@example.org\nSubject: x\n\nHello\n'


@pytest.fixture
def home(tmp_path):
    data = tmp_path / '.tmda'
    (data / 'filters').mkdir(parents=True)
    (data / 'crypt_key').write_text('0123456789abcdef' * 3)
    (data / 'crypt_key').chmod(0o600)
    (data / 'filters/outgoing').write_text('to *@example.org keyword=org\n')
    return tmp_path


@pytest.fixture
def upstream(home):
    with Upstream() as server:
        (home / '.tmda/config').write_text(
            'USERNAME = "alice"\nHOSTNAME = "example.net"\nMAIL_TRANSPORT = "smtp"\n'
            'SMTPHOST = "127.0.0.1:%d"\n' % server.port)
        yield server


def run(home, name, *arguments, data=MESSAGE, **environ):
    """(exit status, stdout, stderr) of a program of bin/."""
    variables = dict(PATH=os.environ['PATH'], HOME=str(home), LOGNAME='alice',
                     GLOBAL_TMDARC=str(home / 'none'), PYTHONDONTWRITEBYTECODE='1', **environ)
    done = subprocess.run([sys.executable, '-W', 'error', str(BIN / name), *arguments], input=data, env=variables,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_inject_sends_to_its_arguments(home, upstream):
    assert run(home, 'tmda-inject', 'bob@example.org') == (0, '', '')
    message = upstream.messages[0]
    assert message.recipients == ['bob@example.org']
    assert message.mail_from.startswith('alice-keyword-org.')
    assert b'\r\n\r\nHello\r\n' in message.data


def test_inject_takes_recipients_from_the_header(home, upstream):
    assert run(home, 'tmda-inject')[0] == 0
    assert upstream.messages[0].recipients == ['bob@example.org', 'eve@example.org']
    assert b'Bcc' not in upstream.messages[0].data


def test_inject_without_any_recipient_sends_nothing(home, upstream):
    assert run(home, 'tmda-inject', data=b'Subject: x\n\nHello\n') == (0, '', '')
    assert upstream.messages == []


def test_inject_as_qfilter_exits_99(home, upstream):
    status = run(home, 'tmda-inject', '-q', QMAILRCPTS='one@example.org\ntwo@example.org\n')[0]
    assert status == 99
    assert upstream.messages[0].recipients == ['one@example.org', 'two@example.org']


def test_inject_other_filter(home, upstream):
    (home / 'other').write_text('to * bare\n')
    assert run(home, 'tmda-inject', '-O', str(home / 'other'), 'bob@example.org')[0] == 0
    assert upstream.messages[0].mail_from == 'alice@example.net'


def test_inject_sender_option_is_ignored(home, upstream):
    assert run(home, 'tmda-inject', '-f', 'mallory@example.com', 'bob@example.org')[0] == 0
    assert upstream.messages[0].mail_from.startswith('alice-keyword-')


@pytest.mark.parametrize('recipient, line', [
    ('bob@example.org', 'MATCH: to *@example.org keyword=org'),
    ('bob@example.com', 'Sorry, no matching lines.'),
])
def test_inject_says_which_line_matches(home, upstream, recipient, line):
    assert run(home, 'tmda-inject', '-M', recipient, 'alice@example.net') == (0, line + '\n', '')


def test_inject_checks_the_filter(home, upstream):
    (home / '.tmda/filters/outgoing').write_text('to * bare\nfoo\n')
    status, _out, error = run(home, 'tmda-inject', '-M', 'bob@example.org', 'a@x')
    assert status == 78
    assert '[line 2]: "foo": unrecognized filter rule' in error and error.count('\n') == 1


def test_inject_temporary_refusal_exits_75(home, upstream):
    upstream.on('RCPT', say('451 4.2.0 Not now'))
    status, _out, error = run(home, 'tmda-inject', 'bob@example.org')
    assert status == 75 and error.startswith('tmda-inject: ') and error.count('\n') == 1


def test_inject_permanent_refusal_exits_69(home, upstream):
    upstream.on('RCPT', say('550 5.1.1 No such user'))
    status, _out, error = run(home, 'tmda-inject', 'bob@example.org')
    assert status == 69 and 'No such user' in error


def test_inject_configuration_error_exits_78(home, upstream):
    (home / '.tmda/config').write_text('USERNAME = \n')
    status, _out, error = run(home, 'tmda-inject', 'bob@example.org')
    assert status == 78 and 'config:1:' in error and error.count('\n') == 1


def test_inject_leading_dash_is_no_recipient_without_the_separator(home, upstream):
    assert run(home, 'tmda-inject', '-x@example.org')[0] == 64
    assert run(home, 'tmda-inject', '--', '-x@example.org')[0] == 0
    assert upstream.messages[0].recipients == ['-x@example.org']


@pytest.mark.parametrize('arguments, recipients', [
    (['-t'], ['bob@example.org', 'eve@example.org']),
    (['-t', '-i', '-oem', '-f', 'x@y'], ['bob@example.org', 'eve@example.org']),
    (['-ti', 'zoe@example.org'], ['zoe@example.org', 'bob@example.org', 'eve@example.org']),
    (['-oi', '-f', 'x@y', 'zoe@example.org'], ['zoe@example.org']),
    (['-em', '-q', '-bm', '-v', '-N', 'never', 'zoe@example.org'], ['zoe@example.org']),
    (['-i', '--', 'zoe@example.org'], ['zoe@example.org']),
])
def test_sendmail_options(home, upstream, arguments, recipients):
    assert run(home, 'tmda-sendmail', *arguments)[0] == 0
    assert [r for message in upstream.messages for r in message.recipients] == recipients


def test_sendmail_full_name(home, upstream):
    assert run(home, 'tmda-sendmail', '-F', 'Al, Too', 'z@example.org', data=b'Subject: x\n\n')[0] == 0
    assert b'From: "Al, Too" <alice-keyword-org.' in upstream.messages[0].data


@pytest.mark.parametrize('arguments, line', [
    ([], 'tmda-sendmail: no recipients (-t takes them from the header)\n'),
    (['-bs'], 'tmda-sendmail: -bs: only sending (-bm) is possible\n'),
    (['-Z'], 'tmda-sendmail: option -Z not recognized\n'),
])
def test_sendmail_bad_usage(home, arguments, line):
    assert run(home, 'tmda-sendmail', *arguments) == (64, '', line)


@pytest.mark.parametrize('name', ['tmda-inject', 'tmda-sendmail'])
@pytest.mark.parametrize('option, start', [('-V', 'TMDA/'), ('--version', 'TMDA/'), ('-h', 'usage: ')])
def test_information_options(home, name, option, start):
    status, out, error = run(home, name, option)
    assert (status, error) == (0, '') and out.startswith(start)


@pytest.mark.parametrize('block', [1, 2, 3, 7, 1000])
def test_read_message_makes_all_line_ends_crlf(block, monkeypatch):
    monkeypatch.setattr(inject_module, 'BLOCK', block)
    with Spool(1000) as spool:
        inject_module.read_message(io.BytesIO(b'a\nb\r\nc\rd\r\r\n\n\r'), spool)
        assert b''.join(spool.chunks()) == b'a\r\nb\r\nc\r\nd\r\n\r\n\r\n\r\n'


def test_sendmail_parse_refuses_what_sendmail_does_not_know():
    with pytest.raises(common.Failure):
        sendmail_module.parse(['--long'])
