# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses in header fields (RFC 5322 3.4): read leniently, written strictly.

Values come and go as octets.  Octets beyond ASCII are taken as UTF-8, or as ISO-8859-1 where they
are not valid UTF-8; on the way out a display name beyond ASCII becomes encoded words (RFC 2047).
"""

from __future__ import annotations

import functools
import re

CACHED_OCTETS = 1000  # the longest field whose addresses are remembered
_SPECIALS = re.compile(r'[][\\()<>@,:;".]')
_ESCAPES = re.compile(r'[\\"]')
_CONTROLS = re.compile(r'[\x00-\x1f\x7f]+')


def to_text(value: bytes) -> str:
    """The value as text."""
    try:
        return value.decode('utf-8')
    except UnicodeDecodeError:
        return value.decode('iso-8859-1')


def parse(*values: bytes) -> list[tuple[str, str]]:
    """All (display name, address) pairs of address-list values; groups are opened, empty ones left out."""
    if sum(map(len, values)) > CACHED_OCTETS:
        return _parse(values)
    return list(_remembered(values))


@functools.lru_cache(maxsize=256)  # people keep their From, and parsing it takes 15 us
def _remembered(values: tuple[bytes, ...]) -> list[tuple[str, str]]:
    return _parse(values)


def _parse(values: tuple[bytes, ...]) -> list[tuple[str, str]]:
    import email.utils
    options = {'strict': False} if getattr(email.utils, 'supports_strict_parsing', False) else {}
    texts = [_CONTROLS.sub(' ', to_text(value)) for value in values]
    return [(name.strip(), address) for name, address in email.utils.getaddresses(texts, **options)
            if name or address]


def format_mailbox(name: str, address: str) -> bytes:
    """`name <address>`, the name quoted or encoded as needed; the address alone without a name."""
    name = _CONTROLS.sub(' ', name)
    address = _CONTROLS.sub('', address)
    if not name:
        return address.encode('utf-8')
    return b'%s <%s>' % (_phrase(name), address.encode('utf-8'))


def encode_text(text: str) -> bytes:
    """Unstructured text for a header value: ASCII as it is, else encoded words (RFC 2047 5)."""
    text = _CONTROLS.sub(' ', text).strip(' ')
    if text.isascii():
        return text.encode('ascii')
    from email.header import Header
    return Header(text, 'utf-8').encode(linesep='\r\n').encode('ascii')


def _phrase(name: str) -> bytes:
    if not name.isascii():
        return encode_text(name)
    if _SPECIALS.search(name):
        name = '"%s"' % _ESCAPES.sub(r'\\\g<0>', name)
    return name.encode('ascii')
