# SPDX-License-Identifier: GPL-2.0-or-later
"""A message while we hold it: in memory when small, else in a file that has no name.

The content is the message with CRLF line ends and without dot stuffing.  Written once, then read
any number of times, by one thread at a time.  The file is unlinked as soon as it exists, so that
nothing is left behind however the process ends (CWE-459).
"""

from __future__ import annotations

from collections.abc import Iterator

BLOCK = 262144  # octets read from a file at a time


class Spool:
    """Octets of one message.  write() raises OSError when the disk is full."""

    def __init__(self, memory_limit: int):
        self._memory_limit = memory_limit
        self._memory = bytearray()
        self._file = None
        self.size = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *unused) -> None:
        self.close()

    def write(self, data: bytes) -> None:
        """Append data."""
        if self._file is None and self.size + len(data) > self._memory_limit:
            self._move_to_file()
        if self._file is None:
            self._memory += data
        else:
            self._write_file(data)
        self.size += len(data)

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """All octets from offset start on, in order, in blocks."""
        if self._file is None:
            if start < self.size:
                yield bytes(self._memory[start:]) if start else bytes(self._memory)
            return
        self._file.seek(start)
        while True:
            block = self._file.read(BLOCK)
            if not block:
                return
            yield block

    def head(self, limit: int) -> bytes:
        """The first octets, at most limit."""
        if self._file is None:
            return bytes(self._memory[:limit])
        self._file.seek(0)
        pieces = []
        while limit > 0:
            piece = self._file.read(limit)
            if not piece:
                break
            pieces.append(piece)
            limit -= len(piece)
        return b''.join(pieces)

    def fileno(self) -> int | None:
        """The descriptor of the file, or None for a message in memory."""
        if self._file is None:
            return None
        return self._file.fileno()

    def close(self) -> None:
        """Give memory and file back."""
        self._memory = bytearray()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _move_to_file(self) -> None:
        import tempfile
        # Unbuffered, so that a full disk shows at the write that met it.
        self._file = tempfile.TemporaryFile(prefix='tmda-', buffering=0)
        self._write_file(self._memory)
        self._memory = bytearray()

    def _write_file(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest):]
