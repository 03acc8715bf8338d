# SPDX-License-Identifier: GPL-2.0-or-later
"""What --check has found: lines with a verdict, in order.

    ok        what was looked at is as it should be
    note      good to know
    warning   it works, but hardly as it was meant to
    error     the daemon does not start, or messages are deferred
"""

from __future__ import annotations

OK, NOTE, WARNING, ERROR = 'ok', 'note', 'warning', 'error'


class Findings:
    """Lines of (verdict, text); the text begins with the file and, if there is one, the line."""

    def __init__(self, lines=()):
        self.lines = [(verdict, text) for verdict, text in lines]

    def ok(self, text: str) -> None:
        """All is well with it."""
        self.lines.append((OK, text))

    def note(self, text: str) -> None:
        """Good to know."""
        self.lines.append((NOTE, text))

    def warning(self, text: str) -> None:
        """It works, but."""
        self.lines.append((WARNING, text))

    def error(self, text: str) -> None:
        """It does not work."""
        self.lines.append((ERROR, text))

    def count(self, verdict: str) -> int:
        """How many lines have that verdict."""
        return sum(found == verdict for found, _ in self.lines)

    def text(self) -> str:
        """All lines as they are printed; what can't be printed is escaped."""
        return ''.join('%-8s %s\n' % (verdict, printable(text)) for verdict, text in self.lines)


def printable(text: str) -> str:
    """text on one line, fit for a terminal (CWE-150)."""
    return ''.join(letter if letter.isprintable() else letter.encode('unicode_escape').decode()
                   for letter in text.encode('utf-8', 'backslashreplace').decode('utf-8'))


def plural(number: int, word: str) -> str:
    """`1 rule`, `2 rules`, `2 entries`."""
    if number == 1:
        return '1 ' + word
    return '%d %s' % (number, word[:-1] + 'ies' if word.endswith('y') else word + 's')
