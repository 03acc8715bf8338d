# SPDX-License-Identifier: GPL-2.0-or-later
"""The codes in tagged addresses: made from a secret key, and checked with it.

A cookie is a short text with a message authentication code (RFC 2104) of that
text, so that only the holder of the key can have made it.  Existing
installations of TMDA verify our cookies with their own programs: the octets
are those of TMDA 1.1 or 1.3, as COOKIE_FORMAT says.

    dated    EXPIRY.MAC of the expiry, in seconds since 1970
    sender   MAC of the sender's address or domain, lower-cased
    keyword  KEYWORD.MAC of the keyword
    confirm  TIME.PID.MAC of time, process id and a word

Format 1.1: HMAC-SHA1, the first HMAC_BYTES octets in hex.  Format 1.3:
HMAC_ALGO, or PBKDF2 (RFC 8018) where its name begins with p2; the base64 form
without capitals and punctuation, about as long as HMAC_BYTES octets in base64.

Checking looks at the code before it looks at the clock, tries the current key
and then the one that CRYPT_KEY_FILE_ROLLOVER names, and takes the same time
wherever a wrong code differs from the right one.
"""
from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import os
import re
import stat
from typing import Iterable, List, NamedTuple, Optional, Union

from TMDA.Defaults import Settings, interval_seconds
from TMDA.Errors import BadCryptoError, ConfigError, ExpiredAddressError
from TMDA.FileCache import FileCache

INVALID = 'Invalid cryptographic tag.'
MALFORMED = 'Invalid cryptographic tag format.'
CONFIRM_WORDS = ('accept', 'done')

_keys = FileCache()
_NOT_IN_KEYWORD = re.compile(r"[^-a-zA-Z0-9!#$%&*+/=?^_`{|}'~]")
_BEYOND_HEX = re.compile('[g-z]')
_BEYOND_WORD = re.compile('[^a-z0-9]')
_EXPIRY = re.compile('[0-9]{1,18}')

Text = Union[str, bytes]


class Scheme(NamedTuple):
    """A key, and how codes are made with it."""

    key: bytes
    algorithm: str
    rounds: int
    octets: int

    def __repr__(self) -> str:
        return f'<Scheme {self.algorithm}>'

    def digest(self, data: bytes) -> bytes:
        """The whole code of `data`."""
        if self.algorithm.startswith('p2'):
            return _slow_digest(self, data)
        return hmac.digest(self.key, data, self.algorithm)

    def hex(self, digest: bytes) -> str:
        """The form of 1.1."""
        return digest[:self.octets].hex()

    def word(self, digest: bytes) -> str:
        """The form of 1.3."""
        letters = _BEYOND_WORD.sub('', base64.b64encode(digest).decode().lower())
        return letters[:int(1.55 * self.octets + 0.5)]


# 10**5 rounds take some 30 ms, and all recipients of a message share a dated cookie.
@functools.lru_cache(maxsize=1024)
def _slow_digest(scheme: Scheme, data: bytes) -> bytes:
    return hashlib.pbkdf2_hmac(scheme.algorithm[2:], data, scheme.key, 10 ** scheme.rounds)


def read_key(path: str, allow_640: bool = False) -> bytes:
    """The key in the file at `path`, which holds hex digits.

    Raises ConfigError if it is missing, holds anything else, or if its mode
    lets others read it: 400 or 600 are right, 640 if `allow_640`.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise ConfigError(f"Can't find key file: {path}") from None
    except OSError as error:
        raise ConfigError(f'{path}: {error.strerror}') from error
    modes = (0o400, 0o600, 0o640) if allow_640 else (0o400, 0o600)
    if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) not in modes:
        wanted = '400, 600 or 640' if allow_640 else '400 or 600'
        raise ConfigError(f'{path} must be chmod {wanted}!')
    key = _keys.get(path, status)
    if key is None:
        try:
            with open(path, 'rb') as file:
                key = binascii.unhexlify(file.read().strip())
        except OSError as error:
            raise ConfigError(f'{path}: {error.strerror}') from error
        except ValueError:
            key = b''
        if not key:
            # The text of the error must not show what is in the file.
            raise ConfigError(f'{path}: not a key; it must hold an even number of hex digits')
        _keys.put(path, status, key)
    return key


def _octets(text: Text) -> bytes:
    return text if isinstance(text, bytes) else text.encode('utf-8', 'surrogateescape')


class Cookies:
    """Makes and checks the cookies of one user.

    Raises ConfigError when made, if there is no usable key.  The methods that
    check raise BadCryptoError for a cookie that the user's keys did not make.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._old = settings.COOKIE_FORMAT == '1.1'
        self._scheme = Scheme(read_key(settings.CRYPT_KEY_FILE, settings.ALLOW_MODE_640),
                              settings.HMAC_ALGO, settings.HMAC_ROUNDS, settings.HMAC_BYTES)

    def __repr__(self) -> str:
        return f'<Cookies {self._scheme.algorithm}>'

    def dated(self, now: float, interval: Optional[str] = None) -> str:
        """`EXPIRY.MAC`, valid for `interval` (default DATED_TIMEOUT) from `now` on.

        `now` is in seconds since 1970.  Raises IntervalError.
        """
        seconds = interval_seconds(self.settings.DATED_TIMEOUT if interval is None else interval)
        expiry = str(int(now) + seconds)
        return f'{expiry}.{self._mac(expiry)}'

    def sender(self, address: str) -> str:
        """The MAC for mail from `address`, or from a domain."""
        return self._mac(self._lower(address))

    def keyword(self, word: str, for_address: bool = False) -> str:
        """`KEYWORD.MAC`; characters that an address can't hold are replaced by `?`.

        In an address (`for_address`), TMDA 1.1 shows the keyword in lower case.
        """
        # A letter beyond ASCII is one character in 1.3, one or more octets in 1.1.
        word = _octets(word).decode('latin-1') if self._old else word
        word = _NOT_IN_KEYWORD.sub('?', word)
        word = word.replace(self.settings.RECIPIENT_DELIMITER, '?')
        if self._old and for_address:
            word = word.lower()
        return f'{word}.{self._mac(word if self._old else word.lower())}'

    def confirm(self, time: float, pid: Union[int, str], word: Optional[str] = None) -> str:
        """`TIME.PID.MAC`, the cookie that a confirmation is answered with."""
        return f'{int(time)}.{pid}.{self._mac(str(int(time)), str(pid), word or "")}'

    def fingerprint(self, values: Iterable[Text]) -> str:
        """The value of X-TMDA-Fingerprint over `values`, in their order."""
        algorithm = self._scheme.algorithm
        if algorithm.startswith('p2'):
            algorithm = algorithm[2:]
        data = b''.join(_octets(value) for value in values)
        digest = hmac.new(self._scheme.key, data, algorithm).digest()
        return base64.b64encode(digest).decode().rstrip('=')

    def check_dated(self, cookie: str, now: float) -> int:
        """The expiry of a dated cookie; ExpiredAddressError if that is before `now`."""
        expiry, dot, mac = cookie.partition('.')
        if not dot or not _EXPIRY.fullmatch(expiry):
            raise BadCryptoError(MALFORMED)
        self._require(mac, [expiry])
        if int(expiry) < int(now):
            raise ExpiredAddressError(int(expiry))
        return int(expiry)

    def check_sender(self, mac: str, sender: str) -> None:
        """A sender cookie must be for `sender`, for its domain, or for one above that.

        Not for a top-level domain: a cookie for `org` would let half the world in.
        """
        domain = sender.rpartition('@')[2]
        labels = domain.split('.')
        above = ['.'.join(labels[start:]) for start in range(1, len(labels) - 1)]
        texts = dict.fromkeys(self._lower(name) for name in (sender, domain, *above))
        self._require(mac, texts)

    def check_keyword(self, cookie: str) -> None:
        """A keyword cookie, in the case that it was made in or in lower case."""
        word, dot, mac = cookie.rpartition('.')
        if not dot:
            raise BadCryptoError(MALFORMED)
        self._require(mac, dict.fromkeys((self._lower(word), _octets(word))))

    def check_confirm(self, cookie: str) -> None:
        """A confirmation cookie, for any of the words that TMDA asks with."""
        fields = cookie.split('.')
        if len(fields) != 3:
            raise BadCryptoError(MALFORMED)
        time, pid, mac = fields
        self._require(mac, [time + pid + word for word in CONFIRM_WORDS])

    def matches(self, mac: str, *items: Text) -> bool:
        """Whether one of the user's keys made `mac` of `items`."""
        data = b''.join(_octets(item) for item in items)
        # A code of format 1.1 has hex digits only, one of 1.3 nearly always more.
        in_hex = self._old or (self.settings.HMAC_ENCODING_COMPAT and not _BEYOND_HEX.search(mac))
        for scheme in self._schemes():
            digest = scheme.digest(data)
            right = scheme.hex(digest) if in_hex else scheme.word(digest)
            if hmac.compare_digest(_octets(right), _octets(mac)):
                return True
        return False

    def _require(self, mac: str, texts: Iterable[Text]) -> None:
        """BadCryptoError unless `mac` is the code of one of `texts`."""
        if not any(self.matches(mac, text) for text in texts):
            raise BadCryptoError(INVALID)

    def _schemes(self) -> List[Scheme]:
        """The current key, then the former one; that is read here, as only checking needs it."""
        settings = self.settings
        if not settings.CRYPT_KEY_FILE_ROLLOVER:
            return [self._scheme]
        return [self._scheme,
                Scheme(read_key(settings.CRYPT_KEY_FILE_ROLLOVER, settings.ALLOW_MODE_640),
                       settings.HMAC_ALGO_ROLLOVER, settings.HMAC_ROUNDS_ROLLOVER,
                       settings.HMAC_BYTES_ROLLOVER)]

    def _mac(self, *items: Text) -> str:
        digest = self._scheme.digest(b''.join(_octets(item) for item in items))
        if self._old:
            return self._scheme.hex(digest)
        mac = self._scheme.word(digest)
        if self.settings.HMAC_ENCODING_COMPAT and not _BEYOND_HEX.search(mac):
            return self._scheme.hex(digest)
        return mac

    def _lower(self, text: str) -> bytes:
        """`text` in lower case; 1.1 knew octets, and lower-cased the ASCII letters among them."""
        return _octets(text).lower() if self._old else _octets(text.lower())
