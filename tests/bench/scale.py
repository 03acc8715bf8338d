# SPDX-License-Identifier: GPL-2.0-or-later
"""Scale: memory with large messages and idle sessions, long lists, many tags in one message.

report() is `tests/bench/run --scale`; tests/unit/test_bench.py calls the parts with small numbers.
"""
import random
import selectors
import socket
import tempfile
import time
from pathlib import Path

from bench import load, servers, usage

BLOCK = 65536
RECIPIENTS = 100


def report(python: str) -> int:
    """Measure everything and print a line for each; the exit status."""
    sink = servers.Sink()
    try:
        sink.start()
        with _daemon(sink.port, python) as daemon:
            print('50 clients, 25 MB each at once: %.1f MB over idle, %.1f s'
                  % _megabytes(large_messages(daemon, 50, 25 << 20)))
        with _daemon(sink.port, python) as daemon:
            print('2,000 idle sessions after login: %.1f MB in all' % (
                idle_sessions(daemon, 2000) / 1e6))
        with _daemon(sink.port, python, 'to * sender\n') as daemon:
            for connections in (1, 4):
                rate = load.drive(load.Plan(daemon.port, connections, recipients=RECIPIENTS,
                                            login=servers.LOGIN), 0.5, 3).rate
                print('%d recipients, each with a tag of its own, %d conn: %.0f deliveries/s'
                      % (RECIPIENTS, connections, rate * RECIPIENTS))
    finally:
        sink.stop()
    print('a list of 100,000 addresses and 100 wildcards: %.0f ms at first, then %.1f us a recipient'
          % long_list(100000, 100, 20000))
    return 0


class _daemon:
    """A running servers.Daemon as a context."""

    def __init__(self, sink_port: int, python: str, rules: str = servers.FILTER):
        self._daemon = servers.Daemon(sink_port, rules=rules, python=python)

    def __enter__(self) -> servers.Daemon:
        self._daemon.start()
        return self._daemon

    def __exit__(self, *unused) -> None:
        self._daemon.stop()


def _megabytes(found: tuple) -> tuple:
    return found[0] / 1e6, found[1]


def large_messages(daemon, clients: int, size: int) -> tuple:
    """(octets of memory over those before, seconds) while clients send a message each at once.

    No client sends its last octets before all others have sent theirs.
    """
    talks = [_Talk(daemon.port) for _ in range(clients)]
    talks[0].send(load.message(2048))  # whatever is loaded with the first message counts as idle
    talks[0].answer()
    before = usage.memory(daemon.process)
    usage.reset_peak(daemon.process)
    began = time.monotonic()
    content = load.message(size)
    for talk in talks:
        talk.begin()
    _send_to_all([talk.socket for talk in talks], content[:-3])
    for talk in talks:
        talk.socket.sendall(content[-3:])
    for talk in talks:
        talk.answer()
    seconds = time.monotonic() - began
    peak = usage.peak_memory(daemon.process)
    for talk in talks:
        talk.close()
    return peak - before, seconds


def _send_to_all(sockets: list, content: bytes) -> None:
    """Send content to each, in turn as they take it."""
    content = memoryview(content)
    at = dict.fromkeys(sockets, 0)
    with selectors.DefaultSelector() as selector:
        for sock in sockets:
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_WRITE)
        while selector.get_map():
            for key, _events in selector.select(load.SILENCE):
                at[key.fileobj] += key.fileobj.send(content[at[key.fileobj]:][:BLOCK])
                if at[key.fileobj] == len(content):
                    selector.unregister(key.fileobj)
                    key.fileobj.setblocking(True)


class _Talk:
    """A client that has logged in."""

    def __init__(self, port: int):
        self.socket = socket.create_connection(('127.0.0.1', port), load.SILENCE)
        self._replies = self.socket.makefile('rb')
        self.answer()
        self.socket.sendall(b'EHLO client.example\r\n')
        self.answer()
        self.socket.sendall(load.login_command(servers.LOGIN))
        self.answer()

    def begin(self) -> None:
        """All of a message but its text."""
        self.socket.sendall(b'MAIL FROM:<alice@example.net>\r\nRCPT TO:<user0@example.org>\r\n'
                            b'DATA\r\n')
        for _ in range(3):
            self.answer()

    def send(self, content: bytes) -> None:
        """A whole message."""
        self.begin()
        self.socket.sendall(content)

    def answer(self) -> None:
        """Read a reply, which has to be positive."""
        while True:
            line = self._replies.readline()
            if line[:1] not in (b'2', b'3'):
                raise load.Failed(line.decode('utf-8', 'replace') or 'the server hung up')
            if line[3:4] != b'-':
                return

    def close(self) -> None:
        """Hang up."""
        self._replies.close()
        self.socket.close()


def idle_sessions(daemon, number: int) -> int:
    """The daemon's memory in octets while that many clients have logged in and say nothing."""
    talks = [_Talk(daemon.port) for _ in range(number)]
    found = usage.memory(daemon.process)
    for talk in talks:
        talk.close()
    return found


def long_list(addresses: int, wildcards: int, lookups: int) -> tuple:
    """(milliseconds of the first lookup, microseconds of each later one) in a list file."""
    from TMDA import FilterParser
    from TMDA.Defaults import load as load_settings
    with tempfile.TemporaryDirectory(prefix='tmda-bench-', dir='/tmp') as home:
        lines = ['user%d@example.org' % number for number in range(addresses)]
        step = max(addresses // wildcards, 1)
        for number in range(wildcards):
            lines.insert(number * (step + 1), 'news-*-%d@list%d.example.com' % (number, number))
        (Path(home) / 'list').write_text('\n'.join(lines), encoding='ascii')
        rules = Path(home) / 'rules'
        rules.write_text('to-file ~/list bare\nto * dated\n', encoding='ascii')
        settings = load_settings({'HOME': home}, global_file=home + '/none')

        def ask(recipient):
            query = FilterParser.Query(recipient, 'alice@example.net', settings)
            return FilterParser.load(str(rules), settings).match(query).action.kind
        began = time.perf_counter()
        kinds = {ask('user1@example.org')}
        first = time.perf_counter() - began
        time.sleep(0.1)  # a file that changed just now is not taken for unchanged yet
        ask('user1@example.org')
        # One in two is in the list.
        chosen = ['user%d@example.org' % random.randrange(2 * addresses) for _ in range(lookups)]
        began = time.perf_counter()
        kinds.update(map(ask, chosen))
        later = (time.perf_counter() - began) / lookups
    if kinds != {'bare', 'dated'}:
        raise load.Failed('wrong rules matched: %s' % kinds)
    return first * 1000, later * 1e6

