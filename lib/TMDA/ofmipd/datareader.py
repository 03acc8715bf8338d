# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the text of a message after DATA (RFC 5321 4.1.1.4, 4.5.2) into a spool.

End of data is CRLF . CRLF and nothing else (2.3.8).  A CR or LF that stands alone never gets
through: it is turned into CRLF, since submission clients do send them.  Three steps, in this
order, so that no octet can change its role on the way:

1. find the end, in the octets as they came;
2. remove the first dot of every line that CRLF began.  A line that a bare CR or LF began keeps its
   dot: no sender stuffs there, and nothing of the text may be lost;
3. turn bare CR and LF into CRLF.

After step 3 a line may consist of a single dot; it is content, and stuffed again by whoever sends
the message on.  NUL and octets above 127 pass unchanged.

Blocks as large as they come are searched and replaced as a whole; nothing is done line by line.
"""

from __future__ import annotations

from time import monotonic

from TMDA.inject.limits import Limits
from TMDA.inject.reply import Reply, reply
from TMDA.inject.spool import Spool
from TMDA.ofmipd.wire import Wire

END = b'\r\n.\r\n'
_TAILS = (b'\r\n.\r', b'\r\n.', b'\r\n', b'\r')  # what END may have begun with, longest first
TOO_BIG = reply(552, '5.3.4', 'Message is too big')
NO_ROOM = reply(452, '4.3.1', 'Insufficient storage')


class DataReader:
    """Turns blocks of octets into message text; knows neither wire nor clock.

    After the end, `rest` has the octets behind it, and `failure` the Reply if the text could not
    be kept.  A failure does not stop the reading: the end has to be found all the same.
    """

    def __init__(self, spool: Spool, size_limit: int):
        self.failure: Reply | None = None
        self.cause = ''  # of the failure, for the log
        self.rest = b''
        self.size = 0
        self._spool = spool
        self._limit = size_limit
        self._pending = b'\r\n'  # DATA's own line end: the text may begin with the final dot
        self._skip = 2  # octets of _pending that are no text

    def feed(self, block: bytes) -> bool:
        """Take the next octets.  True when the end was among them."""
        data = self._pending + block
        end = data.find(END) if b'.' in data else -1  # base64 has no dots, and most is base64
        if end < 0:
            held = next((len(tail) for tail in _TAILS if data.endswith(tail)), 0)
            cut = len(data) - held
            self._pending = data[cut:]
            self._keep(data[:cut])
            return False
        self.rest = data[end + len(END):]
        self._keep(data[:end + 2])
        return True

    def _keep(self, data: bytes) -> None:
        if not data:
            return
        text = _normalize(data.replace(b'\r\n.', b'\r\n') if b'.' in data else data)
        if self._skip:
            text = text[self._skip:]
            self._skip = 0
        self.size += len(text)
        if self.failure is not None:
            return
        if self.size > self._limit:
            self._fail(TOO_BIG, 'too big')
            return
        try:
            self._spool.write(text)
        except OSError as error:
            self._fail(NO_ROOM, 'spool: %s' % error.strerror)

    def _fail(self, answer: Reply, cause: str) -> None:
        self.failure = answer
        self.cause = cause
        self._spool.close()


def _normalize(data: bytes) -> bytes:
    """data with every CR or LF that is not part of a CRLF turned into CRLF.

    data ends neither in front of an LF nor behind a CR that may have one.
    """
    bare = data.replace(b'\r\n', b'')
    if b'\r' not in bare and b'\n' not in bare:  # a quarter of the time of counting them
        return data
    return data.replace(b'\r\n', b'\n').replace(b'\r', b'\n').replace(b'\n', b'\r\n')


def read_data(wire: Wire, spool: Spool, limits: Limits) -> DataReader:
    """Read up to the end of data; octets behind it stay in the wire.

    Whatever is wrong with the message is in the result's `failure`, and the end was read.  Raises
    TimedOut, Disconnected, after which the message must be forgotten.  The time allowed: no pause
    beyond command_seconds, and data_rate octets a second on average; what was dropped does not
    earn more time.
    """
    reader = DataReader(spool, limits.message_size)
    started = monotonic()
    wire.deadline = started + limits.command_seconds
    while not reader.feed(wire.read_some()):
        earned = min(reader.size, limits.message_size) / limits.data_rate
        now = monotonic()
        wire.deadline = min(now, started + earned) + limits.command_seconds
    wire.push_back(reader.rest)
    return reader
