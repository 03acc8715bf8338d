# SPDX-License-Identifier: GPL-2.0-or-later
"""Every error that TMDA's modules raise on purpose.

All derive from TMDAError, so that a caller who only wants to know "is this
TMDA speaking, or a fault?" catches one class.  The text of an error is meant
for the user whose configuration, filter or address it is about: it names the
file and the line where there is one, and never holds a key or a password.

The daemon answers all of them with a temporary failure; the companion
commands print one line and choose the exit status by the class.
"""
from __future__ import annotations

from typing import Iterable, Tuple

Problem = Tuple[str, int, str]


class TMDAError(Exception):
    """The base of all errors below."""


class ConfigError(TMDAError):
    """A configuration file, a variable's value or a key file can't be used."""


class FilterError(TMDAError):
    """A filter file has mistakes; `problems` lists them all as (file, line, text).

    str() is `FILE: filter has errors`, then one line `[line N]: text` for each
    problem.  FILE is the file of the first problem: reading stops at the first
    file that has any.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        file = self.problems[0][0] if self.problems else 'filter'
        lines = [f'{file}: filter has errors']
        lines.extend(f'[line {line}]: {text}' for _, line, text in self.problems)
        super().__init__('\n'.join(lines))


class MatchError(TMDAError):
    """A rule is well written but can't be used, for example for lack of its list file.

    `file` and `line` say where the rule begins, `text` what is wrong.
    """

    def __init__(self, file: str, line: int, text: str) -> None:
        super().__init__(f'{file}: [line {line}]: {text}')
        self.file = file
        self.line = line
        self.text = text


class IntervalError(TMDAError, ValueError):
    """A text is no interval such as `5d`."""


class AddressError(TMDAError):
    """A text is no address with exactly one `@`."""


class BadCryptoError(TMDAError):
    """A tagged address was not made with our key, or was changed since."""


class ExpiredAddressError(TMDAError):
    """A dated address was made by us but its time is over.

    `expires` is the last second in which it was valid, in seconds since 1970.
    """

    def __init__(self, expires: int) -> None:
        super().__init__('Dated address has expired.')
        self.expires = expires
