# SPDX-License-Identifier: GPL-2.0-or-later
"""The forms in which a password file keeps a password.

    secret                                               in plain
    {SCRAM-SHA-256}ITERATIONS,SALT,STOREDKEY,SERVERKEY   RFC 5803's values as `doveadm pw` writes
                                                         them; SALT and keys in base64
    {SCRYPT}ln=N,r=R,p=P$SALT$HASH                       RFC 7914 with cost 2**N; base64
    $5$... $6$...                                        SHA-256 and SHA-512 crypt(3), read only

parse() makes an entry of a text; make_scram() and make_scrypt() make texts.  An entry answers
check(password): True, False, or None when it cannot tell (no libcrypt, no scrypt in OpenSSL).
Plain and Scram entries can also take part in SCRAM-SHA-256 through keys().

Costs are bounded when an entry is parsed, so that a mistyped number cannot stall logins.  No
object here shows a secret in its repr.
"""

from __future__ import annotations

import binascii
import functools
import os
import re
from typing import Tuple

from TMDA.ofmipd.verdict import octets

SCRAM_ITERATIONS = 15000  # for new entries, and for plain ones; RFC 7677 section 4 asks for 4096
SCRYPT_COST = (14, 8, 1)  # ln, r, p for new entries: 16 MiB and some 40 ms

ITERATIONS_LIMIT = 5000000  # PBKDF2 iterations or crypt rounds
SCRYPT_MEMORY_LIMIT = 256 << 20  # octets
CRYPT_PASSWORD_LIMIT = 512  # octets; libxcrypt's own limit
CRYPT_DATA_SIZE = 1 << 18  # octets; more than any libcrypt's struct crypt_data

_KEY = os.urandom(32)

ScramKeys = Tuple[bytes, bytes]  # StoredKey and ServerKey of RFC 5802 section 3


def equal(one: bytes, other: bytes) -> bool:
    """Whether both are the same, in a time that depends on neither's content nor on the match."""
    import hmac
    return hmac.compare_digest(hmac.digest(_KEY, one, 'sha256'),
                               hmac.digest(_KEY, other, 'sha256'))


def prepared(password: str) -> str:
    """A password as SCRAM wants it: SASLprep's mappings (RFC 4013 sections 2.1 and 2.2)."""
    if not password.isascii():
        import stringprep
        import unicodedata

        kept = (' ' if stringprep.in_table_c12(letter) else letter
                for letter in password if not stringprep.in_table_b1(letter))
        password = unicodedata.ucd_3_2_0.normalize('NFKC', ''.join(kept))
    return password


def scram_keys(password: str, salt: bytes, iterations: int) -> ScramKeys:
    """The keys that follow from a password (RFC 5802 section 3)."""
    from TMDA.ofmipd import sasl
    return sasl.scram_keys(prepared(password), salt, iterations)


class Plain:
    """A password in plain."""

    plain = scram = True

    def __init__(self, password: str):
        self.secret = password

    def check(self, password: str) -> bool | None:
        return equal(octets(password), octets(self.secret))

    def keys(self, salt: bytes, iterations: int) -> ScramKeys:
        return scram_keys(self.secret, salt, iterations)


class Scram:
    """SCRAM-SHA-256's salted keys."""

    plain = False
    scram = True

    def __init__(self, iterations: int, salt: bytes, keys: ScramKeys):
        self.iterations = iterations
        self.salt = salt
        self._keys = keys

    def check(self, password: str) -> bool | None:
        made = scram_keys(password, self.salt, self.iterations)
        return equal(made[0], self._keys[0])

    def keys(self, _salt: bytes, _iterations: int) -> ScramKeys:
        return self._keys


class Scrypt:
    """A scrypt hash."""

    plain = scram = False

    def __init__(self, cost: tuple, salt: bytes, digest: bytes):
        self._cost = cost
        self._salt = salt
        self._digest = digest

    def check(self, password: str) -> bool | None:
        import hashlib
        if not hasattr(hashlib, 'scrypt'):
            return None
        return equal(_scrypt(password, self._salt, self._cost, len(self._digest)), self._digest)


class Crypt:
    """A crypt(3) hash, checked by the system's libcrypt."""

    plain = scram = False

    def __init__(self, text: str):
        self._text = text

    def check(self, password: str) -> bool | None:
        secret = octets(password)
        if b'\0' in secret or len(secret) > CRYPT_PASSWORD_LIMIT:
            return False
        made = _crypt(secret, self._text.encode('ascii'))
        return made and equal(made, self._text.encode('ascii'))


def _scrypt(password: str, salt: bytes, cost: tuple, size: int) -> bytes:
    import hashlib
    power, blocks, lanes = cost
    return hashlib.scrypt(octets(password), salt=salt, n=1 << power, r=blocks, p=lanes,
                          maxmem=2 * SCRYPT_MEMORY_LIMIT, dklen=size)


@functools.lru_cache(maxsize=None)
def _crypt_r():
    """libcrypt's crypt_r, which threads may call at the same time; None without libcrypt."""
    import ctypes

    for name in ('libcrypt.so.1', 'libcrypt.so.2', 'libcrypt.so', None):  # None: musl's libc
        try:
            function = ctypes.CDLL(name).crypt_r
        except (OSError, AttributeError):
            continue
        function.restype = ctypes.c_char_p
        function.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p]
        return function
    return None


def _crypt(password: bytes, setting: bytes) -> bytes | None:
    function = _crypt_r()
    if function is None:
        return None
    import ctypes

    made = function(password, setting, ctypes.create_string_buffer(CRYPT_DATA_SIZE))
    return made if made and not made.startswith(b'*') else None


_SCRAM = r'\{SCRAM-SHA-256\}([0-9]{1,9}),([^,]+),([^,]+),([^,]+)'
_SCRYPT = (r'\{SCRYPT\}ln=([0-9]{1,2}),r=([0-9]{1,4}),p=([0-9]{1,4})'
           r'\$([^$]+)\$([^$]+)')
_CRYPT = r'\$([56])\$(?:rounds=([0-9]{1,9})\$)?[^$:\s]{1,16}\$([./0-9A-Za-z]+)'
_CRYPT_SIZE = {'5': 43, '6': 86}  # characters of the hash


def _binary(text: str) -> bytes:
    import base64
    return base64.b64decode(text.encode('ascii'), validate=True)


def _parse_scram(text: str):
    found = re.fullmatch(_SCRAM, text)
    if not found:
        return None
    salt, stored_key, server_key = (_binary(part) for part in found.groups()[1:])
    iterations = int(found[1])
    if len(stored_key) != 32 or len(server_key) != 32 or not 1 <= iterations <= ITERATIONS_LIMIT:
        return None
    return Scram(iterations, salt, (stored_key, server_key))


def _parse_scrypt(text: str):
    found = re.fullmatch(_SCRYPT, text)
    if not found:
        return None
    power, blocks, lanes = cost = tuple(int(part) for part in found.groups()[:3])
    if min(cost) < 1 or lanes > 16 or 128 * blocks * (1 << power) > SCRYPT_MEMORY_LIMIT:
        return None
    salt, digest = _binary(found[4]), _binary(found[5])
    return Scrypt(cost, salt, digest) if 16 <= len(digest) <= 128 else None


def _parse_crypt(text: str):
    found = re.fullmatch(_CRYPT, text)
    if not found or len(found[3]) != _CRYPT_SIZE[found[1]]:
        return None
    return Crypt(text) if int(found[2] or 0) <= ITERATIONS_LIMIT else None


# how an entry begins: what reads it.  Everything else is a password in plain.
FORMS = {
    '{SCRAM-SHA-256}': _parse_scram,
    '{SCRYPT}': _parse_scrypt,
    '$5$': _parse_crypt,
    '$6$': _parse_crypt,
}


def parse(text: str):
    """The entry that `text` is.

    ValueError, without the text in it, for an empty one and for one that begins like a hash but
    is none or would cost too much.
    """
    if not text:
        raise ValueError('no password')
    for beginning, read in FORMS.items():
        if text.startswith(beginning):
            try:
                entry = read(text)
            except (binascii.Error, UnicodeEncodeError):
                entry = None
            if entry is None:
                raise ValueError(f'not a whole {beginning} entry, or too costly')
            return entry
    return Plain(text)


def _text(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode('ascii')


def make_scram(password: str, iterations: int = SCRAM_ITERATIONS) -> str:
    """A {SCRAM-SHA-256} entry with a new salt."""
    salt = os.urandom(16)
    keys = scram_keys(password, salt, iterations)
    return '{SCRAM-SHA-256}%d,%s,%s,%s' % (iterations, _text(salt), _text(keys[0]), _text(keys[1]))


def make_scrypt(password: str, cost: tuple = SCRYPT_COST) -> str:
    """A {SCRYPT} entry with a new salt."""
    salt = os.urandom(16)
    return '{SCRYPT}ln=%d,r=%d,p=%d$%s$%s' % (*cost, _text(salt),
                                              _text(_scrypt(password, salt, cost, 32)))
