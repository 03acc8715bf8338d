# SPDX-License-Identifier: GPL-2.0-or-later
"""The backend of the network process in shared mode: everything is asked of processes of sessions.

A session's channel is asked for at its first AUTH; the monitor forks the process at its other end
(monitor.py says how it is asked).  Credentials and messages go over it as frames (ipc.py).

Whatever happens at the other end, the client gets an answer within a known time: every request
has a deadline, and a process that ends, hangs or sends nonsense is a temporary failure of its own
session.  The monitor is told when a channel is closed, and ends a process that does not end by
itself.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
from time import monotonic

from TMDA.inject.limits import Limits
from TMDA.inject.reply import Outcome, ReplyError, reply
from TMDA.inject.user import User
from TMDA.ofmipd import ipc
from TMDA.ofmipd.backend import CANNOT_TELL, WRONG_LOGIN, Identity, Transaction
from TMDA.ofmipd.client import Client
from TMDA.ofmipd.monitor import END, FULL, OPEN, READY, REQUEST

OPEN_SECONDS = 20    # for the monitor to fork a process
MARGIN_SECONDS = 5   # beyond what the other side may take itself
NUMBERS = 1 << 32    # of channels, before they begin again

ENDED = reply(451, '4.3.0', 'The process of your session has failed; try again later')
TOO_LONG = reply(451, '4.3.0', 'The message took too long; try again later')
LOG_IN_AGAIN = reply(421, '4.3.0', 'The process of your session has failed; log in again',
                     close=True)


class Monitor:
    """The network process's side of the monitor's control socket; for any thread."""

    def __init__(self, control: socket.socket):
        self._control = control
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def ready(self) -> None:
        """Clients are accepted."""
        self._request(READY, 0)

    def open(self) -> tuple[socket.socket, int]:
        """A channel to a new process, and its number.  Raises ReplyError(454), OSError."""
        with self._lock:
            number = next(self._numbers) % NUMBERS
            self._request(OPEN, number)
            deadline = monotonic() + OPEN_SECONDS
            while True:
                answer = self._answer(deadline)
                if answer[1] == number:
                    break
                _discard(answer[2])  # for somebody who did not wait long enough
                self._request(END, answer[1])
        if answer[0] == FULL:
            raise ReplyError(CANNOT_TELL, 'no process for the session can be had')
        return socket.socket(fileno=answer[2][0]), number

    def end(self, number: int) -> None:
        """The channel of that number is closed."""
        try:
            self._request(END, number)
        except OSError:
            pass  # the monitor is gone, and with it all processes of sessions

    def _request(self, action: bytes, number: int) -> None:
        self._control.sendall(REQUEST.pack(action, number))

    def _answer(self, deadline: float) -> tuple[bytes, int, list[int]]:
        self._control.settimeout(max(deadline - monotonic(), 0.001))
        descriptors: list[int] = []
        octets = ipc.receive_octets(self._control, REQUEST.size, descriptors)
        if len(octets) != REQUEST.size:
            raise OSError(0, 'the monitor has gone')
        action, number = REQUEST.unpack(octets)
        return action, number, descriptors


def _discard(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class Channels:
    """A Backend (backend.py).  login_seconds: what all sources may take for one login."""

    def __init__(self, monitor: Monitor, mechanisms: tuple[str, ...], login_seconds: float,
                 limits: Limits):
        self.mechanisms = mechanisms
        self.monitor = monitor
        self.login_seconds = login_seconds + MARGIN_SECONDS
        self.limits = limits

    def open(self, client: Client, session_id: str) -> Channel:
        """A channel; its process is asked for when it is used."""
        return Channel(self, client, session_id)


class Channel:
    """One session's way to its process."""

    def __init__(self, backend: Channels, client: Client, session_id: str):
        self._backend = backend
        self._client = client
        self._session = session_id
        self._link: ipc.Link | None = None
        self._number = 0
        self._lost = False  # an identity was there and is no more

    def scram_start(self, user: str) -> tuple[bytes, int]:
        """See backend.Channel."""
        fields = self._log_in('scram_start', {'user': user}, 'salt')
        return fields['salt'].encode('latin-1'), fields['iterations']

    def authenticate(self, credentials) -> Identity:
        """See backend.Channel."""
        fields = self._log_in(*_credential_frame(credentials), 'identity')
        self._lost = False
        login = fields['login']
        # Where the user lives is known, and needed, at the other end only.
        return Identity(login, User(login, '', ''), fields['signature'].encode('latin-1'))

    def submit(self, transaction: Transaction) -> Outcome:
        """See backend.Channel."""
        if self._link is None:
            raise ReplyError(LOG_IN_AGAIN if self._lost else CANNOT_TELL)
        deadline = monotonic() + self._backend.limits.submit_seconds
        try:
            self._send_message(transaction, deadline)
            fields = self._link.receive(('outcome',), deadline, ipc.LARGE).fields
        except ipc.TimedOut:
            raise self._failed(TOO_LONG, 'not done after %d seconds'
                               % self._backend.limits.submit_seconds) from None
        except ipc.Ended:
            raise self._failed(ENDED, 'the process of the session has ended') from None
        except ipc.Broken as error:
            raise self._failed(ENDED, 'from the process of the session: %s' % error) from None
        return Outcome(ipc.reply_of(fields), fields['facts'])

    def close(self) -> None:
        """See backend.Channel."""
        if self._link is not None:
            self._link.close()
            self._link = None
            self._backend.monitor.end(self._number)

    def _log_in(self, kind: str, fields: dict, wanted: str) -> dict:
        """Send a frame of the login and return the fields of the answer.  Raises ReplyError."""
        deadline = monotonic() + self._backend.login_seconds
        try:
            if self._link is None:
                self._connect(deadline)
            self._link.send(kind, fields, deadline)
            frame = self._link.receive((wanted, 'refused'), deadline, ipc.LARGE)
        except (ipc.TimedOut, ipc.Ended, ipc.Broken) as error:
            cause = 'login: %s %s' % (type(error).__name__, error)
            raise self._failed(CANNOT_TELL, cause) from None
        self._backend.mechanisms = tuple(frame.fields['mechanisms'])
        if frame.kind == 'refused':
            raise ReplyError(ipc.reply_of(frame.fields), frame.fields['cause'])
        return frame.fields

    def _connect(self, deadline: float) -> None:
        sock, self._number = self._backend.monitor.open()
        self._link = ipc.Link(sock)
        client = self._client
        self._link.send('client', {
            'session': self._session, 'address': client.address, 'name': client.name[:255],
            'port': client.port, 'local_address': client.local_address,
            'local_port': client.local_port}, deadline)

    def _send_message(self, transaction: Transaction, deadline: float) -> None:
        spool = transaction.spool
        fields = {
            'sender': transaction.sender, 'size': spool.size, 'body': transaction.body,
            'recipients': [[one.address, one.notify, one.orcpt] for one in transaction.recipients],
            'smtputf8': transaction.smtputf8, 'ret': transaction.ret, 'envid': transaction.envid,
            'received': transaction.received, 'session': transaction.session}
        descriptor = spool.fileno()
        body = b''.join(spool.chunks()) if descriptor is None else b''
        self._link.send('submit', fields, deadline, body, descriptor)

    def _failed(self, answer, cause: str) -> ReplyError:
        """Give the channel up; the error to raise."""
        self._lost = True
        self.close()
        return ReplyError(answer, cause)


def _credential_frame(credentials) -> tuple[str, dict]:
    """Credentials of sasl.py as a frame."""
    user = credentials.user
    if len(user) > ipc.LOGIN:
        raise ReplyError(WRONG_LOGIN, 'the name is too long')
    if hasattr(credentials, 'password'):
        return 'password', {'user': user, 'password': credentials.password}
    if hasattr(credentials, 'digest'):
        return 'cram_md5', {'user': user, 'challenge': credentials.challenge.decode('latin-1'),
                            'digest': credentials.digest}
    return 'scram', {'user': user, 'auth_message': credentials.auth_message.decode('latin-1'),
                     'proof': credentials.proof.decode('latin-1')}
