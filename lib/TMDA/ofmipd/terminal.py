# SPDX-License-Identifier: GPL-2.0-or-later
"""What --setup and --password ask for: answers and passwords, from a terminal or from stdin.

A password is never an argument, which every account of the host could read.  All failures are
UsageErrors: the end of input, octets that are no text, Control-C.
"""

from __future__ import annotations

import sys
from typing import Callable

from TMDA.ofmipd.failure import UsageError


def is_interactive() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin is not None and sys.stdin.isatty()


def ask(question: str, default: str = '') -> str:
    """An answer; an empty one means the default."""
    shown = '%s [%s]: ' % (question, default) if default else question + ': '
    return _read(lambda: input(shown)).strip() or default


def ask_password(question: str) -> str:
    """A password, which is not shown."""
    import getpass
    return _read(lambda: getpass.getpass(question + ': '))


def new_password(user: str) -> str:
    """A new password: asked twice, or one line of stdin when that is no terminal."""
    if not is_interactive():
        return first_line(_read(sys.stdin.readline))
    password = ask_password('New password of %s' % user)
    if password and ask_password('The same again') != password:
        raise UsageError('these were two different passwords; nothing was changed')
    return password


def first_line(text: str) -> str:
    """The first line without its end."""
    return text.partition('\n')[0].rstrip('\r')


def _read(read: Callable[[], str]) -> str:
    try:
        return read()
    except EOFError:
        raise UsageError('there was no answer') from None
    except KeyboardInterrupt:
        print()
        raise UsageError('interrupted') from None
    except UnicodeDecodeError:
        raise UsageError('the answer is no text in the character set of this locale') from None
