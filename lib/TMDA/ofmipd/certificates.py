# SPDX-License-Identifier: GPL-2.0-or-later
"""From when to when the certificates in a PEM file are valid, for --check.

Python's ssl module tells the dates of a certificate only when a peer has shown it.  They are at a
fixed place (RFC 5280 section 4.1), so a few lines of DER (ITU-T X.690) suffice to read them.
"""

from __future__ import annotations

import re
import ssl
from datetime import datetime, timezone
from typing import NamedTuple

SEQUENCE, CONTEXT_0, UTC_TIME = 0x30, 0xa0, 0x17
_PEM = re.compile('-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----', re.DOTALL)
_FORMAT = '%Y%m%d%H%M%SZ'


class Validity(NamedTuple):
    """The first and the last second, in UTC."""

    begin: datetime
    end: datetime


def read(path: str) -> list[Validity]:
    """Those of all certificates in the file, in order.

    Raises OSError, and ValueError if one of them is none.
    """
    with open(path, encoding='latin-1') as file:
        text = file.read()
    return [_validity(ssl.PEM_cert_to_DER_cert(pem)) for pem in _PEM.findall(text)]


def _validity(der: bytes) -> Validity:
    _, certificate, _ = _element(der, SEQUENCE)
    _, content, _ = _element(certificate, SEQUENCE)
    if content[:1] == bytes([CONTEXT_0]):
        _, _, content = _element(content)  # the version
    for _ in ('serial number', 'signature', 'issuer'):
        _, _, content = _element(content)
    _, times, _ = _element(content, SEQUENCE)
    begin_kind, begin, rest = _element(times)
    end_kind, end, _ = _element(rest)
    return Validity(_time(begin_kind, begin), _time(end_kind, end))


def _time(kind: int, content: bytes) -> datetime:
    """Two digits of a year are 1950 to 2049 (RFC 5280 section 4.1.2.5.1)."""
    text = content.decode('ascii')
    if kind == UTC_TIME:
        text = ('20' if text[:2] < '50' else '19') + text
    return datetime.strptime(text, _FORMAT).replace(tzinfo=timezone.utc)


def _element(data: bytes, wanted: int | None = None) -> tuple[int, bytes, bytes]:
    """(tag, content, what follows) of the first element."""
    if len(data) < 2 or wanted not in (None, data[0]):
        raise ValueError('not a certificate')
    start, size = 2, data[1]
    if size & 0x80:
        start += size & 0x7f
        size = int.from_bytes(data[2:start], 'big')
    if len(data) < start + size:
        raise ValueError('not a whole certificate')
    return data[0], data[start:start + size], data[start + size:]
