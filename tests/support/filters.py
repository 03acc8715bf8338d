# SPDX-License-Identifier: GPL-2.0-or-later
"""A home directory with a filter and what it names, for the tests of filters."""
from __future__ import annotations

import os
import types

from TMDA import FilterParser

LONG_AGO = 1_000_000_000


class FilterHome:
    """A user's home below a temporary directory."""

    def __init__(self, path):
        self.path = path
        self.namespace = {}
        self.environ = {'HOME': str(path)}
        self.filter_path = str(path / 'filter')

    def write(self, name, text, time=LONG_AGO):
        """Make a file, bytes or text, as if it had been changed last at time."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode('utf-8'))
        os.utime(file, (time, time))
        return file

    def settings(self, **variables):
        """What of Settings a filter asks for."""
        return types.SimpleNamespace(
            namespace=self.namespace, environ=self.environ, home=str(self.path),
            expand=self.expand, **variables)

    def expand(self, path):
        return os.path.join(self.path, path[2:]) if path.startswith('~/') else path

    def load(self, text=None, **options):
        """The filter, from text if it is given."""
        if text is not None:
            self.write('filter', text, **options)
        return FilterParser.load(self.filter_path, self.settings())

    def problems(self, text):
        """[(line, text)] of the mistakes in a filter."""
        try:
            self.load(text)
        except FilterParser.FilterError as error:
            return [(line, problem) for _, line, problem in error.problems]
        return []

    def match(self, text, recipient, sender='alice@example.net', **variables):
        """The match of a recipient with the filter text."""
        query = FilterParser.Query(recipient, sender, self.settings(**variables))
        return self.load(text).match(query)

    def action(self, text, recipient, sender='alice@example.net', **variables):
        """The text of the action for a recipient, None without a match."""
        match = self.match(text, recipient, sender, **variables)
        return match and match.action.text
