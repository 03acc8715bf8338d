# SPDX-License-Identifier: GPL-2.0-or-later
"""The `os` module as a user's configuration sees it: with the message's environment.

A configuration written for TMDA asks `os.environ` for HOME, LOGIN or
TCPLOCALIP and calls `os.path.expanduser`.  In a process that serves several
users at a time those belong to the message, not to the process, and os.environ
must not be touched.  So `import os` in a configuration gives a view of os in
which `environ`, `getenv`, `path.expanduser` and `path.expandvars` speak of the
message; everything else is the real module's.

A module that the configuration imports, and a command that it starts through
os.system or os.popen, see the process's own environment.
"""
from __future__ import annotations

import builtins
import os
import re
from types import ModuleType
from typing import Any, Callable, Dict, Tuple

_import = builtins.__import__
_VARIABLE = re.compile(r'\$(?:(\w+)|\{([^}]*)\})')


class _View(ModuleType):
    """A module in which some names are replaced; the others are the real one's."""

    def __init__(self, module: ModuleType, **replaced: Any) -> None:
        super().__init__(module.__name__, module.__doc__)  # Python 3.9 has no __dict__ before
        self.__dict__.update(replaced, _real=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__['_real'], name)

    def __dir__(self) -> list:
        return dir(self.__dict__['_real'])


def expand_home(path: str, home: str) -> str:
    """`path` with a leading `~` replaced by `home`, or `~name` by that account's home."""
    if path == '~':
        return home
    if path.startswith('~/'):
        return home.rstrip('/') + path[1:]
    if path.startswith('~'):
        return os.path.expanduser(path)
    return path


def expand_variables(text: str, environ: Dict[str, str]) -> str:
    """`text` with $NAME and ${NAME} replaced; unknown ones stay as they are."""
    return _VARIABLE.sub(
        lambda found: environ.get(found.group(1) or found.group(2), found.group()), text)


def view(environ: Dict[str, str], home: str) -> Tuple[ModuleType, Callable[..., ModuleType]]:
    """The view of os for one message, and the `__import__` that hands it out.

    `environ` itself becomes os.environ there, so what the configuration sets is
    seen by the filter and by the commands that are run for the message.
    """
    path_view = _View(
        os.path,
        expanduser=lambda path: expand_home(os.fspath(path), home),
        expandvars=lambda path: expand_variables(os.fspath(path), environ))
    os_view = _View(os, environ=environ, getenv=environ.get, path=path_view)

    def import_for_message(name: str, *rest: Any, **named: Any) -> ModuleType:
        module = _import(name, *rest, **named)
        if module is os:
            return os_view
        return path_view if module is os.path else module

    return os_view, import_for_message
