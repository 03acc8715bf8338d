# SPDX-License-Identifier: GPL-2.0-or-later
"""--password USER: add a user to the password file, or change the user's password.

The password is asked twice on a terminal, else it is one line of stdin.  It is kept hashed
(SCRAM-SHA-256), with --plain as it is: CRAM-MD5 needs that, and is offered only while every entry
of the file is plain.  run() says which of both is so after the change.

The file is the one that -a names, else the default.  A file that a daemon would refuse, because
of its mode, its owner or a malformed line, is refused here before anything is asked.  How it is
changed is passwordedit.py's.  A running daemon needs no signal to see the change.
"""

from __future__ import annotations

import os

from TMDA.Errors import ConfigError
from TMDA.ofmipd import passwordedit, passwordhashes, passwords, terminal
from TMDA.ofmipd.accounts import UnsafeLogin, login_name
from TMDA.ofmipd.assembly import default_files
from TMDA.ofmipd.failure import CONFIG, StartError, UsageError
from TMDA.ofmipd.options import Options
from TMDA.ofmipd.users import password_owners


def run(options: Options) -> int:
    """Ask, change the file, say what was done; the exit status."""
    path = password_file(options)
    user = _checked_user(options.password)
    before = _read(path, options)
    entry = _entry(terminal.new_password(user), options.plain)
    try:
        changed = passwordedit.add_or_change(path, user, entry)
    except ValueError as error:
        raise UsageError(str(error)) from None
    print('%s: %s %s, %s' % (path, 'changed' if changed else 'added', user,
                             'in plain' if options.plain else 'hashed (SCRAM-SHA-256)'))
    print(_mechanisms(before, _read(path, options)))
    return 0


def password_file(options: Options) -> str:
    """The one that -a names, or the default.  Raises UsageError if several are named."""
    named = [value for kind, value in options.sources if kind == 'file']
    if len(named) > 1:
        raise UsageError('which password file? name one with -a')
    return named[0] if named else default_files(os.geteuid() == 0)[0]


def _checked_user(name: str) -> str:
    try:
        return login_name(name.strip())
    except UnsafeLogin as error:
        raise UsageError('--password: %r can\'t be a user name: %s' % (name, error)) from None


def _read(path: str, options: Options) -> dict:
    """The entries of the file; none if there is no file.  Raises StartError."""
    if not os.path.isdir(os.path.dirname(path)):
        raise StartError(CONFIG, '%s: no such directory (--setup makes ~/.tmda)'
                         % os.path.dirname(path))
    if not os.path.lexists(path):
        return {}
    try:
        return passwords.read_file(path, password_owners(options))[0]
    except ConfigError as error:
        raise StartError(CONFIG, str(error)) from None


def _entry(password: str, plain: bool) -> str:
    """What the file is to hold.  Raises UsageError for what can be no password."""
    if not password:
        raise UsageError('an empty password; nothing was changed')
    if '\0' in password:
        raise UsageError('a password can\'t hold NUL; nothing was changed')
    if not plain:
        return passwordhashes.make_scram(password)
    if password.startswith(tuple(passwordhashes.FORMS)):
        raise UsageError('this password looks like a hash: without --plain it can be kept')
    return password


def _mechanisms(before: dict, after: dict) -> str:
    """What the change means for CRAM-MD5."""
    hashed = sum(not entry.plain for entry in after.values())
    if not hashed:
        return 'CRAM-MD5 is offered: every entry is in plain.'
    ended = bool(before) and all(entry.plain for entry in before.values())
    return ('CRAM-MD5 is not offered%s: it needs every entry in plain (--plain), and %d of %d %s.'
            % (' any more' if ended else '', hashed, len(after),
               'is hashed' if hashed == 1 else 'are hashed'))
