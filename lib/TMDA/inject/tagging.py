# SPDX-License-Identifier: GPL-2.0-or-later
"""From one message of a client to the deliveries that its user's outgoing filter asks for.

tag() is called by submit.submit and by nobody else.  It decides, recipient by recipient and always
from the client's own message, which addresses are used and which fields are added; recipients for
whom the result is the same share one Delivery.  Nothing is sent or written here.  What runs is
what the user's filter names: list files are read, `shell=` and `python=` are executed.

One reading of the clock serves the whole message, so that all its dated addresses agree.
"""

from __future__ import annotations

import os
import re
import threading
from typing import NamedTuple

from TMDA import Address, FilterParser, Version
from TMDA.Errors import AddressError, ConfigError
from TMDA.inject import actions
from TMDA.inject.addresses import encode_text, format_mailbox, parse, to_text
from TMDA.inject.envelope import Envelope, Recipient
from TMDA.inject.message import Body, Header, Message, clean_value
from TMDA.inject.reply import ReplyError, reply

FOLLOWUP = 'Mail-Followup-To'
_SUBJECT_OVERRIDE = re.compile(r'x-tmda\s+(\S+)\s*(.*)', re.IGNORECASE | re.DOTALL)
_FIELD_NAME = re.compile(r'[!-9;-~]+\Z')


class Note(NamedTuple):
    """What the user's own files may record of one recipient once the message was accepted."""

    recipient: str
    action: str
    kind: str
    append: bool


class Delivery(NamedTuple):
    """One transaction for the transport.

    header is the complete header block in octets, with the empty line where a body follows; body
    gives the rest.  notes has one Note for each recipient.
    """

    envelope_sender: str
    recipients: tuple[Recipient, ...]
    header: bytes
    body: Body
    fields: Header
    notes: tuple[Note, ...]


class Tags(NamedTuple):
    """All that may differ between two recipients of a message."""

    address: str
    envelope_sender: str
    fields: tuple[tuple[str, bytes], ...]


def tag(settings, cookies, message: Message, envelope: Envelope, now: int,
        received: str = '') -> list[Delivery]:
    """The deliveries for all recipients of envelope, in the order of their first recipient.

    received is the value of the new Received field.  Raises FilterError, MatchError, IntervalError
    and ConfigError from the user's files, ReplyError for what the client asked wrongly.
    """
    author = Author.find(settings, message.header)
    header = message.header.copy()
    override = take_override(settings, header)
    prepare(settings, header, now, received)
    context = actions.Context(settings, cookies, author.address, now)
    chooser = Chooser(settings, author.address, override)
    groups: dict[Tags, list] = {}
    known: dict[FilterParser.Action, Tags] = {}  # of actions that mean the same for everybody
    for recipient in envelope.recipients:
        action, text = chooser.choose(recipient.address)
        tags = known.get(action)
        if tags is None:
            tags = resolve(context, author, action, recipient.address, envelope.sender == '')
            if not actions.looks_at_recipient(action):
                known[action] = tags
        wants_append = action.kind == 'bare' and action.option == 'append'
        note = Note(recipient.address, text, action.kind, wants_append)
        groups.setdefault(tags, []).append((recipient, note))
    return [_delivery(settings, cookies, message, header, author, tags, members)
            for tags, members in groups.items()]


class Author(NamedTuple):
    """Whose address is tagged: the field it stands in, the address, and the display name."""

    field: str
    address: str
    name: str

    @classmethod
    def find(cls, settings, header: Header) -> Author:
        """From, or Resent-From where the message is being resent; USERNAME@HOSTNAME and FULLNAME fill in."""
        field = 'From' if header.get('Resent-From') is None else 'Resent-From'
        found = parse(header.get(field) or b'')
        name, address = found[0] if found else ('', '')
        try:
            user, host = Address.split(address)
            usable = bool(user and host)
        except AddressError:
            usable = False
        if not usable:
            address = '%s@%s' % (settings.USERNAME, settings.HOSTNAME)
        return cls(field, address, name or settings.FULLNAME or '')


def take_override(settings, header: Header) -> FilterParser.Action | None:
    """Remove `X-TMDA` (or its form in the Subject) and return the action in it.

    An X-TMDA that is empty or has several words asks for `default`, which still replaces the
    filter.  Raises ReplyError for an action that would run a program: those are taken only from
    the user's own files (CWE-94).
    """
    value = header.get('X-TMDA')
    if value is not None:
        header.remove('X-TMDA')
        words = to_text(value).split()
        return _network_action(words[0] if len(words) == 1 else 'default')
    if settings.X_TMDA_IN_SUBJECT:
        match = _SUBJECT_OVERRIDE.match(to_text(header.get('Subject') or b''))
        if match:
            header.set('Subject', match.group(2).encode('utf-8'))
            return _network_action(match.group(1))
    return None


def _network_action(word: str) -> FilterParser.Action:
    action = FilterParser.parse_action(word)
    if action.kind in ('shell', 'python'):
        raise ReplyError(reply(550, '5.7.1', 'X-TMDA may not run %s=' % action.kind))
    return action


def prepare(settings, header: Header, now: int, received: str) -> None:
    """Make the changes to header that are the same for all recipients."""
    inject = settings.TMDAINJECT or ''
    if 'd' in inject or header.get('Date') is None:
        header.set('Date', _date(now))
    if 'i' in inject or header.get('Message-ID') is None:
        header.set('Message-ID', message_id(settings, now))
    header.set('X-Submission-Agent', Version.TMDA.encode('ascii'))
    _add_followup(settings, header)
    if received:
        header.prepend('Received', clean_value(received.encode('utf-8', 'replace')))


def _date(now: int) -> bytes:
    import email.utils
    return email.utils.formatdate(now, localtime=True).encode('ascii')


_serial_lock = threading.Lock()
_serial = 0


def message_id(settings, now: int) -> bytes:
    """`<seconds.process.serial.TMDA@host>`; TMDAIDTAG goes in front, TMDAIDHOST or QMAILIDHOST is the host."""
    global _serial
    with _serial_lock:
        _serial += 1
        serial = _serial
    environ = settings.environ
    host = environ.get('TMDAIDHOST') or environ.get('QMAILIDHOST') or settings.HOSTNAME
    label = environ.get('TMDAIDTAG', '')
    left = '%s%d.%d.%d.TMDA' % (label + '.' if label else '', now, os.getpid(), serial)
    return clean_value(('<%s@%s>' % (left, host)).encode('utf-8'))


def _add_followup(settings, header: Header) -> None:
    """Mail-Followup-To with all of To and Cc, where one of them is a mailing list of the user's."""
    lists = settings.MAIL_FOLLOWUP_TO
    if not lists or header.get(FOLLOWUP) is not None:
        return
    everyone = [address for _name, address in parse(*header.get_all('To'), *header.get_all('Cc'))
                if address]
    wanted = _list_addresses(settings, lists)
    if any(address.lower() in wanted for address in everyone):
        header.add(FOLLOWUP, clean_value(', '.join(everyone).encode('utf-8')))


def _list_addresses(settings, lists) -> set:
    if isinstance(lists, str):
        try:
            with open(settings.expand(lists), encoding='utf-8', errors='replace') as file:
                lists = file.readlines()
        except OSError as error:
            raise ConfigError('MAIL_FOLLOWUP_TO: %s: %s' % (lists, error.strerror)) from error
    return {str(line).strip().lower() for line in lists if str(line).strip()}


class Chooser:
    """Which action applies to a recipient: the override's, the filter's, or ACTION_OUTGOING."""

    def __init__(self, settings, author: str, override: FilterParser.Action | None):
        self._settings = settings
        self._author = author
        self._override = override
        self._default = FilterParser.parse_action(settings.ACTION_OUTGOING)
        self._filter = None
        if override is None:
            self._filter = FilterParser.load(settings.FILTER_OUTGOING, settings)

    def choose(self, recipient: str) -> tuple[FilterParser.Action, str]:
        """(action, text for the log)."""
        if self._override is not None and self._override.text != 'default':
            return self._resolved(self._override), 'X-TMDA: ' + self._override.text
        if self._filter is not None:
            match = self._filter.match(FilterParser.Query(recipient, self._author, self._settings))
            if match is not None:
                return self._resolved(match.action), match.text
        return self._default, 'action_outgoing (%s)' % self._settings.ACTION_OUTGOING

    def _resolved(self, action: FilterParser.Action) -> FilterParser.Action:
        return self._default if action.kind == 'default' else action


def resolve(context, author: Author, action: FilterParser.Action, recipient: str,
            null_sender: bool) -> Tags:
    """What action means for recipient."""
    parts = {name.lower(): (name, part) for name, part in action.tags}
    if action.kind != 'tag':
        parts['from'] = ('from', action)
    resent = parts.pop('resent-from', None)
    own = parts.pop('from', None)
    if author.field == 'Resent-From':
        own = resent or own
    address = own and actions.address(context, own[1], recipient) or author.address
    sender = address
    if 'envelope' in parts:
        sender = _envelope_sender(context, parts.pop('envelope')[1], recipient)
    fields = tuple(sorted((field_name(name), _tag_value(context, author, part, recipient))
                          for name, part in parts.values()))
    return Tags(address, '' if null_sender else sender, fields)


def _envelope_sender(context, action: FilterParser.Action, recipient: str) -> str:
    """The address after `envelope`: of an action, or written out; `<>` is the null sender."""
    if action.kind == 'text':
        sender = action.text
    else:
        sender = actions.address(context, action, recipient) or context.base
    return '' if sender == '<>' else sender


def _tag_value(context, author: Author, action: FilterParser.Action, recipient: str) -> bytes:
    """The value for a field that `tag` names: an address in its style, or the text as it is."""
    if action.kind in actions.LITERAL:
        return clean_value(encode_text(actions.literal(context, action, recipient)))
    address = actions.address(context, action, recipient) or author.address
    return mailbox(context.settings.MESSAGE_TAG_HEADER_STYLE, author.name, address)


def mailbox(style: str, name: str, address: str) -> bytes:
    """An address in the style `address` or else `angles`."""
    return format_mailbox('' if style == 'address' else name, address)


def field_name(name: str) -> str:
    """The name with each of its words capitalized.  Raises ConfigError for what can't name a field."""
    if not _FIELD_NAME.match(name):
        raise ConfigError('%r is no name of a header field' % name)
    return '-'.join(word.capitalize() for word in name.split('-'))


def _delivery(settings, cookies, message: Message, prepared: Header, author: Author, tags: Tags,
              members: list) -> Delivery:
    header = prepared.copy()
    _set_author(settings, header, author, tags.address)
    _replace_in_followup(header, author.address, tags.address)
    _add_fingerprint(settings, cookies, header, message)
    for name, value in sorted((settings.ADDED_HEADERS_CLIENT or {}).items()):
        header.replace(field_name_as_given(name), clean_value(encode_text(str(value))))
    for name in settings.PURGED_HEADERS_CLIENT or ():
        header.remove(name)
    for name, value in tags.fields:
        header.replace(name, value)
    return Delivery(tags.envelope_sender, tuple(recipient for recipient, _note in members),
                    header.to_bytes() + message.separator, message.body, header,
                    tuple(note for _recipient, note in members))


def field_name_as_given(name: str) -> str:
    """The name if it can name a field.  Raises ConfigError if it can't."""
    field_name(name)
    return name


def _set_author(settings, header: Header, author: Author, address: str) -> None:
    """Put the tagged address into the author's field; where only the address differs, only it is changed."""
    value = mailbox(settings.MESSAGE_FROM_STYLE, author.name, address)
    raw = header.raw_value(author.field)
    if raw is not None and raw.count(author.address.encode('utf-8')) == 1:
        changed = raw.replace(author.address.encode('utf-8'), address.encode('utf-8'))
        if b' '.join(changed.split()) == value:
            header.set_raw(author.field, changed)
            return
    header.set(author.field, value)
    if author.field == 'From':
        header.keep_first('From')


def _replace_in_followup(header: Header, own: str, tagged: str) -> None:
    value = header.get(FOLLOWUP)
    if value is None or own == tagged or own.lower().encode('utf-8') not in value.lower():
        return
    addresses = [address for _name, address in parse(value)]
    changed = [tagged if address.lower() == own.lower() else address for address in addresses]
    if changed != addresses:
        header.set(FOLLOWUP, clean_value(', '.join(changed).encode('utf-8')))


def _add_fingerprint(settings, cookies, header: Header, message: Message) -> None:
    """X-TMDA-Fingerprint over the fields (and `body`) that FINGERPRINT names, as far as they exist.

    Line ends count as LF, and a field keeps its folding: so it always was, and who compares
    fingerprints relies on it.
    """
    parts: list = []
    for name in settings.FINGERPRINT or ():
        if name.lower() == 'body':
            parts.extend(chunk.replace(b'\r\n', b'\n') for chunk in message.body.chunks())
        else:
            value = header.raw_value(name)
            if value is not None:
                parts.append(value.lstrip(b' \t').replace(b'\r\n', b'\n'))
    if parts:
        header.set('X-TMDA-Fingerprint', cookies.fingerprint(parts).encode('ascii'))
