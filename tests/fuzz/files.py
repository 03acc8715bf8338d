# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzz targets that read: headers, filters, password files, cdb files, and channel frames."""
from __future__ import annotations

import atexit
import os
import re
import shutil
import socket
import struct
import tempfile
from pathlib import Path
from time import monotonic
from types import SimpleNamespace

from fuzz.engine import Target
from fuzz.protocols import promise
from support.proxy import write_home
from TMDA import Cdb, Cookie, Defaults, FilterParser
from TMDA.Errors import ConfigError, FilterError, MatchError, TMDAError
from TMDA.inject import tagging
from TMDA.inject.envelope import Envelope, Recipient
from TMDA.inject.message import Message
from TMDA.inject.reply import ReplyError
from TMDA.inject.spool import Spool
from TMDA.ofmipd import ipc, passwords

NOW = 1_700_000_000


class _Lazy:
    """A directory that is made when it is needed, and gone with the process."""

    path = None

    def __call__(self) -> Path:
        if self.path is None:
            memory = '/dev/shm'  # where files cost nothing
            self.path = Path(tempfile.mkdtemp(
                prefix='tmda-fuzz-', dir=memory if os.access(memory, os.W_OK) else None))
            owner = os.getpid()
            atexit.register(lambda: os.getpid() == owner
                            and shutil.rmtree(self.path, ignore_errors=True))
        return self.path


scratch = _Lazy()


# Header edits

CONFIG = '''
USERNAME, HOSTNAME, FULLNAME = "bobby", "example.net", "Bobby"
FINGERPRINT = ["from", "subject", "body"]
ADDED_HEADERS_CLIENT = {"X-Added": "yes"}
PURGED_HEADERS_CLIENT = ["X-Purged"]
MAIL_FOLLOWUP_TO = ["list@example.org"]
X_TMDA_IN_SUBJECT = True
TMDAINJECT = ""
'''
FILTER = '''
to dated@* dated=3d
to sender@* sender
to tagged@* tag envelope dated from sender reply-to keyword=x x-note "some text" resent-from ext=y
to * bare
'''
RECIPIENTS = tuple(map(Recipient, (
    'dated@example.org', 'sender@example.org', 'tagged@example.org', 'other@example.org')))
CHANGED = frozenset((
    b'from', b'resent-from', b'date', b'message-id', b'received', b'subject', b'x-tmda',
    b'reply-to',
    b'x-submission-agent', b'x-added', b'x-purged', b'x-note', b'x-tmda-fingerprint',
    b'mail-followup-to', b'x-primary-address'))
_home: list = []


def _settings():
    if not _home:
        home = write_home(scratch() / 'home', 25, FILTER, more=CONFIG)
        _home.append((home, {'HOME': str(home), 'GLOBAL_TMDARC': str(home / 'none'),
                             'PATH': os.environ.get('PATH', '')}))
    home, environ = _home[0]
    return Defaults.load(dict(environ), str(home / '.tmda' / 'config'))


def check_header(case: bytes) -> object:
    """All deliveries of a message: nothing but the fields that are ours to change has changed."""
    text = case.replace(b'\r\n', b'\n').replace(b'\r', b'\n').replace(b'\n', b'\r\n')
    settings = _settings()
    with Spool(1 << 20) as spool:
        spool.write(text)
        message = Message.read(spool, 4096) if len(text) < 4000 else _too_big(spool)
        if message is None:
            return 'too big'
        envelope = Envelope('bobby@example.net', RECIPIENTS)
        before = _untouched(message.header)
        try:
            deliveries = tagging.tag(settings, Cookie.Cookies(settings), message, envelope, NOW,
                                     'from x by y; z')
        except (ReplyError, TMDAError) as error:
            return type(error).__name__, str(error)[:30]
        for delivery in deliveries:
            _check_block(delivery.header)
            promise(_untouched(delivery.fields) == before, delivery.header)
        whole = b''.join(message.body.chunks())
        promise(text.endswith(whole))
        return (len(deliveries), message.separator, len(before),
                tuple(sorted(name for name in _names(message.header) if name in CHANGED)))


def _too_big(spool: Spool) -> Message | None:
    try:
        return Message.read(spool, 4096)
    except ReplyError as error:
        promise(error.reply.code == 552)
        return None


def _names(header) -> set:
    return {name for name, _ in header._fields}


def _untouched(header) -> list:
    return [raw for name, raw in header._fields if name not in CHANGED]


def _check_block(block: bytes) -> None:
    """A header block: CRLF only, every line a field or a continuation, no empty line inside."""
    bare = block.replace(b'\r\n', b'')
    promise(b'\r' not in bare and b'\n' not in bare, block)
    inner = block[:-2] if block.endswith(b'\r\n\r\n') else block
    promise(inner.endswith(b'\r\n'), block)
    for line in inner[:-2].split(b'\r\n'):
        promise(re.match(rb'[!-9;-~]+[ \t]*:|[ \t]', line), line)


HEADER = Target('header', check_header, (
    b'From: Bobby <bobby@example.net>\nTo: x@y\nSubject: s\n\nbody\n',
    b'From: "B, O" <bobby@example.net>,\n other@x\nX-TMDA: dated=5d\nCc: list@example.org\n\n',
    b'Resent-From: bobby@example.net\nFrom: a@b\nX-Purged: 1\nX-Added: 2\n\n\n',
    b'Subject: X-TMDA keyword=abc the rest\nTo: list@example.org\nno field\nbody\n',
    b'From bobby Thu Jan  1\nFrom: =?utf-8?q?B=C3=BC?= <bobby@example.net>\nDate: x\n'
    b'Message-ID: <1>\n',
), (b'From: ', b'X-TMDA: ', b'Resent-From: ', b'Subject: ', b'To: ', b'Mail-Followup-To: ',
    b'\n', b'\n ',
    b'\n\t', b':', b'<', b'>', b'"', b'(', b')', b',', b';', b'@', b'bobby@example.net',
    b'dated', b'exp=',
    b'shell=id', b'python=1', b'sender', b'keyword=', b'ext=', b'=?utf-8?b?Cg==?=',
    b'=?iso-8859-1?q?=0A?=',
    b'\0', b'\xff', b'\xc2\x85', b'\xe2\x80\xa8', b'\x0b', b'\x1b', b'x' * 1000,
    b'list@example.org'), 8000)


# Filters

def check_filter(case: bytes) -> object:
    """A filter is read or refused, and then matches or says why it can't."""
    directory = scratch() / 'filter'
    if not directory.is_dir():
        directory.mkdir()
        (directory / 'list').write_text('a@b dated\n*@example.org bare\n')
    path = directory / 'outgoing'
    path.write_bytes(case)
    path.chmod(0o600)
    settings = SimpleNamespace(
        namespace={'LIST': 'list'}, environ={'HOME': str(directory)}, home=str(directory),
        expand=lambda name: os.path.join(directory, name.lstrip('~/')), DB_CONNECTION=None,
        USERNAME='bobby', HOSTNAME='example.net')
    try:
        rules = FilterParser.load(str(path), settings)
        match = rules.match(FilterParser.Query('a@b', 'bobby@example.net', settings))
    except FilterError as error:
        promise(error.problems and '\n' not in error.problems[0][2], error.problems)
        return error.problems[0][2][:50], len(error.problems)
    except MatchError as error:
        return 'match', str(error)[-40:]
    kinds = tuple(sorted({rule.action.kind for rule in rules.rules}))
    return kinds, match and match.action.kind, len(rules.rules)


FILTERS = Target('filter', check_filter, (
    b'to a@b dated=5d\nto * bare\n', b'from *@x tag from sender reply-to bare\n  subject "a b"\n',
    b'macro m(x,y) to x y\nm(a@b, sender)\n', b'to-file list\nto-file -optional nothing bare\n',
    b'include -optional other\nto ${LIST} bare # x\n', b'# c\nto "a b"@c exp=d@e\n',
    b'to a@b shell="date"\nto c python=1\nto-cdb x.cdb bare\nto-ezmlm -optional d ok\n',
), (b'to ', b'from ', b'to-file ', b'from-file ', b'-autocdb ', b'-optional ', b'to-cdb ',
    b'to-dbm ',
    b'to-sql ', b'to-mailman -attr=members ', b'include ', b'macro ', b'tag ', b'envelope ',
    b'dated=',
    b'sender', b'domain', b'keyword=', b'ext=', b'exp=', b'bare=append', b'default', b'"', b"'",
    b'\\',
    b'(', b')', b',', b'#', b' #', b'\n', b'\n ', b'\t', b'${LIST}', b'${TMDA_RECIPIENT}',
    b'${', b'}', b'*',
    b'[', b'@=', b'=', b'list', b'outgoing', b'99999999999d', b'\xff', b'\0', b'\r'), 8000)


# Password files

def check_passwords(case: bytes) -> object:
    """Entries, or one line that names the file and shows no password."""
    try:
        entries = passwords.parse_file('FILE', case)
    except ConfigError as error:
        text = str(error)
        promise(re.fullmatch(r'FILE:[0-9]+: [^\n]*', text), text)
        promise('FooBar' not in text and 'MySecret' not in text, text)
        return re.sub('[0-9]+', '', text)
    users = passwords.Users(entries, b'key')
    for name, entry in entries.items():
        promise(name == name.strip().lower() and name)
        promise('FooBar' not in repr(entry))
        promise(users.find(name.upper()).known or name.upper().lower() != name)
    salt, iterations = users.scram_start('nobody')
    promise(salt and iterations > 0)
    kinds = sorted({type(entry).__name__ for entry in entries.values()})
    return tuple(kinds), min(len(entries), 5)


PASSWORDS = Target('passwords', check_passwords, (
    b'bobby:FooBar\n# comment\n\nchloe : MySecret \n', b'\xef\xbb\xbfbobby:FooBar\r\n',
    b'a:{SCRAM-SHA-256}4096,c2FsdA==,' + b'A' * 43 + b'=,' + b'A' * 43 + b'=\n',
    b'b:{SCRYPT}ln=4,r=8,p=1$c2FsdHNhbHQ=$' + b'A' * 43 + b'=\n',
    b'c:$6$salt$' + b'a' * 86 + b'\n',
    b'd:$5$rounds=5000$salt$' + b'a' * 43 + b'\n',
), (b':', b'\n', b'\r', b'#', b' ', b'{SCRAM-SHA-256}', b'{SCRYPT}', b'$5$', b'$6$', b'$', b',',
    b'=',
    b'rounds=999999999$', b'ln=63,r=9999,p=1', b'4096', b'999999999', b'\0', b'\xff',
    b'\xc3\xbc', b'\xe2\x80\xa8',
    b'FooBar', b'MySecret', b'bobby'), 10000)


# cdb files

def _cdb_seed() -> bytes:
    path = str(scratch() / 'seed.cdb')
    Cdb.write(path, [(b'a@b', b'dated'), (b'c', b''), (b'a@b', b'second'), (b'x' * 50, b'y' * 50)])
    return Path(path).read_bytes()


def check_cdb(case: bytes) -> object:
    """Case: pairs of (position, number) that are written over a good file, then its length."""
    data = bytearray(_CDB)
    for place, number in struct.iter_unpack('<HI', case[:len(case) - len(case) % 6]):
        place %= len(data) - 3
        struct.pack_into('<I', data, place, number)
    if len(case) % 6 > 1:
        del data[struct.unpack_from('<H', case, len(case) - len(case) % 6)[0]:]
    path = str(scratch() / 'damaged.cdb')
    with open(path, 'wb') as file:
        file.write(data)
    found = []
    try:
        with Cdb.read(path) as reader:
            for key in (b'a@b', b'c', b'missing', b'x' * 50):
                found.append(reader.get(key))
    except Cdb.CdbError as error:
        return tuple(found), re.sub('[0-9]+', '', str(error).partition(': ')[2])
    for value in found:
        promise(value is None or value in bytes(data))
    return tuple(found)


_CDB = _cdb_seed()
_HEAD = [struct.pack('<HI', Cdb.hash_of(key) % 256 * 8 + 4 * half, number)
         for key in (b'a@b', b'c') for half in (0, 1) for number in (0, 1, 2048, 0xffffffff)]
CDB = Target('cdb', check_cdb, (b'',
    *_HEAD, struct.pack('<H', 2060), struct.pack('<HI', 2048, 3)), (
    *_HEAD, *(struct.pack('<HI', place, number) for place in range(2048, len(_CDB) - 3, 4)
              for number in (0, 3, len(_CDB), 0xffffffff)), b'\0\x08', b'\xff\xff'), 8000)


# Frames between the network process and the process of a session

ALL_KINDS = tuple(ipc.KINDS)


def check_frame(case: bytes) -> object:
    """The first octet is the number of descriptors that come along; what follows are frames."""
    before = len(os.listdir('/dev/fd'))
    result = _receive(case[1:], (case or b'\0')[0] % 7)
    promise(len(os.listdir('/dev/fd')) == before, 'a descriptor was left open')
    return result


def _receive(octets: bytes, descriptors: int) -> object:
    ours, theirs = socket.socketpair()
    kinds = []
    with ours, theirs:
        if octets:
            socket.send_fds(ours, [octets], [0] * descriptors)
        ours.shutdown(socket.SHUT_WR)
        link = ipc.Link(theirs)
        try:
            while True:
                frame = link.receive(ALL_KINDS, monotonic() + 5, 3000, 2000)
                if frame.descriptor is not None:
                    os.close(frame.descriptor)
                promise(frame.kind in ipc.KINDS and len(frame.body) <= 2000)
                promise(frame.fields.keys() == ipc.KINDS[frame.kind].keys())
                kinds.append(frame.kind)
        except ipc.Broken as error:
            return tuple(kinds), str(error), descriptors
        except ipc.Ended:
            return tuple(kinds), descriptors


def _frame(text: bytes, body: bytes = b'') -> bytes:
    return b'\0' + ipc.PREFIX.pack(len(text), len(body)) + text + body


_SUBMIT = (b'["submit", {"sender": "a@b", "recipients": [["c@d", "", ""]], "size": 3, "body": "", '
           b'"smtputf8": false, "ret": "", "envid": "", "received": "from x", "session": "ab"}]')
FRAMES = Target('frames', check_frame, (
    _frame(b'["password", {"user": "bobby", "password": "x"}]'), _frame(_SUBMIT, b'abc'),
    b'\1' + _frame(_SUBMIT)[1:], _frame(b'["scram_start", {"user": "bobby"}]') * 2,
    _frame(b'["client", {"session": "a", "address": "", "name": "", "port": 1, '
           b'"local_address": "", "local_port": 2}]'),
    _frame(b'[' * 500), b'\6' + _frame(b'[]')[1:],
    _frame(b'["refused", {"code": 535, "enhanced": "5.7.8", "lines": ["x"], "close": false, '
           b'"cause": "", "mechanisms": ["PLAIN"]}]'),
), (b'"', b'[', b']', b'{', b'}', b',', b': ', b'null', b'true', b'1e999', b'-1',
    b'999999999999', b'"\\ud800"',
    b'\0\0\0\0', b'\xff\xff\xff\xff', b'\0\0\0\x10', b'"password"', b'"submit"', b'"size"',
    b'"user"', b'[' * 900,
    b'"' + b'x' * 1500 + b'"', b'NaN', b'\xff'), 8000)

TARGETS = (HEADER, FILTERS, PASSWORDS, CDB, FRAMES)
