# SPDX-License-Identifier: GPL-2.0-or-later
"""Macros and ${NAME} variables: what happens to the text of a rule before it is parsed.

Called by FilterParser, which keeps one Macros and one Variables while it reads a filter with all
that it includes.  Macros come first, so a macro may hold variables; variables never hold macros.

A macro's name, and each of its parameters, stands for whole words of letters, digits and `_`, in
any case and anywhere in the text, also beside `-` or `@` and inside quotes.  A macro with
parameters is one only where a parenthesis follows its name at once.  Its arguments end at the
first closing parenthesis.  The text that a macro gives is searched for macros again, but not for
those that it came from.

Both kinds of text may hold more of their kind, so a few short lines could become gigabytes: what
comes out is limited.
"""
from __future__ import annotations

import re
from typing import Any, Dict, FrozenSet, List, NamedTuple, Optional, Tuple

from TMDA.FilterActions import BLANKS, Mistake, protect

MOST_CHARACTERS = 65536  # of all the texts that are made on the way from a rule to its expansion
MOST_DEPTH = 100  # macros inside macros, variables inside variables

_WHOLE_WORD = re.compile(r'\w+', re.ASCII)
_NAME = re.compile(r'[_a-zA-Z]\w*', re.ASCII)
_DEFINITION = re.compile(
    r'(?P<name>[^ \t(]*)(?P<open>\((?P<parameters>[^)]*)(?P<close>\))?)?(?P<text>.*)', re.DOTALL)
_VARIABLE = re.compile(r'\$\{([^}]*)\}')

# Different for each recipient of a message.
OF_RECIPIENT = frozenset({'TMDA_RECIPIENT', 'TMDA_VRECIPIENT'})
UNKNOWN_RECIPIENT = 'recipient@unknown.invalid'  # while a filter is read for all recipients
_OF_MESSAGE = 'TMDA_'  # names in the environment that begin so: not the user chose the value


class _Macro(NamedTuple):
    name: str
    parameters: Optional[Tuple[str, ...]]
    text: str


class _Budget:
    """How much more text one rule may become."""

    def __init__(self) -> None:
        self._left = MOST_CHARACTERS

    def spend(self, text: str, depth: int) -> None:
        # One more than its length, so that even empty texts come to an end.
        self._left -= len(text) + 1
        if self._left < 0 or depth > MOST_DEPTH:
            raise Mistake('too long when its macros and variables are expanded')


class Macros:
    """The macros defined so far."""

    def __init__(self) -> None:
        self._macros: Dict[str, _Macro] = {}

    def define(self, text: str) -> None:
        """Take over `NAME text` or `NAME(a, b) text`.  Raises Mistake."""
        text = text.strip(BLANKS)
        if not text:
            raise Mistake('incomplete macro definition')
        found = _DEFINITION.fullmatch(text)
        name, body = found['name'], found['text'].strip(BLANKS)
        if not _NAME.fullmatch(name):
            raise Mistake('invalid macro name: valid chars: _, 0-9, a-z, A-Z')
        if found['open'] and not found['close']:
            raise Mistake(f'"{name}": missing ")"')
        if not body:
            raise Mistake(f'"{name}": macro name without definition')
        parameters = None
        if found['open']:
            parameters = tuple(map(str.lower, _arguments(found['parameters'])))
            if not all(map(_NAME.fullmatch, parameters)):
                raise Mistake(f'"{name}": invalid name of a parameter: '
                              'valid chars: _, 0-9, a-z, A-Z')
        self._macros[name.lower()] = _Macro(name, parameters, body)

    def expand(self, text: str) -> str:
        """text with its macros replaced.  Raises Mistake."""
        if not self._macros:
            return text
        return self._expand(text, frozenset(), _Budget())

    def _expand(self, text: str, inside: FrozenSet[str], budget: _Budget) -> str:
        budget.spend(text, len(inside))
        parts = []
        position = 0
        for found in _WHOLE_WORD.finditer(text):
            key = found.group().lower()
            macro = self._macros.get(key)
            # Words before position were arguments.
            if macro is None or key in inside or found.start() < position:
                continue
            call = _call(macro, text, found.end())
            if call is None:
                continue
            body, end = call
            parts += [text[position:found.start()], self._expand(body, inside | {key}, budget)]
            position = end
        return ''.join(parts) + text[position:]


def _call(macro: _Macro, text: str, end: int) -> Optional[Tuple[str, int]]:
    """The macro's text for the use of it that ends at end, and where the arguments end."""
    if macro.parameters is None:
        return macro.text, end
    if text[end:end + 1] != '(':
        return None
    close = text.find(')', end)
    if close < 0:
        raise Mistake(f'"{macro.name}": missing ")"')
    arguments = _arguments(text[end + 1:close])
    if len(arguments) != len(macro.parameters):
        raise Mistake(f'"{macro.name}": expected {len(macro.parameters)} arguments, '
                      f'got {len(arguments)}')
    values = dict(zip(macro.parameters, arguments))
    return _WHOLE_WORD.sub(lambda word: values.get(word.group().lower(), word.group()),
                           macro.text), close + 1


def _arguments(text: str) -> List[str]:
    text = text.strip(BLANKS)
    return [argument.strip(BLANKS) for argument in text.split(',')] if text else []


class Variables:
    """Values for ${NAME}: of the configuration, else of the environment.

    recipient is whom the filter is read for, if that matters.  `used` has the value of each name
    that was asked for, so that a parsed filter can be kept while they are the same.
    """

    def __init__(self, settings: Any, recipient: str = UNKNOWN_RECIPIENT) -> None:
        self._settings = settings
        self._of_recipient = {
            'TMDA_RECIPIENT': recipient, 'TMDA_VRECIPIENT': recipient.replace('@', '=')}
        self.used: Dict[str, str] = {}

    def value(self, name: str) -> str:
        """The value of one variable, '' if it has none."""
        if name in OF_RECIPIENT:
            return protect(self._of_recipient[name])
        value = self._settings.namespace.get(name)
        if value is None or value == '':
            value = self._settings.environ.get(name, '')
            if name.startswith(_OF_MESSAGE):
                value = protect(value)
        return value if isinstance(value, str) else str(value)

    def expand(self, text: str) -> str:
        """text with its variables replaced.  Raises Mistake for one that has no value."""
        if '${' not in text:
            return text
        return self._expand(text, 0, _Budget())

    def _expand(self, text: str, depth: int, budget: _Budget) -> str:
        budget.spend(text, depth)
        return _VARIABLE.sub(
            lambda found: self._expand(self._use(found.group(1)), depth + 1, budget), text)

    def _use(self, name: str) -> str:
        value = self.used[name] = self.value(name)
        if not value:
            raise Mistake(f'${{{name}}} not found in the Defaults namespace nor the environment.')
        return value
