# SPDX-License-Identifier: GPL-2.0-or-later
"""tmda-address: print a tagged address."""
from __future__ import annotations

import time
from typing import Optional, Sequence

from TMDA import Address
from TMDA.Cookie import Cookies
from TMDA.tools import common

NAME = 'tmda-address'


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    return common.run(NAME, _address, arguments)


def _address(arguments: Optional[Sequence[str]]) -> int:
    parser = common.parser(NAME, 'Print a tagged address.')
    parser.add_argument('-a', '--address', metavar='ADDRESS',
                        help='address to tag instead of USERNAME@HOSTNAME')
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument('-d', '--dated', action='store_true',
                      help='an address that is valid for some time (default)')
    kind.add_argument('-k', '--keyword', metavar='WORD', help='an address with a keyword')
    kind.add_argument('-s', '--sender', metavar='SENDER',
                      help='an address for mail from this address or domain only')
    parser.add_argument('-t', '--timeout', metavar='INTERVAL',
                        help='how long a dated address is valid, as 5d')
    parser.add_argument('-n', '--no-newline', action='store_true', help='print no newline')
    options = parser.parse_args(arguments)
    tag, value = 'dated', options.timeout
    for name in ('keyword', 'sender'):
        if getattr(options, name) is not None:
            tag, value = name, getattr(options, name)
            if options.timeout is not None:
                parser.error('-t belongs to dated addresses')
    cookies = Cookies(common.load(options))
    made = create(cookies, tag, options.address, value, time.time())
    print(made, end='' if options.no_newline else '\n')
    return 0


def create(cookies: Cookies, tag: str, base: Optional[str], value: Optional[str],
           now: float) -> str:
    """The address that the command prints.

    tag    dated, keyword or sender
    base   the address to tag, or None for the user's own; it is lower-cased
    value  interval (None: the default), keyword, or sender
    """
    settings = cookies.settings
    base = (base or f'{settings.USERNAME}@{settings.HOSTNAME}').lower()
    if tag == 'dated':
        return Address.dated(cookies, base, now, value)
    make = Address.keyword if tag == 'keyword' else Address.sender
    return make(cookies, base, value)
