# SPDX-License-Identifier: GPL-2.0-or-later
"""The outgoing filter: from the text of FILTER_OUTGOING to the rule that matches a recipient.

Called by tagging for each message and by `tmda-inject -M`, `--check` and `--explain`.

    rules = load(settings.FILTER_OUTGOING, settings)
    match = rules.match(Query(recipient, sender, settings))

Each rule is `source match action`; the first that matches counts.  The file is read thus:

1. Lines.  A rule starts in column 1; lines that begin with a blank or tab continue it.  A blank
   line or a new rule ends it, a comment line does not.  From ` #` on a line is a comment, even
   inside quotes.
2. `macro` lines define, macros are replaced, then `${NAME}` variables (FilterMacros).
3. `include [-optional] FILE` stands for the rules of another file.
4. The words of a rule (FilterActions) give its source (FilterSources) and its action.

All mistakes of a file are reported together, each with the line where its rule begins; a
filter with a mistake is not used at all.  A mistake in an included file ends the reading.

What was read is kept for the next message and used again while no file of it and no variable in
it has changed.  A filter that names TMDA_RECIPIENT or TMDA_VRECIPIENT is read again for each
recipient; the values of these variables can't become words or commands of a rule.  An `include`
that names the recipient needs -optional, as the first reading knows none.

As a filter may name commands, a file that anyone may write is refused.
"""
from __future__ import annotations

import functools
import os
import re
import stat
import threading
from collections import OrderedDict
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from TMDA import FilterActions, FilterSources
from TMDA.Errors import FilterError, IntervalError, MatchError, Problem
from TMDA.FileCache import identity
from TMDA.FilterActions import BLANKS, Action, Mistake, Word
from TMDA.FilterFiles import SourceError, decode, is_settled, locate, read
from TMDA.FilterMacros import OF_RECIPIENT, UNKNOWN_RECIPIENT, Macros, Variables

MOST_INCLUDED = 1000  # `include` lines that one filter may come to, in all
MOST_NESTED = 50  # files that include each other
CACHE_FILTERS = 64

_COMMENT = re.compile(r'[ \t]#')
_MACRO = re.compile(r'macro(?![^ \t])', re.IGNORECASE)
_OPTION = re.compile(r'(?P<name>\w+)(?P<sign>=)?(?P<value>.*)', re.DOTALL)

parse_action = functools.lru_cache(maxsize=1024)(FilterActions.parse_action)


class Query:
    """What rules are asked about: a recipient of a message, and the address in its From field."""

    __slots__ = ('recipient', 'sender', 'settings', '_keys')

    def __init__(self, recipient: str, sender: str, settings: Any) -> None:
        self.recipient = recipient
        self.sender = sender
        self.settings = settings
        self._keys: Dict[str, Tuple[str, ...]] = {}

    def exact_keys(self, side: str) -> Tuple[str, ...]:
        """The address that `to` or `from` looks at, and its bare domain if it has one."""
        address = self.recipient if side == 'to' else self.sender
        domain = address.rpartition('@')[2]
        return (address, domain) if '@' in address and domain else (address,)

    def keys(self, side: str) -> Tuple[str, ...]:
        """exact_keys() in lower case."""
        keys = self._keys.get(side)
        if keys is None:
            keys = self._keys[side] = tuple(map(str.lower, self.exact_keys(side)))
        return keys


class Rule(NamedTuple):
    """One rule: where it begins, its source, what it asks for.

    condition is the rule up to its action, text the whole of it, both with single blanks and with
    macros and variables replaced.
    """

    file: str
    line: int
    condition: str
    source: FilterSources.Source
    action: Action

    @property
    def text(self) -> str:
        """The rule as one line."""
        return f'{self.condition} {self.action.text}'


class Match(NamedTuple):
    """The rule that matched and the action to take; text is what LOGFILE_OUTGOING shows."""

    action: Action
    rule: Rule
    text: str


class Filter:
    """The rules of a filter and its included files, in order."""

    def __init__(self, path: str, rules: List[Rule], depends_on_recipient: bool) -> None:
        self.path = path
        self.rules = rules
        self._matches = [Match(rule.action, rule, f'{rule.condition} {_shown(rule.action)}')
                         for rule in rules]
        self._depends_on_recipient = depends_on_recipient

    def match(self, query: Query) -> Optional[Match]:
        """The first rule that matches query, None if none does.

        Raises MatchError for a rule on the way that can't be used, and FilterError if a filter
        that names its recipient has mistakes when that is filled in.
        """
        matches = self._matches
        if self._depends_on_recipient:
            matches = _Reading(query.settings, query.recipient).read(self.path)._matches
        for match in matches:
            rule = match.rule
            try:
                found = rule.source.lookup(query)
            except (SourceError, ValueError) as error:
                raise MatchError(rule.file, rule.line, str(error)) from error
            except OSError as error:
                raise MatchError(rule.file, rule.line, f'"{rule.source.name}": {error}') from error
            if found is not None:
                return _listed(rule, found, query) if found else match
        return None


def _listed(rule: Rule, found: str, query: Query) -> Match:
    """The match of a rule whose list has an action of its own for the address."""
    action = parse_action(found)
    cause = f'{found!r}, listed for {query.keys(rule.source.side)[0]}'
    if action.kind == 'unknown':
        raise MatchError(rule.file, rule.line,
                         f'"{rule.source.name}": missing or bogus <action> field: {cause}')
    try:
        FilterActions.check_intervals(action)
    except IntervalError as error:
        raise MatchError(rule.file, rule.line,
                         f'"{rule.source.name}": {error}: {cause}') from None
    return Match(action, rule, f'{rule.condition} {_shown(action)}')


def _shown(action: Action) -> str:
    """The action as the log has it: all that set an address are tags of From there."""
    if action.kind in ('tag', 'incoming'):
        return action.text
    return f'tag from {FilterActions.quote(action.text)}'


def statements(text: str) -> Iterator[Tuple[int, Optional[str]]]:
    """The rules in a filter's text: (number of the first line, the rule as one line).

    None instead of a rule stands for a line that is indented but continues nothing.
    """
    start, parts = 0, []
    for number, line in enumerate(text.split('\n'), 1):
        line = line.rstrip('\r')
        content = line.strip(BLANKS)
        if content.startswith('#'):
            continue
        is_indented = line.startswith(tuple(BLANKS))
        if parts and not (is_indented and content):
            yield start, ' '.join(parts)
            parts = []
        if not content:
            continue
        if is_indented and not parts:
            yield number, None
            continue
        if not parts:
            start = number
        parts.append(_COMMENT.split(content)[0].rstrip(BLANKS))
    if parts:
        yield start, ' '.join(parts)


class _Open(NamedTuple):
    """A file that is being read: its path, what tells it from others, and who named it."""

    path: str
    file: Tuple[int, int]
    included_by: str


class _Reading:
    """One reading of a filter with all that it includes."""

    def __init__(self, settings: Any, recipient: str = UNKNOWN_RECIPIENT) -> None:
        self._settings = settings
        self._macros = Macros()
        self._variables = Variables(settings, recipient)
        self._open: List[_Open] = []
        self._included = 0
        self._rules: List[Rule] = []
        self.files: Dict[str, Optional[tuple]] = {}
        self.is_settled = True

    @property
    def variables(self) -> Dict[str, str]:
        """The variables that were used, with their values."""
        return self._variables.used

    def read(self, path: str) -> Filter:
        """The filter at path; one without rules if there is no file.  Raises FilterError."""
        try:
            data, status = self._content(path)
        except FileNotFoundError:
            return Filter(path, [], False)
        except (OSError, ValueError, Mistake) as error:
            raise FilterError([(path, 0, _cause(error))]) from error
        self._statements(_Open(path, (status.st_dev, status.st_ino), 'FILTER_OUTGOING'), data)
        return Filter(path, self._rules, not OF_RECIPIENT.isdisjoint(self.variables))

    def _content(self, path: str) -> Tuple[bytes, os.stat_result]:
        self.files[path] = None
        data, status = read(path)
        if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IWOTH:
            raise Mistake('anyone may write this file: chmod o-w')
        self.files[path] = identity(status)
        self.is_settled = self.is_settled and is_settled(status)
        return data, status

    def _statements(self, file: _Open, data: bytes) -> None:
        """Take over the rules of one file.  Raises FilterError with all of its mistakes."""
        problems: List[Problem] = []
        self._open.append(file)
        for line, text in statements(decode(data)):
            try:
                if text is None:
                    raise Mistake('line is improperly indented')
                self._statement(file.path, line, text)
            except (Mistake, SourceError) as error:
                problems.append((file.path, line, str(error)))
        self._open.pop()
        if problems:
            raise FilterError(problems)

    def _statement(self, path: str, line: int, text: str) -> None:
        found = _MACRO.match(text)
        if found:
            self._macros.define(text[found.end():])
            return
        words = FilterActions.split(self._variables.expand(self._macros.expand(text)))
        if not words:
            return
        first = words[0].text.lower()
        if first == 'include':
            self._include(path, words)
            return
        source_class = FilterSources.find_class(first)
        if source_class is None:
            raise Mistake(f'"{FilterActions.restore(words[0].text)}": unrecognized filter rule')
        options, rest = take_options(words[1:], source_class.OPTIONS)
        if not rest:
            raise Mistake(f'"{first}": missing <match> field')
        shown = [first] + [option.text for option in words[1:len(words) - len(rest)]]
        match = rest[0].text
        self._rules.append(Rule(
            path, line,
            FilterActions.restore(' '.join(shown + [FilterActions.quote(match)])),
            self._source(source_class, first, options, match),
            _action(first, rest[1:])))

    def _source(self, source_class: Any, name: str, options: Dict[str, str],
                match: str) -> FilterSources.Source:
        # An address may hold all of its characters, but names of files and SQL may not.
        if source_class is FilterSources.PatternSource:
            return source_class(name, options, FilterActions.restore(match), self._settings)
        options = {option: FilterActions.neutralize(value) for option, value in options.items()}
        return source_class(name, options, FilterActions.neutralize(match), self._settings)

    def _include(self, path: str, words: List[Word]) -> None:
        options, rest = take_options(words[1:], {'optional': False})
        if not rest:
            raise Mistake("incomplete 'include' statement")
        if len(rest) > 1:
            raise Mistake('"include": garbage at end of line')
        name = FilterActions.neutralize(rest[0].text)
        self._included += 1
        if len(self._open) > MOST_NESTED or self._included > MOST_INCLUDED:
            raise Mistake(f'"{name}": too many included files')
        target = locate(self._settings, name)
        try:
            data, status = self._content(target)
        except (FileNotFoundError, NotADirectoryError):
            if 'optional' in options:
                return
            raise Mistake(f'"{name}": file not found') from None
        except (OSError, ValueError, Mistake) as error:
            raise Mistake(f'"{name}": {_cause(error)}') from None
        file = status.st_dev, status.st_ino
        for other in self._open:
            if other.file == file:
                raise Mistake(f'"{name}" already included by "{other.included_by}"')
        self._statements(_Open(target, file, path), data)


def take_options(words: List[Word], known: Optional[Dict[str, bool]],
                 ) -> Tuple[Dict[str, str], List[Word]]:
    """The options at the beginning of words, and the words behind them.

    known: name of option to whether a value belongs to it; None where any will do.

    Raises Mistake.
    """
    options: Dict[str, str] = {}
    for position, word in enumerate(words):
        if word.quoted or not word.text.startswith('-'):
            return options, words[position:]
        found = _OPTION.fullmatch(word.text, 1)
        if found is None or (found['value'] and not found['sign']):
            raise Mistake('argument contains garbage characters')
        name, sign, value = found.groups()
        if sign and not value:
            raise Mistake(f'"{name}" followed by "=" but no option')
        if known is not None:
            if name.lower() not in known:
                raise Mistake(f'"{name}": unrecognized argument')
            if known[name.lower()] != bool(sign):
                raise Mistake(f'"{name}": {"takes no" if sign else "missing"} option')
        options[name.lower()] = value
    return options, []


def _action(name: str, words: List[Word]) -> Action:
    """The action of a rule.  Raises Mistake with the name of the rule's source in front."""
    try:
        action = FilterActions.restored(FilterActions.of_words(words))
        FilterActions.check_intervals(action)
    except (Mistake, IntervalError) as error:
        raise Mistake(f'"{name}": {error}') from None
    return action


def _cause(error: Exception) -> str:
    strerror = getattr(error, 'strerror', None)
    return f'cannot be read: {strerror}' if strerror else str(error)


class _Kept(NamedTuple):
    filter: Filter
    files: Dict[str, Optional[tuple]]
    variables: Dict[str, str]


_kept: OrderedDict[Tuple[str, str], _Kept] = OrderedDict()
_lock = threading.Lock()


def load(path: str, settings: Any) -> Filter:
    """The filter at path; one without rules if there is no file.

    settings: for the variables that the filter uses, and the home that its paths mean.  Raises
    FilterError with all mistakes of the file.
    """
    key = path, settings.home
    with _lock:
        kept = _kept.get(key)
    if kept is not None and _is_current(kept, settings):
        return kept.filter
    reading = _Reading(settings)
    loaded = reading.read(path)
    with _lock:
        _kept.pop(key, None)
        if reading.is_settled:
            _kept[key] = _Kept(loaded, reading.files, reading.variables)
            if len(_kept) > CACHE_FILTERS:
                _kept.popitem(last=False)
    return loaded


def _is_current(kept: _Kept, settings: Any) -> bool:
    for path, known in kept.files.items():
        try:
            now = identity(os.stat(path))
        except OSError:
            now = None
        if now != known:
            return False
    if kept.variables:
        variables = Variables(settings)
        return all(variables.value(name) == value for name, value in kept.variables.items())
    return True
