"""Every recorded case of outgoing.json: a client's message in, tagged deliveries out.

The whole way from submit.submit to the transport runs, in this process, with the clock stopped;
only the transport is replaced by one that writes down what it was given.  Where this release
answers differently on purpose, DIFFERENT names the reason; where the recorded release had a bug,
RIGHT has what is right.
"""

import base64
import dbm
import hashlib
import json
import os
import pickle
import re
import time
from pathlib import Path

import pytest

from TMDA import Cdb
from TMDA.inject import submit, transport
from TMDA.inject.envelope import Envelope, Recipient
from TMDA.inject.limits import Limits
from TMDA.inject.recipients import from_header
from TMDA.inject.reply import Outcome, reply
from TMDA.inject.spool import Spool
from TMDA.inject.user import User

CASES = json.loads((Path(__file__).parent / 'outgoing.json').read_text(encoding='utf-8'))
RELEASE_FIELDS = {'x-delivery-agent', 'x-submission-agent'}

SERIES_FORMAT = {'1.1': '', '1.3': "COOKIE_FORMAT = '1.3'\n"}

# Why the answer differs from the recorded one on purpose; different.json has the right answers.
REASONS = {
    'bug': 'the recorded release misbehaves; the case says how',
    'delivery': 'DELIVERY concerns incoming mail: its absence does not stop outgoing mail',
    'encoded': 'a display name beyond ASCII leaves as encoded words (RFC 2047)',
    'append': 'addresses are appended after acceptance: the next message sees them',
    'followup': 'the own address in Mail-Followup-To is found in any case',
    'case': 'a recipient keeps its case, whichever way it was given',
    'lines': 'CR, LF and CRLF all are line ends, and leave as CRLF',
}
DIFFERENT = {(case['series'], case['name']): case for case in json.loads(
    (Path(__file__).parent / 'different.json').read_text(encoding='utf-8'))}


def case_id(case):
    return '%s-%s' % (case['series'], case['name'])


class Run:
    """One case carried out below a home directory of its own."""

    def __init__(self, case, home, monkeypatch):
        self.case = case
        self.home = home
        self.deliveries = []
        self._lay_files()
        monkeypatch.setattr(submit.time, 'time', lambda: case['now'] + 0.25)
        monkeypatch.setattr(transport, 'deliver', self._deliver)
        self.outcome = self._submit()

    def _deliver(self, deliveries, _envelope, settings, *unused):
        self.deliveries = deliveries
        if settings.DB_CONNECTION is not None:
            settings.DB_CONNECTION.d.close()  # the recorded wrapper's sqlite3 connection
        return Outcome(reply(250, '2.0.0', 'Ok'), {})

    def _lay_files(self):
        case, home = self.case, self.home
        for name, text in case['files'].items():
            self._write(name, text)
        if case['config'] is not None:
            text = case['config']
            self._write('.tmda/config', text)
        if case['crypt_key'] is not None:
            self._write('.tmda/crypt_key', case['crypt_key'] + '\n')
            os.chmod(home / '.tmda/crypt_key', int(case.get('crypt_key_mode', '600'), 8))
        self._write('global', SERIES_FORMAT[case['series']] + case.get('global_config', ''))
        for name, items in case.get('dbm_files', {}).items():
            path = self._path(name)
            with dbm.open(str(path), 'c') as database:
                for key, value in items.items():
                    database[key] = value
        for name, items in case.get('cdb_files', {}).items():
            path = self._path(name)
            Cdb.write(str(path), [(key.encode(), value.encode()) for key, value in items.items()])
        for name, attributes in case.get('mailman_files', {}).items():
            self._path(name).write_bytes(pickle.dumps(attributes, protocol=0))

    def _path(self, name):
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _write(self, name, text):
        self._path(name).write_text(text, encoding='utf-8')

    def _submit(self):
        case, home = self.case, self.home
        environ = {name: str(home) + value[1:] if value.startswith('~/') else value
                   for name, value in case['env'].items()}
        environ.update(HOME=str(home), PATH=os.environ['PATH'], GLOBAL_TMDARC=str(home / 'global'))
        message = base64.b64decode(case['message_base64'])
        message = re.sub(rb'\r\n|\r|\n', b'\r\n', message)
        recipients = case['recipients'] or environ.get('QMAILRCPTS', '').split() or None
        with Spool(10 ** 6) as spool:
            spool.write(message)
            if recipients is None:
                recipients = from_header(spool, 10 ** 6)
            envelope = Envelope('client@example.net', tuple(map(Recipient, recipients)))
            user = User('alice', str(home), None, environ)
            outcome = submit.submit(submit.Submission(
                user, envelope, spool, environ.get('TMDA_OFMIPD_RECEIVED', '')), Limits())
            self.results = [result for delivery in self.deliveries
                            for result in self._results(delivery)]
        order = {}
        for position, recipient in enumerate(recipients):
            order.setdefault(recipient, position)
        self.results.sort(key=lambda result: order[result['envelope_recipient']])
        return outcome

    def _results(self, delivery):
        body = b''.join(delivery.body.chunks())
        for recipient in delivery.recipients:
            yield {'envelope_sender': delivery.envelope_sender,
                   'envelope_recipient': recipient.address,
                   'headers': header_pairs(delivery.header),
                   'body': body}


def header_pairs(block):
    """[name, value] of a header block, as the recorded cases have them."""
    unfolded = re.sub(rb'\r\n[ \t]+', b' ', block)
    pairs = []
    for line in unfolded.split(b'\r\n'):
        if line:
            name, _colon, value = line.partition(b':')
            try:
                text = value.decode('utf-8')
            except UnicodeDecodeError:
                text = value.decode('iso-8859-1')
            pairs.append([name.decode('ascii'), text[1:] if text[:1] == ' ' else text])
    return pairs


def comparable(pairs, generated):
    """Pairs without the release's own field; made-up values as in the recording."""
    result = []
    for name, value in pairs:
        if name.lower() in RELEASE_FIELDS:
            continue
        result.append([name, '<GENERATED>' if name in generated else value])
    return result


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv('TZ', 'UTC')
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def check_deliveries(case, results):
    expected = case['expect']['deliveries']
    assert [r['envelope_recipient'] for r in results] == [e['envelope_recipient'] for e in expected]
    for result, wanted in zip(results, expected):
        generated = {name for name, value in wanted['headers'] if value == '<GENERATED>'}
        ours = comparable(result['headers'], generated)
        theirs = comparable(wanted['headers'], generated)
        if 'Received' in generated and 'TMDA_OFMIPD_RECEIVED' not in case['env']:
            theirs = [pair for pair in theirs if pair != ['Received', '<GENERATED>']]
        assert sorted(ours) == sorted(theirs)
        assert ours[:1] == theirs[:1] or ours[0][0] != 'Received'
        assert result['envelope_sender'] == wanted['envelope_sender'].replace('<>', '')
        if wanted['body_identical_to_input']:
            body = result['body'].replace(b'\r\n', b'\n')
            assert hashlib.sha256(body).hexdigest() == wanted['body_sha256']


def check_files(case, home):
    for name, text in case['expect'].get('files_after', {}).items():
        ours = (home / name).read_text(encoding='utf-8')
        assert words_of_actions(ours) == words_of_actions(text)


def words_of_actions(text):
    """The text, with the words of its Actn lines sorted: the order of pairs means nothing."""
    return [sorted(line.split()) if line.startswith('Actn:') else line
            for line in text.split('\n')]


def check_error(case, error):
    """An error that was meant for the user has the same lines and words."""
    if case['expect_error_class'] == 'ParsingError':
        for line in case['expect_error'].split('\n')[1:]:
            number, text = re.match(r'\[line +(\d+)\]: (.*)', line).groups()
            assert '[line %s]: ' % number in error, error


def is_different(case):
    return (case['series'], case['name']) in DIFFERENT


@pytest.mark.parametrize('case', [case for case in CASES if not is_different(case)], ids=case_id)
def test_case_as_recorded(case, tmp_path, monkeypatch):
    run = Run(case, tmp_path, monkeypatch)
    if 'expect_error' in case:
        assert run.outcome.reply.code == 451, run.outcome
        assert run.results == []
        check_error(case, run.outcome.facts['error'])
        return
    assert run.outcome.reply.success, run.outcome
    check_deliveries(case, run.results)
    check_files(case, tmp_path)


@pytest.mark.parametrize('case', [case for case in CASES if is_different(case)], ids=case_id)
def test_case_where_ours_is_right(case, tmp_path, monkeypatch):
    right = DIFFERENT[case['series'], case['name']]
    assert right['reason'] in REASONS
    run = Run(case, tmp_path, monkeypatch)
    assert run.outcome.reply.success, run.outcome
    body = re.sub(rb'\r\n|\r|\n', b'\r\n', base64.b64decode(case['message_base64']))
    assert [result['body'] for result in run.results] == (
        [body.partition(b'\r\n\r\n')[2]] * len(run.results))
    assert [[result['envelope_sender'], result['envelope_recipient'],
             comparable(result['headers'], ())] for result in run.results] == right['deliveries']


def test_every_peer_bug_has_its_right_answer():
    bugs = {(case['series'], case['name']) for case in CASES if 'peer_bug' in case}
    assert bugs <= set(DIFFERENT)
    assert {right['reason'] for right in DIFFERENT.values()} == set(REASONS)
