# SPDX-License-Identifier: GPL-2.0-or-later
"""What was made of a file, kept while the file stays the same.

Used for compiled configurations and for keys.  A file is the same while its
device, inode, size and time of change are; an editor that renames a new file
into place is seen by the inode, one that writes in place by the time.

Safe to use from several threads: an entry is replaced as a whole, and two
threads that miss at the same time both read the file.
"""
from __future__ import annotations

import os
import time
from typing import Any, Dict, Tuple

# File times advance in steps of up to 10 ms (the kernel's tick): a file changed
# just now could change once more without showing it, so it isn't kept yet.
SETTLED_NS = 50_000_000


def identity(status: os.stat_result) -> Tuple[int, int, int, int]:
    """What tells one state of a file from another."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class FileCache:
    """At most `entries` values by path; when it is full it starts anew."""

    def __init__(self, entries: int = 256) -> None:
        self._limit = entries
        self._entries: Dict[str, Tuple[tuple, Any]] = {}

    def get(self, path: str, status: os.stat_result) -> Any:
        """The value kept for `path` in the state `status`, else None."""
        entry = self._entries.get(path)
        if entry is not None and entry[0] == identity(status):
            return entry[1]
        return None

    def put(self, path: str, status: os.stat_result, value: Any) -> None:
        """Keep what was made of `path`; `status` was taken before it was read."""
        if 0 <= time.time_ns() - status.st_mtime_ns < SETTLED_NS:
            return
        if len(self._entries) >= self._limit:
            self._entries.clear()
        self._entries[path] = identity(status), value
