# SPDX-License-Identifier: GPL-2.0-or-later
"""One POP3 login (RFC 1939), made with poplib over a TimedSocket: USER and PASS, or APOP.

-ERR to the login is a wrong password unless its response code says that the server could not
check it or let the user in (RFC 2449 section 8, RFC 3206).  -ERR as a greeting, a server
without APOP where that is asked for, and what is no POP3 at all are UNSURE.
"""

from __future__ import annotations

import poplib
import re
import time

from TMDA.ofmipd.timedsocket import TimedSocket
from TMDA.ofmipd.verdict import NO, UNSURE, YES, Verdict, brief

QUIT_SECONDS = 2  # the answer to QUIT is not worth more

_NOT_CHECKED = re.compile(rb'-ERR\s+\[(SYS/|IN-USE|LOGIN-DELAY)', re.I)


class _Client(poplib.POP3):
    """poplib on our own stream; POP3_SSL replaces the same method."""

    encoding = 'latin-1'  # one character for each octet: they go out as the client sent them

    def __init__(self, stream: TimedSocket):
        self._stream = stream
        super().__init__('')

    def _create_socket(self, timeout):
        return self._stream


def login(stream: TimedSocket, user: bytes, password: bytes, url) -> Verdict:
    """Logs in and out again on a fresh connection, with APOP if the URL's protocol is that."""
    name, secret = user.decode('latin-1'), password.decode('latin-1')
    try:
        client = _Client(stream)
    except poplib.error_proto as error:
        return Verdict(UNSURE, brief(error.args[0]))
    try:
        if url.protocol == 'apop':
            client.apop(name, secret)
        else:
            client.user(name)
            client.pass_(secret)
    except poplib.error_proto as error:
        return _refused(error.args[0])
    except ValueError as error:  # poplib refuses to send it, or cannot compute MD5
        return Verdict(UNSURE, brief(error))
    _quit(client, stream)
    return Verdict(YES)


def _refused(answer) -> Verdict:
    """poplib gives the server's line as bytes and words of its own as str."""
    checked = (isinstance(answer, bytes) and answer.startswith(b'-ERR')
               and not _NOT_CHECKED.match(answer))
    return Verdict(NO if checked else UNSURE, brief(answer))


def _quit(client: _Client, stream: TimedSocket) -> None:
    stream.deadline = min(stream.deadline, time.monotonic() + QUIT_SECONDS)
    try:
        client.quit()
    except (poplib.error_proto, OSError):
        pass  # the login is what was asked
