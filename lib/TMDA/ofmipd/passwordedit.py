# SPDX-License-Identifier: GPL-2.0-or-later
"""Adding or changing one user's line in a password file, for `tmda-ofmipd --password USER`.

The new file is written beside the old one and renamed over it, so that the daemon and a crash
see either the old or the new one whole.  Mode and owner stay (600 for a new file), as do
comments, order and all other lines.  A lock on the directory keeps two of us apart.
"""

from __future__ import annotations

import os
import stat

from TMDA.ofmipd.passwordhashes import octets
from TMDA.ofmipd.passwords import parse_line, user_key


def add_or_change(path: str, user: str, entry: str) -> bool:
    """Gives `user` this entry (a password or a hash, see passwordhashes.py).

    True if the user had a line before.  ValueError if user or entry cannot stand in such a
    file; OSError if the file cannot be read or written.
    """
    _check(user, entry)
    import fcntl

    path = os.path.realpath(path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        lines, status = _read(path)
        changed = _put(lines, user, octets(f'{user}:{entry}'))
        _replace(path, b'\n'.join(lines), status)
        os.fsync(directory)
    finally:
        os.close(directory)
    return changed


def _check(user: str, entry: str) -> None:
    if any(octet in user + entry for octet in '\r\n\0') or ':' in user:
        raise ValueError('no line end or NUL is possible in a password file, and no colon in a '
                         'user name')
    if user != user.strip() or entry != entry.strip():
        raise ValueError('a password file keeps no blanks around a user name or password')
    if not parse_line(f'{user}:{entry}'):
        raise ValueError('a user name cannot begin with #')


def _read(path: str) -> tuple:
    """The file's lines without their LF, and its status; for a new file no lines and None."""
    try:
        with open(path, 'rb') as file:
            return file.read().split(b'\n'), os.fstat(file.fileno())
    except FileNotFoundError:
        return [b''], None


def _put(lines: list, user: str, new: bytes) -> bool:
    """Puts the line in place of the user's last, the one that counts, and removes the others."""
    places = [number for number, line in enumerate(lines) if _user_of(line) == user_key(user)]
    if not places:
        lines[-1:] = [lines[-1], new] if lines[-1] else [new]
        lines.append(b'')
        return False
    lines[places[-1]] = new
    for number in reversed(places[:-1]):
        del lines[number]
    return True


def _user_of(line: bytes) -> str | None:
    text = line.decode('utf-8', 'surrogateescape').strip()
    if text.startswith('#') or ':' not in text:
        return None
    return user_key(text.partition(':')[0])


def _replace(path: str, data: bytes, status: os.stat_result | None) -> None:
    import tempfile

    descriptor, temporary = tempfile.mkstemp(prefix='.' + os.path.basename(path) + '.',
                                             dir=os.path.dirname(path))
    try:
        with open(descriptor, 'wb') as file:  # mkstemp's mode is 600
            file.write(data)
            file.flush()
            if status:
                if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, status.st_uid, status.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
            os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError):
            error.filename = path  # the functions of os that take a descriptor name none
        raise
