# SPDX-License-Identifier: GPL-2.0-or-later
"""Log lines: events for -L, the protocol for -d, and counters.

The one place that writes what clients said to a log, and therefore the one that makes it
harmless (CWE-117) and leaves passwords out (CWE-532).

An event is one line, `event=NAME session=ID client=ADDRESS user="NAME" KEY=VALUE...`.  A value
that is more than letters, digits and a few marks is quoted; in quotes, `"`, `\\`, control
characters and whatever is not ASCII are written as Python escapes.  EVENTS says what each event
means.  Problems are logged always, ordinary events with -L or -d.

contrib/fail2ban relies on this form of a failed login, so it is fixed:
    event=login-failed session=ID client=ADDRESS user=NAME mechanism=NAME ...

Lines go to one sink: stderr, syslog (facility mail) or a file.  Each is one write(2), so lines
of several threads and processes do not mix.  No fault of a sink reaches a caller.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable

from TMDA.ofmipd.tally import tally

VALUE_LIMIT = 512   # characters of one value; replies of upstream servers are the longest
COUNTER_LIMIT = 200  # names of counters; ours are far fewer

# Event -> (is a problem, meaning).  An event that is not here counts as ordinary.
EVENTS = {
    'started': (False, 'the process takes connections'),
    'stopping': (False, 'a signal to end came; no new connections are taken'),
    'stopped': (False, 'the end; sessions= is how many were cut off because they took too long'),
    'reloaded': (False, 'SIGHUP: certificate, password file and log file were read or opened again'),
    'reload-refused': (True, 'SIGHUP: something new is broken; the old one stays in use'),
    'counters': (True, 'SIGUSR1: how many of each event there were; now= is sessions at present'),
    'stats-failed': (True, 'the file of --stats could not be written; tried again each minute'),
    'listening-elsewhere': (True, 'the FQDN is not an address of this host: localhost is used'),
    'key-readable': (True, 'any account of this host may read the private key'),
    'accept-paused': (True, 'descriptors, threads or memory are used up: clients wait'),
    'accept-resumed': (True, 'connections are taken again'),
    'worker-died': (True, 'a worker process ended by itself and is replaced'),
    'worker-failed': (True, 'why a worker process ended by itself'),
    'source-trouble': (True, 'a password file or ipauthmap has become unusable; the old one counts'),
    'proxy-refused': (True, 'a PROXY protocol header was missing, wrong or late'),
    'connect': (False, 'a client is connected'),
    'disconnect': (False, 'the end of a session, which took seconds='),
    'tls': (False, 'the session is encrypted'),
    'tls-failed': (False, 'client and server did not agree on TLS'),
    'login': (False, 'a user has logged in'),
    'login-failed': (True, 'a wrong password or user'),
    'login-unsure': (True, 'no source of passwords said yes, and one could not tell'),
    'message': (False, 'a message was answered, milliseconds= after its end'),
    'session-failed': (True, 'a fault of ours: the client got 451 or 421'),
}

MECHANISMS = frozenset((b'PLAIN', b'LOGIN', b'CRAM-MD5', b'SCRAM-SHA-256', b'SCRAM-SHA-256-PLUS'))
VERBS = frozenset((b'HELO', b'EHLO', b'STARTTLS', b'MAIL', b'RCPT', b'DATA', b'BDAT', b'RSET',
                   b'NOOP', b'QUIT', b'VRFY', b'EXPN', b'HELP', b'XCLIENT', b'LHLO', b'ETRN'))

_PLAIN = frozenset('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:@/+,*~-')


def escaped(text: object) -> str:
    """text (octets or anything with a str) on one line of printable ASCII, without bare quotes."""
    if isinstance(text, (bytes, bytearray)):
        text = text.decode('utf-8', 'surrogateescape')
    text = str(text)
    if len(text) > VALUE_LIMIT:
        text = text[:VALUE_LIMIT] + '...'
    return text.encode('unicode_escape').decode('ascii').replace('"', '\\"')


def event_line(name: str, facts: dict) -> str:
    """The line for an event, without time and line end.  Facts that are '' or None are left out."""
    words = ['event=' + name]
    for key, value in facts.items():
        if value is None or value == '':
            continue
        text = value if isinstance(value, str) else escaped(value)
        plain = _PLAIN.issuperset(text) and len(text) <= VALUE_LIMIT
        words.append('%s=%s' % (key, text) if plain else '%s="%s"' % (key, escaped(value)))
    return ' '.join(words)


def redacted(direction: str, line: bytes, secret: bool = False) -> str:
    """A protocol line as -d may show it.

    Of the client's lines ('C') only those that begin with a known verb are shown: a password
    that comes when we do not expect it looks like an unknown command.  secret says that the
    line belongs to an AUTH exchange.
    """
    if direction == 'S':
        return escaped(line[:3]) + ' ***' if secret else escaped(line)
    words = line.split()
    verb = words[0].upper() if words else b''
    if verb == b'AUTH':
        known = len(words) > 1 and words[1].upper() in MECHANISMS
        shown = b'AUTH ' + words[1] if known else b'AUTH'
        return escaped(shown) + (' ***' if len(words) > 1 + known else '')
    if secret or (words and verb not in VERBS):
        return '*** (%d octets)' % len(line)
    return escaped(line)


class Log:
    """What session, server and main write to.

    `events`: whether ordinary events are wanted.  `tracing`: whether trace() writes anything;
    callers look at it first, so that a log that is off costs nothing.
    """

    def __init__(self, sink: Callable[..., None], events: bool = False, tracing: bool = False):
        self._sink = sink
        self.events = events or tracing
        self.tracing = tracing
        self._counters: dict[str, int] = {}

    def event(self, name: str, session: str = '', client: str = '', user: str = '',
              **facts: object) -> None:
        """Count the event, and write its line if it is a problem or -L asks for all.

        The line of an event in a session always has client= and user=, `-` while not known.
        """
        self.count(name)
        for counter, number in tally(name, facts):
            self.count(counter, number)
        problem = name in EVENTS and EVENTS[name][0]
        if problem or self.events:
            if session:
                client, user = client or '-', user or '-'
            self._sink(event_line(name, dict(session=session, client=client, user=user, **facts)),
                       problem)

    def plain(self, text: str) -> None:
        """A line that is no event, written as it is (the lines at the start)."""
        if self.events:
            self._sink(text, stamped=False)

    def trace(self, session: str, direction: str, data: bytes, secret: bool = False) -> None:
        """Protocol lines; direction is 'C' for the client's, 'S' for ours."""
        if self.tracing:
            for line in data.rstrip(b'\r\n').split(b'\n'):
                self._sink('%s %s: %s' % (session, direction,
                                          redacted(direction, line.rstrip(b'\r'), secret)))

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter.  A count lost when two threads meet does no harm."""
        if name in self._counters or len(self._counters) < COUNTER_LIMIT:
            self._counters[name] = self._counters.get(name, 0) + by

    @property
    def counters(self) -> dict[str, int]:
        """Counters by name, in order of the names."""
        return dict(sorted(self._counters.items()))

    def redirect(self, sink: Callable[..., None]) -> None:
        """From now on write to sink."""
        self._sink = sink

    def reopen(self) -> None:
        """Open a log file again under its name, after it was renamed.  Raises OSError."""
        getattr(self._sink, 'reopen', lambda: None)()


class _Stamp:
    """Local time with its offset from UTC, as ISO 8601; made once a second."""

    def __init__(self):
        self._made = (0, '')

    def __call__(self) -> str:
        now = int(time.time())
        second, text = self._made
        if second != now:
            text = time.strftime('%Y-%m-%dT%H:%M:%S%z', time.localtime(now))
            self._made = (now, text)
        return text


class StderrSink:
    """Lines on descriptor 2; with the time, unless the journal adds its own."""

    def __init__(self, environ=os.environ):
        self._stamp = None if 'JOURNAL_STREAM' in environ else _Stamp()

    def __call__(self, line: str, problem: bool = False, stamped: bool = True) -> None:
        _write(2, line, self._stamp if stamped else None)


def stderr_is_the_client() -> bool:
    """Whether descriptor 2 is the same socket as 0, as under xinetd: nothing may be logged there."""
    try:
        client, stderr = os.fstat(0), os.fstat(2)
    except OSError:
        return False
    return stat.S_ISSOCK(client.st_mode) and os.path.samestat(client, stderr)


class FileSink:
    """Lines at the end of a file, with the time.  Raises OSError when it can't be opened."""

    def __init__(self, path: str):
        self._path = path
        self._stamp = _Stamp()
        self._descriptor = self._open()

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)

    def __call__(self, line: str, problem: bool = False, stamped: bool = True) -> None:
        _write(self._descriptor, line, self._stamp)

    def reopen(self) -> None:
        """Follow the name to a new file; the number of the descriptor stays, for other threads."""
        fresh = self._open()
        os.dup2(fresh, self._descriptor, inheritable=False)
        os.close(fresh)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


class SyslogSink:
    """Lines to syslog, facility mail: problems as warnings, the rest as information."""

    def __init__(self):
        import syslog
        self._syslog = syslog
        syslog.openlog('tmda-ofmipd', syslog.LOG_PID, syslog.LOG_MAIL)

    def __call__(self, line: str, problem: bool = False, stamped: bool = True) -> None:
        self._syslog.syslog(self._syslog.LOG_WARNING if problem else self._syslog.LOG_INFO, line)


def _write(descriptor: int, line: str, stamp: _Stamp | None) -> None:
    text = '%s %s\n' % (stamp(), line) if stamp else line + '\n'
    try:
        os.write(descriptor, text.encode('utf-8', 'backslashreplace'))
    except OSError:
        pass  # a full disk or a closed terminal must not end sessions
