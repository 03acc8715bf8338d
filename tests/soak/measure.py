# SPDX-License-Identifier: GPL-2.0-or-later
"""What a daemon with all its processes holds at a moment (Linux: /proc)."""
from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

from chaos.storm import descendants
from soak.sessions import CLIENTS
from TMDA.ofmipd.crew import MOST_IDLE

SETTLE_SECONDS = 20
SPARE_THREADS = 2 * MOST_IDLE  # that may wait for work: so many for each of two listeners
# Upstream connections that are kept: each of two workers may have served all clients at once.
SPARE_DESCRIPTORS = 2 * CLIENTS


class Held(NamedTuple):
    """Sums over all processes.  memory: private and anonymous, in octets."""

    processes: int
    memory: int
    descriptors: int
    threads: int


def held(process: int) -> Held:
    """What the process and its descendants hold now.  Raises FileNotFoundError or
    ProcessLookupError if one of them is just ending."""
    totals = [0, 0, 0]
    processes = [process, *descendants(process)]
    for number in processes:
        status = dict(line.split(':', 1) for line in
                      Path('/proc/%d/status' % number).read_text().split('\n') if ':' in line)
        if 'RssAnon' not in status:
            raise ProcessLookupError  # it has no memory any more: it is about to be gone
        totals[0] += int(status['RssAnon'].split()[0]) * 1024
        totals[1] += len(os.listdir('/proc/%d/fd' % number))
        totals[2] += int(status['Threads'])
    return Held(len(processes), *totals)


def settled(process: int, like: Held | None = None) -> Held:
    """What is held when nothing is under way any more: the same twice in a row, and, if `like` is
    given, not more than that, with what may stay; after SETTLE_SECONDS whatever it is then."""
    deadline = time.monotonic() + SETTLE_SECONDS
    before = None
    while True:
        try:
            now = held(process)
        except (FileNotFoundError, ProcessLookupError):
            now = None  # one has just ended
        is_low = now and (like is None or (
            now.processes <= like.processes
            and now.descriptors <= like.descriptors + SPARE_DESCRIPTORS
            and now.threads <= like.threads + SPARE_THREADS))
        if now and (is_low and now == before or time.monotonic() > deadline):
            return now
        before = now
        time.sleep(0.3)
