# SPDX-License-Identifier: GPL-2.0-or-later
"""The files that a filter is read from or asks: how they are opened, and how long they are kept.

Called by FilterParser (filter and included files), FilterLists, FilterDatabases and FilterMembers.
Guaranteed:

- reading never waits: what is no regular file is refused (FIFO, device, directory), but for
  /dev/null, which is an empty file;
- what was made of a file is used again only while the file is the same (FileCache.identity).  A
  file that changed within the clock tick before it was read could change once more unnoticed, so
  it does not count as unchanged until it was read again;
- what is kept is bounded in number and in octets: the least recently used goes first;
- any number of threads may ask; two that need the same new file read it once.
"""
from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
import time
from collections import OrderedDict
from typing import Any, Callable, NamedTuple, Tuple

from TMDA.Errors import TMDAError
from TMDA.FileCache import SETTLED_NS, identity

CACHE_FILES = 64
CACHE_OCTETS = 16 * 1024 * 1024  # of the files as read; what is made of them is several times that


class SourceError(TMDAError):
    """The source of a rule can't be asked.  str() says why, to be shown with the rule's line."""


def locate(settings: Any, path: str) -> str:
    """The absolute path of a file that a filter names, relative names below the user's home.

    Raises SourceError for what can't be a path.
    """
    if '\0' in path:
        raise SourceError(f'{path!r} can not name a file')
    return os.path.join(settings.home, settings.expand(path))


def is_settled(status: os.stat_result) -> bool:
    """False if the file was modified so recently that the next change may bear the same time."""
    return not 0 <= time.time_ns() - status.st_mtime_ns < SETTLED_NS


def read(path: str) -> Tuple[bytes, os.stat_result]:
    """The content of a file, and its status as it was before.  Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) and not _is_null(status):
            raise OSError(errno.EINVAL, 'not a regular file', path)
        with open(descriptor, 'rb', closefd=False) as file:
            return file.read(), status
    finally:
        os.close(descriptor)


def _is_null(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev


def decode(data: bytes) -> str:
    """Text of a file: UTF-8, other octets kept as surrogates, without a byte order mark."""
    text = data.decode('utf-8', 'surrogateescape')
    return text[1:] if text.startswith('\ufeff') else text


class _Entry(NamedTuple):
    identity: tuple
    settled: bool
    digest: bytes
    size: int
    value: Any


class ContentCache:
    """What was made of files: make(content) is called when a file is new or has changed."""

    def __init__(self, make: Callable[[bytes], Any]) -> None:
        self._make = make
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._lock = threading.Lock()  # for _entries: never held while a file is read
        self._making = threading.Lock()

    def get(self, path: str) -> Any:
        """make()'s result for the file as it is now.  Raises OSError, and what make() raises."""
        current = identity(os.stat(path))
        entry = self._recall(path)
        if entry is not None and entry.settled and entry.identity == current:
            return entry.value
        with self._making:
            entry = self._recall(path)
            if entry is None or not entry.settled or entry.identity != current:
                entry = self._renew(path, entry)
                self._store(path, entry)
            return entry.value

    def _renew(self, path: str, old: Any) -> _Entry:
        data, status = read(path)
        digest = hashlib.blake2b(data).digest()
        if old is not None and old.digest == digest:
            value = old.value
        else:
            value = self._make(data)
        return _Entry(identity(status), is_settled(status), digest, len(data), value)

    def _recall(self, path: str) -> Any:
        with self._lock:
            entry = self._entries.get(path)
            if entry is not None:
                self._entries.move_to_end(path)
            return entry

    def _store(self, path: str, entry: _Entry) -> None:
        with self._lock:
            self._entries[path] = entry
            self._entries.move_to_end(path)
            octets = sum(kept.size for kept in self._entries.values())
            while len(self._entries) > 1 and (
                    octets > CACHE_OCTETS or len(self._entries) > CACHE_FILES):
                _, dropped = self._entries.popitem(last=False)
                octets -= dropped.size
