# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtual users: `user@domain`, who have a home but no account (--vhome-script, --vdomains-path).

Domains says which account owns a virtual domain: when the daemon was started by root, the process
of a session becomes that account.  VirtualHomes then asks the script for the user's home and
makes the User.  The script is run as `SCRIPT user domain`, without a shell; user and domain come
from the network, and split_login() lets nothing through that could be an option or leave a
directory.

child.py calls all this in the process of the session, so a script that hangs delays nobody else.
"""

from __future__ import annotations

import os
import re
import select
import signal
from time import monotonic
from typing import Mapping, NamedTuple

from TMDA.inject.reply import ReplyError
from TMDA.inject.user import User
from TMDA.ofmipd.accounts import UnsafeLogin, login_name
from TMDA.ofmipd.backend import CANNOT_TELL

HOME_LIMIT = 4096        # octets that a script may print
VDOMAINS_LIMIT = 1 << 24  # octets of a virtualdomains file
_DOMAIN = re.compile(r'(?!.*\.\.)[a-z0-9][a-z0-9.-]{0,252}\Z')


class VirtualUser(NamedTuple):
    """Both halves of a login, in lower case and safe in a path and as an argument."""

    name: str
    domain: str


def split_login(text: str) -> VirtualUser:
    """The halves of `user@domain`.  Raises UnsafeLogin."""
    name, at, domain = text.strip().lower().rpartition('@')
    if not at:
        raise UnsafeLogin('no @domain')
    if '@' in name or not _DOMAIN.match(domain):
        raise UnsafeLogin('not a domain')
    return VirtualUser(login_name(name), domain)


class Domains:
    """qmail's virtualdomains (qmail-send(8)): lines `domain:prepend`, `.domain:prepend` for
    subdomains, `user@domain:prepend`; `#` comments; compared without regard to case."""

    def __init__(self, path: str):
        self._path = path

    def owner(self, user: VirtualUser) -> str:
        """The prepend of the first matching line.  Raises ReplyError(454) if there is none."""
        try:
            with open(self._path, 'rb') as file:
                lines = file.read(VDOMAINS_LIMIT).decode('utf-8', 'replace').split('\n')
        except OSError as error:
            raise ReplyError(CANNOT_TELL, '%s: %s' % (self._path, error.strerror)) from None
        for line in lines:
            pattern, colon, prepend = line.strip().partition(':')
            if colon and pattern[:1] != '#' and _matches(pattern.strip().lower(), user):
                if prepend.strip():
                    return prepend.strip()
                break  # by this line the domain is not virtual
        raise ReplyError(CANNOT_TELL, '%s: no line for %s@%s' % (self._path, *user))


def _matches(pattern: str, user: VirtualUser) -> bool:
    if '@' in pattern:
        return pattern == '%s@%s' % user
    if pattern[:1] == '.':
        return len(pattern) > 1 and user.domain.endswith(pattern)
    return pattern == user.domain


class VirtualHomes:
    """What stands in for accounts.Accounts: user() gives the User of a virtual user's login."""

    def __init__(self, script: str, seconds: float, environ: Mapping[str, str]):
        self._script = script
        self._seconds = seconds
        self._environ = environ

    def user(self, login: str, local_address: str = '') -> User:
        """The User of a `user@domain`.  Raises ReplyError(454), UnsafeLogin."""
        who = split_login(login)
        home = self._home(who)
        environ = dict(self._environ, HOME=home, LOGIN=login, USER=who.name, LOGNAME=who.name,
                       MAILHOST=who.domain)
        environ.pop('TCPLOCALIP', None)
        if local_address:
            environ['TCPLOCALIP'] = local_address
        return User(login, home, os.path.join(home, '.tmda', 'config'), environ)

    def _home(self, user: VirtualUser) -> str:
        """What the script prints: one absolute path."""
        status, printed = self._run(user)
        home = printed.decode('utf-8', 'surrogateescape').rstrip('\r\n')
        problem = ('exit status %d' % status if status
                   else 'no home printed' if not home
                   else 'not an absolute path' if home[:1] != '/'
                   else 'more than one line, or too much' if len(printed) > HOME_LIMIT
                   or not home.isprintable() else '')
        if problem:
            raise ReplyError(CANNOT_TELL, '%s %s %s: %s' % (self._script, *user, problem))
        return home

    def _run(self, user: VirtualUser) -> tuple[int, bytes]:
        """(exit status, the beginning of what was printed).  Raises ReplyError(454)."""
        import subprocess
        deadline = monotonic() + self._seconds
        try:
            with subprocess.Popen([self._script, user.name, user.domain], cwd='/',
                                  env=dict(self._environ), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                  start_new_session=True) as script:
                try:
                    printed = _read(script.stdout.fileno(), deadline)
                    return script.wait(max(deadline - monotonic(), 0)), printed
                except (TimeoutError, subprocess.TimeoutExpired):
                    os.killpg(script.pid, signal.SIGKILL)
                    raise ReplyError(CANNOT_TELL, '%s: timed out' % self._script) from None
        except OSError as error:
            raise ReplyError(CANNOT_TELL, '%s: %s' % (self._script, error.strerror)) from None


def _read(descriptor: int, deadline: float) -> bytes:
    """Octets up to the end or a little more than HOME_LIMIT.  Raises TimeoutError."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    data = b''
    while len(data) <= HOME_LIMIT:
        if not poll.poll(max(deadline - monotonic(), 0) * 1000):
            raise TimeoutError
        piece = os.read(descriptor, HOME_LIMIT + 1)
        if not piece:
            break
        data += piece
    return data
