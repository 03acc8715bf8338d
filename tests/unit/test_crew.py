# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads that serve one connection after the other."""
import threading
import time

import pytest

from support.talk import PATIENCE
from TMDA.ofmipd.crew import MOST_IDLE, Crew


@pytest.fixture
def crew():
    crew = Crew()
    yield crew
    crew.close()


def until(condition):
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.002)


def run_at_once(crew, number):
    """Have so many pieces of work done at the same time; the threads that did them."""
    together = threading.Barrier(number)
    done = []

    def work():
        together.wait(PATIENCE)
        done.append(threading.current_thread())
    for _ in range(number):
        crew.run(work)
    until(lambda: len(done) == number)
    return done


def test_crew_uses_a_thread_again(crew):
    first, = run_at_once(crew, 1)
    until(lambda: crew._idle == 1)
    assert run_at_once(crew, 1) == [first]


def test_crew_work_never_waits_for_work(crew):
    assert len(set(run_at_once(crew, 3 * MOST_IDLE))) == 3 * MOST_IDLE


def test_crew_keeps_few_and_ends(crew):
    threads = run_at_once(crew, 3 * MOST_IDLE)
    until(lambda: sum(thread.is_alive() for thread in threads) == MOST_IDLE)
    crew.close()
    until(lambda: not any(thread.is_alive() for thread in threads))


def test_crew_closed_while_working(crew):
    go_on = threading.Event()
    threads = []

    def work():
        threads.append(threading.current_thread())
        go_on.wait(PATIENCE)
    crew.run(work)
    crew.close()
    go_on.set()
    until(lambda: threads and not threads[0].is_alive())


def test_crew_no_thread_to_be_had(crew, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, 'start', refuse)
        with pytest.raises(RuntimeError):
            crew.run(lambda: None)
    run_at_once(crew, 1)
