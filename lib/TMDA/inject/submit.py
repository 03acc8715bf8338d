# SPDX-License-Identifier: GPL-2.0-or-later
"""The one entry for a message: load what the user configured, tag, hand over, write down.

submit() is called by the daemon's backend and by tmda-inject.  It never raises: whatever goes
wrong in a user's configuration, filter or database, or in ourselves, becomes a Reply that says
"try again later" and a fact for the log, because the client still has the message.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from TMDA import Cookie, Defaults
from TMDA.Errors import TMDAError
from TMDA.inject import sidenotes, tagging, transport
from TMDA.inject.envelope import Envelope
from TMDA.inject.limits import Limits
from TMDA.inject.memory import FILE_NAME, Memory
from TMDA.inject.message import Message
from TMDA.inject.reply import Outcome, ReplyError, reply
from TMDA.inject.spool import Spool
from TMDA.inject.user import User

CAUSE_LIMIT = 1000  # characters of a cause in the log


class Submission(NamedTuple):
    """A message as it was taken in.

    received is the value for the Received field.  pure_proxy: a user without a configuration file
    has the message passed on unaltered.
    """

    user: User
    envelope: Envelope
    spool: Spool
    received: str = ''
    pure_proxy: bool = False


def submit(submission: Submission, limits: Limits) -> Outcome:
    """Send the message on.  A 2xx reply means that every recipient was taken over by another system."""
    progress = _Progress()
    try:
        return _submit(submission, limits, progress)
    except ReplyError as error:
        return Outcome(error.reply, _facts(error.cause))
    except TMDAError as error:
        _debug(progress)
        return Outcome(reply(451, '4.3.5', 'Configuration error; the log of the server has the details'),
                       _facts(str(error)))
    except OSError as error:
        return Outcome(transport.local_refusal(error), _facts(str(error)))
    except BaseException as error:  # SystemExit of a user's code too must end in an answer
        _debug(progress)
        cause = '%s: %s' % (type(error).__name__, error)
        return Outcome(reply(451, '4.3.0', 'Message could not be processed'), _facts(cause))


class _Progress:
    """How far a submission came: what an error needs to be reported well."""

    settings = None


def _submit(submission: Submission, limits: Limits, progress: _Progress) -> Outcome:
    user = submission.user
    if submission.pure_proxy and not os.path.exists(user.config_file):
        return _pass_unaltered(submission, limits)
    now, process = int(time.time()), os.getpid()
    settings = progress.settings = Defaults.load(user.environ, user.config_file)
    cookies = Cookie.Cookies(settings)
    message = Message.read(submission.spool, limits.header_size)
    deliveries = tagging.tag(settings, cookies, message, submission.envelope, now,
                             submission.received)
    if os.getpid() != process:
        os._exit(os.EX_SOFTWARE)  # a copy that the user's code has made: the original sends
    memory = Memory(os.path.join(settings.DATADIR, FILE_NAME), limits.remembered)
    outcome = transport.deliver(deliveries, submission.envelope, settings, limits, memory,
                                user.login + '\0' + submission.envelope.sender, message.digest)
    outcome.facts['tags'] = ','.join(sorted({note.kind for delivery in deliveries
                                             for note in delivery.notes}))
    if outcome.reply.success:
        problems = sidenotes.record(settings, message, deliveries, now)
        if problems:
            outcome.facts['sidenote_error'] = '; '.join(problems)
    return outcome


def _pass_unaltered(submission: Submission, limits: Limits) -> Outcome:
    """Pure proxy: the message as it came, to $TMDA_SENDMAIL_PROGRAM or the system's sendmail."""
    from TMDA.inject import sendmail
    environ = submission.user.environ
    program = environ.get('TMDA_SENDMAIL_PROGRAM') or '/usr/sbin/sendmail'
    return sendmail.pass_unaltered(program, submission.envelope, submission.spool, environ, limits)


def _facts(cause: str) -> dict:
    return {'error': ' / '.join(cause.split('\n'))[:CAUSE_LIMIT]} if cause else {}


def _debug(progress: _Progress) -> None:
    import traceback
    sidenotes.debug(progress.settings, traceback.format_exc())
