# SPDX-License-Identifier: GPL-2.0-or-later
"""Accounts of this machine that are made for a test and removed after it; for tests of root."""
from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path


class Accounts:
    """Makes accounts whose names are those asked for and the number of this process.

    Homes are below `directory`, which every account can reach.  A context manager.
    """

    def __init__(self, directory: Path):
        self._directory = directory
        self._made: list[str] = []
        self._groups: list[str] = []

    def __enter__(self) -> Accounts:
        return self

    def __exit__(self, *unused) -> None:
        for name in self._made:
            _run('userdel', '-f', name)
        for name in self._groups:
            _run('groupdel', name)

    def group(self, name: str) -> str:
        """A new group."""
        name = 'tmda%d%s' % (os.getpid(), name)
        _run('groupadd', name, check=True)
        self._groups.append(name)
        return name

    def make(self, name: str, *arguments: str, home: bool = True) -> pwd.struct_passwd:
        """A new account, with its home if that is wanted; arguments are useradd's."""
        name = 'tmda%d%s' % (os.getpid(), name)
        path = self._directory / name
        _run('useradd', '-M', '-U', '-d', str(path), '-s', '/bin/sh', *arguments, name, check=True)
        self._made.append(name)
        entry = pwd.getpwnam(name)
        if home:
            path.mkdir(mode=0o700)
            os.chown(path, entry.pw_uid, entry.pw_gid)
        return entry


def _run(*command: str, check: bool = False) -> None:
    subprocess.run(command, check=check, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
