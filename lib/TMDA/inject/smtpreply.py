# SPDX-License-Identifier: GPL-2.0-or-later
"""What an upstream server answers: read strictly, bounded, and made fit for our own client.

Used by smtplink only for reading and by smtpout for passing refusals on.  An answer is a three
digit code and one or more lines (RFC 5321 4.2.1).  Whatever is not that is a BadAnswer: after it
nothing on the connection can be trusted.  Octets that arrived behind an answer stay in the reader
for the next one (RFC 2920), and can be asked for with `pending`: after STARTTLS there may be none.
"""

from __future__ import annotations

import re
import socket
from typing import NamedTuple

from TMDA.inject.reply import Reply, reply

ANSWER_LIMIT = 65536  # octets of one answer with all its lines
LINES_LIMIT = 10  # lines of an answer that are passed on to the client
TEXT_LIMIT = 300  # characters of each of them

_LINE = re.compile(rb'([2-5][0-9][0-9])(?:([ -])([^\r\n]*))?\r?\n\Z')
_ENHANCED = re.compile(r'([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |\Z)')


class BadAnswer(ConnectionError):
    """What came from the peer is no SMTP reply, or nobody had asked for it."""


class Answer(NamedTuple):
    """One reply of the upstream server: code, and the text of each line behind the code."""

    code: int
    lines: tuple[bytes, ...]

    @property
    def text(self) -> str:
        """All lines as one, without the code.  Undecodable octets are replaced."""
        return b' '.join(self.lines).decode('utf-8', 'replace')

    def __str__(self) -> str:
        return ('%d %s' % (self.code, self.text))[:TEXT_LIMIT]


class AnswerReader:
    """Answers out of the octets of one connection."""

    def __init__(self):
        self._data = b''
        self._at = 0  # what lies before was read

    @property
    def pending(self) -> bool:
        """True when octets have come that belong to no answer read so far."""
        return self._at < len(self._data)

    def read(self, stream, deadline: float) -> Answer:
        """The next answer out of a stream (smtpstream).

        deadline is in terms of time.monotonic() and for the whole answer, however slowly it drips.
        Raises socket.timeout, ConnectionError at the end of the connection, other OSError from
        the stream, BadAnswer.
        """
        first = None
        lines: list[bytes] = []
        limit = ANSWER_LIMIT
        while True:
            end = self._data.find(b'\n', self._at) + 1
            if (end or len(self._data) + 1) - self._at > limit:
                raise BadAnswer('SMTP reply of more than %d octets' % ANSWER_LIMIT)
            if not end:
                self._receive(stream, deadline)
                continue
            match = _LINE.match(self._data, self._at, end)
            if match is None or first not in (None, match.group(1)):
                raise BadAnswer('no SMTP reply: %r' % self._data[self._at:end][:80])
            first, separator, text = match.groups()
            lines.append(text or b'')
            limit -= end - self._at
            self._at = end
            if separator != b'-':
                return Answer(int(first), tuple(lines))

    def _receive(self, stream, deadline: float) -> None:
        data = stream.receive(deadline)
        if not data:
            raise ConnectionResetError('connection closed by the upstream server')
        self._data = self._data[self._at:] + data
        self._at = 0


def passed_on(answer: Answer, about: str = '') -> Reply:
    """The reply for our client to a refusal by the upstream server: its code and its text.

    421 speaks of the upstream connection, not of our client's, and so becomes 451.  A code that is
    no refusal where one is needed (2xx and 3xx out of place) becomes 451 4.5.0.  about, if not
    empty, is added as a line of its own unless the text names it (which of many recipients).
    """
    if not 400 <= answer.code <= 599:
        return reply(451, '4.5.0', 'Upstream server made no sense: %s' % (answer,))
    enhanced, lines = '', []
    for raw in answer.lines[:LINES_LIMIT]:
        line = raw.decode('utf-8', 'replace')
        match = _ENHANCED.match(line)
        if match:
            enhanced = enhanced or match.group(1)
            line = line[match.end():]
        lines.append(line[:TEXT_LIMIT])
    if about and about not in ' '.join(lines):
        lines.append(about[:TEXT_LIMIT])
    code = 451 if answer.code == 421 else answer.code
    if enhanced[:1] != str(code)[0]:
        enhanced = '4.3.2' if answer.code == 421 else '%d.0.0' % (code // 100)
    return reply(code, enhanced, *lines)


def accepted_text(answer: Answer) -> str:
    """The text of our own 250: `Ok`, and what the upstream server said besides (its queue id)."""
    text = _ENHANCED.sub('', answer.lines[0].decode('utf-8', 'replace'), count=1)
    if text[:2].lower() == 'ok':
        text = text[2:].lstrip(':, ')
    return ('Ok: ' + text)[:TEXT_LIMIT] if text.strip() else 'Ok'


def timed_out(error: OSError) -> bool:
    """True for a timeout (socket.timeout is no TimeoutError before Python 3.10)."""
    return isinstance(error, (socket.timeout, TimeoutError))
