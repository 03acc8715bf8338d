# SPDX-License-Identifier: GPL-2.0-or-later
"""A storm: clients that send, an upstream server that fails, a daemon that is ended and killed.

Storm(plan).run() lasts until there were as many cuts, SIGTERMs and SIGKILLs as the plan says; then
all becomes well and what clients have begun is finished.  The ledger tells what was lost.

SIGTERM goes to the daemon, which has to exit with 0 and is started again.  SIGKILL hits the
daemon or any of its processes: workers, the network process, the process of a session; the daemon
has to go on or is started again.
"""
from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from chaos.client import Client
from chaos.flaky import FlakyServer
from chaos.ledger import Ledger
from support.proxy import PASSWORD, USER, write_home

PROGRAM = Path(__file__).resolve().parents[2] / 'bin' / 'tmda-ofmipd'
FILTER = 'to dated@* dated=3d\nto sender@* sender\nto * bare\n'
MODES = {  # further options of the daemon; {home} is a directory
    'personal': (),
    'workers': ('--workers=2',),
    'shared': ('--configdir={home}/users', '-a', '{home}/.tmda/tofmipd'),
}
START_SECONDS = 20
END_SECONDS = 45  # shutdown_seconds and some more
BETWEEN = (0.15, 0.6)  # seconds from one signal to the next
# What is logged of a session whose own process, or the one that forks it, was killed by us.
STRUCK = re.compile(r'process=[0-9]+ status=9\b'
                    r'|(monitor has gone|BrokenPipe|ConnectionReset).*where=(channels|ipc)\.py')


class Plan(NamedTuple):
    """How much of each there is to be.  clients: how many send at the same time."""

    mode: str = 'personal'
    cuts: int = 500
    terms: int = 100
    kills: int = 30
    clients: int = 8
    seed: int = 1


class Storm:
    """See the module.  faults: what the daemon did that it may not do, in words."""

    def __init__(self, plan: Plan, home: Path):
        self.ledger = Ledger()
        self.faults: list[str] = []
        self._plan = plan
        self._home = home
        self._chance = random.Random('storm %d' % plan.seed)
        self._upstream = FlakyServer(self.ledger, plan.seed)
        self._log = home / 'log'
        self._process: subprocess.Popen | None = None
        self._port = 0
        write_home(home, self._upstream.port, FILTER)
        write_directory(home / 'users' / USER, self._upstream.port)

    def run(self) -> None:
        """From the first message to the last."""
        self._start()
        ending = threading.Event()
        clients = [Client(number, self._plan.seed, self._port, self.ledger, ending)
                   for number in range(self._plan.clients)]
        threads = [threading.Thread(target=client.run, args=(USER, PASSWORD), daemon=True)
                   for client in clients]
        for thread in threads:
            thread.start()
        try:
            self._rage()
        finally:
            self._upstream.well = True
            ending.set()
            for thread in threads:
                thread.join(60)
            if any(thread.is_alive() for thread in threads):
                self.faults.append('a client has waited for a minute')
            self._stop(signal.SIGTERM)
            self._upstream.close()
            self._read_log()

    def _rage(self) -> None:
        signals = [signal.SIGTERM] * self._plan.terms + [signal.SIGKILL] * self._plan.kills
        self._chance.shuffle(signals)
        while signals or self.ledger.counts['cuts'] < self._plan.cuts:
            time.sleep(self._chance.uniform(*BETWEEN))
            if self._process.poll() is not None:
                self.faults.append('the daemon has ended by itself: %s' % self._process.returncode)
                self._start()
            if signals:
                self._strike(signals.pop())

    def _strike(self, number: int) -> None:
        self.ledger.count(signal.Signals(number).name)
        if number == signal.SIGTERM:
            self._stop(number)
            self._start()
            return
        processes = [self._process.pid, *descendants(self._process.pid)]
        victim = self._chance.choice(processes)
        self.ledger.count('SIGKILL of %s' % ('the daemon' if victim == self._process.pid
                                             else 'one of its processes'))
        if victim == self._process.pid:
            self._stop(number)
            self._start()
        else:
            try:
                os.kill(victim, number)
            except ProcessLookupError:
                pass  # a session's process that has just ended

    def _start(self) -> None:
        """Start the daemon, always on the same port, and wait until it serves."""
        deadline = time.monotonic() + START_SECONDS + END_SECONDS
        options = [word.format(home=self._home) for word in MODES[self._plan.mode]]
        while True:
            self._process = subprocess.Popen(
                [sys.executable, '-W', 'error', str(PROGRAM), '-f', '-L', '--log-file',
                 str(self._log), '-p', '127.0.0.1:%d' % self._port, *options],
                stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                env=dict(os.environ, HOME=str(self._home)))
            begun = self._log.read_text().count('event=started ') if self._log.exists() else 0
            while self._process.poll() is None:
                if self._has_started(begun):
                    return
                time.sleep(0.01)
            # 75: processes of the one that was killed still hold the port
            words = self._process.stderr.read().decode()
            self._process.stderr.close()
            if self._process.returncode != 75 or time.monotonic() > deadline:
                raise RuntimeError('exit status %d: %s' % (self._process.returncode, words))
            time.sleep(0.05)

    def _has_started(self, begun: int) -> bool:
        text = self._log.read_text() if self._log.exists() else ''
        if text.count('event=started ') <= begun:
            return False
        if not self._port:
            self._port = int(text.partition('Listening on ')[2].split()[0].rpartition(':')[2])
        return True

    def _stop(self, number: int) -> None:
        """Send the signal and wait for the end."""
        process = self._process
        process.send_signal(number)
        try:
            status = process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.faults.append('no end %d seconds after a signal' % END_SECONDS)
            process.kill()
            status = process.wait()
        if number == signal.SIGTERM and status:
            self.faults.append('exit status %d after SIGTERM' % status)
        process.stderr.close()

    def _read_log(self) -> None:
        """Faults of the daemon's own, which it logs."""
        for line in self._log.read_text().split('\n'):
            if 'event=session-failed' in line and STRUCK.search(line):
                self.ledger.count('sessions with a killed process')
            elif 'event=session-failed' in line or 'Traceback' in line:
                self.faults.append(line)
            if 'event=stopped' in line and 'sessions=0' not in line:
                self.faults.append(line)


def write_directory(directory: Path, upstream_port: int) -> None:
    """What --configdir wants of a user: all files in DIR/<user> itself."""
    own = '%s/' % directory
    write_home(directory, upstream_port, FILTER, more='DATADIR = %r\nCRYPT_KEY_FILE = %r\n'
               'FILTER_OUTGOING = %r\n' % (own, own + 'crypt_key', own + 'filters/outgoing'))
    for path in (directory / '.tmda').iterdir():
        path.rename(directory / path.name)


def descendants(process: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    parents: dict[int, list[int]] = {}
    for path in Path('/proc').glob('[0-9]*/stat'):
        try:
            fields = path.read_text().rpartition(')')[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, waiting = [], [process]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found
