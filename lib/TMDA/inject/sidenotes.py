# SPDX-License-Identifier: GPL-2.0-or-later
"""What is written down in the user's own files once a message was accepted upstream.

* LOGFILE_OUTGOING: an entry for each recipient.
* BARE_APPEND: the recipients of `bare=append`, each once; DB_BARE_APPEND does the same in SQL.
* LOGFILE_DEBUG: a traceback, for the user who debugs a configuration.

Files are opened without following a symbolic link in the last place, made with mode 600, and
written in one piece under a lock (CWE-59, CWE-362).  This runs as the user whose files they are.
Nothing here may change the answer to the client: the message is on its way already.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager

from TMDA.inject.addresses import to_text

LOCK_SECONDS = 10
LOG_WIDTH = 78


def record(settings, message, deliveries: list, now: int) -> list[str]:
    """Write all that settings asks for; return one line for each thing that could not be written."""
    problems = []
    for write in (_log_entries, _append_addresses, _insert_addresses):
        try:
            write(settings, message, deliveries, now)
        except Exception as error:  # a user's database may raise anything
            problems.append('%s: %s' % (type(error).__name__, error))
    return problems


def debug(settings, text: str) -> None:
    """Append text to LOGFILE_DEBUG, if it is set and can be written."""
    if settings is None or not settings.LOGFILE_DEBUG:
        return
    try:
        _append(settings.LOGFILE_DEBUG, lambda have: text.encode('utf-8', 'replace'), read=False)
    except OSError:
        pass  # the debug log is a courtesy, and the cause is in the daemon's log as well


def log_entry(delivery, note, size: int, now: int) -> str:
    """The entry of LOGFILE_OUTGOING for one recipient, with the empty line that ends it."""
    import email.utils
    fields = delivery.fields
    author = _text(fields, 'From')
    lines = ['Date: ' + email.utils.formatdate(now, localtime=True)]
    primary = _text(fields, 'X-Primary-Address')
    if primary:
        lines.append('XPri: ' + primary)
    if delivery.envelope_sender not in author:
        lines.append('Sndr: ' + delivery.envelope_sender)
    lines.append('From: ' + author)
    answer_to = _text(fields, 'Reply-To')
    if answer_to:
        lines.append('Rept: ' + answer_to)
    lines.append('  To: ' + note.recipient)
    lines.append('Subj: ' + _text(fields, 'Subject'))
    amount = '(%d)' % size
    lines.append(('Actn: %s ' % note.action).ljust(LOG_WIDTH - len(amount)) + amount)
    return '\n'.join(lines) + '\n\n'


def _text(fields, name: str) -> str:
    return to_text(fields.get(name) or b'')


def _log_entries(settings, message, deliveries: list, now: int) -> None:
    if not settings.LOGFILE_OUTGOING:
        return
    size = message.size_in_unix_lines()
    text = ''.join(log_entry(delivery, note, size, now)
                   for delivery in deliveries for note in delivery.notes)
    _append(settings.LOGFILE_OUTGOING, lambda have: text.encode('utf-8'), read=False)


def _append_addresses(settings, message, deliveries: list, now: int) -> None:
    wanted = _to_append(deliveries)
    if wanted and settings.BARE_APPEND:
        _append(settings.BARE_APPEND, lambda have: _missing(have, wanted), read=True)


def _insert_addresses(settings, message, deliveries: list, now: int) -> None:
    """Run DB_BARE_APPEND for each address.

    The address is %(address)s (also %(sender)s and %(criteria)s); %(recipient)s, %(username)s and
    %(hostname)s are the user's own, as in the queries of `to-sql`.
    """
    wanted = _to_append(deliveries)
    if not wanted or not settings.DB_BARE_APPEND or settings.DB_CONNECTION is None:
        return
    from TMDA.FilterSql import convert, paramstyle
    connection = settings.DB_CONNECTION
    own = {'username': settings.USERNAME, 'hostname': settings.HOSTNAME,
           'recipient': '%s@%s' % (settings.USERNAME, settings.HOSTNAME)}
    cursor = connection.cursor()
    try:
        for address in wanted:
            values = dict(own, address=address, sender=address, criteria=address)
            cursor.execute(*convert(settings.DB_BARE_APPEND, values, paramstyle(connection)))
    finally:
        cursor.close()
    connection.commit()


def _to_append(deliveries: list) -> list[str]:
    return [note.recipient for delivery in deliveries for note in delivery.notes if note.append]


def _missing(have: bytes, wanted: list[str]) -> bytes:
    """The lines to add to a list file of content have, so that all wanted addresses are in it."""
    listed = {line.partition('#')[0].strip().lower() for line in to_text(have).split('\n')}
    added = []
    for address in wanted:
        if address.lower() not in listed:
            listed.add(address.lower())
            added.append(address + '\n')
    if added and have and not have.endswith(b'\n'):
        added.insert(0, '\n')
    return ''.join(added).encode('utf-8')


def _append(path: str, make, read: bool) -> None:
    """Lock the file at path, append make(its content), in one write; make gets b'' unless read."""
    with _locked(path) as descriptor:
        have = b''
        if read:
            with open(descriptor, 'rb', closefd=False) as file:
                have = file.read()
        text = make(have)
        if text:
            os.write(descriptor, text)


@contextmanager
def _locked(path: str):
    """The file at path, opened for appending and locked.  Raises OSError, TimeoutError after LOCK_SECONDS."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
    descriptor = os.open(path, flags, 0o600)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError('%s: locked by another process' % path) from None
                time.sleep(0.02)
        yield descriptor
    finally:
        os.close(descriptor)
