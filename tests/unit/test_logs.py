# SPDX-License-Identifier: GPL-2.0-or-later
"""Log lines: their form, what is escaped, what -d leaves out, and the sinks."""
import os
import re
import socket
import sys

import pytest

from TMDA.ofmipd import logs
from TMDA.ofmipd.logs import FileSink, Log, StderrSink, SyslogSink, escaped, event_line, redacted


class Sink(list):
    """Remembers (line, problem)."""

    def __call__(self, line, problem=False, stamped=True):
        self.append((line, problem))

    @property
    def lines(self):
        return [line for line, _ in self]


@pytest.mark.parametrize('value, expected', [
    ('bobby', 'user=bobby'),
    ('192.0.2.7', 'user=192.0.2.7'),
    ('a@b.example', 'user=a@b.example'),
    (25, 'user=25'),
    (0, 'user=0'),
    ('', ''),
    (None, ''),
    ('two words', 'user="two words"'),
    ('a=b', 'user="a=b"'),
    ('say "x"', r'user="say \"x\""'),
    ('a\\b', r'user="a\\b"'),
    ('a\r\nevent=login', r'user="a\r\nevent=login"'),
    ('\x1b[2J', r'user="\x1b[2J"'),
    ('\x9b2J', r'user="\x9b2J"'),
    ('\0', r'user="\x00"'),
    ('\u2028', r'user="\u2028"'),
    ('ünal', r'user="\xfcnal"'),
    ('\udcff', r'user="\udcff"'),
    (b'\xff\x80\n', r'user="\udcff\udc80\n"'),
    (ValueError('no'), 'user=no'),
])
def test_event_line_value(value, expected):
    assert event_line('x', {'user': value}) == ('event=x ' + expected).strip()


def test_event_line_is_bounded():
    assert len(event_line('x', {'user': 'a' * 100000})) < 600
    assert len(event_line('x', {'user': '\n' * 100000})) < 1200


def test_escaped_is_one_line_of_ascii_for_every_character():
    for start in range(0, 0x11000, 256):
        text = escaped(''.join(map(chr, range(start, start + 256))))
        assert text.isascii() and text.isprintable()


def test_event_login_failed_has_its_fixed_form():
    sink = Sink()
    Log(sink).event('login-failed', session='8a7b', client='192.0.2.7', user='bob by',
                    mechanism='PLAIN', cause='unknown user')
    assert sink == [('event=login-failed session=8a7b client=192.0.2.7 user="bob by" '
                     'mechanism=PLAIN cause="unknown user"', True)]


def test_event_ordinary_only_when_asked_for():
    sink = Sink()
    Log(sink).event('login', user='bob')
    assert sink == []
    Log(sink, events=True).event('login', user='bob')
    Log(sink, tracing=True).event('login', user='bob')
    assert sink == [('event=login user=bob', False)] * 2


def test_event_table_is_whole():
    for name, (problem, meaning) in logs.EVENTS.items():
        assert re.fullmatch('[a-z-]+', name)
        assert isinstance(problem, bool) and meaning


def test_event_counts_even_when_it_is_not_written():
    log = Log(Sink())
    for _ in range(3):
        log.event('login')
    log.count('octets', 10)
    assert log.counters == {'login': 3, 'octets': 10}


def test_count_is_bounded():
    log = Log(Sink())
    for number in range(logs.COUNTER_LIMIT * 2):
        log.count('name%d' % number)
    assert len(log.counters) == logs.COUNTER_LIMIT


def test_plain_only_with_events():
    sink = Sink()
    Log(sink).plain('started')
    Log(sink, events=True).plain('\tListening')
    assert sink.lines == ['\tListening']


SECRET = 'AGJvYgBzZWNyZXQ='


@pytest.mark.parametrize('line, secret, expected', [
    (b'EHLO there', False, 'EHLO there'),
    (b'mail from:<a@b>', False, 'mail from:<a@b>'),
    (b'', False, ''),
    (b'QUIT\x1b[2J', False, '*** (8 octets)'),
    (b'NOOP \x1b[2J\xff', False, r'NOOP \x1b[2J\udcff'),
    (b'AUTH PLAIN', False, 'AUTH PLAIN'),
    (b'AUTH PLAIN ' + SECRET.encode(), False, 'AUTH PLAIN ***'),
    (b'auth plain ' + SECRET.encode(), False, 'AUTH plain ***'),
    (b'  AUTH\tLOGIN\t' + SECRET.encode(), False, 'AUTH LOGIN ***'),
    (b'AUTH XOAUTH2 ' + SECRET.encode(), False, 'AUTH ***'),
    (b'AUTH ' + SECRET.encode(), False, 'AUTH ***'),
    (b'AUTH', False, 'AUTH'),
    (b'AUTH PLAIN a b c', False, 'AUTH PLAIN ***'),
    (SECRET.encode(), False, '*** (16 octets)'),
    (SECRET.encode(), True, '*** (16 octets)'),
    (b'NOOP', True, '*** (4 octets)'),
    (b'PASS secret', False, '*** (11 octets)'),
    (b'AUTHPLAIN secret', False, '*** (16 octets)'),
])
def test_redacted_client(line, secret, expected):
    shown = redacted('C', line, secret)
    assert shown == expected
    assert SECRET not in shown


@pytest.mark.parametrize('line, secret, expected', [
    (b'334 VXNlcm5hbWU6', False, '334 VXNlcm5hbWU6'),
    (b'334 VXNlcm5hbWU6', True, '334 ***'),
    (b'250-mail.example.org', False, '250-mail.example.org'),
])
def test_redacted_server(line, secret, expected):
    assert redacted('S', line, secret) == expected


def test_trace_writes_one_line_for_each():
    sink = Sink()
    Log(sink, tracing=True).trace('8a7b', 'S', b'250-one\r\n250 two\r\n')
    assert sink.lines == ['8a7b S: 250-one', '8a7b S: 250 two']


def test_trace_is_silent_without_debug():
    sink = Sink()
    Log(sink, events=True).trace('8a7b', 'C', b'NOOP\r\n')
    assert sink == []


STAMP = r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} '


def test_stderr_sink_stamps_lines(capfd):
    sink = StderrSink({})
    sink('event=x')
    sink('tmda-ofmipd started', stamped=False)
    first, second = capfd.readouterr().err.splitlines()
    assert re.fullmatch(STAMP + 'event=x', first)
    assert second == 'tmda-ofmipd started'


def test_stderr_sink_leaves_time_to_the_journal(capfd):
    StderrSink({'JOURNAL_STREAM': '8:1'})('event=x')
    assert capfd.readouterr().err == 'event=x\n'


def test_stderr_sink_survives_a_closed_terminal():
    code = ('import os, sys; sys.path[:0] = %r; from TMDA.ofmipd.logs import StderrSink; '
            'os.close(2); StderrSink({})("x"); print("alive")' % sys.path)
    import subprocess
    run = subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE, timeout=30,
                         check=True)
    assert run.stdout == b'alive\n'


def test_file_sink_is_private_and_appends(tmp_path):
    path = tmp_path / 'log'
    for word in ('one', 'two'):
        sink = FileSink(str(path))
        sink(word)
        sink.close()
    assert re.fullmatch(STAMP + 'one\n' + STAMP + 'two\n', path.read_text())
    assert path.stat().st_mode & 0o777 == 0o600


def test_file_sink_follows_its_name_when_reopened(tmp_path):
    path = tmp_path / 'log'
    sink = FileSink(str(path))
    log = Log(sink, events=True)
    log.plain('before')
    path.rename(tmp_path / 'log.1')
    log.plain('between')
    log.reopen()
    log.plain('after')
    sink.close()
    assert [line[25:] for line in (tmp_path / 'log.1').read_text().splitlines()] == ['before',
                                                                                     'between']
    assert path.read_text()[25:] == 'after\n'


def test_file_sink_does_not_follow_a_link(tmp_path):
    (tmp_path / 'link').symlink_to(tmp_path / 'target')
    with pytest.raises(OSError):
        FileSink(str(tmp_path / 'link'))


def test_reopen_of_other_sinks_does_nothing():
    Log(Sink()).reopen()


def test_syslog_sink_says_what_is_a_problem(monkeypatch):
    syslog = pytest.importorskip('syslog')
    written = []
    monkeypatch.setattr(syslog, 'openlog', lambda *given: written.append(given))
    monkeypatch.setattr(syslog, 'syslog', lambda *given: written.append(given))
    log = Log(SyslogSink(), events=True)
    log.event('login')
    log.event('login-failed')
    assert written == [('tmda-ofmipd', syslog.LOG_PID, syslog.LOG_MAIL),
                       (syslog.LOG_INFO, 'event=login'),
                       (syslog.LOG_WARNING, 'event=login-failed')]


@pytest.mark.parametrize('same', [True, False])
def test_stderr_is_the_client(same):
    code = ('import sys; sys.path[:0] = %r; from TMDA.ofmipd import logs; '
            'print(logs.stderr_is_the_client())' % sys.path)
    import subprocess
    ours, theirs = socket.socketpair()
    with ours, theirs, open(os.devnull, 'wb') as null:
        run = subprocess.run([sys.executable, '-c', code], stdin=theirs, stdout=subprocess.PIPE,
                             stderr=theirs if same else null, timeout=30, check=True)
    assert run.stdout.decode().strip() == str(same)
