# SPDX-License-Identifier: GPL-2.0-or-later
"""tmda-inject: tag the message on standard input and send it, exactly as tmda-ofmipd would.

Recipients are the arguments, or else those that the header names.  Exit status: 0 (with -q 99)
when the mail system has taken the message for every recipient; 75 for a temporary failure, 78 for
a mistake in the configuration or filter, 65 for a message that can't be sent, 64 for bad usage,
69 when the mail system refused it.
"""
from __future__ import annotations

import argparse
import email.utils
import os
import re
import socket
import sys
from typing import BinaryIO, Optional, Sequence

from TMDA import FilterParser
from TMDA.inject import recipients, transport
from TMDA.inject.envelope import Envelope, Recipient
from TMDA.inject.limits import Limits
from TMDA.inject.reply import Outcome, ReplyError
from TMDA.inject.spool import BLOCK, Spool
from TMDA.inject.submit import Submission, submit
from TMDA.inject.user import User
from TMDA.tools import common

NAME = 'tmda-inject'
EX_UNAVAILABLE = 69
EX_TEMPFAIL = 75
SENT_FOR_QFILTER = 99  # tells qmail's qfilter that the message is done with

_LINE_END = re.compile(rb'\r\n|\r|\n')


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    return common.run(NAME, _inject, arguments)


def _inject(arguments: Optional[Sequence[str]]) -> int:
    parser = common.parser(NAME, 'Tag a message according to the outgoing filter, and send it.')
    parser.add_argument('-O', '--outgoing-filter', metavar='FILE',
                        help='outgoing filter instead of FILTER_OUTGOING')
    parser.add_argument('-f', metavar='SENDER', help='ignored')
    parser.add_argument('-q', action='store_true',
                        help='as a qfilter: recipients from $QMAILRCPTS, exit status 99 on success')
    parser.add_argument('-M', '--filter-match', nargs=2, metavar=('RECIPIENT', 'SENDER'),
                        help='only say which line of the filter matches')
    parser.add_argument('recipient', nargs='*', metavar='RECIPIENT')
    options = parser.parse_args(arguments)
    environ = dict(os.environ)
    if options.outgoing_filter:
        environ['TMDA_FILTER_OUTGOING'] = os.path.abspath(options.outgoing_filter)
    if options.filter_match:
        return _show_match(options, environ)
    wanted = options.recipient
    if options.q:
        wanted = environ.get('QMAILRCPTS', '').split()
    status = inject(NAME, sys.stdin.buffer, wanted, options.config_file, environ)
    return SENT_FOR_QFILTER if options.q and status == 0 else status


def _show_match(options: argparse.Namespace, environ: dict) -> int:
    """Print the line that matches; reading the filter checks all of it."""
    settings = common.load(options, environ)
    recipient, sender = options.filter_match
    rules = FilterParser.load(settings.FILTER_OUTGOING, settings)
    match = rules.match(FilterParser.Query(recipient, sender, settings))
    print('MATCH: ' + match.rule.text if match else 'Sorry, no matching lines.')
    return 0


def inject(name: str, stream: BinaryIO, wanted: Sequence[str], config_file: Optional[str],
           environ: dict, header_too: bool = False) -> int:
    """Send the message in stream; the exit status.

    wanted        recipients; without any, those in the header
    header_too    those in the header as well
    environ       the message's environment
    """
    limits = Limits()
    with Spool(limits.spool_memory) as spool:
        read_message(stream, spool)
        try:
            addresses = list(wanted)
            if header_too or not addresses:
                addresses += recipients.from_header(spool, limits.header_size)
        except ReplyError as error:
            raise common.Failure(common.EX_DATAERR, error.reply.text) from None
        if not addresses:
            return 0
        login = environ.get('LOGNAME') or str(os.getuid())
        user = User(login, environ.get('HOME', ''), config_file, environ)
        envelope = Envelope(login, tuple(map(Recipient, dict.fromkeys(addresses))))
        received = environ.get('TMDA_OFMIPD_RECEIVED') or _received(name)
        outcome = submit(Submission(user, envelope, spool, received), limits)
    transport.close()
    return _status(outcome)


def _status(outcome: Outcome) -> int:
    """0; raises Failure with the cause for anything but success."""
    if outcome.reply.success:
        return 0
    cause = outcome.facts.get('error') or outcome.reply.text
    if outcome.reply.enhanced == '4.3.5':
        raise common.Failure(common.EX_CONFIG, cause)
    if outcome.reply.temporary:
        raise common.Failure(EX_TEMPFAIL, cause)
    raise common.Failure(EX_UNAVAILABLE, cause)


def _received(name: str) -> str:
    return 'from uid %d by %s (%s); %s' % (os.getuid(), socket.gethostname(), name,
                                          email.utils.formatdate(localtime=True))


def read_message(stream: BinaryIO, spool: Spool) -> None:
    """Copy stream into spool; a line may end in LF, CRLF or CR and comes out with CRLF."""
    held = b''  # a CR at the end of a block, which may be half of a CRLF
    while True:
        block = stream.read(BLOCK)
        data = held + block
        held = b'\r' if block and data.endswith(b'\r') else b''
        spool.write(_LINE_END.sub(b'\r\n', data[:len(data) - len(held)]))
        if not block:
            return
