# SPDX-License-Identifier: GPL-2.0-or-later
"""Tagged addresses: made for outgoing mail, recognized and verified.

A tagged address is the user's own with a tag word and a cookie in it,
`user-dated-1732684800.621a29@example.net`; the delimiter is
RECIPIENT_DELIMITER, the tag word the first of TAGS_DATED and so on.  Cookie
makes and checks the cookies.  Addresses are plain texts, without display name
or angle brackets; their user part keeps its case.
"""
from __future__ import annotations

import re
from typing import Optional, Tuple, Union

from TMDA.Cookie import Cookies
from TMDA.Defaults import Settings
from TMDA.Errors import AddressError, BadCryptoError

# Kind of address, and the variable with the words that mark it.
_KINDS = (('dated', 'TAGS_DATED'), ('sender', 'TAGS_SENDER'),
          ('keyword', 'TAGS_KEYWORD'), ('confirm', 'TAGS_CONFIRM'))


def split(address: str) -> Tuple[str, str]:
    """(user, host) of an address; AddressError unless it has exactly one `@`."""
    user, _, host = address.partition('@')
    if address.count('@') != 1:
        raise AddressError(f'not an address with exactly one "@": {address}')
    return user, host


def extension(settings: Settings, base: str, word: str) -> str:
    """`base` with the extension `word`: `user-word@host`."""
    return _insert(settings, base, word)


def dated(cookies: Cookies, base: str, now: float, interval: Optional[str] = None) -> str:
    """An address that is valid for `interval` (default DATED_TIMEOUT) from `now` on.

    Raises IntervalError, and AddressError as all functions do that take `base`.
    """
    settings = cookies.settings
    return _insert(settings, base, settings.TAGS_DATED[0], cookies.dated(now, interval))


def sender(cookies: Cookies, base: str, who: str) -> str:
    """An address for mail from `who` only, an address or a domain."""
    settings = cookies.settings
    return _insert(settings, base, settings.TAGS_SENDER[0], cookies.sender(who))


def keyword(cookies: Cookies, base: str, word: str) -> str:
    """An address that is recognized by the keyword in it."""
    settings = cookies.settings
    return _insert(settings, base, settings.TAGS_KEYWORD[0],
                   cookies.keyword(word, for_address=True))


def confirm(cookies: Cookies, base: str, time: float, pid: Union[int, str],
            word: Optional[str] = None) -> str:
    """The address that answers the confirmation request made at `time` by process `pid`."""
    settings = cookies.settings
    return _insert(settings, base, settings.TAGS_CONFIRM[0], cookies.confirm(time, pid, word))


def kind(settings: Settings, address: str) -> str:
    """`dated`, `sender`, `keyword`, `confirm`, or `` for an address without a tag."""
    return _parse(settings, split(address)[0])[0]


def verify(cookies: Cookies, address: str, now: float,
           sender: Optional[str] = None) -> Optional[int]:
    """Check the cookie in `address` for mail that arrives at `now` from `sender`.

    Returns the last second in which a dated address is valid, else None.
    Raises BadCryptoError if the address has no tag or the user's keys did not
    make it (for a sender address also: not for `sender`), ExpiredAddressError if a
    dated address was once valid.
    """
    tag, cookie = _parse(cookies.settings, split(address)[0])
    if not tag:
        raise BadCryptoError('No cryptographic information in address.')
    # Codes are in lower case; mail systems may have changed the case of an address.
    rest, dot, mac = cookie.rpartition('.')
    cookie = rest + dot + mac.lower()
    if tag == 'dated':
        return cookies.check_dated(cookie, now)
    if tag == 'keyword':
        cookies.check_keyword(cookie)
    elif tag == 'confirm':
        cookies.check_confirm(cookie)
    elif sender is None:
        raise BadCryptoError('Sender addresses are verified together with the sender.')
    else:
        cookies.check_sender(cookie, sender)
    return None


def _insert(settings: Settings, base: str, *parts: str) -> str:
    user, host = split(base)
    return settings.RECIPIENT_DELIMITER.join((user, *parts)) + '@' + host


def _parse(settings: Settings, user: str) -> Tuple[str, str]:
    """(kind, cookie) of the user part of an address; ('', '') if it has no tag.

    The tag is the last that fits, as users may have one of the words, or the
    delimiter, in their names.
    """
    delimiter = re.escape(settings.RECIPIENT_DELIMITER)
    best = (0, '', '')
    for name, variable in _KINDS:
        for word in getattr(settings, variable):
            found = re.fullmatch(f'(.+){delimiter}{re.escape(word)}{delimiter}(.*)', user,
                                 re.IGNORECASE | re.DOTALL)
            if found:
                best = max(best, (found.start(2), name, found[2]))
    return best[1:]
