# SPDX-License-Identifier: GPL-2.0-or-later
"""Recipients of a message that comes without an envelope (tmda-inject, tmda-sendmail -t).

To, Cc, Bcc and Apparently-To name them; for a message that is being resent, Resent-To, Resent-Cc
and Resent-Bcc.  The SMTP side never looks here: its recipients are those of RCPT.
"""

from __future__ import annotations

from TMDA.inject.addresses import parse
from TMDA.inject.message import Message
from TMDA.inject.spool import Spool

FIELDS = ('To', 'Cc', 'Bcc', 'Apparently-To')
RESENT_FIELDS = ('Resent-To', 'Resent-Cc', 'Resent-Bcc')


def from_header(spool: Spool, header_limit: int) -> list[str]:
    """All addresses in the order of the fields, each once.  Raises ReplyError like Message.read."""
    header = Message.read(spool, header_limit).header
    resent = header.get('Resent-From') is not None
    values = [value for name in (RESENT_FIELDS if resent else FIELDS)
              for value in header.get_all(name)]
    return list(dict.fromkeys(address for _name, address in parse(*values) if address))
