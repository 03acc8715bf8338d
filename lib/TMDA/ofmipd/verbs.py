# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands of a session as a table, and the check whether one may be given now.

Used by session.Session, whose methods the rows name.  RFC 5321 4.1.4 (order of commands), RFC 3207
4 (what is legal before TLS), RFC 6409 4.3 (what needs authentication).
"""

from __future__ import annotations

from typing import NamedTuple

from TMDA.inject.reply import Reply, reply

# States of a session, to be combined: nothing said yet, greeted, MAIL accepted, a RCPT accepted.
START, READY, MAIL, RCPT = 1, 2, 4, 8
GREETED = READY | MAIL | RCPT
ANY = START | GREETED

# What a verb wants behind it.
NOTHING, ANYTHING, SOMETHING = 'nothing', 'anything', 'something'


class Verb(NamedTuple):
    """One row: the Session's method, the states in which the verb is legal, whether it is so
    before a STARTTLS that is required and before AUTH, what follows it, and how it is written."""

    method: str
    states: int
    before_tls: bool
    before_auth: bool
    argument: str
    syntax: str


#                    method        states       TLS    AUTH   argument   syntax
VERBS = {
    'HELO':     Verb('do_helo',     ANY,         True,  True,  SOMETHING, 'HELO host'),
    'EHLO':     Verb('do_ehlo',     ANY,         True,  True,  SOMETHING, 'EHLO host'),
    'STARTTLS': Verb('do_starttls', GREETED,     True,  True,  NOTHING,   'STARTTLS'),
    'AUTH':     Verb('do_auth',     READY,       False, True,  SOMETHING, 'AUTH mechanism'),
    'MAIL':     Verb('do_mail',     READY,       False, False, SOMETHING, 'MAIL FROM:<address>'),
    'RCPT':     Verb('do_rcpt',     MAIL | RCPT, False, False, SOMETHING, 'RCPT TO:<address>'),
    'DATA':     Verb('do_data',     RCPT,        False, False, NOTHING,   'DATA'),
    'RSET':     Verb('do_rset',     ANY,         True,  True,  NOTHING,   'RSET'),
    'NOOP':     Verb('do_noop',     ANY,         True,  True,  ANYTHING,  'NOOP'),
    'VRFY':     Verb('do_vrfy',     ANY,         False, False, ANYTHING,  'VRFY address'),
    'HELP':     Verb('do_help',     ANY,         True,  True,  ANYTHING,  'HELP'),
    'QUIT':     Verb('do_quit',     ANY,         True,  True,  ANYTHING,  'QUIT'),
}

UNKNOWN = reply(502, '5.5.1', 'Command not implemented')
TLS_FIRST = reply(530, '5.7.0', 'Must issue a STARTTLS command first')
AUTH_FIRST = reply(530, '5.7.0', 'Authentication required')

# What a verb is told in a state in which it is not legal: the first row that fits.
OUT_OF_SEQUENCE = (
    (START, VERBS, reply(503, '5.5.1', 'EHLO first')),
    (READY, VERBS, reply(503, '5.5.1', 'MAIL first')),
    (MAIL, ('DATA',), reply(503, '5.5.1', 'RCPT first')),
    (ANY, VERBS, reply(503, '5.5.1', 'Not during a transaction')),
)


def refusal(verb: str, argument: bytes, state: int, tls_missing: bool,
            authenticated: bool) -> Reply | None:
    """Why the command may not be given now, or None when it may.

    tls_missing: TLS is required and not there.  530 comes before 503: a client without a login
    learns that it needs one, whatever it asks for.
    """
    row = VERBS.get(verb)
    if row is None:
        return UNKNOWN
    if tls_missing and not row.before_tls:
        return TLS_FIRST
    if not authenticated and not row.before_auth:
        return AUTH_FIRST
    if not row.states & state:
        return next(answer for states, verbs, answer in OUT_OF_SEQUENCE
                    if states & state and verb in verbs)
    if row.argument is not ANYTHING and bool(argument) is not (row.argument is SOMETHING):
        return reply(501, '5.5.4', 'Syntax: ' + row.syntax)
    return None
