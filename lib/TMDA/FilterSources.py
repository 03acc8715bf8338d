# SPDX-License-Identifier: GPL-2.0-or-later
"""The sources of filter rules: does the address of this message match?

A source is made by FilterParser for each rule and asked by Filter.match().  Its class is found by
the word that begins the rule (find_class): `to` or `from`, alone or with one of KINDS.

    source = find_class('to-file')('to-file', options, path, settings)
    source.lookup(query)    None: no match; '': a match; else a match, and the action that the list
                            has for it, as text

A query (FilterParser.Query) knows its keys: the address, then its bare domain, in lower case.
lookup() raises SourceError or OSError if the source can't be asked.

`to PATTERN`, `from PATTERN`    the address only, never its bare domain
`-file [-autocdb|-autodbm] [-optional] FILE`    each key against all lines in turn
`-cdb`, `-dbm [-optional] FILE`    each key as it is (FilterDatabases)
`-ezmlm [-optional] DIR`    the address only (FilterMembers)
`-mailman -attr=NAME [-optional] DIR`    the address only (FilterMembers)
`-sql ... "SELECT ..."`    each key (FilterSql)

Sources that look at the content of a message belong to filters for incoming mail.  They are taken
so that rules can be shared, and never match.
"""
from __future__ import annotations

from typing import Any, Dict, Optional, Tuple, Type

from TMDA import FilterDatabases, FilterLists, FilterMembers, FilterSql
from TMDA.FilterFiles import ContentCache, SourceError
from TMDA.FilterSourceBase import PathSource, Source

SIDES = ('to', 'from')
INCOMING = frozenset({
    'body', 'body-file', 'headers', 'headers-file', 'size', 'pipe', 'pipe-headers'})


class IncomingSource(Source):
    """`body`, `size` and the like: never matches mail on its way out."""

    OPTIONS = None

    def lookup(self, query: Any) -> Optional[str]:
        return None


class PatternSource(Source):
    """`to bob@example.org`, `from *@=example.org`."""

    def __init__(self, name: str, options: Dict[str, str], match: str, settings: Any) -> None:
        super().__init__(name, options, match, settings)
        self._matches = FilterLists.matcher(match)

    def lookup(self, query: Any) -> Optional[str]:
        return '' if self._matches(query.keys(self.side)[0]) else None


class FileSource(PathSource):
    """A list file; with -autocdb or -autodbm by way of a database made of it."""

    OPTIONS = {'optional': False, 'autocdb': False, 'autodbm': False}

    _indexes = ContentCache(FilterLists.read_index)

    def find(self, keys: Tuple[str, ...]) -> Optional[str]:
        for option in ('autocdb', 'autodbm'):
            if option in self.options:
                try:
                    return FilterDatabases.find_in_made(option, self.path, keys)
                except SourceError:
                    pass  # the database is for speed: the list itself answers as well
        return self._indexes.get(self.path).find_first(keys)


KINDS: Dict[str, Type[Source]] = {
    '': PatternSource,
    'file': FileSource,
    'cdb': FilterDatabases.CdbSource,
    'dbm': FilterDatabases.DbmSource,
    'sql': FilterSql.SqlSource,
    'ezmlm': FilterMembers.EzmlmSource,
    'mailman': FilterMembers.MailmanSource,
}


def find_class(name: str) -> Optional[Type[Source]]:
    """The class for the word that begins a rule, None if the word is no source."""
    if name in INCOMING:
        return IncomingSource
    side, hyphen, kind = name.partition('-')
    if side not in SIDES or (hyphen and not kind):
        return None
    return KINDS.get(kind)
