# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine of the fuzzers: makes cases, tries them, keeps what was new, reports what broke.

A Target says how a case is tried: check(octets) returns a signature, anything hashable that says
what happened (a result's form, the text of a refusal), and raises whatever it likes when a promise
was broken.  A case whose signature was not seen before joins the seeds, so that the search
follows what the code does, without looking into it.

All chance comes from one seed: the same seed, the same cases.
"""
from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import NamedTuple

MOST_SEEDS = 1000
LONGEST_CASE = 1 << 14  # octets
SLOW_SECONDS = 5  # that a case may take; a hang is one that takes longer


class Target(NamedTuple):
    """What is fuzzed.  seeds: cases to begin with; tokens: words of its language; cases: how many
    the deterministic slice tries."""

    name: str
    check: Callable[[bytes], object]
    seeds: tuple
    tokens: tuple
    cases: int


class Crasher(NamedTuple):
    """A case that broke a promise, and how."""

    target: str
    case: bytes
    error: BaseException


class Hang(Exception):
    """A case took longer than SLOW_SECONDS."""


class Search:
    """The cases of one target from one seed; tried counts them, crashers are what was found."""

    def __init__(self, target: Target, seed: int, watched: bool = False):
        """watched: interrupt a case that hangs (main thread only; takes SIGALRM)."""
        self.target = target
        self.tried = 0
        self.crashers: list[Crasher] = []
        self._chance = random.Random('%s %d' % (target.name, seed))
        self._seeds = list(target.seeds)
        self._seen: set = set()
        self._watched = watched

    @property
    def signatures(self) -> int:
        """How many different things have happened."""
        return len(self._seen)

    def run(self, cases: int) -> None:
        """Try the seeds, then so many cases in all."""
        while self.tried < cases:
            if self.tried < len(self.target.seeds):
                case = self.target.seeds[self.tried]
            else:
                case = mutated(self._chance, self._seeds, self.target.tokens)
            self.tried += 1
            self._try(case)

    def _try(self, case: bytes) -> None:
        started = monotonic()
        try:
            with _watch(self._watched):
                signature = self.target.check(case)
            if monotonic() - started > SLOW_SECONDS:
                raise Hang('%.1f seconds' % (monotonic() - started))
        except Exception as error:
            self.crashers.append(Crasher(self.target.name, case, error))
            return
        if signature not in self._seen:
            self._seen.add(signature)
            if len(self._seeds) < MOST_SEEDS:
                self._seeds.append(case)
            else:
                self._seeds[self._chance.randrange(len(self._seeds))] = case


@contextmanager
def _watch(watched: bool) -> Iterator[None]:
    if not watched:
        yield
        return

    def interrupt(number, frame):
        raise Hang('interrupted')
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 2 * SLOW_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def mutated(chance: random.Random, seeds: list, tokens: tuple) -> bytes:
    """A case made of one of the seeds by a few changes."""
    case = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 3, 5, 9))):
        chance.choice(CHANGES)(chance, case, seeds, tokens)
    return bytes(case[:LONGEST_CASE])


def _place(chance: random.Random, case: bytearray) -> int:
    return chance.randint(0, len(case))


def _put_token(chance, case, seeds, tokens):
    place = _place(chance, case)
    case[place:place] = chance.choice(tokens)


def _replace_by_token(chance, case, seeds, tokens):
    place = _place(chance, case)
    case[place:place + chance.randint(1, 8)] = chance.choice(tokens)


def _flip(chance, case, seeds, tokens):
    if case:
        case[chance.randrange(len(case))] ^= 1 << chance.randrange(8)


def _overwrite(chance, case, seeds, tokens):
    """Numbers at their limits, and any octet."""
    place = _place(chance, case)
    new = chance.choice((b'\0', b'\xff', b'\x7f', b'\x80', b'\0\0\0\0', b'\xff\xff\xff\xff',
                         b'\x7f\xff\xff\xff', bytes([chance.randrange(256)])))
    case[place:place + len(new)] = new


def _delete(chance, case, seeds, tokens):
    place = _place(chance, case)
    del case[place:place + chance.choice((1, 2, 4, 16, 64))]


def _double(chance, case, seeds, tokens):
    place = _place(chance, case)
    piece = case[place:place + chance.choice((1, 4, 16, 64))]
    case[place:place] = bytes(piece) * chance.choice((1, 1, 2, 50))


def _swap(chance, case, seeds, tokens):
    lines = bytes(case).split(b'\n')
    if len(lines) > 1:
        one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
        lines[one], lines[other] = lines[other], lines[one]
        case[:] = b'\n'.join(lines)


def _cut(chance, case, seeds, tokens):
    del case[_place(chance, case):]


def _join(chance, case, seeds, tokens):
    """Go on as another seed does from some place."""
    other = chance.choice(seeds)
    case[_place(chance, case):] = other[chance.randint(0, len(other)):]


CHANGES = (_put_token, _put_token, _put_token, _replace_by_token, _flip, _overwrite, _delete,
           _double, _swap, _cut, _join)
