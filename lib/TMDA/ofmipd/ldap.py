# SPDX-License-Identifier: GPL-2.0-or-later
"""One LDAP simple bind (RFC 4511 section 4.2): one request, one response, in BER.

The DN comes from the -R URL with `%s` replaced by the user, escaped per RFC 4514 section 2.4.
An empty password is never sent: servers answer success to it (RFC 4513 section 5.1.2).

bind_request, parse_response and escape are pure.  login() speaks on a TimedSocket, for
remote.py.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Tuple

from TMDA.ofmipd.timedsocket import TimedSocket
from TMDA.ofmipd.verdict import NO, UNSURE, YES, Verdict, brief

MESSAGE_ID = 1
RESPONSE_LIMIT = 16384  # octets of a response; a bind response has about 14

# BER tags (RFC 4511 section 4 and 5.1; X.690)
INTEGER, OCTET_STRING, ENUMERATED, SEQUENCE = 0x02, 0x04, 0x0A, 0x30
BIND_REQUEST, BIND_RESPONSE = 0x60, 0x61
SIMPLE = 0x80

# RFC 4511 appendix A.2.  Any other code than these and 0 leaves the question open.
REFUSALS = {
    32: 'no such object',
    34: 'invalid DN',
    48: 'inappropriate authentication',
    49: 'invalid credentials',
    50: 'insufficient access rights',
}

_SPECIAL = re.compile(rb'[\x00-\x1f\x7f"#+,;<=>\\]|^ | $')


class Response(NamedTuple):
    """A bind response: resultCode and diagnosticMessage."""

    code: int
    text: str


class NotLdap(Exception):
    """What came is no bind response to our request."""


def escape(value: bytes) -> bytes:
    """`value` for use inside a DN: each special character as backslash and two hex digits."""
    return _SPECIAL.sub(lambda found: b'\\%02X' % ord(found[0]), value)


def element(tag: int, content: bytes) -> bytes:
    """A BER element in definite form."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, 'big')
    return bytes((tag, 0x80 | len(octets))) + octets + content


def bind_request(dn: bytes, password: bytes) -> bytes:
    """The octets of a simple bind; ValueError for an empty password or DN."""
    if not dn or not password:
        raise ValueError('a bind without DN or password is anonymous')
    operation = (element(INTEGER, b'\x03')  # LDAP version
                 + element(OCTET_STRING, dn)
                 + element(SIMPLE, password))
    return element(SEQUENCE, element(INTEGER, bytes((MESSAGE_ID,)))
                   + element(BIND_REQUEST, operation))


def _head(data: bytes) -> Tuple[int, int, int]:
    """(tag, octets of the head, octets of the content) of the element at the start of data."""
    if len(data) < 2:
        raise NotLdap('cut short')
    count = data[1] - 0x80
    if count < 0:
        return data[0], 2, data[1]
    # RFC 4511 section 5.1: definite form only
    if not 1 <= count <= 4 or len(data) < 2 + count:
        raise NotLdap('bad length')
    return data[0], 2 + count, int.from_bytes(data[2:2 + count], 'big')


def _take(data: bytes, tag: int) -> Tuple[bytes, bytes]:
    """The content of the first element, which must have this tag, and what follows it."""
    found, start, size = _head(data)
    if found != tag:
        raise NotLdap('tag 0x%02x where 0x%02x belongs' % (found, tag))
    if start + size > len(data):
        raise NotLdap('cut short')
    return data[start:start + size], data[start + size:]


def _integer(content: bytes) -> int:
    if not 1 <= len(content) <= 4:
        raise NotLdap('bad integer')
    return int.from_bytes(content, 'big', signed=True)


def parse_response(data: bytes) -> Response:
    """The bind response in `data`, one whole LDAPMessage; NotLdap if it is anything else."""
    message, rest = _take(data, SEQUENCE)
    if rest:
        raise NotLdap('octets after the response')
    number, message = _take(message, INTEGER)
    if _integer(number) != MESSAGE_ID:
        raise NotLdap('another message id')
    result, _ = _take(message, BIND_RESPONSE)  # controls may follow
    code, result = _take(result, ENUMERATED)
    _, result = _take(result, OCTET_STRING)  # matchedDN
    text, _ = _take(result, OCTET_STRING)  # referrals and SASL credentials may follow
    return Response(_integer(code), text.decode('utf-8', 'replace'))


def _read_message(stream: TimedSocket) -> bytes:
    """One LDAPMessage off the wire, unchecked but for its length."""
    data = stream.read(2)
    if len(data) == 2 and data[1] > 0x80:
        data += stream.read(min(data[1] - 0x80, 4))
    _, start, size = _head(data)
    if size > RESPONSE_LIMIT:
        raise NotLdap('response too long')
    return data + stream.read(start + size - len(data))


def login(stream: TimedSocket, user: bytes, password: bytes, url) -> Verdict:
    """Binds on a fresh connection as url.dn with `%s` replaced."""
    stream.sendall(bind_request(url.dn.encode().replace(b'%s', escape(user)), password))
    try:
        response = parse_response(_read_message(stream))
    except NotLdap as error:
        return Verdict(UNSURE, f'no LDAP bind response: {error}')
    if response.code == 0:
        return Verdict(YES)
    words = brief(f'result {response.code} {REFUSALS.get(response.code, "")}: {response.text}')
    return Verdict(NO if response.code in REFUSALS else UNSURE, words)
