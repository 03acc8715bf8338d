# SPDX-License-Identifier: GPL-2.0-or-later
"""Console transcripts in the documentation: found in a page, run, compared.

In HTML, `<pre data-run>` is a transcript: a line `$ COMMAND`, lines `> MORE` of the same command,
and what it prints.  Text in <var> may be anything else, as long as it is something.

    data-run="until"      the last command is a daemon: ended by SIGTERM when it has printed this
    data-home="empty"     from here on, a home without files; data-home="ready": a new one as below
    data-status="N"       the exit status of the last command

In Markdown a transcript is the indented block behind a line `<!-- run -->`.  In that line the same
attributes may follow, without `data-`, and texts of the block that may be anything:
`<!-- run until home=empty status=0 varies: mail.example.net, AJ2WsF -->`.  Dates, cookies and what
stands before port 8025 (_VARYING) may differ always.

All transcripts of a page share a home, the current directory.  A ready one has key, configuration,
password file and four rules.  Where a page says localhost or its port 25 or 8025, the commands are
given ports of this run, and what they print is changed back; so is the home, to /home/chloe.
"""
from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60
HOME = '/home/chloe'

READY = {
    '.tmda/crypt_key': '0123456789abcdef0123456789abcdef01234567\n',
    '.tmda/tofmipd': 'chloe:baz_bap\n',
    '.tmda/config': "FULLNAME = 'Chloe Example'\nUSERNAME = 'chloe'\nHOSTNAME = 'example.net'\n"
                    "MAIL_TRANSPORT = 'smtp'\nSMTPHOST = 'localhost:%(upstream)d'\n",
    '.tmda/filters/outgoing': 'to *@lists.example    keyword=lists\n'
                              'to bob@example.org    sender\n'
                              'to *@=shop.example    dated=14d\n'
                              'to carol@example.com  bare\n',
}
_VARYING = re.compile(r'[A-Z][a-z]{2},? [ \d]\d [A-Z][a-z]{2} \d{4} [\d:]{8} [-+]\d{4}'
                      r'|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d [\d:]{8} \d{4}'
                      r'|\d{10}\.[0-9a-f]{6}|[\w.-]+:8025')

_MARKDOWN = re.compile(r'<!-- run(?P<words>(?: [\w=]+)*)(?: varies: (?P<varies>.*))? -->')


class Command(NamedTuple):
    """A command and the pattern of what it has to print."""

    text: str
    expected: re.Pattern
    shown: str


class Example(NamedTuple):
    """One transcript: where it is, its commands, and its attributes without `data-`."""

    page: str
    line: int
    commands: tuple[Command, ...]
    attributes: dict


class _Finder(HTMLParser):
    """Collects (line, attributes, [(text, may vary)]) of every <pre>."""

    def __init__(self):
        super().__init__()
        self.found: list = []
        self._pieces: list | None = None
        self._varies = False

    def handle_starttag(self, tag, attributes):
        if tag == 'pre':
            self._pieces = []
            self.found.append((self.getpos()[0], dict(attributes), self._pieces))
        elif tag == 'var':
            self._varies = True

    def handle_endtag(self, tag):
        if tag == 'pre':
            self._pieces = None
        elif tag == 'var':
            self._varies = False

    def handle_data(self, data):
        if self._pieces is not None:
            self._pieces.append((data, self._varies))


def preformatted(path: Path) -> list[tuple[int, dict, str]]:
    """(line, attributes, text) of every <pre> of a page."""
    return [(line, attributes, ''.join(text for text, _ in pieces))
            for line, attributes, pieces in _found(path)]


def _found(path: Path) -> list:
    finder = _Finder()
    finder.feed(path.read_text(encoding='utf-8'))
    return finder.found


def of_page(path: Path) -> list[Example]:
    """The transcripts of an HTML page that are to be run."""
    examples = []
    for line, attributes, pieces in _found(path):
        if 'data-run' in attributes:
            kept = {name[5:]: value or '' for name, value in attributes.items()
                    if name.startswith('data-')}
            examples.append(Example(path.name, line, _commands(pieces), kept))
    return examples


def of_markdown(path: Path) -> list[Example]:
    """The transcripts of a Markdown file that are to be run."""
    examples = []
    lines = path.read_text(encoding='utf-8').split('\n')
    for number, line in enumerate(lines, 1):
        found = _MARKDOWN.fullmatch(line.strip())
        if found:
            words = dict(word.partition('=')[::2] for word in found['words'].split())
            attributes = {'run': 'until' if 'until' in words else '', **words}
            varying = [re.escape(text.strip()) for text in (found['varies'] or '').split(',')]
            pieces = _pieces('\n'.join(_block(lines[number:])),
                             '|'.join([_VARYING.pattern, *filter(None, varying)]))
            examples.append(Example(path.name, number, _commands(pieces), attributes))
    return examples


def _block(lines: list[str]) -> list[str]:
    """The indented block at the beginning of lines, without its indentation."""
    block = []
    for line in lines:
        if line.strip() and not line.startswith('    '):
            break
        block.append(line)
    return textwrap.dedent('\n'.join(block)).split('\n')


def _pieces(text: str, varying: str) -> list[tuple[str, bool]]:
    """text in pieces, and whether each may vary."""
    pieces, position = [], 0
    for found in re.finditer(varying, text):
        pieces += [(text[position:found.start()], False), (found[0], True)]
        position = found.end()
    return pieces + [(text[position:], False)]


def _commands(pieces: list) -> tuple[Command, ...]:
    """Cut pieces of text at the prompts."""
    # A mark that no page has stands for text that may vary.
    text = ''.join('\0%s\0' % piece if varies else piece for piece, varies in pieces).strip('\n')
    commands = []
    for block in re.split(r'^\$ ', text, flags=re.MULTILINE)[1:]:
        words, _, printed = block.partition('\n')
        while printed.startswith('> '):
            more, _, printed = printed[2:].partition('\n')
            words += '\n' + more
        parts = printed.rstrip('\n').split('\0')
        pattern = ''.join('.+?' if number % 2 else re.escape(part)
                          for number, part in enumerate(parts))
        commands.append(Command(words.replace('\0', ''), re.compile(pattern + r'\s*', re.DOTALL),
                                ''.join(parts)))
    return tuple(commands)


class Stage:
    """A place to run transcripts in: programs on the path, a home, ports."""

    def __init__(self, directory: Path, upstream: int):
        self._directory = directory
        self._upstream = upstream
        self._port = _free_port()
        self.programs = directory / 'release' / 'bin'
        self.programs.mkdir(parents=True)
        for program in sorted((ROOT / 'bin').iterdir()):
            wrapper = self.programs / program.name
            wrapper.write_text('#!/bin/sh\nexec "%s" "%s" "$@"\n'
                               % (sys.executable, program))
            wrapper.chmod(0o755)
        self._homes = 0
        self.new_home('ready')

    def new_home(self, kind: str) -> None:
        """Go on in a home that is 'empty' or 'ready'."""
        self._homes += 1
        self.home = self._directory / ('home%d' % self._homes)
        self.home.mkdir()
        for name, text in READY.items() if kind == 'ready' else ():
            path = self.home / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_text(text % {'upstream': self._upstream} if 'SMTPHOST' in text else text)
            path.chmod(0o600)

    def run(self, example: Example) -> list[str]:
        """Run it; what is wrong with each command, if anything."""
        if example.attributes.get('home'):
            self.new_home(example.attributes['home'])
        wrong = []
        for number, command in enumerate(example.commands, 1):
            last = number == len(example.commands)
            until = last and example.attributes['run'] == 'until'
            status, printed = self._run(command, until, example.page)
            wanted = int(example.attributes.get('status', 0)) if last else 0
            if status != wanted or not command.expected.fullmatch(printed):
                wrong.append('%s:%d: $ %s\nexit status %s, expected %d\n--- printed\n%s\n'
                             '--- expected\n%s' % (example.page, example.line, command.text,
                                                   status, wanted, printed, command.shown))
        return wrong

    def _run(self, command: Command, until: bool, page: str) -> tuple[int, str]:
        environ = {'HOME': str(self.home), 'LANG': 'C.UTF-8', 'TZ': 'UTC',
                   'PATH': '%s:%s' % (self.programs, os.environ['PATH']),
                   'PYTHONDONTWRITEBYTECODE': '1', 'PYTHONUNBUFFERED': '1',
                   'GLOBAL_TMDARC': '/nonexistent'}
        directory = self.programs.parent if page.endswith('.md') else self.home
        with subprocess.Popen(['bash', '-c', self._with_ports(command.text)], cwd=directory,
                              env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, start_new_session=True) as process:
            reader = _Reader(process)
            deadline = time.monotonic() + SECONDS
            while time.monotonic() < deadline and process.poll() is None:
                seen = until and command.expected.match(self._as_shown(reader.text))
                if seen:
                    process.send_signal(signal.SIGTERM)
                    status = process.wait(SECONDS)
                    # It may have had no time to wait for signals yet.
                    return 0 if status == -signal.SIGTERM else status, seen[0]
                reader.wait(0.02)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            reader.join()
        return process.returncode, self._as_shown(reader.text)

    def _with_ports(self, text: str) -> str:
        text = re.sub(r'(--upstream[ =])localhost\b', r'\1localhost:%d' % self._upstream, text)
        if re.search(r'tmda-ofmipd .*-\w*f\b', text) and ' -p' not in text:
            text += ' -p localhost:%d' % self._port
        return 'exec ' + text if re.match(r'(bin/)?tmda-ofmipd [^|;&<\n]*$', text) else text

    def _as_shown(self, text: str) -> str:
        for real, shown in ((str(self.home), HOME),
                            ('localhost:%d' % self._port, 'localhost:8025'),
                            ('localhost:%d' % self._upstream, 'localhost:25')):
            text = text.replace(real, shown)
        return '\n'.join(line.rstrip() for line in text.expandtabs().split('\n')).strip('\n')


class _Reader(threading.Thread):
    """Collects what a process prints."""

    def __init__(self, process):
        super().__init__(daemon=True)
        self._process = process
        self._data = b''
        self._changed = threading.Event()
        self.start()

    def run(self):
        while True:
            block = os.read(self._process.stdout.fileno(), 65536)
            if not block:
                return
            self._data += block
            self._changed.set()

    def wait(self, seconds: float) -> None:
        """Until there is more, or for some seconds."""
        self._changed.wait(seconds)
        self._changed.clear()

    @property
    def text(self) -> str:
        """All so far."""
        return self._data.decode('utf-8', 'replace')


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]
