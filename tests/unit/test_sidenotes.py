"""What is written into the user's files after acceptance, and how safely."""

import fcntl
import os
import sqlite3
import stat
import threading
from types import SimpleNamespace

import pytest

from TMDA.inject import sidenotes
from TMDA.inject.message import Header, split_header
from TMDA.inject.tagging import Note


def settings(**changed):
    values = dict(LOGFILE_OUTGOING=None, LOGFILE_DEBUG=None, BARE_APPEND=None, DB_BARE_APPEND=None,
                  DB_CONNECTION=None, USERNAME='alice', HOSTNAME='example.net', environ={})
    values.update(changed)
    return SimpleNamespace(**values)


def delivery(*notes, sender='alice@example.net'):
    block = b'From: Alice <alice@example.net>\r\nSubject: Hello\r\n'
    return SimpleNamespace(envelope_sender=sender, notes=notes, fields=Header(split_header(block)[0]))


def append_note(address):
    return Note(address, 'to * bare=append', 'bare', True)


MESSAGE = SimpleNamespace(size_in_unix_lines=lambda: 167)


def record(config, *notes):
    return sidenotes.record(config, MESSAGE, [delivery(*notes)], 0)


@pytest.mark.parametrize('before, after', [
    (None, 'bob@example.org\n'),
    ('', 'bob@example.org\n'),
    ('# friends\nBOB@example.org  # Bob\n', '# friends\nBOB@example.org  # Bob\n'),
    ('dan@example.org', 'dan@example.org\nbob@example.org\n'),
])
def test_bare_append_adds_an_address_once(tmp_path, before, after):
    path = tmp_path / 'list'
    if before is not None:
        path.write_text(before)
    assert record(settings(BARE_APPEND=str(path)), append_note('bob@example.org'),
                  append_note('Bob@example.org')) == []
    assert path.read_text() == after


def test_bare_append_new_file_is_private(tmp_path):
    path = tmp_path / 'list'
    record(settings(BARE_APPEND=str(path)), append_note('bob@example.org'))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_bare_append_does_not_follow_a_symbolic_link(tmp_path):
    target = tmp_path / 'target'
    target.write_text('')
    os.symlink(target, tmp_path / 'list')
    problems = record(settings(BARE_APPEND=str(tmp_path / 'list')), append_note('bob@example.org'))
    assert len(problems) == 1 and target.read_text() == ''


def test_bare_append_by_many_threads_lists_each_once(tmp_path):
    config = settings(BARE_APPEND=str(tmp_path / 'list'))
    names = ['%d@example.org' % number for number in range(5)]
    threads = [threading.Thread(target=record, args=(config, *map(append_note, names)))
               for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / 'list').read_text().split() == names


def test_locked_file_is_given_up_after_the_deadline(tmp_path, monkeypatch):
    monkeypatch.setattr(sidenotes, 'LOCK_SECONDS', 0)
    path = tmp_path / 'list'
    with open(path, 'w') as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        problems = record(settings(BARE_APPEND=str(path)), append_note('bob@example.org'))
    assert 'locked' in problems[0]


def test_log_entry_has_the_fields_in_order(tmp_path, monkeypatch):
    path = tmp_path / 'log'
    record(settings(LOGFILE_OUTGOING=str(path)), Note('bob@example.org', 'to * bare', 'bare', False))
    names = [line.split(':')[0] for line in path.read_text().splitlines()]
    assert names == ['Date', 'From', '  To', 'Subj', 'Actn', '']


def test_log_entry_names_an_envelope_sender_that_differs():
    note = Note('bob@example.org', 'to * bare', 'bare', False)
    text = sidenotes.log_entry(delivery(note, sender='x@example.net'), note, 1, 0)
    assert 'Sndr: x@example.net\n' in text


def test_a_file_that_cannot_be_written_is_reported_and_nothing_raised(tmp_path):
    problems = record(settings(LOGFILE_OUTGOING=str(tmp_path / 'no' / 'log')),
                      Note('b@example.org', 'to * bare', 'bare', False))
    assert len(problems) == 1 and 'no/log' in problems[0]


def test_db_bare_append_inserts_and_commits(tmp_path):
    database = sqlite3.connect(str(tmp_path / 'db'))
    database.execute('create table wl (address text)')
    record(settings(DB_CONNECTION=database, DB_BARE_APPEND='insert into wl values (%(address)s)'),
           append_note("o'hara@example.org"))
    database.rollback()
    assert database.execute('select address from wl').fetchall() == [("o'hara@example.org",)]
    database.close()


def test_debug_writes_only_where_asked(tmp_path):
    sidenotes.debug(None, 'x')
    sidenotes.debug(settings(), 'x')
    sidenotes.debug(settings(LOGFILE_DEBUG=str(tmp_path / 'debug')), 'trace\n')
    assert (tmp_path / 'debug').read_text() == 'trace\n'
