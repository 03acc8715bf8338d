# SPDX-License-Identifier: GPL-2.0-or-later
"""A user's settings: what the configuration files say, and the default of all else.

load() reads, in this order, the global file ($GLOBAL_TMDARC or /etc/tmdarc) and
the user's file (the one named by the caller, else $TMDARC, else the TMDARC that
the global file set, else ~/.tmda/config).  Both are Python programs; the user's
is an ini file if the global one sets CONFIG_EXEC = False.

It returns a Settings value.  There are no globals: a process may hold the
settings of many users, and each message has its own, as configurations compute
values anew each time.  What a message's environment says (HOME, LOGIN, USER,
TMDA_FILTER_OUTGOING ...) comes in as an argument; os.environ is neither read
nor changed.

The variables are described in VARIABLES.  Defaults that cost something (the
host's full name, the passwd entry) are computed when first asked for.
"""
from __future__ import annotations

import os
from typing import Any, Collection, Dict, Mapping, Optional

from TMDA import ConfigFile, Kinds, MessageOs
from TMDA.Errors import ConfigError
from TMDA.Kinds import interval_seconds
from TMDA.Variables import VARIABLES, Variable

__all__ = ['VARIABLES', 'Settings', 'Variable', 'interval_seconds', 'load']

GLOBAL_FILE = '/etc/tmdarc'
USER_FILE = '~/.tmda/config'

_OUTGOING = {name: variable for name, variable in VARIABLES.items() if variable.direction == 'out'}
_FROM_ENVIRON = tuple(variable for variable in VARIABLES.values() if variable.environ)


class Namespace(dict):
    """The names that the configuration set; other variables turn up with their default.

    A real dictionary, so that configurations can run in it: looking up an
    unset outgoing variable gives its default, and `in` and get() know it.
    Iteration and len() see only what is really there.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__()
        self.environ: Dict[str, str] = dict(environ)
        self.home = self.environ.get('HOME') or os.path.expanduser('~')
        self.complete = False

    def __missing__(self, name: str) -> Any:
        variable = _OUTGOING.get(name)
        if variable is None:
            raise KeyError(name)
        value = variable.default
        keep = self.complete
        if callable(value):
            try:
                value = value(self)
            except ValueError as error:
                raise ConfigError(f'{name} {error}') from error
        elif isinstance(value, list):
            # A copy that is kept, so that a configuration may append to it.
            value, keep = list(value), True
        if keep:
            self[name] = value
        return value

    def __contains__(self, name: object) -> bool:
        return name in _OUTGOING or dict.__contains__(self, name)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of `name` as [] gives it, or `default`."""
        try:
            return self[name]
        except KeyError:
            return default

    def is_set(self, name: str) -> bool:
        """Whether the configuration gave the variable a value of its own."""
        return dict.get(self, name) is not None


class Settings:
    """The value of every variable, as an attribute of that name, for one message.

    namespace     all names that the configuration set, and all outgoing variables
    environ       the message's environment, as the configuration left it
    home          the user's home directory
    config_file   the user's configuration file, which need not exist
    config_found  whether it does
    global_file   the global file, which need not exist

    An attribute that needs computing raises ConfigError if it can't be.
    """

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.environ = namespace.environ
        self.home = namespace.home
        self.config_file = ''
        self.config_found = False
        self.global_file = ''

    def __getattr__(self, name: str) -> Any:
        namespace = self.__dict__['namespace']
        try:
            value = namespace[name]
        except KeyError:
            if name in VARIABLES:
                return None
            raise AttributeError(name) from None
        if namespace.complete:
            self.__dict__[name] = value
        return value

    def __repr__(self) -> str:
        return f'<Settings from {self.config_file}>'

    def expand(self, path: str) -> str:
        """`path` with a leading `~` replaced by the user's home, or `~name` by that account's."""
        return MessageOs.expand_home(path, self.home)

    def complete(self) -> None:
        """The configuration has run: what it set becomes plain attributes."""
        self.namespace.complete = True
        self.__dict__.update({name: value for name, value in self.namespace.items()
                              if name in _OUTGOING})

    def check(self) -> None:
        """Compute every variable; raises ConfigError for the first that can't be."""
        for name in _OUTGOING:
            getattr(self, name)


# Defaults that need no computing are attributes of the class: a message asks for some thirty
# variables, and by way of the namespace each would cost 1 us.
for _name, _variable in _OUTGOING.items():
    if not callable(_variable.default):
        setattr(Settings, _name, _variable.default)


def load(environ: Mapping[str, str], config_file: Optional[str] = None,
         global_file: Optional[str] = None,
         owners: Optional[Collection[int]] = None) -> Settings:
    """Read the configuration for one message.

    environ      the message's environment; HOME in it is the user's home
    config_file  the user's file, if the caller knows it; it need not exist
    global_file  instead of $GLOBAL_TMDARC and /etc/tmdarc
    owners       uids that the files may belong to: by default our own and root

    Raises ConfigError, with file and line where there is one.
    """
    namespace = Namespace(environ)
    settings = Settings(namespace)
    if owners is None:
        owners = (os.geteuid(), 0)
    ConfigFile.set_up(namespace, namespace.environ, namespace.home)
    if global_file is None:
        global_file = namespace.environ.get('GLOBAL_TMDARC') or GLOBAL_FILE
    settings.global_file = global_file
    status = ConfigFile.find(global_file, owners)
    if status is not None:
        ConfigFile.execute(global_file, status, owners, namespace)
        _check(settings, 'TMDARC', 'CONFIG_EXEC')
    path = config_file or settings.environ.get('TMDARC') or namespace['TMDARC'] or USER_FILE
    settings.config_file = path = settings.expand(path)
    status = ConfigFile.find(path, owners)
    if status is not None:
        settings.config_found = True
        read = ConfigFile.execute if namespace['CONFIG_EXEC'] else ConfigFile.read_ini
        read(path, status, owners, namespace)
    for variable in _FROM_ENVIRON:
        if namespace.environ.get(variable.environ):
            namespace[variable.name] = namespace.environ[variable.environ]
    _check(settings, *namespace)
    settings.complete()
    return settings


def _check(settings: Settings, *names: str) -> None:
    """Turn values that were set into the form that the program works with.

    None is an empty list for a list of texts, else it stands for the default.
    """
    namespace = settings.namespace
    for name in names:
        if name not in _OUTGOING or not dict.__contains__(namespace, name):
            continue
        kind = VARIABLES[name].kind
        if namespace[name] is not None:
            try:
                namespace[name] = kind(namespace[name], settings.home)
            except ValueError as error:
                raise _bad_value(settings, name, error) from error
        elif kind is Kinds.words:
            namespace[name] = []
        else:
            del namespace[name]


def _bad_value(settings: Settings, name: str, error: ValueError) -> ConfigError:
    """The error that says where the variable was set, and what is wrong with it."""
    variable = VARIABLES[name]
    if variable.environ and settings.environ.get(variable.environ):
        return ConfigError(f'{name} {error} (set by ${variable.environ})')
    for path in (settings.config_file, settings.global_file):
        line = ConfigFile.setting_line(path, name) if path else None
        if line is not None:
            return ConfigFile.at(path, line, f'{name} {error}')
    return ConfigFile.at(settings.config_file or settings.global_file, None, f'{name} {error}')
