# SPDX-License-Identifier: GPL-2.0-or-later
"""tmda-check-address: say whether a tagged address is valid.

Prints the verdict as `STATUS: ...`; the exit status is 0 for a valid address
and 1 for any other.
"""
from __future__ import annotations

import time
from typing import Optional, Sequence

from TMDA import Address
from TMDA.Cookie import Cookies
from TMDA.Errors import BadCryptoError, ExpiredAddressError
from TMDA.tools import common

NAME = 'tmda-check-address'


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    return common.run(NAME, _check, arguments)


def _check(arguments: Optional[Sequence[str]]) -> int:
    parser = common.parser(NAME, 'Verify a tagged address.')
    parser.add_argument('-l', '--local-time', action='store_true',
                        help='show times in the local zone instead of UTC')
    parser.add_argument('address', metavar='ADDRESS', help='the tagged address')
    parser.add_argument('sender', metavar='SENDER', nargs='?',
                        help='who sent to it, to verify a sender address')
    options = parser.parse_args(arguments)
    cookies = Cookies(common.load(options))
    try:
        expires = Address.verify(cookies, options.address, time.time(), options.sender)
    except ExpiredAddressError as error:
        print(f'STATUS: {error}\nEXPIRED: {date_text(error.expires, options.local_time)}')
        return 1
    except BadCryptoError as error:
        print(f'STATUS: {error}')
        return 1
    print('STATUS: VALID')
    if expires is not None:
        print(f'EXPIRES: {date_text(expires, options.local_time)}')
    return 0


def date_text(seconds: int, local: bool) -> str:
    """The time as `Sun Nov 22 07:15:00 2026 UTC`, or in the local zone with its name."""
    try:
        fields = time.localtime(seconds) if local else time.gmtime(seconds)
    except (OverflowError, ValueError, OSError):
        return f'{seconds} seconds after 1970'
    return f'{time.asctime(fields)} {fields.tm_zone if local else "UTC"}'
