# SPDX-License-Identifier: GPL-2.0-or-later
"""Deliveries over SMTP to the server that SMTPHOST names.

Called by transport.deliver.  One delivery is one transaction: MAIL, every RCPT and DATA go out in
one write where the server offers PIPELINING.  If any recipient is refused although DATA was
accepted, the connection is cut before any content, so that the others get nothing either.

Several deliveries of one message use up to `message_connections` connections, fewer if the server
allows no more:
1. check: each connection tries MAIL and RCPT of its deliveries, giving all but its last one up
   with RSET; the last one stays open.  So every recipient of the message has been accepted before
   the first DATA; a refusal here sends nothing.
2. the first delivery goes alone: what the server thinks of the content it usually thinks of all,
   and here still nothing has been sent.
3. the others follow, one on each connection at a time.  From here on a failure leaves the message
   partly delivered; the rest is tried nevertheless, so that as little as possible is missing.
What can go wrong in 3 with more deliveries than connections includes a recipient who had been
accepted in 1 and is refused now.

A connection from the pool that turns out dead at its first command is replaced by a new one,
silently and once; nothing had been accepted on it.  A timeout is not repeated.

Extensions of the peer: SIZE is checked and sent if offered; BODY=8BITMIME is passed on if offered,
else 8-bit content is sent as it is (RFC 6152 would have us bounce or recode it; all servers take
it, and recoding breaks signatures); SMTPUTF8 that is needed and not offered is 550 5.6.7; DSN
parameters go only to a server that offers DSN (RFC 3461 4).
"""

from __future__ import annotations

import functools
import re

from TMDA.inject.pool import Pool
from TMDA.inject.reply import ReplyError, reply
from TMDA.inject.smtplink import DATA, READY, RSET, Link, Lost, Peer, accepted, connect
from TMDA.inject.smtpreply import Answer, accepted_text, passed_on

_PATH = re.compile(rb'RCPT TO:(<(?:"(?:[^"\\]|\\.)*")?[^<>]*>)')
_PARAMETER = re.compile(r'[\x21-\x7e]*\Z')


def send(deliveries, envelope, settings, limits, done, partial: bool, pool: Pool) -> dict:
    """Hand deliveries over; facts for the log.

    done(delivery, text) is called for each delivery as soon as the server has accepted it, with
    what the server said.  partial says that part of the message was delivered at an earlier try.
    Raises ReplyError: if done was never called, nothing was sent; else some deliveries failed.
    """
    job = _Job(envelope, settings, limits, pool)
    try:
        failures = _send_all(job, deliveries, done, partial)
    finally:
        job.close()
    if failures:
        raise _weightiest(failures)
    return {'relay': str(job.peer), 'connections': job.connections}


class _Job:
    """What the connections of one message have in common, and those in its hands."""

    def __init__(self, envelope, settings, limits, pool: Pool):
        self.envelope = envelope
        self.limits = limits
        self.connections = 0  # that were made, not taken from the pool
        self.peer = Peer.of(settings)
        self._hostname = settings.HOSTNAME
        self._most = int(settings.SMTP_MAX_SESSIONS_PER_CONNECTION or 0)
        self._pool = pool
        self._links: list[Link] = []

    def link(self, fresh: bool = False) -> Link:
        """A connection from the pool, or a new one.  Raises Lost."""
        link = None if fresh else self._pool.take(self.peer)
        if link is None:
            link = connect(self.peer, self._hostname, self.limits)
            self.connections += 1
        self._links.append(link)
        return link

    def is_worn(self, link: Link) -> bool:
        """True if link has carried as many messages as the settings allow."""
        return 0 < self._most <= link.messages

    def give_back(self, link: Link) -> None:
        """link is not needed any more."""
        self._links.remove(link)
        self._pool.give(link, self.limits, self._most)

    def close(self) -> None:
        """Give all back."""
        while self._links:
            self.give_back(self._links[-1])


class _Lane:
    """One connection at a time, and what is under way on it.  lost: do not use it again."""

    def __init__(self, job: _Job):
        self.lost = False
        self._job = job
        self._link: Link | None = job.link()
        self._build = None
        self._commands: list[bytes] = []

    def start(self, build) -> None:
        """Send the commands that build(features) lists.  Raises Lost, and what build raises."""
        if self._link is not None and self._link.state == READY and self._job.is_worn(self._link):
            self._drop()
        if self._link is None:
            self._link = self._job.link()
        self._build = build
        try:
            self._begin()
        except Lost as lost:
            self._begin_again(lost)

    def finish(self) -> None:
        """Wait until all was accepted.  Raises ReplyError with the weightiest refusal, Lost."""
        try:
            answers = self._link.finish()
        except Lost as lost:
            self._begin_again(lost)
            answers = self._link.finish()
        refuse(self._commands, answers, self._link.peer)

    def content(self, delivery) -> None:
        """Send the message.  Raises Lost."""
        self._link.send_content(delivery.header, delivery.body.chunks())

    def verdict(self) -> Answer:
        """The server's answer to the message: it has taken it.  Raises ReplyError, Lost."""
        answer = self._link.verdict()
        if answer.code >= 300:
            raise ReplyError(passed_on(answer), '%s: end of data: %s' % (self._link.peer, answer))
        return answer

    def clear(self, error: ReplyError) -> None:
        """Give up what was under way when error was raised."""
        self.lost = isinstance(error, Lost)
        if self._link is not None:
            self._drop()

    def _drop(self) -> None:
        link, self._link = self._link, None
        self._job.give_back(link)

    def _begin(self) -> None:
        self._commands = self._build(self._link.features)
        self._link.start(self._commands)

    def _begin_again(self, lost: Lost) -> None:
        """Do the same on a new connection if the old one died while idle; else raise lost."""
        if lost.timed_out or self._link.answered or not self._link.reused:
            raise lost
        self._drop()
        self._link = self._job.link(fresh=True)
        self._begin()


def _send_all(job: _Job, deliveries, done, partial: bool) -> list[ReplyError]:
    """The three steps of the module's description; what failed."""
    lanes = _open_lanes(job, min(len(deliveries), max(job.limits.message_connections, 1)))
    work = [(lane, delivery, _only_data) for lane, delivery in zip(lanes, deliveries)]
    later = deliveries[len(lanes):]
    if len(deliveries) == 1:
        work = [(lanes[0], deliveries[0], _whole(job, deliveries[0]))]
    else:
        failures = _check(job, work, later)
        if failures:
            return failures
    steps = (_start, _fill, functools.partial(_settle, done))
    failures = _advance(work[:1], steps)
    if failures and not partial:
        return failures
    failures += _advance(work[1:], steps)
    while later:
        # A lane that was lost has cost a timeout already, and is left alone.
        living = [lane for lane in lanes if not lane.lost]
        if not living:
            break
        failures += _advance([(lane, delivery, _whole(job, delivery))
                              for lane, delivery in zip(living, later)], steps)
        later = later[len(living):]
    return failures


def _open_lanes(job: _Job, count: int) -> list[_Lane]:
    """As many connections as can be had, up to count.  Raises Lost if there is none."""
    lanes = [_Lane(job)]
    try:
        while len(lanes) < count:
            lanes.append(_Lane(job))
    except Lost:
        pass  # the server limits the connections of a client: make do with these
    return lanes


def _check(job: _Job, work: list, later) -> list[ReplyError]:
    """Try the envelopes of all deliveries; those in work stay open.  The refusals."""
    def block(index, delivery):
        def build(features):
            tried = [command for other in later[index::len(work)]
                     for command in commands(other, job.envelope, features) + [RSET]]
            return tried + commands(delivery, job.envelope, features)
        return build
    checks = [(lane, delivery, block(index, delivery))
              for index, (lane, delivery, _build) in enumerate(work)]
    return _advance(checks, (_start, _finish))


def _advance(work: list, steps) -> list[ReplyError]:
    """Take all items of work through each step side by side, but those that fail; the failures."""
    failures = []
    for step in steps:
        going = []
        for item in work:
            try:
                step(*item)
            except ReplyError as error:
                failures.append(error)
                item[0].clear(error)
            else:
                going.append(item)
        work = going
    return failures


def _start(lane: _Lane, _delivery, build) -> None:
    lane.start(build)


def _finish(lane: _Lane, _delivery, _build) -> None:
    lane.finish()


def _fill(lane: _Lane, delivery, _build) -> None:
    lane.finish()
    lane.content(delivery)


def _settle(done, lane: _Lane, delivery, _build) -> None:
    done(delivery, accepted_text(lane.verdict()))


def _only_data(_features) -> list[bytes]:
    return [DATA]


def _whole(job: _Job, delivery):
    return lambda features: commands(delivery, job.envelope, features) + [DATA]


def _weightiest(failures: list[ReplyError]) -> ReplyError:
    """The refusal to tell the client: a permanent one first, for trying again won't help."""
    permanent = [error for error in failures if not error.reply.temporary]
    return (permanent or failures)[0]


def refuse(sent: list[bytes], answers: list[Answer], peer: Peer) -> None:
    """Raise ReplyError if a command was refused: MAIL, else the recipient refused for good.

    What was refused behind the first refused transaction's recipients is only a consequence.
    """
    refused = [(command, answer) for command, answer in zip(sent, answers)
               if not accepted(command, answer)]
    if not refused:
        return
    command, answer = refused[0]
    about = ''
    if command.startswith(b'RCPT'):
        recipients = [pair for pair in refused if pair[0].startswith(b'RCPT')]
        command, answer = next((pair for pair in recipients if pair[1].code >= 500), refused[0])
        if sum(line.startswith(b'RCPT') for line in sent) > 1:
            about = _PATH.match(command).group(1).decode('utf-8')
    raise ReplyError(passed_on(answer, about),
                     '%s: %s: %s' % (peer, command.decode('utf-8').strip(), answer))


def commands(delivery, envelope, features: dict) -> list[bytes]:
    """MAIL and every RCPT of delivery for a server with these features, each with its CRLF.

    The addresses have been checked by transport.  Raises ReplyError: 552 for a message beyond the
    server's SIZE, 550 5.6.7 for addresses that it can't take.
    """
    size = len(delivery.header) + delivery.body.size
    parameters = ''
    if 'size' in features:
        most = features['size']
        if most.isdecimal() and 0 < int(most) < size:
            raise ReplyError(reply(552, '5.3.4', 'Message is too big for the upstream server'),
                             'message has %d octets, the server takes %s' % (size, most))
        parameters = ' SIZE=%d' % size
    if envelope.body == '8BITMIME' and '8bitmime' in features:
        parameters += ' BODY=8BITMIME'
    if _needs_utf8(delivery, envelope, 'smtputf8' in features):
        parameters += ' SMTPUTF8'
    with_dsn = 'dsn' in features
    if with_dsn:
        parameters += _dsn(RET=envelope.ret, ENVID=envelope.envid)
    return [_command('MAIL FROM', delivery.envelope_sender, parameters)] + [
        _command('RCPT TO', recipient.address,
                 _dsn(NOTIFY=recipient.notify, ORCPT=recipient.orcpt) if with_dsn else '')
        for recipient in delivery.recipients]


def _needs_utf8(delivery, envelope, offered: bool) -> bool:
    """True if SMTPUTF8 is to be said (RFC 6531 3.4).  Raises ReplyError if it must and can't."""
    wide = not (delivery.envelope_sender.isascii()
                and all([recipient.address.isascii() for recipient in delivery.recipients]))
    if not offered and (wide or envelope.smtputf8 and not delivery.header.isascii()):
        raise ReplyError(reply(550, '5.6.7', 'Upstream server takes no non-ASCII addresses'))
    return offered and (wide or envelope.smtputf8)


def _dsn(**parameters: str) -> str:
    """The parameters that have a value, ready for a command line."""
    return ''.join([' %s=%s' % pair for pair in parameters.items()
                    if pair[1] and _PARAMETER.match(pair[1])])


def _command(verb: str, address: str, parameters: str) -> bytes:
    return ('%s:<%s>%s\r\n' % (verb, address, parameters)).encode('utf-8')
