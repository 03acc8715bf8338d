# SPDX-License-Identifier: GPL-2.0-or-later
"""What clients were told and what the upstream server has: the books of a storm.

A message has a serial number; each try of the client to send it is an attempt, with a number of
its own that travels in the EHLO name, and so in the Received field.  Both sides write down what
they know; problems() balances the books:

- lost: the client was told 250, and a recipient has nothing;
- twice: a recipient has the message twice, although the upstream server's final reply to the first
  delivery was not lost, and the client saw a definite answer to that attempt and to all between
  (one that was finished and then not answered, because the daemon was killed, is forgotten);
- refused: the client was told 5xx, and a recipient has the message;
- altered: what arrived is not what was sent.
"""
from __future__ import annotations

import threading
from collections import Counter, defaultdict
from typing import NamedTuple

NONE = 0  # the answer of an attempt whose client learned nothing


class Arrival(NamedTuple):
    """A recipient got the message.  told: the upstream server's 250 went out whole."""

    attempt: int
    told: bool


class Ledger:
    """See the module.  For any thread."""

    def __init__(self):
        self.counts: Counter = Counter()
        self._lock = threading.Lock()
        self._recipients: dict[int, tuple] = {}
        self._answers: dict[int, dict] = defaultdict(dict)
        self._arrivals: dict[tuple, list] = defaultdict(list)
        self._altered: set[int] = set()

    def count(self, what: str) -> None:
        """One more of something."""
        with self._lock:
            self.counts[what] += 1

    def sent(self, serial: int, recipients: tuple) -> None:
        """A client is about to send a new message."""
        with self._lock:
            self._recipients[serial] = recipients
            self.counts['messages'] += 1

    def answered(self, serial: int, attempt: int, code: int) -> None:
        """What the client was told about an attempt; NONE if the connection was lost."""
        with self._lock:
            self._answers[serial][attempt] = code
            self.counts['attempts'] += 1
            kind = '%dxx' % (code // 100) if code else 'none'
            self.counts['answered ' + kind] += 1

    def arrived(self, serial: int, recipients: list, arrival: Arrival, is_whole: bool) -> None:
        """The upstream server has taken a message."""
        with self._lock:
            self.counts['arrivals'] += 1
            for recipient in recipients:
                self._arrivals[serial, recipient].append(arrival)
            if not is_whole:
                self._altered.add(serial)

    def problems(self) -> dict[str, list]:
        """Serial numbers for each kind of problem."""
        found = {'lost': [], 'twice': [], 'refused': [], 'altered': sorted(self._altered)}
        for serial, recipients in self._recipients.items():
            answers = self._answers[serial]
            codes = set(answers.values())
            arrivals = [self._arrivals[serial, recipient] for recipient in recipients]
            if any(200 <= code < 300 for code in codes) and not all(arrivals):
                found['lost'].append(serial)
            if any(code >= 500 for code in codes) and any(
                    arrival.told and answers.get(arrival.attempt, NONE) >= 500
                    for known in arrivals for arrival in known):
                found['refused'].append(serial)
            if any(self._is_twice(known, answers) for known in arrivals):
                found['twice'].append(serial)
        return found

    @staticmethod
    def _is_twice(known: list, answers: dict) -> bool:
        attempts = [arrival.attempt for arrival in known]
        if len(set(attempts)) < len(attempts):
            return True  # the daemon itself has sent it again
        return any(first.told and later.attempt > first.attempt
                   and all(code for attempt, code in answers.items()
                           if first.attempt <= attempt < later.attempt)
                   for first in known for later in known)

    def story(self, serial: int) -> str:
        """All that is known of a message, for whoever looks for the cause."""
        arrivals = {recipient: self._arrivals[serial, recipient]
                    for recipient in self._recipients[serial]}
        return '%d: answers %s, arrivals %s' % (serial, dict(self._answers[serial]), arrivals)

    @property
    def repeated(self) -> int:
        """Recipients who have a message twice because a reply was lost, as nobody can prevent."""
        return sum(len(known) > 1 for known in self._arrivals.values())
