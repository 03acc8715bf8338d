# SPDX-License-Identifier: GPL-2.0-or-later
"""What all sources of filter rules have in common: see FilterSources.

FilterSources, FilterDatabases and FilterMembers derive their classes from these.
"""
from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

from TMDA.FilterFiles import locate


class Source:
    """What all sources have in common.

    OPTIONS has the options that a rule may give: name to whether a value belongs to it; None where
    any will do.  name is the word that begins the rule, side is `to` or `from`; options has what
    the rule gave, without hyphens, '' where there is no value.
    """

    OPTIONS: Optional[Dict[str, bool]] = {}

    def __init__(self, name: str, options: Dict[str, str], match: str, settings: Any) -> None:
        self.name = name
        self.side = name.partition('-')[0]
        self.options = options

    def lookup(self, query: Any) -> Optional[str]:
        """None if query does not match, else the action for it, '' for the rule's own."""
        raise NotImplementedError


class PathSource(Source):
    """A source in a file or directory: `self.path`, absolute.

    With -optional a path that is not there is one without entries.
    """

    OPTIONS = {'optional': False}

    def __init__(self, name: str, options: Dict[str, str], match: str, settings: Any) -> None:
        super().__init__(name, options, match, settings)
        self.path = locate(settings, match)

    def lookup(self, query: Any) -> Optional[str]:
        try:
            return self.find(query.keys(self.side))
        except (FileNotFoundError, NotADirectoryError):
            if 'optional' in self.options:
                return None
            raise

    def find(self, keys: Tuple[str, ...]) -> Optional[str]:
        """lookup() for the address and its domain.  FileNotFoundError if there is no path."""
        raise NotImplementedError
