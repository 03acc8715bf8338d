# SPDX-License-Identifier: GPL-2.0-or-later
"""What an event adds to the counters, besides being counted itself.

logs.Log calls tally() for each event; SIGUSR1 logs the counters, statistics.py writes them in
OpenMetrics text.  A counter's name is a word, or a word, a dot and a label's value such as
`messages.250`; the values come from short lists, whatever clients and servers say, so that the
number of counters has a bound.
"""

from __future__ import annotations

MECHANISMS = ('PLAIN', 'LOGIN', 'CRAM-MD5', 'SCRAM-SHA-256')
OTHER = 'other'
LOGIN_EVENTS = ('login', 'login-failed', 'login-unsure')

# Reply codes of RFC 5321 section 4.2.3, RFC 4954 section 4 and RFC 3207 section 4.
CODES = frozenset((250, 421, 432, 450, 451, 452, 454, 455, 500, 501, 502, 503, 504, 521, 523, 524,
                   525, 530, 534, 535, 538, 550, 551, 552, 553, 554, 555, 556))


def code_label(code: int) -> str:
    """The code, or `4xx` and the like for one that is not usual."""
    return str(code) if code in CODES else '%dxx' % (code // 100)


def tally(event: str, facts: dict) -> list[tuple[str, int]]:
    """(counter, how much to add) for an event with these facts."""
    if event == 'message':
        return _message(facts)
    mechanism = facts.get('mechanism')
    if mechanism and event in LOGIN_EVENTS:
        return [('%s.%s' % (event, mechanism if mechanism in MECHANISMS else OTHER), 1)]
    return []


def _message(facts: dict) -> list[tuple[str, int]]:
    code = str(facts.get('reply', ''))[:3]
    found = [('messages.' + code_label(int(code)), 1)] if code.isdigit() else []
    found.append(('octets', facts.get('size', 0)))
    if code[:1] == '2':
        found += [('recipients', facts.get('recipients', 0)),
                  ('deliveries', facts.get('deliveries', 0))]
    return found + [('upstream-connections', facts.get('connections', 0))]
