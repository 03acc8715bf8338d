# SPDX-License-Identifier: GPL-2.0-or-later
"""`to-cdb`, `to-dbm`, and the databases that -autocdb and -autodbm make of list files.

Made by FilterSources.find_class and FileSource.  Keys in cdb and dbm files are addresses or bare
domains in lower case, without wildcards; the data is an action or empty.

A file is opened for each question and closed again: a change is seen at once, and whoever wants to
write it finds no lock.

Names of dbm files.  Python's dbm modules add to the name that they are given: dbm.gnu and
dbm.sqlite3 nothing, dbm.ndbm `.db` (or `.dir` and `.pag`), dbm.dumb `.dat` and `.dir`.  `to-dbm`
takes the name with or without a `.db` at its end, and reads files of every module that this Python
has.  -autodbm asks for FILE.db by the first of dbm.gnu, dbm.ndbm and dbm.dumb that is there, so
that the file is FILE.db, FILE.db.db, or FILE.db.dat with FILE.db.dir.  (It leaves dbm.sqlite3 out:
other versions of Python can't read that, and each entry is a transaction.)  dbm.dumb is slow to
write; its index is kept while the file is unchanged.

-autocdb and -autodbm make FILE.cdb or FILE.db, with FILE's permissions, when it is missing or not
newer than FILE, in a temporary directory from which it is moved, so that nobody meets half of it
(dbm.dumb has two files, moved one after the other).  If that fails the list itself is used.
"""
from __future__ import annotations

import errno
import functools
import importlib
import os
import stat
import threading
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from TMDA import Cdb
from TMDA.FileCache import identity
from TMDA.FilterFiles import ContentCache, SourceError, decode, is_settled, read
from TMDA.FilterLists import read_lines
from TMDA.FilterSourceBase import PathSource

DBM_SUFFIXES = ('', '.db', '.dir', '.pag', '.dat')

_making = threading.Lock()


class CdbSource(PathSource):
    """A cdb file."""

    def find(self, keys: Tuple[str, ...]) -> Optional[str]:
        return _find_in_cdb(self.path, keys)


class DbmSource(PathSource):
    """A dbm file."""

    def find(self, keys: Tuple[str, ...]) -> Optional[str]:
        import dbm
        names = [self.path]
        if self.path.endswith('.db'):
            names.append(self.path[:-len('.db')])
        names = [name for name in names if _dbm_files(name)]
        if names:
            # What ndbm made for FILE is, by the name FILE.db, of no known type.
            return _find_in_dbm(next(filter(dbm.whichdb, names), names[0]), keys, foreign=True)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path)


def _find_in_cdb(path: str, keys: Tuple[str, ...]) -> Optional[str]:
    try:
        with Cdb.read(path) as database:
            return _first(database.get, keys)
    except Cdb.CdbError as error:
        raise SourceError(str(error)) from None


def _find_in_dbm(path: str, keys: Tuple[str, ...], foreign: bool = False) -> Optional[str]:
    """foreign: the file was made by somebody else, who may have stored empty data."""
    import dbm
    try:
        kind = dbm.whichdb(path)
        if kind == 'dbm.dumb':
            return _first(_DumbReader(path).get, keys)
        with dbm.open(path, 'r') as database:
            get = database.get
            if foreign and kind == 'dbm.ndbm':
                get = functools.partial(_get_from_ndbm, database)
            return _first(get, keys)
    except Exception as error:  # dbm.error is several classes, and a damaged file raises others
        raise SourceError(f'{path}: not a usable dbm file: {error}') from None


def _get_from_ndbm(database: Any, key: bytes) -> Optional[bytes]:
    """The data of key.  To ndbm, a key with empty data is missing; only the list of keys has it."""
    data = database.get(key)
    return b'' if data is None and key in database.keys() else data


class _DumbReader:
    """A file of dbm.dumb, which itself would read its index anew for each question."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._index = _dumb_indexes.get(path + '.dir')

    def get(self, key: bytes) -> Optional[bytes]:
        """The data of key, None if it is not there."""
        if key not in self._index:
            return None
        position, size = self._index[key]
        with open(self._path + '.dat', 'rb') as file:
            file.seek(position)
            return file.read(size)


def _read_dumb_index(data: bytes) -> Dict[bytes, Tuple[int, int]]:
    """Position and size of the data of each key: lines `'key', (position, size)` in Latin-1."""
    import ast
    index = {}
    for line in data.decode('latin-1').split('\n'):
        if line:
            key, (position, size) = ast.literal_eval(line)
            index[key.encode('latin-1')] = position, size
    return index


_dumb_indexes = ContentCache(_read_dumb_index)


def _first(get: Any, keys: Tuple[str, ...]) -> Optional[str]:
    for key in keys:
        data = get(key.encode('utf-8', 'surrogateescape'))
        if data is not None:
            return decode(data).strip()
    return None


def find_in_made(option: str, path: str, keys: Tuple[str, ...]) -> Optional[str]:
    """The answer for keys by the database that is made of the list at path.

    option is `autocdb` or `autodbm`.  Raises OSError if there is no list, SourceError if there is
    no usable database and none can be made.
    """
    source = os.stat(path)
    kind = _MADE[option]
    target = path + kind.suffix
    try:
        was_good = _is_newer(kind.files(target), source)
        if not was_good:
            _make(kind, path, target)
        try:
            return kind.find(target, keys)
        except SourceError:
            if not was_good:
                raise
        _make(kind, path, target)
        return kind.find(target, keys)
    except OSError as error:
        raise SourceError(str(error)) from None


def _is_newer(files: List[str], source: os.stat_result) -> bool:
    try:
        times = [os.stat(name).st_mtime_ns for name in files]
    except FileNotFoundError:
        return False
    return bool(times) and min(times) > source.st_mtime_ns


def _make(kind: _Kind, path: str, target: str) -> None:
    """Make the database target of the list at path.  Raises OSError and SourceError."""
    import tempfile
    directory, name = os.path.split(target)
    with _making, tempfile.TemporaryDirectory(prefix=f'.{name}.', dir=directory) as temporary:
        data, status = read(path)
        made = os.path.join(temporary, name)
        kind.write(made, _entries(data))
        suffixes = [file[len(made):] for file in kind.files(made)]
        for suffix in suffixes:
            os.chmod(made + suffix, stat.S_IMODE(status.st_mode))
            if not is_settled(status):
                # The next change of the list may bear the same time: count as not newer.
                os.utime(made + suffix, ns=(status.st_mtime_ns, status.st_mtime_ns))
        if identity(os.stat(path)) != identity(status):
            raise SourceError(f'{path} was changed while {target} was made')
        for suffix in suffixes:
            os.rename(made + suffix, target + suffix)
    for file in kind.files(target):
        if file[len(target):] not in suffixes:
            os.unlink(file)  # of another dbm module: it would be taken for this one's


def _entries(data: bytes) -> Iterator[Tuple[bytes, bytes]]:
    """Key and data of each line of a list, the first where several have one key."""
    seen = set()
    for _, pattern, action in read_lines(data):
        key = pattern.lower()
        if key not in seen:
            seen.add(key)
            yield key.encode('utf-8', 'surrogateescape'), action.encode('utf-8', 'surrogateescape')


def _write_cdb(path: str, items: Iterator[Tuple[bytes, bytes]]) -> None:
    try:
        Cdb.write(path, items)
    except Cdb.CdbError as error:
        raise SourceError(str(error)) from None


def _write_dbm(path: str, items: Iterator[Tuple[bytes, bytes]]) -> None:
    module = _dbm_module()
    try:
        with module.open(path, 'n', 0o600) as database:
            for key, data in items:
                database[key] = data or b' '  # ndbm takes empty data for none
    except module.error as error:
        raise SourceError(f'{path}: {error}') from None


def _dbm_module() -> Any:
    for name in ('dbm.gnu', 'dbm.ndbm'):
        try:
            return importlib.import_module(name)
        except ImportError:
            pass
    return importlib.import_module('dbm.dumb')


def _cdb_files(path: str) -> List[str]:
    return [path]


def _dbm_files(path: str) -> List[str]:
    """The files that there are of those that a dbm module may have made for path."""
    return [path + suffix for suffix in DBM_SUFFIXES if os.path.isfile(path + suffix)]


class _Kind(NamedTuple):
    """A kind of database made of a list: what is added to the list's name, and how to treat it."""

    suffix: str
    files: Callable[[str], List[str]]
    find: Callable[[str, Tuple[str, ...]], Optional[str]]
    write: Callable[[str, Iterator[Tuple[bytes, bytes]]], None]


_MADE = {
    'autocdb': _Kind('.cdb', _cdb_files, _find_in_cdb, _write_cdb),
    'autodbm': _Kind('.db', _dbm_files, _find_in_dbm, _write_dbm),
}
