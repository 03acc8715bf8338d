# SPDX-License-Identifier: GPL-2.0-or-later
"""SASL mechanisms as steps (RFC 4422), without input or output.

A mechanism is a generator.  It yields what it needs and is sent the answer:

    Challenge(data)    -> the client's response, octets
    Lookup(user)       -> (salt, iterations) for SCRAM
    Verify(credentials) -> what the backend's channel returned; refusals never come back

and returns when the exchange is complete.  login.py drives it; base64 and lines are its affair.
Malformed is raised for a response that the mechanism's grammar does not know, Rejected for one
that is well-formed and must not be accepted, without asking anybody.

Credentials are what a source is asked with.  User names are str from valid UTF-8 without control
characters; passwords are str decoded from UTF-8 with `surrogateescape`, because old clients send
other character sets: `octets` has them as they came.  No repr shows a secret.

PLAIN: RFC 4616.  LOGIN: the Internet-Draft murchison-sasl-login.  CRAM-MD5: RFC 2195.
SCRAM-SHA-256: RFC 5802 and RFC 7677, without channel binding; names are compared as they come,
without SASLprep.
"""

from __future__ import annotations

import binascii
import os
import re
import time
from collections.abc import Generator
from typing import NamedTuple

NONCE_OCTETS = 18
SHA256_SIZE = 32
_CONTROL = re.compile(r'[\x00-\x1f\x7f-\x9f]')
_BASE64 = re.compile(rb'(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?\Z')
_MD5_HEX = re.compile(r'[0-9a-f]{32}\Z')
_NONCE = re.compile(r'[!-+\--~]+\Z')


class Malformed(Exception):
    """A response that the mechanism's grammar does not allow."""


class Rejected(Exception):
    """A well-formed response that must not be accepted.  str() is the cause for the log."""


class Challenge(NamedTuple):
    """Ask the client; data is not yet in base64."""

    data: bytes


class Lookup(NamedTuple):
    """Ask the backend for the salt and iterations of a user."""

    user: str


class Verify(NamedTuple):
    """Ask the backend whether these credentials are right."""

    credentials: object


class Password(NamedTuple):
    """From PLAIN and LOGIN."""

    user: str
    password: str

    def __repr__(self) -> str:
        return 'Password(%r)' % self.user

    @property
    def octets(self) -> bytes:
        """The password as it came."""
        return self.password.encode('utf-8', 'surrogateescape')


class CramMD5(NamedTuple):
    """From CRAM-MD5: digest is the client's HMAC-MD5 of challenge in lower-case hex."""

    user: str
    challenge: bytes
    digest: str

    def __repr__(self) -> str:
        return 'CramMD5(%r)' % self.user

    def matches(self, password: str) -> bool:
        """True when the client knows that password."""
        import hmac
        key = password.encode('utf-8', 'surrogateescape')
        expected = hmac.new(key, self.challenge, 'md5').hexdigest()
        return hmac.compare_digest(expected.encode('ascii'), self.digest.encode('ascii'))


class Scram(NamedTuple):
    """From SCRAM-SHA-256: proof is the client's ClientProof over auth_message (RFC 5802 3)."""

    user: str
    auth_message: bytes
    proof: bytes

    def __repr__(self) -> str:
        return 'Scram(%r)' % self.user

    def matches(self, stored_key: bytes) -> bool:
        """True when the client knows the password that stored_key was made from."""
        import hashlib
        import hmac
        signature = _hmac(stored_key, self.auth_message)
        client_key = bytes(a ^ b for a, b in zip(signature, self.proof))
        return hmac.compare_digest(hashlib.sha256(client_key).digest(), stored_key)

    def server_signature(self, server_key: bytes) -> bytes:
        """What proves to the client that the server knows the user too."""
        return _hmac(server_key, self.auth_message)


def scram_keys(password: str, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    """(stored key, server key) of a password (RFC 5802 3); expensive on purpose."""
    import hashlib
    salted = hashlib.pbkdf2_hmac('sha256', password.encode('utf-8', 'surrogateescape'), salt,
                                 iterations)
    stored = hashlib.sha256(_hmac(salted, b'Client Key')).digest()
    return stored, _hmac(salted, b'Server Key')


def decode_base64(data: bytes) -> bytes:
    """The octets that data stands for, padding required (RFC 4954 4).  Raises Malformed."""
    if not _BASE64.match(data):
        raise Malformed('base64')
    return binascii.a2b_base64(data)


def encode_base64(data: bytes) -> bytes:
    """data in base64 without a line end."""
    return binascii.b2a_base64(data, newline=False)


def plain(initial: bytes | None, hostname: str) -> Generator:
    """PLAIN: authorization identity NUL user NUL password, at once or after an empty challenge."""
    response = (yield Challenge(b'')) if initial is None else initial
    parts = response.split(b'\0')
    if len(parts) != 3:
        raise Malformed('PLAIN needs two NULs')
    user = _user(parts[1])
    _check_identity(_user(parts[0]), user)
    yield Verify(Password(user, _password(parts[2])))


def login(initial: bytes | None, hostname: str) -> Generator:
    """LOGIN: user and password, each asked for; an initial response is the user."""
    name = (yield Challenge(b'Username:')) if initial is None else initial
    password = yield Challenge(b'Password:')
    yield Verify(Password(_user(name), _password(password)))


def cram_md5(initial: bytes | None, hostname: str) -> Generator:
    """CRAM-MD5: a challenge that is never used twice, answered with user and HMAC."""
    if initial is not None:
        raise Malformed('CRAM-MD5 has no initial response')
    chance = int.from_bytes(os.urandom(8), 'big')
    challenge = ('<%d.%d@%s>' % (chance, time.time(), hostname)).encode('utf-8')
    name, _, digest = (yield Challenge(challenge)).rpartition(b' ')
    digest_text = digest.decode('ascii', 'replace').lower()
    if not _MD5_HEX.match(digest_text):
        raise Malformed('CRAM-MD5 needs a user and 32 hexadecimal digits')
    yield Verify(CramMD5(_user(name), challenge, digest_text))


def scram_sha_256(initial: bytes | None, hostname: str) -> Generator:
    """SCRAM-SHA-256: the backend gives salt, iterations and the server's signature."""
    first = (yield Challenge(b'')) if initial is None else initial
    header, bare, user, client_nonce = _client_first(first)
    salt, iterations = yield Lookup(user)
    nonce = client_nonce + encode_base64(os.urandom(NONCE_OCTETS)).decode('ascii')
    server_first = 'r=%s,s=%s,i=%d' % (nonce, encode_base64(salt).decode('ascii'), iterations)
    final = _text((yield Challenge(server_first.encode('ascii'))))
    without_proof, _, proof = final.rpartition(',p=')
    attributes = without_proof.split(',')
    if attributes[0] != 'c=' + encode_base64(header.encode('utf-8')).decode('ascii'):
        raise Rejected('SCRAM: channel binding differs')
    if attributes[1:2] != ['r=' + nonce]:
        raise Rejected('SCRAM: nonce differs')
    message = ','.join((bare, server_first, without_proof)).encode('utf-8')
    identity = yield Verify(Scram(user, message, _proof(proof)))
    signature = encode_base64(identity.server_signature)
    if (yield Challenge(b'v=' + signature)):
        raise Malformed('SCRAM: the last response is empty')


# Name -> steps(initial response or None, host name for challenges)
MECHANISMS = {
    'PLAIN': plain,
    'LOGIN': login,
    'CRAM-MD5': cram_md5,
    'SCRAM-SHA-256': scram_sha_256,
}


def _client_first(message: bytes) -> tuple[str, str, str, str]:
    """(GS2 header, client-first-message-bare, user, nonce) of RFC 5802 7."""
    flag, comma, rest = _text(message).partition(',')
    authorization, comma_too, bare = rest.partition(',')
    attributes = bare.split(',')
    if not comma_too or flag not in ('n', 'y') or len(attributes) < 2:
        raise Malformed('SCRAM: client-first-message')  # p=: binding was never offered
    name, nonce = attributes[0], attributes[1]
    if not name.startswith('n=') or nonce[:2] != 'r=' or not _NONCE.match(nonce[2:]):
        raise Malformed('SCRAM: client-first-message')
    user = _saslname(name[2:])
    if authorization:
        if not authorization.startswith('a='):
            raise Malformed('SCRAM: authorization identity')
        _check_identity(_saslname(authorization[2:]), user)
    return flag + comma + authorization + ',', bare, user, nonce[2:]


def _saslname(text: str) -> str:
    """RFC 5802 5.1: =2C and =3D stand for comma and equals sign; no other `=` may occur."""
    if '=' in text.replace('=2C', '').replace('=3D', ''):
        raise Malformed('SCRAM: name')
    return _user(text.replace('=2C', ',').replace('=3D', '=').encode('utf-8'))


def _proof(text: str) -> bytes:
    proof = decode_base64(text.encode('utf-8'))
    if len(proof) != SHA256_SIZE:
        raise Malformed('SCRAM: proof')
    return proof


def _text(data: bytes) -> str:
    try:
        return data.decode('utf-8')
    except UnicodeDecodeError:
        raise Malformed('not UTF-8') from None


def _user(data: bytes) -> str:
    """A login name: control characters could end up in logs and protocols, so none may."""
    try:
        user = data.decode('utf-8')
    except UnicodeDecodeError:
        raise Rejected('user name is not UTF-8') from None
    if _CONTROL.search(user):
        raise Rejected('control character in the user name')
    return user


def _password(data: bytes) -> str:
    return data.decode('utf-8', 'surrogateescape')


def _check_identity(authorization: str, user: str) -> None:
    """Nobody acts for another: the authorization identity is empty or the user's own name."""
    if authorization.lower() not in ('', user.lower()):
        raise Rejected('authorization identity differs from the user')


def _hmac(key: bytes, message: bytes) -> bytes:
    import hmac
    return hmac.digest(key, message, 'sha256')
