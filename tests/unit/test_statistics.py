# SPDX-License-Identifier: GPL-2.0-or-later
"""Counters: what events add to them, the OpenMetrics text, and one file for several processes."""
import os
import re
import signal
import stat
import time

import pytest

from support.daemon import Daemon, make_home, needs_account, until
from TMDA.inject.reply import reply
from TMDA.ofmipd import logs, statistics
from TMDA.ofmipd.logs import Log
from TMDA.ofmipd.statistics import METRICS, Book, Recorder, render
from TMDA.ofmipd.tally import code_label, tally

NAME = r'[a-zA-Z_:][a-zA-Z0-9_:]*'
PAIR = r'[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(r'(%s)(?:\{(%s(?:,%s)*)\})? (-?\d+(?:\.\d+)?)' % (NAME, PAIR, PAIR))
RESERVED = ('total', 'count', 'sum', 'bucket', 'info', 'created')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def silent_log():
    return Log(lambda *unused, **named: None)


class Family:
    """A metric family as it was read."""

    def __init__(self, name):
        self.name = name
        self.type = 'unknown'
        self.unit = self.help = ''
        self.samples = {}


def parse(text):
    """Families by name; fails for whatever the format (OpenMetrics 1.0) does not allow."""
    assert text.endswith('# EOF\n') and text.count('# EOF') == 1
    assert '\r' not in text and '\n\n' not in text and text.isascii()
    families = {}
    family = None
    for line in text.split('\n')[:-2]:
        if line.startswith('#'):
            found = re.fullmatch(r'# (TYPE|UNIT|HELP) (%s) (.+)' % NAME, line)
            assert found, line
            word, name, value = found.groups()
            if family is None or family.name != name:
                assert name not in families, 'a family is in two places: ' + line
                family = families[name] = Family(name)
            assert not family.samples, 'metadata after samples: ' + line
            _take_metadata(family, word, value)
        else:
            _take_sample(family, line)
    return families


def _take_metadata(family, word, value):
    if word == 'TYPE':
        assert value in ('counter', 'gauge')
        family.type = value
    elif word == 'UNIT':
        assert family.name.endswith('_' + value)
        family.unit = value
    else:
        assert '\\' not in value and '"' not in value
        family.help = value


def _take_sample(family, line):
    found = SAMPLE.fullmatch(line)
    assert found, line
    name, labels, value = found.groups()
    assert name == family.name + ('_total' if family.type == 'counter' else ''), line
    pairs = LABEL.findall(labels or '')
    assert len(dict(pairs)) == len(pairs), 'a label is there twice: ' + line
    key = tuple(sorted(pairs))
    assert key not in family.samples, 'a sample is there twice: ' + line
    family.samples[key] = float(value)
    assert family.type != 'counter' or family.samples[key] >= 0


def value_of(families, name, **labels):
    return families['tmda_ofmipd_' + name].samples[tuple(sorted(labels.items()))]


@pytest.mark.parametrize('text', [
    '', '# EOF', 'x 1\n# EOF\n', '# TYPE a counter\na 1\n# EOF\n',
    '# TYPE a counter\na_total 1\n\n# EOF\n', '# TYPE a gauge\na 1\na 2\n# EOF\n',
    '# TYPE a gauge\na{b="x"y="z"} 1\n# EOF\n', '# TYPE a gauge\n# UNIT a bytes\na 1\n# EOF\n',
    '# TYPE a gauge\n# TYPE b gauge\na 1\n# EOF\n', '# TYPE a counter\na_total -1\n# EOF\n',
])
def test_the_reader_of_these_tests_is_strict(text):
    with pytest.raises((AssertionError, AttributeError)):
        parse(text)


def test_text_of_no_counters_is_well_formed():
    families = parse(render({}))
    assert list(families) == ['tmda_ofmipd_' + metric.name for metric in METRICS]
    for family in families.values():
        assert family.help.endswith('.')
    assert value_of(families, 'sessions') == 0
    assert families['tmda_ofmipd_message_bytes'].unit == 'bytes'


def test_table_names_no_family_twice_or_with_a_reserved_end():
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert metric.name.rpartition('_')[2] not in RESERVED
        assert metric.type in ('counter', 'gauge')


EVERYTHING = [
    ('connect', {}), ('connect', {}), ('tls', {}), ('tls-failed', {}),
    ('login', {'mechanism': 'PLAIN'}), ('login', {'mechanism': 'SCRAM-SHA-256'}),
    ('login-failed', {'mechanism': 'PLAIN'}), ('login-unsure', {'mechanism': 'PLAIN'}),
    ('login-failed', {'mechanism': 'x"y\n'}),
    ('message', {'reply': '250 2.0.0 Ok', 'size': 1000, 'recipients': 4, 'deliveries': 3,
                 'connections': 2}),
    ('message', {'reply': '550 5.1.1 No', 'size': 10, 'recipients': 1}),
    ('message', {'reply': '599 5.9.9 Odd', 'size': 1, 'recipients': 1}),
    ('session-failed', {}), ('accept-paused', {}),
]


def test_text_of_all_counters():
    log = silent_log()
    for name, facts in EVERYTHING:
        log.event(name, **facts)
    log.count('refusals.' + code_label(530))
    families = parse(render(dict(log.counters, now=7, start=123)))
    assert value_of(families, 'sessions') == 2
    assert value_of(families, 'active_sessions') == 7
    assert value_of(families, 'tls_handshakes', result='failed') == 1
    assert families['tmda_ofmipd_logins'].samples == {
        (('mechanism', 'PLAIN'),): 1, (('mechanism', 'SCRAM-SHA-256'),): 1}
    assert families['tmda_ofmipd_login_failures'].samples == {
        (('cause', 'wrong'), ('mechanism', 'PLAIN')): 1,
        (('cause', 'unsure'), ('mechanism', 'PLAIN')): 1,
        (('cause', 'wrong'), ('mechanism', 'other')): 1}
    assert families['tmda_ofmipd_messages'].samples == {
        (('code', '250'),): 1, (('code', '550'),): 1, (('code', '5xx'),): 1}
    assert value_of(families, 'message_bytes') == 1011
    assert value_of(families, 'recipients') == 4
    assert value_of(families, 'deliveries') == 3
    assert value_of(families, 'upstream_connections') == 2
    assert value_of(families, 'refusals', code='530') == 1
    assert value_of(families, 'session_faults') == value_of(families, 'accept_pauses') == 1
    assert value_of(families, 'start_time_seconds') == 123


def test_labels_are_bounded_whatever_the_codes():
    log = silent_log()
    for code in range(200, 600):
        answer = reply(code, '4.0.0', 'x')
        log.event('message', reply='%d %s' % (answer.code, answer.text), size=1)
        log.count('refusals.' + code_label(code))
    for number in range(1000):
        log.event('login-failed', mechanism='M%d' % number)
    assert len(log.counters) < logs.COUNTER_LIMIT // 2
    parse(render(log.counters))


@pytest.mark.parametrize('event, facts', [
    ('message', {}), ('message', {'reply': ''}), ('message', {'reply': 'abc'}), ('login', {}),
    ('started', {'process': 1}),
])
def test_tally_of_odd_events(event, facts):
    assert all(number == 0 for _, number in tally(event, facts))


# The file

@pytest.fixture
def path(tmp_path):
    return tmp_path / 'stats.txt'


@pytest.fixture
def book(path):
    made = Book(str(path))
    yield made
    made.close()


def read(path):
    return parse(path.read_text())


def test_book_writes_its_file_at_once(path, book):
    assert value_of(read(path), 'sessions') == 0
    assert abs(value_of(read(path), 'start_time_seconds') - time.time()) < 60
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(path.parent) == [path.name]


def test_book_of_a_path_that_can_not_be_written(tmp_path):
    with pytest.raises(OSError):
        Book(str(tmp_path / 'none' / 'stats'))
    with pytest.raises(OSError):
        Book(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_file_is_replaced_as_a_whole(path, book):
    with open(path, encoding='ascii') as old:
        book.add({'connect': 1}, 0)
        assert value_of(parse(old.read()), 'sessions') == 0
    assert value_of(read(path), 'sessions') == 1


def in_child(work):
    """Run work() in a forked process and wait for its end."""
    process = os.fork()
    if not process:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(process, 0)


def test_book_adds_up_processes(path, book):
    book.add({'connect': 1, 'messages.250': 1}, 1)
    in_child(lambda: book.add({'connect': 10, 'messages.250': 2, 'messages.550': 1}, 5))
    assert value_of(read(path), 'active_sessions') == 6
    book.add({'connect': 100}, 2)
    families = read(path)
    assert value_of(families, 'sessions') == 111
    assert value_of(families, 'messages', code='250') == 3
    assert value_of(families, 'messages', code='550') == 1
    assert value_of(families, 'active_sessions') == 2  # the other process is gone


def test_book_counts_nothing_twice_and_loses_nothing(path, book):
    def count():
        for _ in range(50):
            book.add({'connect': 1}, 0)

    processes = []
    for _ in range(4):
        process = os.fork()
        if not process:
            try:
                count()
            finally:
                os._exit(0)
        processes.append(process)
    for process in processes:
        os.waitpid(process, 0)
    assert value_of(read(path), 'sessions') == 200


def test_recorder_writes_again_and_again(path, book):
    log = silent_log()
    recorder = Recorder(book, log, lambda: 3, seconds=0.01)
    log.event('connect')
    until(lambda: value_of(read(path), 'sessions') == 1)
    log.event('connect')
    until(lambda: value_of(read(path), 'sessions') == 2)
    assert value_of(read(path), 'active_sessions') == 3
    log.event('disconnect')
    log.event('connect')
    recorder.stop()
    assert value_of(read(path), 'sessions') == 3
    assert value_of(read(path), 'active_sessions') == 0


def test_recorder_logs_a_failure_once_and_catches_up(path, book):
    log = silent_log()
    recorder = Recorder(book, log, lambda: 0, seconds=3600)
    directory = path.parent
    away = directory.with_name('away')
    directory.rename(away)
    log.event('connect')
    recorder.record(0)
    recorder.record(0)
    assert log.counters['stats-failed'] == 1
    away.rename(directory)
    recorder.stop()
    assert value_of(read(path), 'sessions') == 1
    assert logs.EVENTS['stats-failed'][0]


# The daemon

@needs_account
@pytest.mark.parametrize('workers', [1, 2])
def test_daemon_writes_statistics(tmp_path, path, workers):
    home = make_home(tmp_path)
    with Daemon(home, '--stats=%s' % path, '--workers=%d' % workers) as daemon:
        assert value_of(read(path), 'sessions') == 0
        for _ in range(4):
            with daemon.connect() as talk:
                talk.reply()
                assert talk.ask('MAIL FROM:<a@b>').startswith('530')
                talk.login()
                talk.ask('MAIL FROM:<a@b>')
                talk.ask('RCPT TO:<c@d>')
                talk.ask('DATA')
                assert talk.ask('From: a@b\r\n\r\nx\r\n.').startswith('451')  # there is no key
                talk.ask('QUIT')
        daemon.wait_for('event=disconnect', 4)
        daemon.signal(signal.SIGUSR1)
        daemon.wait_for('event=counters', workers)
        counters = daemon.events('counters')
        assert 'refusals.530=' in ''.join(counters)
    families = read(path)
    assert value_of(families, 'sessions') == 4
    assert value_of(families, 'active_sessions') == 0
    assert value_of(families, 'logins', mechanism='PLAIN') == 4
    assert value_of(families, 'messages', code='451') == 4
    assert value_of(families, 'refusals', code='530') == 4


@needs_account
def test_daemon_message_line_has_all_that_is_promised(tmp_path):
    with Daemon(make_home(tmp_path)) as daemon, daemon.connect() as talk:
        talk.reply()
        talk.login()
        talk.ask('MAIL FROM:<a@b>')
        talk.ask('RCPT TO:<c@d>')
        talk.ask('DATA')
        talk.ask('From: a@b\r\n\r\nx\r\n.')
        daemon.wait_for('event=message')
        line, = daemon.events('message')
    assert re.search(r'event=message session=\w+ client=127\.0\.0\.1 user=bobby sender=a@b '
                     r'recipients=1 size=16 reply="451 [^"]*" milliseconds=\d+ ', line)


@needs_account
def test_daemon_whose_statistics_can_not_be_written(tmp_path, capsys, monkeypatch):
    from TMDA.ofmipd.main import main
    monkeypatch.setenv('HOME', str(make_home(tmp_path)))
    umask = os.umask(0o077)
    try:
        assert main(['-f', '-plocalhost:0', '--stats=%s/none/file' % tmp_path]) == 71
    finally:
        os.umask(umask)
    assert capsys.readouterr().err.endswith('No such file or directory\n')


def test_seconds_are_a_minute():
    assert statistics.SECONDS == 60
