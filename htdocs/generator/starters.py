# SPDX-License-Identifier: GPL-2.0-or-later
"""contrib/dot-tmda: the files that --setup makes, as an example.  TMDA.ofmipd.starter has them."""
from TMDA.ofmipd import starter

EXAMPLE = starter.Answers(name='Chloe Example', address='chloe@example.net',
                          upstream='mail.example.net:587', tls='starttls', login='chloe',
                          password='the password there')


def config() -> str:
    """~/.tmda/config."""
    return starter.configuration(EXAMPLE)


def outgoing() -> str:
    """~/.tmda/filters/outgoing."""
    return starter.FILTER
