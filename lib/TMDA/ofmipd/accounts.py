# SPDX-License-Identifier: GPL-2.0-or-later
"""From a login to the account whose configuration, key and filter are used (personal mode).

A login name becomes a part of a path and an argument of programs, so login_name() takes only
names that can do no harm there (CWE-22, CWE-88); the backend calls it before it says 235.

Accounts.user() is called once a session, after the password was right.  It looks accounts up in
the system's database, which may block on a network service: in the session's own thread.  What it
finds, or doesn't, is remembered for at most ACCOUNT_SECONDS.
"""

from __future__ import annotations

import functools
import os
import pwd
from time import monotonic
from typing import Mapping

from TMDA.inject.reply import ReplyError, reply
from TMDA.inject.user import User

ACCOUNT_SECONDS = 20
LOGIN_LIMIT = 255  # octets; the longest name of a file on common file systems

# Variables of whoever started the daemon that mean nothing, or something wrong, to a user's code.
FOREIGN_VARIABLES = ('NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID', 'CREDENTIALS_DIRECTORY',
                     'LISTEN_FDS', 'LISTEN_PID', 'LISTEN_FDNAMES', 'INVOCATION_ID',
                     'JOURNAL_STREAM')
# Of root's environment, what a user's code may see in global mode.
PASSED_ON = ('GLOBAL_TMDARC', 'LANG', 'LC_ALL', 'LC_CTYPE', 'TMDA_SENDMAIL_PROGRAM', 'TZ')
PATH = '/usr/local/bin:/usr/bin:/bin'


class UnsafeLogin(Exception):
    """A login that may not become a part of a path; str() says why.  It counts as a wrong one."""


def login_name(text: str) -> str:
    """The login in lower case.  Raises UnsafeLogin.

    Refused are: the empty name, `.`, `..`, `/`, NUL and all other control characters, marks that
    do not show, blanks at the ends, a leading `-` and more than LOGIN_LIMIT octets.
    """
    login = text.lower()
    reasons = (
        (not login, 'empty'),
        (login in ('.', '..') or '/' in login, 'not a single name'),
        (not login.isprintable(), 'control characters'),
        (login != login.strip(), 'blanks around it'),
        (login[:1] == '-', 'begins with -'),
        (len(login.encode('utf-8', 'replace')) > LOGIN_LIMIT, 'too long'),
    )
    for unsafe, why in reasons:
        if unsafe:
            raise UnsafeLogin(why)
    return login


class Accounts:
    """Where users live.  configdir is --configdir ('' for none), environ the daemon's own.

    A login that names an account has that account's home.  Any other login has DIR/<login> as its
    home with --configdir; without, it belongs to the account that runs the daemon: it is one
    person's second password, say for a telephone.
    """

    def __init__(self, configdir: str, environ: Mapping[str, str]):
        self._configdir = configdir
        self._environ = {name: value for name, value in environ.items()
                         if name not in FOREIGN_VARIABLES}

    def user(self, login: str, local_address: str = '') -> User:
        """The User of a login that login_name() returned.

        local_address is the address that the client connected to; TCPLOCALIP says it to the user's
        configuration.  Raises ReplyError(451) when there is no home.
        """
        account = _account(login, monotonic() // ACCOUNT_SECONDS)
        directory = os.path.join(self._configdir, login) if self._configdir else ''
        home = self._home(account, directory)
        if not home:
            raise ReplyError(reply(451, '4.3.5', 'No home directory for this user'),
                             'no home directory for %s' % login)
        environ = dict(self._environ, HOME=home, LOGIN=login)
        if home != own_home(self._environ):
            environ.update(USER=login, LOGNAME=login)
        environ.pop('TCPLOCALIP', None)
        if local_address:
            environ['TCPLOCALIP'] = local_address
        return User(login, home, os.path.join(directory or home + '/.tmda', 'config'), environ)

    def _home(self, account: pwd.struct_passwd | None, directory: str) -> str:
        if account and account.pw_uid != os.geteuid():
            return account.pw_dir
        return own_home(self._environ) if account or not directory else directory


def account_name(configdir: str, login: str) -> str:
    """The account that root serves a login as: the one of that name, or the owner of DIR/<login>
    for a login that has none.  Raises KeyError."""
    try:
        return pwd.getpwnam(login).pw_name
    except KeyError:
        if not configdir:
            raise
    try:
        return pwd.getpwuid(os.stat(os.path.join(configdir, login)).st_uid).pw_name
    except OSError:
        raise KeyError(login) from None


def take_surroundings() -> None:
    """Give this process the environment of the account that it has become."""
    account = pwd.getpwuid(os.getuid())
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    os.environ.clear()
    os.environ.update(kept, HOME=account.pw_dir, LOGNAME=account.pw_name, USER=account.pw_name,
                      SHELL=account.pw_shell or '/bin/sh', PATH=PATH)


def own_home(environ: Mapping[str, str]) -> str:
    """The home of the account that runs the daemon: $HOME, else what the database says, else ''."""
    if environ.get('HOME'):
        return environ['HOME']
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return ''


@functools.lru_cache(maxsize=256)
def _account(login: str, _time: float) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(login)
    except (KeyError, ValueError):
        return None
