# SPDX-License-Identifier: GPL-2.0-or-later
"""Authentication by PAM (-m SERVICE): pam_authenticate, then pam_acct_mgmt.

PAM modules block for as long as they like and cannot be interrupted, so each call runs in a
thread of its own; a login that is not done at the deadline is UNSURE, and the thread ends when
the module does.  No more than CALLS of them exist at a time.

pam_unix can check other users' passwords only as root.
"""

from __future__ import annotations

import threading

from TMDA.Errors import ConfigError
from TMDA.ofmipd.timedsocket import remaining
from TMDA.ofmipd.verdict import NO, UNSURE, YES, AskingSource, Verdict

CALLS = 100  # PAM calls at a time; a refused login often takes PAM two seconds

# Linux-PAM's codes (_pam_types.h) that are a no; other errors leave the question open.
REFUSALS = {
    6: 'permission denied',
    7: 'authentication failure',
    10: 'user unknown',
    11: 'too many tries',
    12: 'password expired',
    13: 'account expired',
    16: 'credentials expired',
    27: 'password expired',
}

_calls = threading.BoundedSemaphore(CALLS)


class Pam(AskingSource):
    """One PAM service."""

    def __init__(self, service: str, seconds: float):
        """ConfigError if `service` can be no name of a file in /etc/pam.d."""
        if not service or '/' in service or '\0' in service or service in ('.', '..'):
            raise ConfigError(f'PAM service {service!r}: write the name of a file in /etc/pam.d')
        super().__init__('pam:' + service, seconds)
        self.service = service

    def ask(self, user: bytes, password: bytes, client, deadline: float) -> Verdict:
        if not _calls.acquire(blocking=False):
            return Verdict(UNSURE, f'{CALLS} PAM calls are running already')
        call = _Call((self.service, user, password, getattr(client, 'address', '') or ''))
        try:
            call.start()
        except RuntimeError as error:  # no more threads to be had
            _calls.release()
            return Verdict(UNSURE, str(error))
        if not call.done.wait(remaining(deadline)):
            return Verdict(UNSURE, 'timed out')
        code, words = call.result
        if code == 0:
            return Verdict(YES)
        return Verdict(NO if code in REFUSALS else UNSURE, f'PAM code {code}: {words}')


class _Call(threading.Thread):
    """One call of libpam.  `done` is set when `result`, (code, words), is there."""

    def __init__(self, arguments: tuple):
        super().__init__(daemon=True)
        self.done = threading.Event()
        self.result = (-1, 'libpam failed')
        self._arguments = arguments

    def run(self) -> None:
        try:
            from TMDA.ofmipd import libpam
            self.result = libpam.authenticate(*self._arguments)
        except OSError as error:
            self.result = (-1, str(error))
        finally:
            self._arguments = ()
            _calls.release()
            self.done.set()
