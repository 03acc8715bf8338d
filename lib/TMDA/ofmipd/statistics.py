# SPDX-License-Identifier: GPL-2.0-or-later
"""--stats FILE: the counters in OpenMetrics text, each minute, for Prometheus and others.

METRICS is the table of all that is written; the counters themselves are those of the log
(logs.Log.count, tally.py).  FILE is replaced as a whole (rename), so that a reader never sees half
of it; it is readable for everybody, holds no names of users, clients or servers, and its size has
a bound.  Format: OpenMetrics 1.0 (github.com/prometheus/OpenMetrics, text format).

With --workers the workers' counters are added up in one file.  main makes a Book before the
workers are forked; what it holds lies in memory that they share (a file without a name).  Each
worker has a Recorder, which once a minute locks the book, adds what it has counted since the last
time, and writes FILE.  A worker that dies takes at most a minute of its counters with it, and the
sums never go back.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import time
from typing import Callable, NamedTuple

SECONDS = 60
PREFIX = 'tmda_ofmipd_'
BOOK_LIMIT = 1 << 20  # octets


class Metric(NamedTuple):
    """A family: name without prefix, type, label or '', unit or '', meaning, and its counters.

    counters maps each counter of the log, or with a label what stands before the dot in its name
    (the label's value follows it), to further labels.
    """

    name: str
    type: str
    label: str
    unit: str
    meaning: str
    counters: dict


METRICS = (
    Metric('sessions', 'counter', '', '', 'Connections taken.', {'connect': {}}),
    Metric('active_sessions', 'gauge', '', '', 'Sessions at present.', {'now': {}}),
    Metric('tls_handshakes', 'counter', '', '', 'TLS handshakes by result.',
           {'tls': {'result': 'ok'}, 'tls-failed': {'result': 'failed'}}),
    Metric('logins', 'counter', 'mechanism', '', 'Successful logins.', {'login': {}}),
    Metric('login_failures', 'counter', 'mechanism', '',
           'Logins that failed: the password was wrong, or no source could tell.',
           {'login-failed': {'cause': 'wrong'}, 'login-unsure': {'cause': 'unsure'}}),
    Metric('messages', 'counter', 'code', '', 'Messages by the reply to their end of data.',
           {'messages': {}}),
    Metric('message_bytes', 'counter', '', 'bytes', 'Octets of these messages.', {'octets': {}}),
    Metric('recipients', 'counter', '', '', 'Recipients of messages that were accepted.',
           {'recipients': {}}),
    Metric('deliveries', 'counter', '', '',
           'Transactions with the mail system for messages that were accepted.',
           {'deliveries': {}}),
    Metric('upstream_connections', 'counter', '', '', 'Connections made to upstream servers.',
           {'upstream-connections': {}}),
    Metric('refusals', 'counter', 'code', '', 'Replies 4xx and 5xx to any command.',
           {'refusals': {}}),
    Metric('session_faults', 'counter', '', '', 'Faults of the program in a session.',
           {'session-failed': {}}),
    Metric('accept_pauses', 'counter', '', '',
           'Times that no client was accepted for lack of descriptors, threads or memory.',
           {'accept-paused': {}}),
    Metric('start_time_seconds', 'gauge', '', 'seconds', 'When the daemon started (Unix time).',
           {'start': {}}),
)


def render(counters: dict[str, float]) -> str:
    """The text of the file for these counters; those that are not there are 0."""
    lines = []
    for metric in METRICS:
        name = PREFIX + metric.name
        lines.append('# TYPE %s %s' % (name, metric.type))
        if metric.unit:
            lines.append('# UNIT %s %s' % (name, metric.unit))
        lines.append('# HELP %s %s' % (name, metric.meaning))
        suffix = '_total' if metric.type == 'counter' else ''
        lines += ['%s%s%s %s' % (name, suffix, _labels(labels), value)
                  for labels, value in _samples(metric, counters)]
    return '\n'.join(lines) + '\n# EOF\n'


def _samples(metric: Metric, counters: dict[str, float]):
    """(labels, value) for each sample of a family."""
    for counter, labels in metric.counters.items():
        if not metric.label:
            yield labels, counters.get(counter, 0)
            continue
        start = counter + '.'
        for name in sorted(counters):
            if name.startswith(start):
                yield {metric.label: name[len(start):], **labels}, counters[name]


def _labels(labels: dict[str, str]) -> str:
    """Values come from tally.py's lists: nothing in them has to be escaped."""
    if not labels:
        return ''
    return '{%s}' % ','.join('%s="%s"' % pair for pair in labels.items())


class Book:
    """The sums of all processes, and the file that they are written to.

    Made before any process is forked; writes the file, so that a path that can't be written
    shows.  Raises OSError.
    """

    def __init__(self, path: str):
        self._path = path
        self._start = round(time.time())
        self._memory = _memory_file()
        self.add({}, 0)

    def add(self, counted: dict[str, int], now: int) -> None:
        """Add what this process has counted since it last did; now: sessions that it has."""
        fcntl.lockf(self._memory, fcntl.LOCK_EX)
        try:
            sums, active = self._read()
            for name, number in counted.items():
                sums[name] = sums.get(name, 0) + number
            active = {process: number for process, number in active.items() if _lives(process)}
            active[str(os.getpid())] = now
            self._write(sums, active)
            replace(self._path, render(dict(sums, start=self._start, now=sum(active.values()))))
        finally:
            fcntl.lockf(self._memory, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the memory back."""
        os.close(self._memory)

    def _read(self) -> tuple[dict, dict]:
        data = os.pread(self._memory, BOOK_LIMIT, 0)
        return tuple(json.loads(data)) if data else ({}, {})

    def _write(self, sums: dict, active: dict) -> None:
        data = json.dumps([sums, active]).encode('ascii')
        # Longer than before or as long, but for `active`: blanks at the end do no harm.
        os.pwrite(self._memory, data.ljust(os.fstat(self._memory).st_size), 0)


def _memory_file() -> int:
    """A descriptor of an empty file without a name."""
    if hasattr(os, 'memfd_create'):
        return os.memfd_create('tmda-ofmipd-stats')
    import tempfile
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _lives(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def replace(path: str, text: str) -> None:
    """Put a file in place of the one that is there, as a whole.  Raises OSError."""
    temporary = '%s.%d' % (path, os.getpid())
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
                             | os.O_CLOEXEC, 0o644)
        with open(descriptor, 'w', encoding='ascii') as file:
            os.fchmod(descriptor, 0o644)  # the umask is strict, but others collect statistics
            file.write(text)
        os.rename(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.ENOENT):
            _unlink(temporary)
        raise


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


class Recorder:
    """Adds the counters of a process to a book, each minute and at the end, in a thread.

    log is a logs.Log; active() says how many sessions there are.  Made after the process was
    forked.  A file that can't be written is logged once and tried again.
    """

    def __init__(self, book: Book, log, active: Callable[[], int], seconds: float = SECONDS):
        self._book = book
        self._log = log
        self._active = active
        self._seconds = seconds
        self._added: dict[str, int] = {}
        self._failed = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name='statistics', daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            self.record(self._active())

    def record(self, active: int) -> None:
        """Add what is new."""
        counters = self._log.counters
        new = {name: number - self._added.get(name, 0) for name, number in counters.items()}
        self._added = counters
        try:
            self._book.add(new, active)
            self._failed = False
        except OSError as error:
            if not self._failed:
                self._log.event('stats-failed', cause=error)
            self._failed = True

    def stop(self) -> None:
        """Record for the last time."""
        self._ended.set()
        self._thread.join()
        self.record(0)
