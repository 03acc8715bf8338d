# SPDX-License-Identifier: GPL-2.0-or-later
"""The bench's cells, measured in rounds and printed as tables.

What is compared runs in turn within each column and each round, so that whatever else the machine
does meets all of them; a cell is the median of its rounds.
"""
from __future__ import annotations

import statistics
from typing import Callable, NamedTuple

from bench import load, usage


class Column(NamedTuple):
    """A kind of load: its heading, and the fields of load.Plan."""

    heading: str
    plan: dict


COLUMNS = (
    Column('1 conn', {'connections': 1}),
    Column('4 conns', {'connections': 4}),
    Column('16 conns', {'connections': 16}),
    Column('8 reconn', {'connections': 8, 'reconnect': True}),
    Column('1 MB', {'connections': 4, 'size': 1 << 20}),
    Column('20 rcpt', {'connections': 4, 'recipients': 20}),
)


class Row(NamedTuple):
    """A server to be measured; login as in load.Plan."""

    name: str
    server: object
    login: str = ''


class Cell(NamedTuple):
    """Messages a second, processor milliseconds of the server for each, latencies in ms."""

    rate: float
    processor: float
    p50: float
    p99: float


class Bench:
    """Measures rows in columns; say is called with a line of progress for each cell."""

    def __init__(self, rows: list, columns: list, warmup: float, seconds: float,
                 say: Callable[[str], None]):
        self._rows = rows
        self._columns = columns
        self._warmup = warmup
        self._seconds = seconds
        self._say = say
        self._cells: dict = {}
        self.failures: list = []

    def run(self, rounds: int) -> None:
        """Measure all cells so many times."""
        for column in self._columns:
            for number in range(rounds):
                for row in self._rows:
                    self._measure(row, column)

    def _measure(self, row: Row, column: Column) -> None:
        marks = []
        plan = load.Plan(row.server.port, login=row.login, **column.plan)
        try:
            result = load.drive(
                plan, self._warmup, self._seconds,
                lambda: marks.append(usage.processor_seconds(row.server.process)))
        except load.Failed as error:
            self.failures.append('%s, %s: %s' % (row.name, column.heading, error))
            self._say(self.failures[-1])
            return
        used = (marks[1] - marks[0]) * 1000 / max(result.messages, 1)
        cell = Cell(result.rate, used, result.percentile(50) * 1000, result.percentile(99) * 1000)
        self._cells.setdefault((row.name, column.heading), []).append(cell)
        self._say('%-24s %-11s %7.0f/s %7.2f ms CPU' % (row.name, column.heading, *cell[:2]))

    def cell(self, row: str, column: str) -> Cell | None:
        """The median of the rounds, None if all failed."""
        cells = self._cells.get((row, column))
        return cells and Cell(*(statistics.median(values) for values in zip(*cells)))

    def tables(self, reference: str) -> str:
        """The rates, their ratios to those of the row `reference`, and what they cost."""
        def ratio(row, column):
            cell, other = self.cell(row, column), self.cell(reference, column)
            return '%.2f' % (cell.rate / other.rate) if cell and other and other.rate else '-'

        def show(field, form):
            def text(row, column):
                cell = self.cell(row, column)
                return form % getattr(cell, field) if cell else '-'
            return text

        parts = [('Messages a second', show('rate', '%.0f'))]
        if any(row.name == reference for row in self._rows):
            parts.append(('Ratio to %s' % reference, ratio))
        parts += [('Processor time of the server for a message, ms', show('processor', '%.2f')),
                  ('Latency, median, ms', show('p50', '%.2f')),
                  ('Latency, 99 of 100 below, ms', show('p99', '%.2f'))]
        return '\n\n'.join(title + '\n' + self._table(text) for title, text in parts)

    def _table(self, text: Callable[[str, str], str]) -> str:
        headings = [column.heading for column in self._columns]
        lines = [[''] + headings]
        lines += [[row.name] + [text(row.name, heading) for heading in headings]
                  for row in self._rows]
        return '\n'.join('%-23s' % line[0] + ''.join('%9s' % entry for entry in line[1:])
                         for line in lines)
