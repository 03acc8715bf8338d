# SPDX-License-Identifier: GPL-2.0-or-later
"""A message as a header of raw fields and a body that stays where it is.

The header block is cut into fields whose octets are kept: a field that nobody replaces leaves as
it came, in its place and with its folding (RFC 5322 2.2.3).  The body is never parsed, decoded or
rebuilt; it is read from the spool when the message is sent.

Where the header ends: at the first empty line, or, as mail transfer agents have it, in front of
the first line that is neither a field nor the continuation of one.  In the latter case an empty
line is put in between on the way out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from TMDA.inject.reply import ReplyError, reply
from TMDA.inject.spool import Spool

# A field with its continuation lines; CR and LF that stand alone do not end it.
_FIELD = re.compile(rb'([!-9;-~]+)[ \t]*:[^\r]*(?:\r(?!\n)[^\r]*|\r\n[ \t][^\r]*)*(?:\r\n|\Z)')
_FOLD = re.compile(rb'\r\n[ \t]+')
_NO_LINE_BREAK = re.compile(rb'[\r\n\0]+[ \t]*')
LINE_LIMIT = 990  # RFC 5322 2.1.1 allows 998 octets in a line


class Header:
    """Fields in order, each as (lower-case name, raw octets with the final CRLF)."""

    def __init__(self, fields: list):
        self._fields = fields

    def copy(self) -> Header:
        """An independent header of the same fields."""
        return Header(self._fields[:])

    def get(self, name: str) -> bytes | None:
        """The unfolded value of the first field of that name, or None."""
        wanted = name.lower().encode('ascii')
        for have, raw in self._fields:
            if have == wanted:
                return _value(raw)
        return None

    def get_all(self, name: str) -> list[bytes]:
        """The unfolded values of all fields of that name."""
        wanted = name.lower().encode('ascii')
        return [_value(raw) for have, raw in self._fields if have == wanted]

    def raw_value(self, name: str) -> bytes | None:
        """What follows the colon in the first field of that name, folding kept, final CRLF cut."""
        wanted = name.lower().encode('ascii')
        for have, raw in self._fields:
            if have == wanted:
                return raw[raw.index(b':') + 1:-2]
        return None

    def prepend(self, name: str, value: bytes) -> None:
        """Put a new field on top."""
        self._fields.insert(0, _field(name, value))

    def add(self, name: str, value: bytes) -> None:
        """Put a new field at the end."""
        self._fields.append(_field(name, value))

    def set(self, name: str, value: bytes) -> None:
        """Give the first field of that name a new value, in its place; add it where there is none."""
        new = _field(name, value)
        for position, (have, _raw) in enumerate(self._fields):
            if have == new[0]:
                self._fields[position] = new
                return
        self._fields.append(new)

    def set_raw(self, name: str, value: bytes) -> None:
        """Like set() for a value in raw_value()'s form, whose folding is to be kept."""
        wanted = name.lower().encode('ascii')
        for position, (have, raw) in enumerate(self._fields):
            if have == wanted:
                self._fields[position] = (have, raw[:raw.index(b':') + 1] + value + b'\r\n')
                return

    def replace(self, name: str, value: bytes) -> None:
        """Remove all fields of that name and put a new one at the end."""
        self.remove(name)
        self.add(name, value)

    def remove(self, name: str) -> None:
        """Remove all fields of that name."""
        wanted = name.lower().encode('utf-8')
        self._fields = [field for field in self._fields if field[0] != wanted]

    def keep_first(self, name: str) -> None:
        """Remove all fields of that name but the first."""
        wanted = name.lower().encode('ascii')
        seen = False
        kept = []
        for field in self._fields:
            if field[0] == wanted:
                if seen:
                    continue
                seen = True
            kept.append(field)
        self._fields = kept

    def to_bytes(self) -> bytes:
        """The header block without the empty line."""
        return b''.join([raw for _name, raw in self._fields])


class Body:
    """The part of a spool that follows the header."""

    def __init__(self, spool: Spool, start: int):
        self._spool = spool
        self._start = start
        self.size = spool.size - start

    def chunks(self) -> Iterator[bytes]:
        """The octets in order, CRLF line ends, no dot stuffing."""
        return self._spool.chunks(self._start)


class Message:
    """header (Header), body (Body), and separator: what goes between (b'' or the empty line)."""

    def __init__(self, header: Header, body: Body, separator: bytes, spool: Spool):
        self.header = header
        self.body = body
        self.separator = separator
        self._spool = spool

    @classmethod
    def read(cls, spool: Spool, header_limit: int) -> Message:
        """Cut the message in spool.  Raises ReplyError (552) for a header beyond header_limit octets."""
        head = spool.head(header_limit + 4)
        fields, start, separator = split_header(head)
        if start > header_limit:
            raise ReplyError(reply(552, '5.3.4', 'Header of the message is too big'))
        return cls(Header(fields), Body(spool, start), separator, spool)

    def size_in_unix_lines(self) -> int:
        """The size in octets as it came, but with each line end counted as one octet."""
        return self._spool.size - sum(chunk.count(b'\r\n') for chunk in self._spool.chunks())

    def digest(self) -> bytes:
        """The SHA-256 of the message as it came."""
        import hashlib
        digest = hashlib.sha256()
        for chunk in self._spool.chunks():
            digest.update(chunk)
        return digest.digest()


def split_header(head: bytes) -> tuple[list, int, bytes]:
    """Cut the octets at the start of a message into (fields, offset of the body, separator).

    The separator is b'\\r\\n' where a body follows or an empty line stood, else b''.
    """
    fields: list = []
    position = 0
    if head.startswith(b'From '):  # an mbox postmark is no part of the message
        position = _field_end(head, 0)
    match = _FIELD.match(head, position)
    while match:
        fields.append((match.group(1).lower(), match.group()))
        position = match.end()
        match = _FIELD.match(head, position)
    if position < len(head):
        return fields, position + 2 * head.startswith(b'\r\n', position), b'\r\n'
    if fields and not fields[-1][1].endswith(b'\r\n'):  # a message without a final line end
        name, raw = fields[-1]
        fields[-1] = (name, raw + b'\r\n')
    return fields, position, b''


def clean_value(value: bytes) -> bytes:
    """The value without anything that could end its line (CWE-93)."""
    return _NO_LINE_BREAK.sub(b' ', value).strip(b' ')


def _field_end(head: bytes, position: int) -> int:
    """Where the field that begins at position ends, continuation lines included."""
    while True:
        end = head.find(b'\r\n', position)
        if end < 0:
            return len(head)
        position = end + 2
        if head[position:position + 1] not in (b' ', b'\t'):
            return position


def _value(raw: bytes) -> bytes:
    """The unfolded value in a raw field; the one blank behind the colon is not part of it."""
    value = raw[raw.index(b':') + 1:-2]
    if b'\r\n' in value:
        value = _FOLD.sub(b' ', value)
    return value[1:] if value[:1] in (b' ', b'\t') else value


def _field(name: str, value: bytes) -> tuple[bytes, bytes]:
    """A new field; folded at blanks only where a line would be too long for SMTP."""
    line = name.encode('ascii') + b': ' + value
    if len(line) > LINE_LIMIT and max(map(len, line.split(b'\r\n'))) > LINE_LIMIT:
        line = _fold(line)
    return name.lower().encode('ascii'), line + b'\r\n'


def _fold(line: bytes) -> bytes:
    lines = []
    while len(line) > LINE_LIMIT:
        blank = line.rfind(b' ', 1, LINE_LIMIT)
        if blank < 1:
            break
        lines.append(line[:blank])
        line = line[blank:]
    lines.append(line)
    return b'\r\n'.join(lines)
