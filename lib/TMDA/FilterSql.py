# SPDX-License-Identifier: GPL-2.0-or-later
"""`to-sql`: addresses in a table of a relational database.

Made by FilterSources.find_class.  DB_CONNECTION is an open connection of any driver with Python's
DB-API (PEP 249), or an object of the configuration's own that behaves so.

The query is written with `%(name)s` for parameters and `%%` for a percent sign, whatever the
driver's own style is: it is translated.  %(recipient)s is the user's own address, %(username)s and
%(hostname)s are its parts.

-wildcards: the rows that the query gives are the lines of a list: a pattern and, if there is a
second column, an action.

-addr_column=COL: %(criteria)s in the query is the condition that COL is the address, then, in a
second query, that it is the address's bare domain, in just this case.  The first row is the match;
with -action_column=COL its action is in that column.
"""
from __future__ import annotations

import re
import sys
from typing import Any, Dict, List, Optional, Tuple

from TMDA.FilterFiles import SourceError, decode
from TMDA.FilterLists import ListIndex
from TMDA.FilterSourceBase import Source

_PARAMETER = re.compile(r'%(?:\((\w+)\)s|%)')
_COLUMN = re.compile(r'[\w.$]+')
_CRITERIA = '%(criteria)s'
_KEY = 'tmda_key'
_STYLES = {
    'pyformat': '%({name})s',
    'named': ':{name}',
    'format': '%s',
    'qmark': '?',
    'numeric': ':{number}',
}


class SqlSource(Source):
    """A query on DB_CONNECTION."""

    OPTIONS = {'wildcards': False, 'addr_column': True, 'action_column': True}

    def __init__(self, name: str, options: Dict[str, str], match: str, settings: Any) -> None:
        super().__init__(name, options, match, settings)
        self._query = match

    def lookup(self, query: Any) -> Optional[str]:
        connection = query.settings.DB_CONNECTION
        if connection is None:
            raise SourceError(f'"{self.name}": DB_CONNECTION is not set')
        column = self.options.get('addr_column')
        if 'wildcards' not in self.options and column is None:
            raise SourceError(f'"{self.name}": missing -wildcards or -addr_column argument')
        try:
            if column is None:
                return self._find_pattern(connection, query)
            return self._find_key(connection, query, column)
        except SourceError:
            raise
        except Exception as error:  # each driver has its own classes
            raise SourceError(f'"{self.name}": {type(error).__name__}: {error}') from None

    def _find_pattern(self, connection: Any, query: Any) -> Optional[str]:
        rows, _ = self._execute(connection, query, self._query, {})
        index = ListIndex((number, _text(row[0]), _text(row[1]) if len(row) > 1 else '')
                          for number, row in enumerate(rows))
        return index.find_first(query.keys(self.side))

    def _find_key(self, connection: Any, query: Any, column: str) -> Optional[str]:
        if not _COLUMN.fullmatch(column):
            raise SourceError(f'"{self.name}": {column!r} is no name of a column')
        if _CRITERIA not in self._query:
            raise SourceError(f'"{self.name}": the query has no {_CRITERIA}: all would match')
        text = self._query.replace(_CRITERIA, f'{column} = %({_KEY})s')
        for key in query.exact_keys(self.side):
            rows, names = self._execute(connection, query, text, {_KEY: key})
            if rows:
                return self._action(rows[0], names)
        return None

    def _action(self, row: Any, names: List[str]) -> str:
        column = self.options.get('action_column')
        if column is None:
            return ''
        if column.lower() not in names:
            raise SourceError(f'"{self.name}": the query gives no column "{column}"')
        return _text(row[names.index(column.lower())])

    def _execute(self, connection: Any, query: Any, text: str,
                 values: Dict[str, str]) -> Tuple[List[Any], List[str]]:
        """All rows of the query, and the names of its columns in lower case."""
        username, hostname = query.settings.USERNAME, query.settings.HOSTNAME
        values = {**values, 'username': username, 'hostname': hostname,
                  'recipient': f'{username}@{hostname}'}
        cursor = connection.cursor()
        try:
            cursor.execute(*convert(text, values, paramstyle(connection)))
            rows = list(cursor.fetchall())
            return rows, [str(column[0]).lower() for column in cursor.description or ()]
        finally:
            cursor.close()


def _text(value: Any) -> str:
    """A column's value as text without the blanks that CHAR columns are filled up with."""
    if value is None:
        return ''
    return (decode(value) if isinstance(value, bytes) else str(value)).strip()


def paramstyle(connection: Any) -> str:
    """The `paramstyle` of the module that connection's class is from, else `pyformat`."""
    for cls in type(connection).__mro__:
        name = cls.__module__
        while name:
            style = getattr(sys.modules.get(name), 'paramstyle', None)
            if style in _STYLES:
                return style
            name = name.rpartition('.')[0]
    return 'pyformat'


def convert(text: str, values: Dict[str, str], style: str) -> Tuple[str, Any]:
    """The query in a driver's style, and its parameters as a dict or a tuple.

    text has `%(name)s` for parameters, of which values may have more than are used, and `%%` for a
    percent sign.  Raises SourceError for a name that has no value.
    """
    used: List[str] = []

    def replace(found: re.Match) -> str:
        name = found.group(1)
        if name is None:
            return '%%' if style in ('pyformat', 'format') else '%'
        if name not in values:
            raise SourceError(f'the query has an unknown parameter %({name})s')
        used.append(name)
        return _STYLES[style].format(name=name, number=len(used))

    converted = _PARAMETER.sub(replace, text)
    if style in ('pyformat', 'named'):
        return converted, {name: values[name] for name in used}
    return converted, tuple(values[name] for name in used)
