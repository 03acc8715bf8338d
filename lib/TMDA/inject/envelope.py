# SPDX-License-Identifier: GPL-2.0-or-later
"""The envelope as the client gave it (RFC 5321 2.3.1) with its extension parameters.

Addresses are str; a domain or local part beyond ASCII occurs only with `smtputf8` (RFC 6531).
"""

from __future__ import annotations

from typing import NamedTuple


class Recipient(NamedTuple):
    """One RCPT: the address, and the DSN parameters as they came (RFC 3461; '' for none)."""

    address: str
    notify: str = ''
    orcpt: str = ''


class Envelope(NamedTuple):
    """Sender ('' for the null sender), recipients in order, and what MAIL said besides.

    body is '', '7BIT' or '8BITMIME' (RFC 6152); ret and envid belong to DSN (RFC 3461).
    """

    sender: str
    recipients: tuple[Recipient, ...]
    body: str = ''
    smtputf8: bool = False
    ret: str = ''
    envid: str = ''
