# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done with uid 0 after the start: this module, and the loop of monitor.py that calls it.

Nothing here or there reads an octet that came from a client.  What runs as root, and what for:

    find, become      a forked process becomes the account of the network side, or a user, for
                      good: groups, then group ids, then user ids, all three of each, checked, and
                      then tried to take back (CERT POS36-C, POS37-C).  There is no seteuid.
    copy_for          copies a file that only root may read (password file, private key) into
                      memory that has no name and belongs to the account of the network side.  The
                      kernel copies; no octet of it enters the memory of a root process.
    Secret            the last good copy of a password file.  The monitor holds it as a descriptor
                      and never looks into it: a forked process drops its privileges, reads it,
                      and says whether it is a password file.
    hand_over         copies of certificate and key, and the log file, for the network process.
    ask_as_root       asks PAM or a checkpassword program, which need root, in a process of its
                      own; the process that reads the client's credentials is not root.
    session           the process of a session: forks the asker, which drops its privileges before
                      it reads the first frame, waits for the name of the account that the asker
                      found, and becomes that account before anything of the user is looked at.

So a user's code (a configuration is a program) never runs in a process that has had secrets of
others in its memory, descriptors of others, or a way back to root.

Where the daemon was not started by root, `account` is None: the same processes, without a change
of user, but the asker, which is then the process of the session itself.
"""

from __future__ import annotations

import os
import pwd
import resource
import socket
import stat
from time import monotonic
from typing import Callable, NamedTuple

from TMDA.ofmipd.client import Client
from TMDA.ofmipd.verdict import UNSURE, Verdict

BLOCK = 1 << 20           # octets copied at a time
COPY_LIMIT = 1 << 26      # octets of a file that is copied
ANSWER_LIMIT = 4096       # octets that a forked process answers: one write(2) of a pipe
QUESTION_LIMIT = 1 << 16  # octets of a question to a source that needs root
LOG_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
NOT_PERMITTED = 77        # exit status (EX_NOPERM): an account can't be had


class Refused(Exception):
    """Nobody may become that account; str() says why."""


class Account(NamedTuple):
    """An entry of the system's database."""

    name: str
    uid: int
    gid: int


def find(name: str, network: Account | None = None) -> Account:
    """The account of that name.  Raises KeyError if there is none, Refused for uid 0 and for the
    account of the network side, whose process a user's code could otherwise disturb."""
    entry = pwd.getpwnam(name)
    if entry.pw_uid == 0:
        raise Refused('%s has uid 0' % name)
    if network is not None and entry.pw_uid == network.uid:
        raise Refused('%s is the account of the network side' % name)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def become(account: Account | None) -> None:
    """Be that account, for good; None changes nothing.  Whatever goes wrong ends the process."""
    if account is None:
        return
    user, group = (account.uid,) * 3, (account.gid,) * 3
    try:
        groups = os.getgrouplist(account.name, account.gid)
        os.setgroups(groups)
        os.setresgid(*group)
        os.setresuid(*user)
        os.setresuid(0, 0, 0)  # must fail: it takes any of the three ids that is 0
    except PermissionError:
        if (account.uid != 0 and (os.getresuid(), os.getresgid()) == (user, group)
                and set(os.getgroups()) == set(groups)):
            return
    os._exit(NOT_PERMITTED)


def copy_for(account: Account | None, path: str, owners: tuple[int, ...] = ()) -> int:
    """A descriptor of a copy of the file that `account` may open as /dev/fd/N.

    Mode and owner are those of the file, so that they can be judged there; only a file of one of
    `owners`, or any file if there are none, becomes the account's.  Raises OSError.
    """
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    target = os.memfd_create('tmda-ofmipd')
    try:
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode) or status.st_size > COPY_LIMIT:
            raise OSError(0, 'not a regular file, or too large')
        while os.sendfile(target, source, None, BLOCK):
            pass
        os.fchmod(target, stat.S_IMODE(status.st_mode))
        if account is not None and (not owners or status.st_uid in owners):
            os.fchown(target, account.uid, account.gid)
    except OSError:
        os.close(target)
        raise
    finally:
        os.close(source)
    return target


def apart(work: Callable[[], str]) -> str:
    """What work() returns, at most ANSWER_LIMIT octets, when it is called in a forked process that
    ends at once; '' if it raised something."""
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        try:
            os.write(writer, work().encode('utf-8', 'replace')[:ANSWER_LIMIT])
        finally:
            os._exit(0)
    os.close(writer)
    answer = os.read(reader, ANSWER_LIMIT)
    os.close(reader)
    os.waitpid(process, 0)
    return answer.decode('utf-8', 'replace')


class Secret:
    """The last good version of a password file; `descriptor` is its copy, -1 before the first.

    check(path, name) -> '' or what is wrong with the file; called without privileges.
    """

    def __init__(self, path: str, account: Account | None, check: Callable[[str, str], str]):
        self.path = path
        self.descriptor = -1
        self._account = account
        self._check = check
        self._seen = ''

    def refresh(self) -> str:
        """Look whether the file has changed.  Return what is wrong with a new version, once."""
        try:
            now = os.stat(self.path)
            seen = repr((now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns))
            if seen == self._seen:
                return ''
            owners = (0, self._account.uid) if self._account else ()
            fresh = copy_for(self._account, self.path, owners)
        except OSError as error:
            seen, problem = error.strerror, '%s: %s' % (self.path, error.strerror)
        else:
            problem = apart(lambda: self._judge(fresh))
            if problem == 'good':
                self.close()
                self.descriptor = fresh
            else:
                os.close(fresh)
        changed, self._seen = seen != self._seen, seen
        return problem if changed and problem != 'good' else ''

    def close(self) -> None:
        """Give the copy back."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _judge(self, copy: int) -> str:
        become(self._account)
        return self._check('/dev/fd/%d' % copy, self.path) or 'good'


def hand_over(news: socket.socket, files: dict[str, str], log_file: str,
              account: Account | None) -> None:
    """Send copies of files (letter -> path) and the log file ('l') as descriptors, in one message
    of their letters and a dot.  Raises OSError."""
    descriptors = [copy_for(account, path) for path in files.values()]
    if log_file:
        descriptors.append(os.open(log_file, LOG_FLAGS, 0o600))
    letters = (*files, 'l' * bool(log_file), '.')
    socket.send_fds(news, [''.join(letters).encode('ascii')], descriptors)
    for descriptor in descriptors:
        os.close(descriptor)


def ask_as_root(source, channel: socket.socket) -> socket.socket:
    """Fork a process that stays root and asks a source for whoever has the socket.

    A question is user, NUL, password, NUL, the client's address; the answer is that of a Verdict,
    NUL, its cause.  child.RootSource is the other side.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        theirs.close()
        return ours
    try:
        ours.close()
        channel.close()
        while True:
            user, password, address = theirs.recv(QUESTION_LIMIT).split(b'\0')
            client, deadline = Client(address.decode('ascii')), monotonic() + source.seconds
            try:
                verdict = source.ask(user, password, client, deadline)
            except OSError as error:
                verdict = Verdict(UNSURE, str(error))
            theirs.send(('%s\0%s' % (verdict.answer, verdict.cause)).encode('utf-8', 'replace'))
    finally:
        os._exit(0)  # also when the asker has gone and the question is empty


def close_all_but(*kept: int) -> None:
    """Close all other descriptors; 0, 1 and 2, where they are not kept, become /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in {0, 1, 2} - set(kept):
        os.dup2(null, descriptor)
    for descriptor in map(int, os.listdir('/dev/fd')):
        if descriptor > 2 and descriptor not in kept:
            os.closerange(descriptor, descriptor + 1)  # the one that listed them is gone already


def session(channel: socket.socket, duties) -> None:
    """The process of a session, from its first moment to its end.

    It leads a process group, so that the monitor can end it with whatever the user's code started.
    What `duties` has to be: shared.Duties.
    """
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if duties.account is None:  # all are one account: a process of its own would protect nothing
        answer = duties.ask(channel, {})
    else:
        answer = apart(lambda: _ask(channel, duties))
    if answer:
        name, _, rest = answer.partition('\n')
        duties.mute()
        close_all_but(channel.fileno())
        if duties.account is not None:
            become(find(name, duties.account))
        duties.serve(channel, rest)


def _ask(channel: socket.socket, duties) -> str:
    """In the asker."""
    rooted = {spec: ask_as_root(source, channel) for spec, source in duties.root_sources.items()}
    become(duties.account)
    return duties.ask(channel, rooted)
