# SPDX-License-Identifier: GPL-2.0-or-later
"""The load generator: several processes that send messages as fast as a server takes them.

    result = drive(Plan(port, connections=4), warmup=0.5, seconds=3)

Each connection sends one message after the other.  Where the server offers PIPELINING, MAIL, all
RCPT and DATA are one write, the content another (RFC 2920 3.1); else each command waits for its
reply.  A refusal, a hang-up or silence ends everything with Failed: a server that drops messages
is not fast.

To cost little beside what is measured, a process has no threads, its sockets block, commands and
content are made once, and one that has a single connection does without epoll.
"""
import array
import base64
import multiprocessing
import re
import select
import socket
import struct
import time
from typing import Callable, NamedTuple

PROCESSES = 4
SILENCE = 30  # seconds without a reply after which a server counts as dead
START_SECONDS = 0.2  # until all processes have connected
_REFUSED = re.compile(rb'(?m)^[^23][^\r\n]*')
_LAST_LINE = re.compile(rb'(?m)^[0-9]{3} .*\n\Z')
_MULTILINE = -1  # number of replies to wait for: one that may have several lines

HEADER = (
    'From: Alice Liddell <alice@example.net>\r\n'
    'To: Bob <user0@example.org>\r\n'
    'Subject: Minutes of the meeting\r\n'
    'Date: Mon, 02 Mar 2026 10:00:00 +0100\r\n'
    'Message-ID: <20260302100000.1@client.example>\r\n'
    'User-Agent: load\r\n'
    'MIME-Version: 1.0\r\n'
    'Content-Type: text/plain; charset=us-ascii\r\n'
    '\r\n')


class Failed(Exception):
    """The server did not take a message."""


class Plan(NamedTuple):
    """What to send: size in octets; login is `user:password` or ''; reconnect: a new connection,
    with all that precedes a message, for each one."""

    port: int
    connections: int = 1
    size: int = 2048
    recipients: int = 1
    reconnect: bool = False
    login: str = ''


class Result(NamedTuple):
    """messages: taken within the seconds that were measured; latencies: of each, in seconds, from
    the first command (reconnect: from connect) to the reply to the content, ascending."""

    messages: int
    seconds: float
    latencies: array.array

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    def percentile(self, percent: int) -> float:
        """The latency in seconds that this share of the messages did not exceed."""
        if not self.latencies:
            return float('nan')
        return self.latencies[min(len(self.latencies) * percent // 100, len(self.latencies) - 1)]


def message(size: int) -> bytes:
    """A message of about size octets, with the end of data."""
    line = b'The quick brown fox jumps over the lazy dog, and does so time and again.\r\n'
    header = HEADER.encode('ascii')
    return header + line * max((size - len(header)) // len(line), 1) + b'.\r\n'


def login_command(login: str) -> bytes:
    """AUTH for `user:password`."""
    secret = ('\0' + login.replace(':', '\0', 1)).encode('utf-8')
    return b'AUTH PLAIN %s\r\n' % base64.b64encode(secret)


def drive(plan: Plan, warmup: float, seconds: float,
          mark: Callable[[], None] = lambda: None) -> Result:
    """Send for warmup + seconds and count in the latter; mark() is called at their start and end.

    Raises Failed.
    """
    start = time.monotonic() + START_SECONDS + warmup
    context = multiprocessing.get_context('fork')
    number = min(plan.connections, PROCESSES)
    workers = []
    for index in range(number):
        share = plan.connections // number + (index < plan.connections % number)
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(plan, share, start, start + seconds, writer))
        process.start()
        writer.close()
        workers.append((process, reader))
    for moment in (start, start + seconds):
        time.sleep(max(moment - time.monotonic(), 0))
        mark()
    return _collect(workers, seconds)


def _collect(workers: list, seconds: float) -> Result:
    latencies = array.array('d')
    failures = []
    for process, reader in workers:
        try:
            found = reader.recv()
        except EOFError:
            found = 'a process of the load generator died'
        if isinstance(found, str):
            failures.append(found)
        else:
            latencies.frombytes(found)
        reader.close()
        process.join()
    if failures:
        raise Failed(failures[0])
    return Result(len(latencies), seconds, array.array('d', sorted(latencies)))


def _work(plan: Plan, connections: int, start: float, end: float, writer) -> None:
    """The life of one process."""
    latencies = array.array('d')
    try:
        clients = [Client(plan, start, end, latencies) for _ in range(connections)]
        _run_one(clients[0]) if connections == 1 else _run_several(clients)
        writer.send(latencies.tobytes())
    except (Failed, OSError) as error:
        writer.send(str(error) or type(error).__name__)
    writer.close()


def _run_one(client: 'Client') -> None:
    while not client.over:
        client.receive()


def _run_several(clients: list) -> None:
    poll = select.epoll()
    by_descriptor = {}
    waiting = list(clients)
    while waiting or by_descriptor:
        for client in waiting:  # new, or with a new socket
            descriptor = client.socket.fileno()
            poll.register(descriptor, select.EPOLLIN)
            by_descriptor[descriptor] = client
        waiting = []
        ready = poll.poll(SILENCE)
        if not ready:
            raise Failed('no reply within %d seconds' % SILENCE)
        for descriptor, _event in ready:
            client = by_descriptor[descriptor]
            before = client.socket
            client.receive()
            if client.socket is not before:  # closing the old one took it out of the epoll
                del by_descriptor[descriptor]
                if not client.over:
                    waiting.append(client)
    poll.close()


class Client:
    """One connection at a time; receive() is to be called when there is something to read."""

    def __init__(self, plan: Plan, start: float, end: float, latencies: array.array):
        self.over = False
        self.socket = None
        self._plan = plan
        self._window = (start, end)
        self._latencies = latencies
        self._pipelining = False
        self._got = b''
        recipients = [b'RCPT TO:<user%d@example.org>\r\n' % number
                      for number in range(plan.recipients)]
        self._commands = [b'MAIL FROM:<alice@example.net> SIZE=%d\r\n' % plan.size, *recipients, b'DATA\r\n']
        self._envelope = b''.join(self._commands)
        self._content = message(plan.size)
        self._steps = self._conversation()
        self._wanted = next(self._steps)

    def receive(self) -> None:
        """Take what has come, and go on if it is all that was waited for."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            raise Failed('no reply within %d seconds' % SILENCE) from None
        if not data:
            raise Failed('the server hung up')
        got = self._got + data
        if self._wanted == _MULTILINE:
            complete = _LAST_LINE.search(got)
        else:
            complete = got.count(b'\n') >= self._wanted
        if not complete:
            self._got = got
            return
        refusal = _REFUSED.search(got)
        if refusal:
            raise Failed(refusal.group().decode('utf-8', 'replace'))
        self._got = b''
        self._pipelining = self._pipelining or b'PIPELINING' in got
        self._wanted = self._steps.send(None)

    def _conversation(self):
        """Yields how many replies to wait for; what is done when they are there."""
        monotonic = time.monotonic
        start, end = self._window
        replies = len(self._commands)
        began = 0.0
        while began < end:
            began = monotonic()
            if self.socket is None:
                yield from self._introduce()
                if not self._plan.reconnect:
                    began = monotonic()
            if self._pipelining:
                self.socket.sendall(self._envelope)
                yield replies
            else:
                for command in self._commands:
                    self.socket.sendall(command)
                    yield 1
            self.socket.sendall(self._content)
            yield 1
            now = monotonic()
            if start <= now < end:
                self._latencies.append(now - began)
            if self._plan.reconnect or now >= end:
                self.socket.sendall(b'QUIT\r\n')
                yield 1
                self.socket.close()
                self.socket = None
        self.over = True
        yield 0

    def _introduce(self):
        self.socket = _connected(self._plan.port)
        yield 1
        self.socket.sendall(b'EHLO client.example\r\n')
        yield _MULTILINE
        if self._plan.login:
            self.socket.sendall(login_command(self._plan.login))
            yield 1


def _connected(port: int) -> socket.socket:
    sock = socket.create_connection(('127.0.0.1', port), SILENCE)
    sock.setblocking(True)
    # The kernel's own timeout: socket.settimeout() would cost a poll() before each call.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack('ll', SILENCE, 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack('ll', SILENCE, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
