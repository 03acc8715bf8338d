# SPDX-License-Identifier: GPL-2.0-or-later
"""Deliveries through SENDMAIL_PROGRAM, the mail system's own submission command.

Called by transport.deliver, and by submit for a user whose mail is not tagged.  Each delivery is
one run of `PROGRAM -i -f SENDER -- RECIPIENT...`, an argument list and no shell, with the
environment that belongs to the message.  The message is its standard input, with LF line ends as
programs expect them, out of a file that has no name: the program may read it at its own pace, and
we never hold it in memory.  What it writes to standard error goes, bounded, into the facts for the
log.  A run beyond the time limit is killed with all processes of its group and counts as a
temporary failure.

SENDMAIL_PROGRAM is a path, not a command line.  DSN parameters have no place here.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator

from TMDA.inject import processor
from TMDA.inject.reply import Outcome, ReplyError, reply

STDERR_LIMIT = 2000  # octets of the program's standard error that are kept

# Exit codes (sysexits.h) that say that trying again won't help; all others are temporary.
PERMANENT = {
    64: ('5.3.0', 'usage error'),
    65: ('5.6.0', 'data error'),
    67: ('5.1.1', 'no such user'),
    68: ('5.1.2', 'no such host'),
    69: ('5.3.0', 'service unavailable'),
    77: ('5.7.1', 'permission denied'),
}
NULL_SENDERS = {'qmail': '', 'postfix': ''}  # by MAIL_TRANSFER_AGENT; '<>' for all others


def send(deliveries, settings, limits, done, partial: bool) -> dict:
    """Hand deliveries over, one after the other; facts for the log.

    done(delivery, text) is called after each that was accepted.  partial says that part of the
    message was delivered at an earlier try.  If the first fails and nothing was delivered
    before, the others are not tried.  Raises ReplyError for the first failure, OSError if the disk
    is full.
    """
    null_sender = NULL_SENDERS.get(settings.MAIL_TRANSFER_AGENT, '<>')
    program = settings.expand(settings.SENDMAIL_PROGRAM)
    failures: list[ReplyError] = []
    for delivery in deliveries:
        command = arguments(program, delivery.envelope_sender or null_sender, delivery.recipients)
        try:
            _run(command, settings.environ, _content(delivery), limits)
        except ReplyError as error:
            failures.append(error)
            if delivery is deliveries[0] and not partial:
                break
        else:
            done(delivery, 'Ok')
    if failures:
        raise failures[0]
    return {'relay': program}


def pass_unaltered(program: str, envelope, spool, environ, limits) -> Outcome:
    """Hand the message in spool to program as it came; the reply and the facts for the log."""
    command = arguments(program, envelope.sender or '<>', envelope.recipients)
    try:
        _run(command, environ, spool.chunks(), limits)
    except ReplyError as error:
        return Outcome(error.reply, {'relay': program, 'error': error.cause})
    return Outcome(reply(250, '2.0.0', 'Ok'), {'relay': program})


def arguments(program: str, sender: str, recipients) -> list[bytes]:
    """The argument list.  Behind `--` no address can be taken for an option (CWE-88)."""
    return [os.fsencode(program), b'-i', b'-f', sender.encode('utf-8'), b'--'] + [
        recipient.address.encode('utf-8') for recipient in recipients]


def _content(delivery) -> Iterator[bytes]:
    yield delivery.header
    yield from delivery.body.chunks()


def _run(command: list[bytes], environ, chunks: Iterable[bytes], limits) -> None:
    """One run of the program.  Raises ReplyError unless it exits with 0."""
    import tempfile
    with tempfile.TemporaryFile(prefix='tmda-') as message:
        with tempfile.TemporaryFile(prefix='tmda-') as errors:
            write_unix(message, chunks)
            message.seek(0)
            status = _wait(command, environ, message, errors, limits.upstream_seconds)
            errors.seek(0)
            said = errors.read(STDERR_LIMIT).decode('utf-8', 'replace').strip()
    if status == 0:
        return
    cause = '%s: %s: %s' % (os.fsdecode(command[0]), _how(status), said)
    if status in PERMANENT:
        enhanced, meaning = PERMANENT[status]
        raise ReplyError(reply(554, enhanced, 'Mail system refused the message: ' + meaning),
                         cause)
    raise ReplyError(reply(451, '4.3.0', 'Mail system could not take the message'), cause)


def _wait(command: list[bytes], environ, message, errors, seconds: float):
    """Run command; its exit status, negative for a signal, None if it took too long."""
    import subprocess
    try:
        with processor.Anywhere():
            process = subprocess.Popen(command, stdin=message, stdout=subprocess.DEVNULL,
                                       stderr=errors, env=environ, close_fds=True,
                                       start_new_session=True)
    except (OSError, ValueError) as error:
        missing = isinstance(error, (FileNotFoundError, PermissionError, NotADirectoryError))
        raise ReplyError(
            reply(451, '4.3.5', 'Configuration error') if missing
            else reply(451, '4.3.0', 'Mail system could not be started'),
            'SENDMAIL_PROGRAM: %s' % error) from error
    with process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            # It leads a process group of its own and is not reaped yet, so the number is its own.
            os.killpg(process.pid, signal.SIGKILL)
            return None


def _how(status) -> str:
    if status is None:
        return 'killed because it took too long'
    return 'signal %d' % -status if status < 0 else 'exit code %d' % status


def write_unix(file, chunks: Iterable[bytes]) -> None:
    """Write chunks to file with LF for each CRLF.  Raises OSError when the disk is full."""
    held = b''
    for chunk in chunks:
        chunk = held + chunk
        held = b'\r' if chunk.endswith(b'\r') else b''  # its LF may be in the next chunk
        file.write((chunk[:-1] if held else chunk).replace(b'\r\n', b'\n'))
    file.write(held)
    file.flush()
