# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose message it is: the account whose configuration, key and filter are used."""

from __future__ import annotations

from types import MappingProxyType
from typing import Mapping, NamedTuple


class User(NamedTuple):
    """A login and where its TMDA files are.

    environ is the environment that belongs to this user's messages (HOME, LOGIN, ...); it stands
    in for os.environ wherever a configuration, a filter or a command asks.
    """

    login: str
    home: str
    config_file: str
    environ: Mapping[str, str] = MappingProxyType({})

    def __repr__(self) -> str:
        return 'User(%r, %r, %r)' % self[:3]  # the environment may hold secrets
