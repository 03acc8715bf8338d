# SPDX-License-Identifier: GPL-2.0-or-later
"""Hands a message's deliveries over to the mail system and says truthfully what became of them.

deliver() is called by submit.submit.  MAIL_TRANSPORT chooses the way: `smtp` (smtpout) or
`sendmail`.  The answer is 250 only when every recipient of every delivery was taken over.
Otherwise it is the refusal itself and nothing was sent; or, when a part had been accepted before
another failed, 451, and the memory knows the recipients who have the message, so that the client's
next try reaches the others only.  As long as that is so, the answer stays 451 even where the
refusal of the rest is permanent: a 5xx would say that nobody got the message.

Connections are kept in one pool for the process; close() ends them.
"""

from __future__ import annotations

import errno
import re

from TMDA.inject import pool
from TMDA.inject.memory import Record
from TMDA.inject.reply import Outcome, Reply, ReplyError, reply

# A quoted local part may hold blanks and angle brackets; nothing else may, and controls nowhere.
_ADDRESS = re.compile(r'(?:"(?:[^"\\\x00-\x1f\x7f]|\\[^\x00-\x1f\x7f])*")?[^\x00-\x20\x7f<>]*\Z')
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FACT_LIMIT = 400  # characters of one fact


def deliver(deliveries, envelope, settings, limits, memory=None, user: str = '',
            key=b'') -> Outcome:
    """Send deliveries (tagging.Delivery) with the parameters of envelope; the reply and its facts.

    memory is a memory.Memory or None; user and key (the digest of the message as the client sent
    it, or a function that returns it) name the message in it.  No deliveries: 250, nothing sent.
    Facts: relay, upstream (what the servers said), deliveries (that were to be sent), error (why
    they failed), memory (why it can't be used), delivered_before (recipients left out).
    Raises nothing on purpose.
    """
    progress = _Progress(memory, user, key)
    facts = progress.facts
    try:
        todo = progress.still_to_do(deliveries)
        _check_addresses(todo)
        facts['deliveries'] = len(todo)
        if todo:
            facts.update(_carrier(settings, limits, envelope)(
                todo, done=progress.done, partial=progress.partial))
    except ReplyError as error:
        return progress.failed(error)
    except OSError as error:
        return progress.failed(ReplyError(local_refusal(error), str(error)))
    return progress.finished()


def close() -> None:
    """Close the idle upstream connections."""
    pool.shared.close()


def local_refusal(error: OSError) -> Reply:
    """What to tell the client when this host fails: 452 for a full disk, else 451."""
    if error.errno in _FULL:
        return reply(452, '4.3.1', 'Out of disk space')
    return reply(451, '4.3.0', 'Local error')


def is_safe(address: str) -> bool:
    """True if address can be encoded and ends neither a command line nor its angle brackets."""
    try:
        address.encode('utf-8')
    except UnicodeEncodeError:
        return False
    return _ADDRESS.match(address) is not None


def _check_addresses(deliveries) -> None:
    """ReplyError (553) for an address that could not stand in a command (CWE-93, CWE-88).

    The client's were checked when they came; those of filters and configurations were not.
    """
    for delivery in deliveries:
        for address in [delivery.envelope_sender] + [one.address for one in delivery.recipients]:
            if not is_safe(address):
                raise ReplyError(reply(553, '5.1.3', 'Bad address syntax'),
                                 'bad address %r' % address)


def _carrier(settings, limits, envelope):
    """The function that carries deliveries, with keyword arguments done and partial."""
    if settings.MAIL_TRANSPORT == 'smtp':
        from TMDA.inject.smtpout import send
        return lambda todo, done, partial: send(todo, envelope, settings, limits, done, partial,
                                                pool.shared)
    if settings.MAIL_TRANSPORT == 'sendmail':
        from TMDA.inject import sendmail
        return lambda todo, done, partial: sendmail.send(todo, settings, limits, done, partial)
    raise ReplyError(reply(451, '4.3.5', 'Configuration error'),
                     'MAIL_TRANSPORT %r is neither smtp nor sendmail' % (settings.MAIL_TRANSPORT,))


class _Progress:
    """What has been delivered of a message, in words for the client, the log and the memory."""

    def __init__(self, memory, user: str, key):
        self.facts: dict = {}
        self.partial = False  # some recipients have the message from an earlier try
        self._record = None if memory is None else Record(memory, user, key)
        self._recipients = 0
        self._delivered = 0
        self._several = False
        self._texts: list[str] = []

    def still_to_do(self, deliveries) -> list:
        """deliveries without the recipients who have the message already."""
        addresses = [one.address for delivery in deliveries for one in delivery.recipients]
        missing = set(addresses)
        if self._record is not None:
            missing = self._remember(self._record.missing, addresses, otherwise=missing)
        self._recipients = len(addresses)
        self._delivered = sum(address not in missing for address in addresses)
        if self._delivered:
            self.partial = True
            self.facts['delivered_before'] = self._delivered
            deliveries = [
                delivery._replace(recipients=tuple(
                    one for one in delivery.recipients if one.address in missing))
                for delivery in deliveries]
        todo = [delivery for delivery in deliveries if delivery.recipients]
        self._several = len(todo) > 1
        return todo

    def done(self, delivery, text: str) -> None:
        """The mail system has taken delivery over, and said text."""
        self._texts.append(text)
        self._delivered += len(delivery.recipients)
        if self._record is not None and (self._several or self.partial):
            self._remember(self._record.add, [one.address for one in delivery.recipients])

    def finished(self) -> Outcome:
        """Everybody has the message."""
        if self._record is not None and (self._several or self.partial):
            self._remember(self._record.forget)
        self.facts['upstream'] = '; '.join(self._texts)[:_FACT_LIMIT]
        text = self._texts[0] if len(self._texts) == 1 else 'Ok: %d deliveries' % len(self._texts)
        return Outcome(reply(250, '2.0.0', text), self.facts)

    def failed(self, error: ReplyError) -> Outcome:
        """The outcome: the refusal, or 451 if somebody has the message."""
        self.facts['error'] = str(error)[:_FACT_LIMIT]
        if not self._delivered:
            return Outcome(error.reply, self.facts)
        if self._record is not None:
            self._remember(self._record.keep)
        enhanced = error.reply.enhanced if error.reply.temporary else '4.3.0'
        return Outcome(
            reply(451, enhanced, '%d of %d recipients have the message; try again for the others'
                  % (self._delivered, self._recipients),
                  '%d %s %s' % (error.reply.code, error.reply.enhanced, error.reply.text)),
            self.facts)

    def _remember(self, action, *arguments, otherwise=None):
        """Use the memory; without it a retry may repeat a delivery, but none is lost."""
        try:
            return action(*arguments)
        except OSError as error:
            self.facts['memory'] = str(error)[:_FACT_LIMIT]
            return otherwise
