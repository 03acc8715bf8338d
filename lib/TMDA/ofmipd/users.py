# SPDX-License-Identifier: GPL-2.0-or-later
"""The users whose files --check and --explain look at, each in a process of its own.

A configuration is a program.  As in a running daemon, it never runs in a process that root or
another user depends on: inspect() forks, the forked process becomes the account if we are root,
does its work, sends the result back through a pipe, and ends.  One that takes too long is killed.

    find_logins(options, listed)    whose files there are to look at
    inspect(options, login, work)   what work(User) returns
    apart(work)                     the same for what only root may read: so that nothing of it is
                                    in the memory that the users' processes are copied from
"""

from __future__ import annotations

import json
import os
import pwd
import select
import signal
from time import monotonic
from typing import Any, Callable, Iterable

from TMDA.inject.reply import ReplyError
from TMDA.inject.user import User
from TMDA.ofmipd.accounts import (Accounts, UnsafeLogin, account_name, login_name,
                                  take_surroundings)
from TMDA.ofmipd.failure import CONFIG, StartError
from TMDA.ofmipd.options import Options
from TMDA.ofmipd.privileges import Refused, become, close_all_but, find

SECONDS = 120  # for all of one user's files
BLOCK = 65536  # octets read at a time


def own_login() -> str:
    """The name of the account that runs the program."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def is_shared(options: Options) -> bool:
    """Whether a daemon started with these options would serve several accounts or homes."""
    return os.geteuid() == 0 or bool(options.configdir or options.vhome_script)


def password_owners(options: Options) -> tuple[int, ...]:
    """Who may own a password file: we, or as root also the account of the network side."""
    if os.geteuid() != 0:
        return (os.geteuid(),)
    try:
        return 0, pwd.getpwnam(options.username).pw_uid
    except KeyError:
        return (0,)


def find_logins(options: Options, listed: Iterable[str]) -> list[str]:
    """The users with files of their own: --login's; else everybody that can be known.

    listed: the names in the password files.  In personal mode names that share a home count once.
    """
    if options.login:
        return [options.login]
    if options.vhome_script:
        return sorted(listed)
    if options.configdir:
        return sorted(set(listed) | set(_directories(options.configdir)))
    if os.geteuid() == 0:
        others = any(source.kind != 'file' for source in options.sources)
        return sorted(set(listed) | set(_configured_accounts() if others else ()))
    accounts = Accounts('', os.environ)
    homes: dict[str, str] = {}
    for login in sorted(filter(_is_login, listed)) or [own_login()]:
        try:
            homes.setdefault(accounts.user(login).config_file, login)
        except ReplyError:
            homes.setdefault('', login)  # without a home: inspect() says so
    return list(homes.values())


def _directories(configdir: str) -> list[str]:
    """The names of all DIR/<user>/config; none if there is no such directory, as check says."""
    try:
        names = os.listdir(configdir)
    except OSError:
        return []
    return [name for name in names
            if _is_login(name) and os.path.isfile(os.path.join(configdir, name, 'config'))]


def _is_login(name: str) -> bool:
    try:
        return login_name(name) == name
    except UnsafeLogin:
        return False


def _configured_accounts() -> Iterable[str]:
    for account in pwd.getpwall():
        config = os.path.join(account.pw_dir, '.tmda', 'config')
        if account.pw_uid != 0 and os.path.isfile(config):
            yield account.pw_name


def inspect(options: Options, login: str, work: Callable[[User], Any]) -> Any:
    """What work(user) returns for the user of that login: anything that JSON can hold.

    Raises StartError if there is no such user, and as apart() does.
    """
    def work_as_user() -> dict:
        try:
            return {'result': work(_become(options, login))}
        except (StartError, ReplyError, UnsafeLogin) as error:
            return {'trouble': str(error)}

    found = apart(work_as_user)
    if 'trouble' in found:
        raise StartError(CONFIG, found['trouble'])
    return found['result']


def _become(options: Options, login: str) -> User:
    """Make this process, which was forked for it, the user's.  Raises StartError, UnsafeLogin,
    ReplyError."""
    if options.vhome_script:
        from TMDA.ofmipd.vhome import Domains, VirtualHomes, split_login
        virtual = split_login(login)
        login = '%s@%s' % virtual
        if os.geteuid() == 0:
            _drop_root(options, Domains(options.vdomains_path).owner(virtual))
        return VirtualHomes(options.vhome_script, options.limits.script_seconds,
                            os.environ).user(login)
    login = login_name(login.strip())
    if os.geteuid() == 0:
        try:
            _drop_root(options, account_name(options.configdir, login))
        except KeyError:
            raise StartError(CONFIG, 'there is no such account') from None
    return Accounts(options.configdir, os.environ).user(login)


def _drop_root(options: Options, name: str) -> None:
    """Become the account for good, with its environment."""
    try:
        account = find(name)
    except KeyError:
        raise StartError(CONFIG, 'there is no account %s' % name) from None
    except Refused as error:
        raise StartError(CONFIG, 'nobody may log in as %s: %s' % (name, error)) from None
    become(account)
    os.chdir('/')
    take_surroundings()


def apart(work: Callable[[], Any]) -> Any:
    """What work() returns (anything that JSON can hold) when it is called in a forked process.

    That process has no terminal and no files of ours.  Raises StartError if it ends without an
    answer, or is not done after SECONDS.
    """
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        try:
            os.setsid()
            close_all_but(writer)
            _write(writer, json.dumps(work()).encode('ascii'))
        finally:
            os._exit(0)
    os.close(writer)
    try:
        answer = _read(reader, monotonic() + SECONDS)
    finally:
        os.close(reader)
        _kill(process)
        os.waitpid(process, 0)
    if answer is None:
        raise StartError(CONFIG, 'not done after %d seconds' % SECONDS)
    if not answer:
        raise StartError(CONFIG, 'the process that looked ended before its time: does the '
                         'configuration end it?')
    return json.loads(answer)


def _write(writer: int, data: bytes) -> None:
    while data:
        data = data[os.write(writer, data):]


def _kill(process: int) -> None:
    """It has sent all, or is late: what its code may still be doing is not waited for."""
    for kill in (os.killpg, os.kill):
        try:
            kill(process, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it was not the leader of a group yet


def _read(reader: int, deadline: float) -> bytes | None:
    """All octets up to the end; None if that does not come in time."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    data = b''
    while poll.poll(max(deadline - monotonic(), 0) * 1000):
        block = os.read(reader, BLOCK)
        if not block:
            return data
        data += block
    return None
