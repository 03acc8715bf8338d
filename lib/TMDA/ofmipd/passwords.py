# SPDX-License-Identifier: GPL-2.0-or-later
"""The password file (-a): `user:password` lines, blank lines and `#` comments.

The user is stripped and compared without regard to case; the password is everything after the
first colon, stripped, in one of the forms of passwordhashes.py.  Of two lines for one user the
later counts.

At start (the constructor) anything wrong is a ConfigError whose one line names the file and
what to do: no file, not a regular file, a mode other than 600 or 400, a foreign owner, a
malformed line.  Afterwards each check looks whether the file has changed, and a changed file is
read again under the same rules; a bad new version is logged once and the last good one kept.

A wrong password and an unknown user take the same time: for a user who is not there, another
user's entry is checked and the result thrown away.  Which one depends on the name alone, so
that in a file of several kinds an unknown name always looks like one kind of entry.  SCRAM
(RFC 5802) tells a client salt and iterations before anybody has proved anything, so unknown
users have those too, made from their name and a key that stays the same.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from typing import Callable, Collection, Dict, NamedTuple, Tuple

from TMDA.Errors import ConfigError
from TMDA.ofmipd.passwordhashes import SCRAM_ITERATIONS, Plain, Scram, parse
from TMDA.ofmipd.verdict import NO, UNSURE, YES, Verdict, octets

SIZE_LIMIT = 64 << 20  # octets of a password file
SALT_SIZE = 16  # octets
MACHINE_ID = '/etc/machine-id'
# A file changed less than this many seconds before it was read may change again without a
# visible change of its time stamps, so it is read again at the next check.
SETTLED_SECONDS = 0.1


def user_key(user: str) -> str:
    """A user name as it is compared."""
    return user.strip().lower()


def _salt_key() -> bytes:
    """The key behind made-up salts: the same in every process of this host if that has an id."""
    try:
        with open(MACHINE_ID, 'rb') as file:
            seed = file.read(64).strip()
    except OSError:
        seed = b''
    return b'tmda-ofmipd salts ' + (seed or os.urandom(32))


class Found(NamedTuple):
    """A user's entry; if not `known`, another user's to spend the same time on."""

    entry: object
    known: bool


class Users:
    """One version of a password file; never changed after it is made."""

    def __init__(self, entries: Dict[str, object], salt_key: bytes):
        self._entries = entries
        self._decoys = list(entries.values()) or [Plain('nobody')]
        self._salt_key = salt_key
        self.plain = all(entry.plain for entry in entries.values())
        self.scram = all(entry.scram for entry in entries.values())

    def _derived(self, purpose: bytes, user: str) -> bytes:
        import hmac
        return hmac.digest(self._salt_key, purpose + octets(user_key(user)), 'sha256')

    def find(self, user: str) -> Found:
        """What to check for `user`."""
        choice = int.from_bytes(self._derived(b'entry ', user)[:8], 'big') % len(self._decoys)
        entry = self._entries.get(user_key(user))
        return Found(entry or self._decoys[choice], entry is not None)

    def scram_start(self, user: str) -> Tuple[bytes, int]:
        """Salt and iterations for `user`, who need not exist; always the same for one name."""
        entry, known = self.find(user)
        salt = self._derived(b'salt ', user) + self._derived(b'more salt ', user)
        if not isinstance(entry, Scram):
            return salt[:SALT_SIZE], SCRAM_ITERATIONS
        return entry.salt if known else salt[:len(entry.salt)], entry.iterations


def parse_line(line: str) -> Tuple[str, object] | None:
    """(user, entry) of one line, None for a blank one or a comment; ValueError if malformed."""
    line = line.strip()
    if not line or line.startswith('#'):
        return None
    user, colon, password = line.partition(':')
    if not colon:
        raise ValueError('no colon: write USER:PASSWORD')
    if not user.strip():
        raise ValueError('no user before the colon: write USER:PASSWORD')
    return user_key(user), parse(password.strip())


def parse_file(path: str, data: bytes) -> Dict[str, object]:
    """user -> entry; ConfigError naming `path` and the line, never its content."""
    entries: Dict[str, object] = {}
    text = data.decode('utf-8', 'surrogateescape')
    for number, line in enumerate(text.lstrip('\ufeff').split('\n'), 1):
        try:
            parsed = parse_line(line)
        except ValueError as error:
            raise ConfigError(f'{path}:{number}: {error}') from None
        if parsed:
            entries[parsed[0]] = parsed[1]
    return entries


def _account(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _check_safety(path: str, status: os.stat_result, owners: Collection[int]) -> None:
    """ConfigError unless nobody but the owner can read the file and the owner is one of ours."""
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f'{path}: not a regular file')
    if status.st_uid not in owners:
        wanted = ' or '.join(_account(uid) for uid in owners)
        raise ConfigError(f'{path}: belongs to {_account(status.st_uid)}, must belong to '
                          f'{wanted}: chown {_account(next(iter(owners)))} {path}')
    mode = stat.S_IMODE(status.st_mode)
    if mode not in (0o600, 0o400):
        raise ConfigError(f'{path}: mode is {mode:o}, must be 600 or 400: chmod 600 {path}')
    if status.st_size > SIZE_LIMIT:
        raise ConfigError(f'{path}: larger than {SIZE_LIMIT} octets')


def _identity(status: os.stat_result) -> tuple:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
            status.st_mode, status.st_uid)


def read_file(path: str, owners: Collection[int]) -> Tuple[Dict[str, object], tuple | None]:
    """The entries of a safe file and its identity, None if the file was changed just now.

    ConfigError, one line, for everything that is wrong with it.
    """
    try:
        # O_NONBLOCK: opening a named pipe would wait for a writer
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ConfigError(f'{path}: no such file: write USER:PASSWORD lines into it, then '
                          f'chmod 600 {path}') from None
    except OSError as error:
        raise ConfigError(f'{path}: {error.strerror}') from None
    try:
        status = os.fstat(descriptor)
        _check_safety(path, status, owners)
        with open(descriptor, 'rb', closefd=False) as file:
            data = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise ConfigError(f'{path}: {error.strerror}') from None
    finally:
        os.close(descriptor)
    settled = time.time() - max(status.st_mtime, status.st_ctime) > SETTLED_SECONDS
    return parse_file(path, data), _identity(status) if settled else None


class PasswordFile:
    """A password file as a source of authentication."""

    def __init__(self, path: str, owners: Collection[int] = (),
                 log: Callable[[str], None] | None = None):
        """Reads `path`; ConfigError if that fails.

        owners: the uids that may own the file, default the effective one.  log is called with
        one line of text when a new version of the file is bad.
        """
        self.path = path
        self.name = 'file:' + path
        self._owners = tuple(owners) or (os.geteuid(),)
        self._log = log or (lambda text: None)
        self._salt_key = _salt_key()
        self._lock = threading.Lock()
        self._complaint = ''
        entries, self._seen = read_file(path, self._owners)
        self._users = Users(entries, self._salt_key)

    def reload(self) -> None:
        """Reads the file again even if it looks unchanged; a bad one is logged."""
        with self._lock:
            self._seen = None
            self._refresh()

    def _current(self) -> Users:
        # Whoever comes while another thread reads the file uses the version before it.
        if self._lock.acquire(blocking=False):
            try:
                self._refresh()
            finally:
                self._lock.release()
        return self._users

    def _refresh(self) -> None:
        try:
            if self._seen is not None and _identity(os.stat(self.path)) == self._seen:
                return
        except OSError:
            pass  # read_file says it better
        try:
            entries, self._seen = read_file(self.path, self._owners)
        except ConfigError as error:
            self._seen = None
            if str(error) != self._complaint:
                self._log(f'{error} (still using what was read before)')
            self._complaint = str(error)
            return
        self._users = Users(entries, self._salt_key)
        self._complaint = ''

    @property
    def plain(self) -> bool:
        """True while every entry is in plain, so that CRAM-MD5 works for every user."""
        return self._current().plain

    @property
    def scram(self) -> bool:
        """True while SCRAM-SHA-256 works for every user."""
        return self._current().scram

    def knows(self, user: str) -> bool:
        """True if the user has an entry."""
        return self._current().find(user).known

    def scram_start(self, user: str) -> Tuple[bytes, int]:
        """(salt, iterations) for the server-first message (RFC 5802 section 5.1)."""
        return self._current().scram_start(user)

    def check(self, credentials, _client=None) -> Verdict:
        """Is this login right?"""
        from TMDA.ofmipd import sasl
        users = self._current()
        found = users.find(credentials.user)
        signature = b''
        if isinstance(credentials, sasl.Password):
            right = found.entry.check(credentials.password)
        elif isinstance(credentials, sasl.CramMD5):
            right = found.entry.plain and credentials.matches(found.entry.secret)
        else:
            right, signature = _scram(found.entry, credentials, users)
        if right is None:
            return Verdict(UNSURE, 'this system cannot check that kind of entry')
        if right and found.known:
            return Verdict(YES, '', signature)
        return Verdict(NO, 'wrong password' if found.known else 'unknown user')


def _scram(entry, credentials, users: Users) -> Tuple[bool, bytes]:
    """Whether the client's proof is right, and the server's signature."""
    if not entry.scram:
        return False, b''
    stored_key, server_key = entry.keys(*users.scram_start(credentials.user))
    return credentials.matches(stored_key), credentials.server_signature(server_key)
