# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames between the processes of shared mode: typed, length-checked, over a Unix socketpair.

channels.py (network process) speaks them with child.py (the process of a session).  KINDS is the
list of all frames and of what each has to carry.  A frame is

    length of the header (4 octets), length of the body (4 octets), header, body

in network byte order; the header is a JSON array, the kind and an object of the fields; the body
is a message that was small enough to be in memory.  A larger one travels as a descriptor.

Neither side believes the other.  receive() raises Broken for whatever is not a frame of a kind
that was asked for, with exactly its fields, each of its type and within its bounds; the lengths
are looked at before memory is taken.  Descriptors that come where none was asked for, or in
greater number, are closed and the frame is Broken.  After Broken or TimedOut nothing can be said
about the state of a link: its owner closes it.
"""

from __future__ import annotations

import array
import json
import os
import re
import select
import socket
import struct
from time import monotonic
from typing import Callable, NamedTuple

from TMDA.inject.reply import Reply

PREFIX = struct.Struct('!II')
SMALL = 1 << 18        # octets of a header before the login
LARGE = 1 << 21        # octets of the header of an answer
DESCRIPTORS = 4        # that are received at most, to be closed if there is more than one
BLOCK = 262144         # octets taken from the socket at a time
USUAL = 16384          # the same, where fewer are awaited
TEXT = 2000            # characters of a text for people
FACTS = 40             # facts of an outcome
LOGIN = 1024           # characters of a login name
SECRET = 12288         # characters or octets of a password or a proof: a line of AUTH

_FACT_NAME = re.compile(r'[a-z][a-z_]{0,30}\Z')
_RESERVED_FACTS = frozenset(('event', 'name', 'self', 'session', 'client', 'user'))
CLOSE_ON_EXEC = getattr(socket, 'MSG_CMSG_CLOEXEC', 0)


class Broken(Exception):
    """The other side sent what it may not send.  str() says what, in our own words."""


class Ended(Exception):
    """The other side closed the link."""


class TimedOut(Exception):
    """The deadline passed."""


def text(limit: int) -> Callable[[object], bool]:
    """A str of at most `limit` characters."""
    return lambda value: type(value) is str and len(value) <= limit


def number(low: int, high: int) -> Callable[[object], bool]:
    """An int from low to high."""
    return lambda value: type(value) is int and low <= value <= high


def one_of(*allowed: str) -> Callable[[object], bool]:
    """One of some texts."""
    return lambda value: type(value) is str and value in allowed


def octets(limit: int) -> Callable[[object], bool]:
    """Octets, which are written as the characters 0 to 255."""
    return lambda value: text(limit)(value) and all(sign <= '\xff' for sign in value)


def flag(value: object) -> bool:
    """True or False."""
    return type(value) is bool


def texts(limit: int, each: int) -> Callable[[object], bool]:
    """An array of at most `limit` texts of at most `each` characters."""
    return lambda value: (type(value) is list and len(value) <= limit
                          and all(map(text(each), value)))


def recipients(value: object) -> bool:
    """An array of [address, notify, orcpt].  How many may come is the receiver's affair."""
    return type(value) is list and all(
        type(one) is list and len(one) == 3 and all(map(text(4096), one)) for one in value)


def facts(value: object) -> bool:
    """What a log line may show: names of a plain form that the log does not use itself."""
    return (type(value) is dict and len(value) <= FACTS
            and all(_FACT_NAME.match(name) and name not in _RESERVED_FACTS
                    and (text(TEXT)(fact) or number(0, 1 << 53)(fact))
                    for name, fact in value.items()))


_REPLY = {'code': number(200, 599), 'enhanced': text(16), 'lines': texts(100, TEXT), 'close': flag}
_MECHANISMS = {'mechanisms': texts(10, 32)}
_CLIENT = {'address': text(64), 'name': text(255), 'port': number(0, 65535),
           'local_address': text(64), 'local_port': number(0, 65535)}

# Kind of frame -> field -> what its value has to be.
KINDS = {
    # from the network process, before the login
    'client': dict(_CLIENT, session=text(64)),
    'scram_start': {'user': text(LOGIN)},
    'password': {'user': text(LOGIN), 'password': text(SECRET)},
    'cram_md5': {'user': text(LOGIN), 'challenge': octets(1024), 'digest': text(32)},
    'scram': {'user': text(LOGIN), 'auth_message': octets(4 * SECRET), 'proof': octets(32)},
    # from the network process, after the login
    'submit': {'sender': text(4096), 'recipients': recipients, 'size': number(0, 1 << 40),
               'body': one_of('', '7BIT', '8BITMIME'), 'smtputf8': flag, 'ret': text(32),
               'envid': text(512), 'received': text(8192), 'session': text(64)},
    # from the process of the session
    'salt': dict(_MECHANISMS, salt=octets(1024), iterations=number(1, 1 << 31)),
    'refused': dict(_MECHANISMS, cause=text(TEXT), **_REPLY),
    'identity': dict(_MECHANISMS, login=text(LOGIN), signature=octets(64)),
    'outcome': dict(_REPLY, facts=facts),
}
BEFORE_LOGIN = ('scram_start', 'password', 'cram_md5', 'scram')


class Frame(NamedTuple):
    """What was received.  descriptor is None or belongs to the receiver from now on."""

    kind: str
    fields: dict
    body: bytes = b''
    descriptor: int | None = None


class Link:
    """One end of a socketpair, which does not block from now on.  For one thread at a time.

    deadline is on time.monotonic's clock; None waits for ever.  More than one frame may be read at
    once: who goes on with the socket after another Link has used it must be sure that none came
    behind the last one, as at the other end of a login, which waits for the answer.
    """

    def __init__(self, sock: socket.socket):
        sock.setblocking(False)
        self._sock = sock
        self._input, self._output = select.poll(), select.poll()
        self._input.register(sock, select.POLLIN)
        self._output.register(sock, select.POLLOUT)
        self._octets = b''  # that were received and belong to no frame yet
        self._descriptors: list[int] = []  # the same

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._drop_descriptors()
        self._sock.close()

    def send(self, kind: str, fields: dict, deadline: float | None = None, body: bytes = b'',
             descriptor: int | None = None) -> None:
        """Send a frame.  Raises Ended, TimedOut."""
        header = json.dumps([kind, fields]).encode('ascii')
        rest = memoryview(PREFIX.pack(len(header), len(body)) + header + body)
        ancillary = [] if descriptor is None else [
            (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [descriptor]))]
        while rest:
            try:
                sent = self._sock.sendmsg([rest], ancillary)
            except BlockingIOError:
                _wait(self._output, deadline)
            except OSError as error:
                raise Ended(error.strerror) from None
            else:
                rest, ancillary = rest[sent:], []

    def receive(self, kinds: tuple[str, ...], deadline: float | None = None, limit: int = SMALL,
                body_limit: int = -1) -> Frame:
        """The next frame, which has to be one of some kinds.

        limit: octets of the header.  body_limit: octets of a body; with 0 or more, a descriptor
        may come as well.  Raises Broken, Ended, TimedOut.
        """
        try:
            header_size, body_size = PREFIX.unpack(self._take(PREFIX.size, deadline))
            if header_size > limit or body_size > max(body_limit, 0):
                raise Broken('a frame is too large')
            frame = _decode(self._take(header_size, deadline), kinds)
            body = self._take(body_size, deadline)
            if len(self._descriptors) > (body_limit >= 0):
                raise Broken('a descriptor where none may be')
        except (Broken, Ended, TimedOut):
            self._drop_descriptors()
            raise
        return frame._replace(body=body,
                              descriptor=self._descriptors.pop() if self._descriptors else None)

    def _take(self, size: int, deadline: float | None) -> bytes:
        """The next size octets."""
        pieces, missing = [self._octets], size - len(self._octets)
        while missing > 0:
            pieces.append(self._receive(max(min(missing, BLOCK), USUAL), deadline))
            missing -= len(pieces[-1])
        octets = b''.join(pieces)
        self._octets = octets[size:]
        return octets[:size]

    def _receive(self, size: int, deadline: float | None) -> bytes:
        while True:
            # An answer is never there at once, so waiting comes first.
            _wait(self._input, deadline)
            try:
                octets = receive_octets(self._sock, size, self._descriptors)
            except BlockingIOError:
                continue
            except OSError as error:
                raise Ended(error.strerror) from None
            if len(self._descriptors) > DESCRIPTORS:
                raise Broken('too many descriptors')
            if not octets:
                raise Ended
            return octets

    def _drop_descriptors(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())


def _wait(poll, deadline: float | None) -> None:
    """Until poll finds something.  Raises TimedOut."""
    seconds = None if deadline is None else max(deadline - monotonic(), 0)
    if not poll.poll(None if seconds is None else seconds * 1000):
        raise TimedOut


def receive_octets(sock: socket.socket, size: int, descriptors: list[int]) -> bytes:
    """At most size octets from a socket, as recv() has them; the descriptors that came with them
    are added to the list.  Raises Broken if there were more than DESCRIPTORS, OSError."""
    data, ancillary, flags, _ = sock.recvmsg(size, socket.CMSG_SPACE(DESCRIPTORS * 4),
                                             CLOSE_ON_EXEC)
    for level, kind, rights in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found = array.array('i', rights[:len(rights) - len(rights) % 4])
            descriptors += found.tolist()
    if flags & socket.MSG_CTRUNC:
        raise Broken('too many descriptors')
    return data


def _decode(header: bytes, kinds: tuple[str, ...]) -> Frame:
    try:
        kind, fields = json.loads(header.decode('ascii'))
    except (ValueError, TypeError, RecursionError):
        raise Broken('a frame is no JSON') from None
    if type(kind) is not str or kind not in kinds:
        raise Broken('a frame of another kind than may come now')
    rules = KINDS[kind]
    if type(fields) is not dict or fields.keys() != rules.keys():
        raise Broken('%s: not the fields that it has to have' % kind)
    for name, rule in rules.items():
        if not rule(fields[name]):
            raise Broken('%s: %s is not what it has to be' % (kind, name))
    return Frame(kind, fields)


def reply_fields(answer: Reply) -> dict:
    """A Reply as fields, cut to what a frame may hold."""
    return {'code': answer.code, 'enhanced': answer.enhanced[:16], 'close': answer.close,
            'lines': [line[:TEXT] for line in answer.lines[:100]] or ['']}


def reply_of(fields: dict) -> Reply:
    """The Reply in a frame."""
    return Reply(fields['code'], fields['enhanced'], tuple(fields['lines']) or ('',),
                 fields['close'])


def fact_fields(found: dict) -> dict:
    """Facts as a frame may hold them: the others left out, texts cut."""
    short = {name: fact if type(fact) is int else str(fact)[:TEXT]
             for name, fact in list(found.items())[:FACTS]}
    return {name: fact for name, fact in short.items() if facts({name: fact})}
