# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of a filter rule, and what the words after its match ask for.

Called by FilterParser for rules and for the actions in list files, and by tagging for
ACTION_OUTGOING and X-TMDA.  Pure: text in, values out.

Words are separated by blanks and tabs.  A word in ' or " may hold blanks; a backslash before the
quote that surrounds it makes that quote part of the word.  A quote inside a word, or one that is
never closed, is a character like any other (`kw=a"b`), except that an option whose value is quoted
is one word (`-attr="a b"`, `shell="date -u"`).

Values that come with a message, such as the recipient's address, must not become words, quotes or
commands of a rule (CWE-94): protect() makes their special characters inert before the text is
split, restored() brings them back in the finished action.  Where they could still do harm (in
commands, SQL, names of files) they come back as `?` by neutralize().
"""
from __future__ import annotations

import re
from typing import List, NamedTuple, Optional, Tuple

from TMDA.Kinds import interval_seconds

BLANKS = ' \t'

OUTGOING = {
    'bare': 'bare',
    'dated': 'dated',
    'sender': 'sender',
    'domain': 'domain',
    'exp': 'exp', 'explicit': 'exp', 'as': 'exp',
    'ext': 'ext', 'extension': 'ext',
    'kw': 'keyword', 'keyword': 'keyword',
    'shell': 'shell',
    'python': 'python',
    'default': 'default',
}
# Of filters for incoming mail: lists are often shared by both.
INCOMING = frozenset({
    'ok', 'accept', 'deliver', 'bounce', 'reject', 'drop', 'exit', 'stop', 'confirm', 'hold'})

COMMANDS = ('shell', 'python')

_WORD = re.compile(r'''[ \t]*(?:
    "(?P<double>(?:[^"\\]|\\.)*)"(?=[ \t]|$)
  | '(?P<single>(?:[^'\\]|\\.)*)'(?=[ \t]|$)
  | (?P<name>-?[\w-]+=)(?:"(?P<double_value>(?:[^"\\]|\\.)*)"
                         |'(?P<single_value>(?:[^'\\]|\\.)*)')(?=[ \t]|$)
  | (?P<plain>[^ \t]+)
)''', re.VERBOSE | re.DOTALL)
_HEADER = re.compile(r'[!-9;-~]+')  # RFC 5322, 2.2: printable ASCII but for the colon

# Characters of values from a message, all of ASCII that is neither letter, digit nor one of @+-._
_SPECIAL = ''' \t!"#$%&'()*,/:;<=>?[\\]^`{|}~'''
_PLANE = 0xF0000  # the first plane for private use: no text of ours has these characters
_INERT = {
    **dict.fromkeys(range(0x20), '?'), 0x7F: '?',
    **{ord(c): _PLANE + ord(c) for c in _SPECIAL}}
_RESTORED = {_PLANE + ord(c): c for c in _SPECIAL}
_NEUTRAL = {**dict.fromkeys(_RESTORED, '?'), _PLANE + ord('='): '='}


class Mistake(Exception):
    """A rule is not well written.  str() says why, without the line number."""


class Word(NamedTuple):
    """One word: its text without the quotes around it, and whether there were any."""

    text: str
    quoted: bool


class Action(NamedTuple):
    """What is to be done for a recipient.

    kind is one of OUTGOING's values, `tag`, `incoming` (means bare), `text` (only inside `tag`: to
    be inserted as it is) or `unknown`.  option is what follows the `=`, None if there is none.
    tags holds, for `tag`, (header in lower case, Action) for each header, the last one where a
    header is named twice.  text is the action as written; a `text` action's is what to insert.
    """

    kind: str
    option: Optional[str] = None
    tags: Tuple[Tuple[str, Action], ...] = ()
    text: str = ''


def split(text: str) -> List[Word]:
    """The words of text."""
    return [_word(found) for found in _WORD.finditer(text)]


def _word(found: re.Match) -> Word:
    double, single, name, double_value, single_value, plain = found.groups()
    if plain is not None:
        return Word(plain, False)
    if name is None:
        return Word(_unescape(double, single), True)
    value = _unescape(double_value, single_value)
    # Without a blank the quotes would not have been needed: there they are part of the value.
    if name.startswith('-') or any(blank in value for blank in BLANKS):
        return Word(name + value, False)
    return Word(found.group().lstrip(BLANKS), False)


def _unescape(double: Optional[str], single: Optional[str]) -> str:
    return single.replace("\\'", "'") if double is None else double.replace('\\"', '"')


def quote(word: str) -> str:
    """word as it must be written to be one word."""
    if word and not any(blank in word for blank in BLANKS):
        return word
    return '"' + word.replace('"', '\\"') + '"'


def protect(value: str) -> str:
    """value with inert characters in place of those that mean something in a rule or a command."""
    return value.translate(_INERT)


def restore(text: str) -> str:
    """Undo protect()."""
    return text.translate(_RESTORED)


def neutralize(text: str) -> str:
    """text with `?` for each character that protect() hid, but for `=`."""
    return text.translate(_NEUTRAL)


def restored(action: Action) -> Action:
    """action with the characters that protect() hid; in a command they are `?`.

    No quoting of ours could make them safe in any place of any command.  A command finds the true
    value in its environment.
    """
    back = neutralize if action.kind in COMMANDS else restore
    tags = tuple((header, restored(part)) for header, part in action.tags)
    return Action(action.kind, action.option and back(action.option), tags, back(action.text))


def parse_action(text: str) -> Action:
    """The action that text asks for; of kind `unknown` if it asks for none.  Never raises."""
    try:
        return of_words(split(text))
    except Mistake:
        return Action('unknown', text=text)


def of_words(words: List[Word]) -> Action:
    """The action that the words after a rule's match ask for.  Raises Mistake."""
    if not words:
        raise Mistake('missing or bogus <action> field')
    first = words[0].text
    if first.lower() == 'tag':
        return _tag(words)
    action = _simple(first)
    if action is None and first.partition('=')[0].lower() in INCOMING:
        action = Action('incoming', _option(first), (), first)
    if action is None:
        raise Mistake('missing or bogus <action> field')
    if len(words) > 1:
        raise Mistake('garbage at end of line')
    return action


def _simple(word: str) -> Optional[Action]:
    kind = OUTGOING.get(word.partition('=')[0].lower())
    return None if kind is None else Action(kind, _option(word), (), word)


def _option(word: str) -> Optional[str]:
    _, sign, value = word.partition('=')
    return value if sign else None


def _tag(words: List[Word]) -> Action:
    pairs = words[1:]
    if not pairs or len(pairs) % 2:
        raise Mistake('malformed header field or missing <action>')
    tags = {}
    for header, value in zip(pairs[::2], pairs[1::2]):
        if not _HEADER.fullmatch(header.text):
            raise Mistake('malformed header field or missing <action>')
        action = _simple(value.text) or Action('text', value.text, (), value.text)
        tags[header.text.lower()] = action
    written = ' '.join(quote(word.text) for word in words)
    return Action('tag', None, tuple(tags.items()), written)


def check_intervals(action: Action) -> None:
    """Raise IntervalError if action, or one of its tags, is `dated` for what is no interval."""
    if action.kind == 'dated' and action.option is not None:
        interval_seconds(action.option)
    for _, part in action.tags:
        check_intervals(part)
