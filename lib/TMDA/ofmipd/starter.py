# SPDX-License-Identifier: GPL-2.0-or-later
"""The texts of the files that --setup makes: configuration, filter, password file.

Everything that a user typed goes into the configuration as a Python literal.
"""

from __future__ import annotations

from typing import NamedTuple

from TMDA import Address, Kinds
from TMDA.Errors import AddressError
from TMDA.ofmipd.failure import UsageError

TLS_VALUES = {'starttls': True, 'wrapper': 'wrapper', 'none': False}


class Answers(NamedTuple):
    """What --setup knows.  upstream is `host:port`, tls a key of TLS_VALUES, login '' for none."""

    name: str
    address: str
    upstream: str = ''
    tls: str = ''
    login: str = ''
    password: str = ''

    def __repr__(self) -> str:
        return '<Answers of %s>' % self.address


def checked_address(text: str) -> str:
    """text if it is a mail address.  Raises UsageError."""
    try:
        parts = [Kinds.address_part(part, '') for part in Address.split(text)]
    except (AddressError, ValueError):
        parts = []
    if not parts or not text.isprintable():
        raise UsageError('%r is no mail address' % text)
    return '@'.join(parts)


_CONFIG = """\
# TMDA's configuration.  It is a Python program that is read anew for each message;
# tmdarc(5) describes all variables, `tmda-ofmipd --check` looks for mistakes.

# Who you are.
FULLNAME = %(name)r
USERNAME = %(user)r
HOSTNAME = %(host)r

# The server that takes your mail.  SMTPSSL: True is STARTTLS, 'wrapper' is TLS from the first
# byte, False is no TLS.
MAIL_TRANSPORT = 'smtp'
SMTPHOST = %(upstream)r
SMTPSSL = %(tls)r
%(login)s
# What separates the parts of a tagged address.  Your mail server must deliver
# %(user)s-anything@%(host)s to you; many servers want '+' here instead.
RECIPIENT_DELIMITER = '-'

# What is done for recipients that no rule of filters/outgoing matches: an address that can be
# answered for five days.
ACTION_OUTGOING = 'dated'
DATED_TIMEOUT = '5d'

# A list to which the action bare=append adds recipients, and a log of tagged messages.
#BARE_APPEND = '~/.tmda/lists/known'
#LOGFILE_OUTGOING = '~/.tmda/outgoing.log'
"""
_LOGIN = """\
SMTPAUTH_USERNAME = %r
SMTPAUTH_PASSWORD = %r
"""
FILTER = """\
# TMDA's outgoing filter.  Each rule is `SOURCE MATCH ACTION`; the first that matches a recipient
# counts, and ACTION_OUTGOING of the configuration where none does.  tmda-filter-format(5)
# describes all of it; `tmda-ofmipd --explain RECIPIENT` shows which rule matches, and the address.

# Those who have your own address already: one address or pattern a line in the file.
#to-file -optional ~/.tmda/lists/known      bare

# An address that only this person, or everybody in this domain, can answer.
#to bob@example.org                         sender
#to *@=example.com                          domain

# Mailing lists: an address of its own for each, valid until you change it in the list's software.
#to announce@lists.example.org              keyword=announce

# Shops: an address that works for four weeks.
#to *@=shop.example                         dated=4w
"""


def configuration(answers: Answers) -> str:
    """The text of the configuration file."""
    user, _, host = answers.address.partition('@')
    login = _LOGIN % (answers.login, answers.password) if answers.login else ''
    return _CONFIG % {'name': answers.name, 'user': user, 'host': host, 'login': login,
                      'upstream': answers.upstream, 'tls': TLS_VALUES[answers.tls]}
