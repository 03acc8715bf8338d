# SPDX-License-Identifier: GPL-2.0-or-later
"""Address patterns, and lists of them that answer at once however long they are.

Called by FilterSources for `to`/`from` and list files, by FilterSql.

A pattern has the shell's wildcards `* ? [seq] [!seq]`, matches in any case, and `@=dom` in it
matches `@dom` and `@*.dom`.  Keys, the addresses or domains to be looked for, are in lower case.

In a list the first line that matches counts.  An index has three parts: lines without wildcards
in a dict; `*@dom`, `*.dom`, `*@*.dom` and `*@=dom` in dicts by what comes after the star, so that
lists of domains are fast too; all others in order, each tried only if the longest of its
literal pieces is in the key.  Each part gives its first line, the lowest of them is the answer.
"""
from __future__ import annotations

import fnmatch
import functools
import re
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Tuple

from TMDA.FilterFiles import decode

_WILDCARD = re.compile(r'[*?[]|@=')
_TAIL = re.compile(r'\*(?:(?P<below>@\*(?=\.))|(?P<either>@=))?(?P<tail>.*)', re.DOTALL)
_BETWEEN_LITERALS = re.compile(r'[*?]|@=')
_CUT = re.compile('[@.]')


def has_wildcard(pattern: str) -> bool:
    """Whether pattern may match anything but itself."""
    return _WILDCARD.search(pattern) is not None


@functools.lru_cache(maxsize=4096)
def matcher(pattern: str) -> Callable[[str], object]:
    """A function that is true of the keys that pattern matches."""
    pattern = pattern.lower()
    if not has_wildcard(pattern):
        return pattern.__eq__
    return re.compile(_expression(pattern)).match


def _expression(pattern: str) -> str:
    before, equals, after = pattern.partition('@=')
    if equals:
        return f"{_translated(f'{before}@{after}')}|{_translated(f'{before}@*.{after}')}"
    return _translated(pattern)


def _translated(pattern: str) -> str:
    expression = fnmatch.translate(pattern)
    if '[' in pattern:
        try:
            re.compile(expression)
        except re.error:  # a range such as [z-a], in old versions of Python: it holds nothing
            return r'(?!)'
    return expression


def read_lines(data: bytes) -> Iterator[Tuple[int, str, str]]:
    """(line number, pattern, action or '') for each line of a list file that has a pattern."""
    for number, line in enumerate(decode(data).split('\n'), 1):
        if '#' in line:
            line = line[:line.index('#')]
        fields = line.split(None, 1)
        if fields:
            yield number, fields[0], fields[1].strip() if len(fields) > 1 else ''


class ListIndex:
    """The lines of one list."""

    def __init__(self, lines: Iterable[Tuple[int, str, str]]) -> None:
        """lines are (number, pattern, action or ''), numbers ascending."""
        self._exact: Dict[str, int] = {}
        self._tails: Dict[str, int] = {}
        self._tails_below: Dict[str, int] = {}  # they count only behind an `@`
        self._others: List[Tuple[int, str, str]] = []  # number, longest literal piece, pattern
        self._actions: Dict[int, str] = {}
        for number, pattern, action in lines:
            pattern = pattern.lower()
            if not has_wildcard(pattern):
                self._exact.setdefault(pattern, number)
            elif not self._add_tail(number, pattern):
                self._others.append((number, _longest_literal(pattern), pattern))
            if action:
                self._actions[number] = action

    def _add_tail(self, number: int, pattern: str) -> bool:
        """Take pattern into the dicts of tails if it is of a form that they can answer."""
        found = _TAIL.fullmatch(pattern)
        if not found or has_wildcard(found['tail']) or not found['tail']:
            return False
        tail = found['tail']
        if found['either']:
            self._tails.setdefault('@' + tail, number)
            self._tails_below.setdefault('.' + tail, number)
        elif found['below']:
            self._tails_below.setdefault(tail, number)
        elif tail[0] in '@.':
            self._tails.setdefault(tail, number)
        else:
            return False
        return True

    def find_first(self, keys: Iterable[str]) -> Optional[str]:
        """find() for the first of the keys that any line matches."""
        for key in keys:
            action = self.find(key)
            if action is not None:
                return action
        return None

    def find(self, key: str) -> Optional[str]:
        """The action, or '', of the first line that matches key; None if none does."""
        numbers = [self._exact.get(key)]
        if self._tails or self._tails_below:
            numbers += self._find_tails(key)
        best = min((number for number in numbers if number is not None), default=None)
        for number, literal, pattern in self._others:
            if best is not None and number > best:
                break
            if literal in key and matcher(pattern)(key):
                best = number
                break
        return None if best is None else self._actions.get(best, '')

    def _find_tails(self, key: str) -> Iterator[Optional[int]]:
        at = key.find('@')
        for cut in _CUT.finditer(key):
            tail = key[cut.start():]
            yield self._tails.get(tail)
            if 0 <= at < cut.start():
                yield self._tails_below.get(tail)


def _longest_literal(pattern: str) -> str:
    """The longest text that every key that pattern matches must hold."""
    first, last = pattern.find('['), pattern.rfind(']')
    # What is neither before the first nor behind the last bracket may be inside a set.
    parts = [pattern] if first < 0 else [pattern[:first]]
    if last > first >= 0:
        parts.append(pattern[last + 1:])
    return max((piece for part in parts for piece in _BETWEEN_LITERALS.split(part)), key=len)


def read_index(data: bytes) -> ListIndex:
    """The index of a list file's content."""
    return ListIndex(read_lines(data))
