# SPDX-License-Identifier: GPL-2.0-or-later
"""Kinds of configuration values: what a variable may be set to, and what it becomes.

Each kind is a function (value, home) -> value.  It takes what a Python
configuration or an ini file set, returns what the rest of the program works
with, and raises ValueError with a text that completes the sentence
`VARIABLE ...`.  `home` is the user's home directory.  A kind's docstring is how
the documentation describes it.  None never gets here: it stands for the default
(Defaults).
"""
from __future__ import annotations

import functools
import hmac
import os
import re
from typing import Any, Callable, Dict, List, Union

from TMDA.Errors import IntervalError
from TMDA.MessageOs import expand_home

Kind = Callable[[Any, str], Any]

SWITCH_WORDS: Dict[str, bool] = {
    **dict.fromkeys(('on', 'yes', 'true', '1'), True),
    **dict.fromkeys(('off', 'no', 'false', '0', 'none', ''), False),
}

_DAY = 86400
_UNITS = {'Y': 365 * _DAY, 'M': 30 * _DAY, 'w': 7 * _DAY, 'd': _DAY, 'h': 3600, 'm': 60, 's': 1}
# Ten digits, even of years, still give an expiry that Cookie accepts.
_INTERVAL = re.compile(r'([0-9]{1,10})([YMwdhms])')
_CONTROL = re.compile(r'[\x00-\x1f\x7f]')
_HOST_PORT = re.compile(r'(?P<host>\[[^\[\]\s]+\]|[^:\[\]\s]+)(?::(?P<port>[0-9]{1,5}))?'
                        r'|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*')


def interval_seconds(text: str) -> int:
    """The seconds of an interval: digits and one of Y (365 d) M (30 d) w d h m s.

    Raises IntervalError for anything else.
    """
    found = _INTERVAL.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise IntervalError(f'Invalid timeout value: {text}')
    return int(found.group(1)) * _UNITS[found.group(2)]


def remembered(kind: Kind) -> Kind:
    """kind, asked once for each text: each message brings the same ones."""
    known = functools.lru_cache(maxsize=256)(kind)

    @functools.wraps(kind)
    def check(value: Any, home: str) -> Any:
        return known(value, home) if type(value) is str else kind(value, home)
    return check


def anything(value: Any, home: str) -> Any:
    """any object"""
    return value


def text(value: Any, home: str) -> str:
    """text"""
    if isinstance(value, bytes):
        return value.decode('utf-8', 'surrogateescape')
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f'must be a text, not {type(value).__name__}')


@remembered
def line(value: Any, home: str) -> str:
    """text of one line"""
    # What a configuration reads from a file or a command ends with a newline.
    value = text(value, home).strip()
    if _CONTROL.search(value):
        raise ValueError('must be a single line without control characters')
    return value


@remembered
def address_part(value: Any, home: str) -> str:
    """one side of an address"""
    value = line(value, home)
    if not value or re.search(r'[@\s]', value):
        raise ValueError('must be one word without "@"')
    return value


def delimiter(value: Any, home: str) -> str:
    """a character such as - or +"""
    value = address_part(value, home)
    if re.search(r'[A-Za-z0-9]', value):
        raise ValueError('must be a character such as - or +')
    return value


@remembered
def path(value: Any, home: str) -> str:
    """file name; ~ is the user's home, and relative names begin there"""
    try:
        value = os.fsdecode(value)
    except TypeError:
        raise ValueError(f'must be a file name, not {type(value).__name__}') from None
    if not value or '\0' in value:
        raise ValueError('must be a file name')
    return os.path.join(home, expand_home(value, home))


def switch(value: Any, home: str) -> bool:
    """True or False"""
    if isinstance(value, str):
        value = SWITCH_WORDS.get(value.strip().lower(), value)
    if isinstance(value, (bool, int)):
        return bool(value)
    raise ValueError('must be True or False')


def tls(value: Any, home: str) -> Union[bool, str]:
    """False, True (STARTTLS) or 'wrapper' (TLS from the start)"""
    if isinstance(value, str) and value.strip().lower() == 'wrapper':
        return 'wrapper'
    try:
        return switch(value, home)
    except ValueError:
        raise ValueError("must be False, True or 'wrapper'") from None


def number(least: int, most: int) -> Kind:
    """Make the kind of the whole numbers from `least` to `most`."""
    def check(value: Any, home: str) -> int:
        if isinstance(value, str) and re.fullmatch(r'[0-9]{1,9}', value.strip()):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f'must be a whole number from {least} to {most}')
        return value
    check.__doc__ = f'whole number from {least} to {most}'
    return check


def choice(*words: str) -> Kind:
    """Make the kind that is one of `words`, in any case."""
    names = ', '.join(words[:-1]) + ' or ' + words[-1]

    @remembered
    def check(value: Any, home: str) -> str:
        word = str(value).strip().lower()
        if word not in words:
            raise ValueError(f'must be {names}')
        return word
    check.__doc__ = f'one of {names}'
    return check


def words(value: Any, home: str) -> List[str]:
    """list of texts"""
    if isinstance(value, str):
        return [word for word in re.split(r'[,\s]+', value) if word]
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise ValueError('must be a list of texts')
    return [text(word, home) for word in value]


def tags(value: Any, home: str) -> List[str]:
    """list of words; the first is used, all are recognized"""
    value = words(value, home)
    if not value or any(not word or re.search(r'[@\s\x00-\x1f]', word) for word in value):
        raise ValueError('must be a list of words')
    return value


def words_or_path(value: Any, home: str) -> Union[str, List[str]]:
    """list of texts, or file name"""
    return path(value, home) if isinstance(value, str) else words(value, home)


def table(value: Any, home: str) -> Dict[str, str]:
    """dictionary of texts"""
    if not isinstance(value, dict):
        raise ValueError('must be a dictionary')
    return {text(name, home): text(entry, home) for name, entry in value.items()}


def interval(value: Any, home: str) -> str:
    """interval such as 5d"""
    value = text(value, home).strip()
    try:
        interval_seconds(value)
    except IntervalError as error:
        raise ValueError(f'must be an interval such as 5d: {error}') from None
    return value


@remembered
def host_port(value: Any, home: str) -> str:
    """HOST or HOST:PORT; IPv6 addresses in brackets"""
    value = line(value, home)
    found = _HOST_PORT.fullmatch(value)
    if found is None or found['port'] and not 0 < int(found['port']) < 65536:
        raise ValueError('must be HOST or HOST:PORT')
    return value


@functools.lru_cache(maxsize=32)
def _usable(algorithm: str) -> bool:
    """Whether hmac can work with this hash; not with shake_128, which has no fixed size."""
    try:
        hmac.new(b'', b'', algorithm).digest()
    except (ValueError, TypeError):
        return False
    return True


def algorithm(value: Any, home: str) -> str:
    """hashlib name such as sha256, or p2 and a name for PBKDF2"""
    name = text(value, home).strip().lower()
    if not _usable(name[2:] if name.startswith('p2') else name):
        raise ValueError('must be a hash of hashlib such as sha256, or p2sha256 and the like')
    return name
