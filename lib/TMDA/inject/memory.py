# SPDX-License-Identifier: GPL-2.0-or-later
"""What was delivered of messages that could not be delivered as a whole.

A message whose recipients get different tags is sent in several transactions.  If one fails after
another was accepted, the client is told 451 and tries again; then the recipients remembered here
are left out.  Called by transport.deliver.

Kept in a file in the user's DATADIR, so that it survives the daemon and is shared by its
processes: one line for each delivered recipient, with digests only, no addresses:
    SECONDS-SINCE-1970 MESSAGE RECIPIENT
and `-` as RECIPIENT once the whole message was delivered.  MESSAGE is a digest of user and message
as the client sent it, RECIPIENT one of that and the address.

When what is written:
- A line is appended after each accepted transaction, before the next is tried.  It needs no disk
  to have reached every other process, and a later life of a killed one.
- Before the client is answered 451, the lines are written again with the current time and forced
  to disk (keep): the promise outlives a crash of the machine.
- After the last transaction the message is forgotten, before the client is answered 250.  The same
  message sent once more is a new one.
A machine that loses power between two transactions may so forget the first; the client got no
answer in that case, and its next try repeats it.  So does a process that is killed when the message
was forgotten and its client not yet answered.  No other path repeats a delivery but a final reply
of the upstream server that was lost.

Entries last for 5 days since the client's last try, and there are at most twice
as many as the limit `remembered` says; then only the newest are kept.  Mode 0600, never through a
symbolic link, written under an exclusive lock.  Lines cut short are skipped.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable
from typing import Dict

FILE_NAME = 'ofmipd-delivered'
SECONDS = 5 * 86400
LINE = 77  # octets of a line: 10 digits, 32 for the message, 32 for the recipient

Entries = Dict[bytes, Dict[bytes, int]]  # MESSAGE -> RECIPIENT -> time


class Memory:
    """The file at path.  Keeps nothing itself: objects, threads and processes may share a path.

    All methods raise OSError if the file can't be used.
    """

    def __init__(self, path: str, most: int = 10000, clock: Callable[[], float] = time.time):
        self._path = path
        self._most = most
        self._clock = clock

    @property
    def is_empty(self) -> bool:
        """True if nothing is remembered of any message.  Costs one stat(2)."""
        try:
            return os.stat(self._path, follow_symlinks=False).st_size == 0
        except FileNotFoundError:
            return True

    def recipients(self, message: bytes) -> list[bytes]:
        """Who is remembered to have message."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path, flags)
        except FileNotFoundError:
            return []
        try:
            check_owner(descriptor, self._path)
            data = self._tail(descriptor)
        finally:
            os.close(descriptor)
        return list(self._parse(data).get(message, ())) if message in data else []

    def append(self, message: bytes, recipients: Iterable[bytes], sync: bool = False) -> None:
        """Remember recipients of message; with sync, on disk."""
        now = b'%d' % self._clock()
        with _Locked(self._path) as file:
            file.append(b''.join([b'%s %s %s\n' % (now, message, recipient)
                                  for recipient in recipients]))
            if file.size > 2 * self._most * LINE:
                self._rewrite(file)
            elif sync:
                file.sync()

    def forget(self, message: bytes) -> None:
        """message was delivered as a whole.  The file is emptied if it was the last one."""
        if self.is_empty:
            return
        with _Locked(self._path) as file:
            file.append(b'%d %s -\n' % (self._clock(), message))
            if not self._parse(self._tail(file.descriptor)):
                os.ftruncate(file.descriptor, 0)

    def _tail(self, descriptor: int) -> bytes:
        """The content; of a file longer than append() leaves it, the end."""
        size, most = os.fstat(descriptor).st_size, 4 * self._most * LINE
        return os.pread(descriptor, min(size, most), max(size - most, 0))

    def _parse(self, data: bytes) -> Entries:
        return parse(data, self._clock() - SECONDS)

    def _rewrite(self, file: _Locked) -> None:
        """Put a file in the place of this one that holds only what is still of use."""
        live = sorted(((when, message, recipient)
                       for message, known in self._parse(self._tail(file.descriptor)).items()
                       for recipient, when in known.items()), reverse=True)[:self._most]
        file.replace(b''.join([b'%d %s %s\n' % entry for entry in reversed(live)]))


def parse(data: bytes, oldest: float) -> Entries:
    """The entries in data that are not older than oldest and were not forgotten."""
    entries: Entries = {}
    for line in data.split(b'\n'):
        words = line.split(b' ')
        if len(words) != 3 or not words[0].isdigit() or len(words[1]) != 32:
            continue
        when, message, recipient = words
        if recipient == b'-':
            entries.pop(message, None)
        elif len(recipient) == 32 and int(when) >= oldest:
            entries.setdefault(message, {})[recipient] = int(when)
    return entries


def check_owner(descriptor: int, path: str) -> os.stat_result:
    """The status of the file.  PermissionError if it is no regular file of this account."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError('%s: not a file of ours' % path)
    return status


class _Locked:
    """The file, open for appending and locked against all others."""

    def __init__(self, path: str):
        self._path = path
        self.descriptor = -1

    def __enter__(self) -> _Locked:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            self.descriptor = os.open(self._path, flags, 0o600)
            try:
                if self._is_ours():
                    return self
            except BaseException:
                os.close(self.descriptor)
                raise
            os.close(self.descriptor)

    def __exit__(self, *_error) -> None:
        os.close(self.descriptor)

    @property
    def size(self) -> int:
        """Octets in the file."""
        return os.fstat(self.descriptor).st_size

    def append(self, data: bytes) -> None:
        """Write data at the end, on a line of its own, in one write."""
        size = self.size
        if size and os.pread(self.descriptor, 1, size - 1) != b'\n':
            data = b'\n' + data
        if os.write(self.descriptor, data) != len(data):
            raise OSError('%s: short write' % self._path)

    def sync(self) -> None:
        """Force the file and its name to disk."""
        os.fsync(self.descriptor)
        directory = os.open(os.path.dirname(self._path) or '.', os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def replace(self, data: bytes) -> None:
        """Put a new file with data in this one's place.  Ends what may be done with this one."""
        new = self._path + '.new'
        try:
            os.unlink(new)  # left behind by a process that was killed here
        except FileNotFoundError:
            pass
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.rename(new, self._path)
        self.sync()

    def _is_ours(self) -> bool:
        """Lock it.  False if another process put a new file in its place meanwhile."""
        status = check_owner(self.descriptor, self._path)
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        try:
            now = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (now.st_dev, now.st_ino) == (status.st_dev, status.st_ino)


class Record:
    """What is remembered of one message.

    key is the digest of the message as the client sent it, or a function that makes it: it is not
    asked for while nothing is remembered.
    """

    def __init__(self, memory: Memory, user: str, key: bytes | Callable[[], bytes]):
        self._memory = memory
        self._user = user
        self._key = key
        self._message = b''
        self._delivered: list[bytes] = []

    def missing(self, addresses: list[str]) -> set[str]:
        """Those of addresses that were not delivered at an earlier try."""
        if self._memory.is_empty:
            return set(addresses)
        self._delivered = self._memory.recipients(self.message)
        known = set(self._delivered)
        return {address for address in addresses if self._recipient(address) not in known}

    def add(self, addresses: Iterable[str]) -> None:
        """These were delivered now."""
        recipients = [self._recipient(address) for address in addresses]
        self._delivered += recipients
        self._memory.append(self.message, recipients)

    def keep(self) -> None:
        """The client will be asked to try again: make it last."""
        self._memory.append(self.message, self._delivered, sync=True)

    def forget(self) -> None:
        """All were delivered."""
        self._memory.forget(self.message)

    @property
    def message(self) -> bytes:
        """The digest of user and message."""
        if not self._message:
            key = self._key() if callable(self._key) else self._key
            self._message = _digest(self._user.encode('utf-8', 'surrogateescape') + b'\0' + key)
        return self._message

    def _recipient(self, address: str) -> bytes:
        return _digest(self.message + address.encode('utf-8', 'surrogateescape'))


def _digest(data: bytes) -> bytes:
    """32 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32].encode('ascii')
