# SPDX-License-Identifier: GPL-2.0-or-later
"""What a command line says: octets in, values out, or a ReplyError with the refusal.

Called by the session for every command; pure.  The grammar is that of RFC 5321 4.1, read with the
leniency that old clients need (blanks around the path, no angle brackets) and with none where a
lenient reading could smuggle something past the next program: control octets, blanks and unpaired
brackets in an address are syntax errors.  Addresses are returned as they were written, quotes
included, without a source route (RFC 5321 appendix C).  Octets beyond ASCII must be UTF-8 and need
the SMTPUTF8 parameter (RFC 6531 3.3).

Parameters: SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), AUTH (RFC 4954 5: accepted and
ignored, nobody is trusted to vouch for another), and, where the transport can carry them, RET,
ENVID, NOTIFY and ORCPT (RFC 3461 4).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from TMDA.inject.envelope import Recipient
from TMDA.inject.reply import ReplyError, reply

_CONTROL = re.compile(rb'[\x00-\x08\x0a-\x1f\x7f]')

# In str patterns \s includes the blanks and line ends of Unicode; \x7f-\x9f are DEL and C1.
_WORD = r'[^\s\x00-\x20\x7f-\x9f()<>@,;:\\"\[\]]+'
_QUOTED = r'"(?:[^"\\\x00-\x1f\x7f-\x9f\u2028\u2029]|\\[\x20-\x7e])*"'
_LABEL = r'[^\s\x00-\x20\x7f-\x9f()<>@,;:\\"\[\].]+'
_DOMAIN = r'%s(?:\.%s)*' % (_LABEL, _LABEL)
_LITERAL = r'\[[!-;=?-Z^-~]+\]'  # RFC 5321 4.1.3, and no angle brackets in it
_LOCAL = r'(?:%s|%s)' % (_QUOTED, _WORD)
_HOST = r'@(?:%s|%s)' % (_DOMAIN, _LITERAL)
_ROUTE = r'@%s(?:,@%s)*:' % (_DOMAIN, _DOMAIN)
# Without brackets a host is needed, or a parameter would pass for an address.
_PATH = re.compile(r'(?:<[ \t]*(?:%s)?(?P<inner>%s(?:%s)?)?[ \t]*>|(?P<bare>%s%s))'
                   r'(?:[ \t]+(?P<rest>.*))?\Z' % (_ROUTE, _LOCAL, _HOST, _LOCAL, _HOST),
                   re.DOTALL)
_FROM = re.compile(r'FROM[ \t]*:[ \t]*', re.IGNORECASE)
_TO = re.compile(r'TO[ \t]*:[ \t]*', re.IGNORECASE)
_PARAMETER = re.compile(r'([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^=\x00-\x20\x7f-\x9f]+))?\Z')

_XTEXT = r'(?:[!-*,-<>-~]|\+(?:[2-6][0-9A-F]|7[0-9A-E]))'  # RFC 3461 4, printable when decoded
_SIZE = re.compile(r'[0-9]{1,20}\Z')
_BODY = re.compile(r'(?:7BIT|8BITMIME)\Z', re.IGNORECASE)
_RET = re.compile(r'(?:FULL|HDRS)\Z', re.IGNORECASE)
_ENVID = re.compile(_XTEXT + r'{1,100}\Z')
_NOTIFY = re.compile(r'(?:NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY)){0,2})\Z',
                     re.IGNORECASE)
_ORCPT = re.compile(r'(?:(?!utf-8;)[A-Za-z0-9-]+;%s{1,500}|utf-8;[^\s\x00-\x20=]{1,500})\Z'
                    % _XTEXT, re.IGNORECASE)

# Parameter -> what its value must look like; None: no value; ANY: it does not matter.
_ANY = re.compile('')
_MAIL_PARAMETERS = {'SIZE': _SIZE, 'BODY': _BODY, 'SMTPUTF8': None, 'AUTH': _ANY}
_MAIL_PARAMETERS_DSN = dict(_MAIL_PARAMETERS, RET=_RET, ENVID=_ENVID)
_RCPT_PARAMETERS: dict = {}
_RCPT_PARAMETERS_DSN = {'NOTIFY': _NOTIFY, 'ORCPT': _ORCPT}

_EMPTY = reply(500, '5.5.2', 'Empty command')
_UNREADABLE = reply(500, '5.5.2', 'Control characters in the command')
_BAD_SENDER = reply(501, '5.1.7', 'Syntax: MAIL FROM:<address>')
_BAD_RECIPIENT = reply(501, '5.1.3', 'Syntax: RCPT TO:<address>')
_NEEDS_UTF8 = reply(553, '5.6.7', 'This address needs SMTPUTF8')


class Mail(NamedTuple):
    """The argument of MAIL: sender ('' for the null path), size in octets (0: not said), and the
    values of the other parameters ('' or False: not given)."""

    sender: str
    size: int = 0
    body: str = ''
    smtputf8: bool = False
    ret: str = ''
    envid: str = ''


def split_command(line: bytes) -> tuple[str, bytes]:
    """The verb in upper case and its argument (b'' for none), without blanks at either end.

    line ends with CRLF, or LF alone as telnet and scripts send.  Raises ReplyError (500) for an
    empty line and for control octets.
    """
    line = line[:-2] if line.endswith(b'\r\n') else line.rstrip(b'\n')
    if _CONTROL.search(line):
        raise ReplyError(_UNREADABLE)
    words = line.split(None, 1)
    if not words:
        raise ReplyError(_EMPTY)
    verb = words[0].decode('utf-8', 'replace').upper()
    return verb, words[1].rstrip(b' \t') if len(words) > 1 else b''


def parse_mail(argument: bytes, dsn: bool = False) -> Mail:
    """What `MAIL` says; dsn tells whether RET and ENVID are recognized.

    Raises ReplyError: 501 for syntax, 555 for an unknown parameter, 553 for an address that is not
    ASCII without SMTPUTF8.
    """
    sender, given = _parse(argument, _FROM, _BAD_SENDER,
                           _MAIL_PARAMETERS_DSN if dsn else _MAIL_PARAMETERS)
    if not given:
        if not sender.isascii():
            raise ReplyError(_NEEDS_UTF8)
        return Mail(sender)
    smtputf8 = 'SMTPUTF8' in given
    if not smtputf8 and not sender.isascii():
        raise ReplyError(_NEEDS_UTF8)
    return Mail(sender, int(given.get('SIZE', 0)), given.get('BODY', '').upper(), smtputf8,
                given.get('RET', '').upper(), given.get('ENVID', ''))


def parse_rcpt(argument: bytes, smtputf8: bool = False, dsn: bool = False) -> Recipient:
    """What `RCPT` says; smtputf8 as MAIL had it, dsn: NOTIFY and ORCPT are recognized.

    Raises ReplyError as parse_mail() does; the null path is no recipient (501).
    """
    address, given = _parse(argument, _TO, _BAD_RECIPIENT,
                            _RCPT_PARAMETERS_DSN if dsn else _RCPT_PARAMETERS)
    if not address:
        raise ReplyError(_BAD_RECIPIENT)
    if not smtputf8 and not (address.isascii() and given.get('ORCPT', '').isascii()):
        raise ReplyError(_NEEDS_UTF8)
    return Recipient(address, given.get('NOTIFY', '').upper(), given.get('ORCPT', ''))


def _parse(argument: bytes, introduction: re.Pattern, refusal, table: dict) -> tuple[str, dict]:
    """(address, parameters) from `FROM:<path> parameters`."""
    try:
        text = argument.decode('utf-8')
    except UnicodeDecodeError:
        raise ReplyError(refusal) from None
    start = introduction.match(text)
    path = start and _PATH.match(text, start.end())
    if not path:
        raise ReplyError(refusal)
    address = path.group('inner') or path.group('bare') or ''
    rest = path.group('rest')
    return address, _parameters(rest, table) if rest else {}


def _parameters(text: str, table: dict) -> dict:
    """Parameters by their upper-case name, checked against table; a flag has the value ''."""
    given: dict = {}
    for word in text.split():
        parameter = _PARAMETER.match(word)
        if not parameter:
            raise ReplyError(reply(501, '5.5.4', 'Syntax error in the parameters'))
        name, value = parameter.group(1).upper(), parameter.group(2)
        if name not in table:
            raise ReplyError(reply(555, '5.5.4', 'Parameter not recognized'))
        form = table[name]
        wrong = value is not None if form is None else value is None or not form.match(value)
        if wrong or name in given:
            raise ReplyError(reply(501, '5.5.4', 'Error in parameter %s' % name))
        given[name] = value or ''
    return given
