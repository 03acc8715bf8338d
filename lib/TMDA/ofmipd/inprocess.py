# SPDX-License-Identifier: GPL-2.0-or-later
"""The backend that checks logins and sends messages in the process that it is called in.

Personal mode uses it for all sessions: everything belongs to the one account.  In shared mode it
runs inside the child of a session, after the child has become the user (child.py).
"""

from __future__ import annotations

import os
from typing import NamedTuple

from TMDA.inject import processor
from TMDA.inject.limits import Limits
from TMDA.inject.reply import Outcome, ReplyError, reply
from TMDA.inject.user import User
from TMDA.ofmipd.accounts import Accounts, UnsafeLogin, login_name
from TMDA.ofmipd.backend import CANNOT_TELL, WRONG_LOGIN, Identity, Transaction
from TMDA.ofmipd.client import Client
from TMDA.ofmipd.verdict import NO, UNSURE

OVER_QUOTA = reply(450, '4.7.1', 'Your quota for outgoing mail is used up; try again later')
NO_QUOTA_ANSWER = reply(451, '4.3.0', 'Your quota for outgoing mail could not be checked')


class Policy(NamedTuple):
    """What the command line asks for each message: --pure-proxy and --throttle-script."""

    pure_proxy: bool = False
    throttle_script: str = ''


class InProcess:
    """A Backend (backend.py) over a chain of sources and the accounts of this host."""

    def __init__(self, chain, accounts: Accounts, policy: Policy, limits: Limits):
        self._chain = chain
        self._accounts = accounts
        self._policy = policy
        self._limits = limits

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """What the sources can check at this moment."""
        return self._chain.mechanisms

    def open(self, client: Client, session_id: str) -> _Channel:
        """A channel for one session."""
        return _Channel(self, client)

    def scram_start(self, user: str) -> tuple[bytes, int]:
        """Salt and iterations for SCRAM."""
        return self._chain.scram_start(user)

    def authenticate(self, credentials, client: Client) -> Identity:
        """The identity behind credentials.  Raises ReplyError (535, 454)."""
        with processor.Anywhere():
            verdict = self._chain.check(credentials, client)
        if verdict.answer == UNSURE:
            raise ReplyError(CANNOT_TELL, verdict.cause)
        if verdict.answer == NO:
            raise ReplyError(WRONG_LOGIN, verdict.cause)
        try:
            login = login_name(credentials.user.strip())
        except UnsafeLogin as error:
            raise ReplyError(WRONG_LOGIN, 'unsafe login: %s' % error) from None
        user = self._accounts.user(login, client.local_address)
        return Identity(login, user, verdict.server_signature)

    def submit(self, identity: Identity, transaction: Transaction) -> Outcome:
        """Send one message for identity."""
        # Imported at the first message: a session that only logs in need not wait for it.
        from TMDA.inject.submit import Submission, submit
        if self._policy.throttle_script:
            check_quota(self._policy.throttle_script, identity.user, self._limits.script_seconds)
        return submit(Submission(identity.user, transaction.envelope(), transaction.spool,
                                 transaction.received, self._policy.pure_proxy), self._limits)


class _Channel:
    """One session's way to an InProcess backend; remembers who logged in."""

    def __init__(self, backend: InProcess, client: Client):
        self._backend = backend
        self._client = client
        self._identity: Identity | None = None

    def scram_start(self, user: str) -> tuple[bytes, int]:
        return self._backend.scram_start(user)

    def authenticate(self, credentials) -> Identity:
        self._identity = self._backend.authenticate(credentials, self._client)
        return self._identity

    def submit(self, transaction: Transaction) -> Outcome:
        if self._identity is None:
            raise ReplyError(reply(530, '5.7.0', 'Authentication required'))
        return self._backend.submit(self._identity, transaction)

    def close(self) -> None:
        self._identity = None


def check_quota(script: str, user: User, seconds: float) -> None:
    """Run `script login`; an exit status other than 0 means that the quota is used up.

    Raises ReplyError: 450 then, 451 when the script can't be run or is not done after `seconds`.
    """
    import subprocess
    try:
        with processor.Anywhere():
            done = subprocess.run([os.path.expanduser(script), user.login], env=user.environ,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ReplyError(NO_QUOTA_ANSWER, 'throttle script: %s' % error) from None
    if done.returncode:
        raise ReplyError(OVER_QUOTA, 'throttle script: exit status %d' % done.returncode)
