# SPDX-License-Identifier: GPL-2.0-or-later
"""What all companion commands share: their common options, and how they fail.

Every command takes -c FILE, -V, --version and -h.  An error is one line on
standard error; the exit status follows sysexits.h, as mail systems expect.
"""
from __future__ import annotations

import argparse
import os
import sys
from typing import Any, Callable, Mapping, NoReturn, Optional, Sequence

from TMDA import Defaults, Version
from TMDA.Errors import AddressError, ConfigError, IntervalError, TMDAError

EX_USAGE = 64
EX_DATAERR = 65
EX_CANTCREAT = 73
EX_CONFIG = 78

_STATUS = ((AddressError, EX_USAGE), (IntervalError, EX_USAGE), (TMDAError, EX_CONFIG))


class Failure(Exception):
    """Ends a command with a line of text and an exit status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line and exit status 64."""

    def error(self, message: str) -> NoReturn:
        raise Failure(EX_USAGE, f'{message} (-h shows the options)')


class _Details(argparse.Action):
    """-V: print what a bug report needs."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> None:
        print(Version.details())
        parser.exit()


def parser(name: str, description: str, **options: Any) -> Parser:
    """A parser that knows the common options."""
    made = Parser(prog=name, description=description, allow_abbrev=False, **options)
    made.add_argument('-c', '--config-file', metavar='FILE',
                      help='configuration file instead of ~/.tmda/config')
    made.add_argument('-V', nargs=0, action=_Details,
                      help='show the versions of TMDA, Python and OpenSSL, and exit')
    made.add_argument('--version', action='version', version=Version.TMDA,
                      help='show the version and exit')
    return made


def load(arguments: argparse.Namespace,
         environ: Optional[Mapping[str, str]] = None) -> Defaults.Settings:
    """The settings of the account that runs the command, in environ or its own environment.

    Raises ConfigError; a file named with -c has to exist.
    """
    settings = Defaults.load(os.environ if environ is None else environ, arguments.config_file)
    if arguments.config_file and not settings.config_found:
        raise ConfigError(f'{settings.config_file}: no such file')
    return settings


def run(name: str, command: Callable[[Optional[Sequence[str]]], int],
        arguments: Optional[Sequence[str]]) -> int:
    """The exit status of `command`; its errors become one line on standard error."""
    try:
        return command(arguments)
    except Failure as error:
        status = error.status
        text = str(error)
    except TMDAError as error:
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        text = str(error)
    print(f'{name}: {"; ".join(text.splitlines())}', file=sys.stderr)
    return status
