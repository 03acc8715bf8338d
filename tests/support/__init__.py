# SPDX-License-Identifier: GPL-2.0-or-later
"""Peers and tools that several tests share."""
import threading
import time


def wait_for(condition, seconds=10):
    """The first true value that condition() returns; AssertionError if there is none in time."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, 'condition did not become true'
        pause.wait(0.002)
