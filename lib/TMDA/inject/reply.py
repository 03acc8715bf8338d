# SPDX-License-Identifier: GPL-2.0-or-later
"""SMTP replies as values.

Whoever knows why something is refused makes a Reply; only the session writes it to the client.
Codes follow RFC 5321 section 4.2, enhanced codes RFC 3463.  Outcome is a Reply together with
what the log may say about it; ReplyError carries a Reply through code that cannot return one.
"""

from __future__ import annotations

import re
from typing import NamedTuple

TEXT_LIMIT = 400  # octets of text in one reply line; RFC 5321 4.5.3.1.5 allows 512 in all
_UNPRINTABLE = re.compile(r'[^\x20-\x7e]')


class Reply(NamedTuple):
    """One reply: code, enhanced code ('' for none), lines of text, and whether the session ends."""

    code: int
    enhanced: str = ''
    lines: tuple[str, ...] = ('',)
    close: bool = False

    @property
    def success(self) -> bool:
        """True for 2xx."""
        return 200 <= self.code < 300

    @property
    def temporary(self) -> bool:
        """True for 4xx: the client may try again."""
        return 400 <= self.code < 500

    @property
    def text(self) -> str:
        """All lines as one, without codes."""
        return ' '.join(self.lines)

    def to_bytes(self) -> bytes:
        """The octets for the wire, every line ended by CRLF; what is not printable ASCII becomes '?'."""
        prefix = self.enhanced + ' ' if self.enhanced else ''
        last = len(self.lines) - 1
        return b''.join(
            ('%d%s%s%s\r\n' % (self.code, ' ' if number == last else '-', prefix,
                               _UNPRINTABLE.sub('?', line)[:TEXT_LIMIT])).encode('ascii')
            for number, line in enumerate(self.lines))


def reply(code: int, enhanced: str, *lines: str, close: bool = False) -> Reply:
    """A Reply from its parts."""
    return Reply(code, enhanced, lines or ('',), close)


class ReplyError(Exception):
    """Raised where the reason of a refusal is known.  `reply` goes to the client, `cause` to the log."""

    def __init__(self, answer: Reply, cause: str = ''):
        super().__init__(cause or '%d %s' % (answer.code, answer.text))
        self.reply = answer
        self.cause = cause


class Outcome(NamedTuple):
    """What became of a message: the reply for the client and facts (name -> value) for the log line."""

    reply: Reply
    facts: dict
