# SPDX-License-Identifier: GPL-2.0-or-later
"""Every configuration variable of TMDA, as one table.

Defaults makes settings from it, the documentation prints it.  `VARIABLES` maps
each name to a Variable.  Those of direction `out` govern outgoing mail: they
have a default here and their values are checked.  Those of direction `in`
belong to the filter for incoming mail, to the pending queue or to TMDA's web
interface: a configuration may set them to anything, and nothing here looks.
"""
from __future__ import annotations

import functools
import os
from typing import Any, Callable, Dict, NamedTuple, Optional

from TMDA import Kinds
from TMDA.MessageOs import expand_home


class Variable(NamedTuple):
    """A variable: `default` is a value, or a function of the names (Defaults.Namespace).

    `environ` names an environment variable that wins over the configuration.
    """

    name: str
    default: Any
    kind: Kinds.Kind
    direction: str
    meaning: str
    default_text: str
    environ: str = ''


def _first_of(environ: Dict[str, str], *names: str) -> str:
    return next((environ[name] for name in names if environ.get(name)), '')


def _account(environ: Dict[str, str]) -> Any:
    """The passwd entry of the account that the message is sent from; None if there is none."""
    import pwd
    try:
        return pwd.getpwnam(_first_of(environ, 'LOGNAME', 'USER'))
    except (KeyError, ValueError):
        pass
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        return None


def _full_name(names: Any) -> str:
    name = _first_of(names.environ, 'TMDANAME', 'QMAILNAME', 'NAME', 'MAILNAME')
    if not name:
        account = _account(names.environ)
        name = account.pw_gecos.partition(',')[0] if account else ''
    return Kinds.line(name, names.home)


def _user_name(names: Any) -> str:
    name = _first_of(names.environ, 'TMDAUSER', 'QMAILUSER', 'USER', 'LOGNAME')
    if not name:
        account = _account(names.environ)
        name = account.pw_name if account else str(os.geteuid())
    # A virtual user's login is an address; its first half is the user.
    return Kinds.address_part(name.partition('@')[0], names.home)


@functools.lru_cache(maxsize=1)
def _own_domain_name() -> str:
    """The host's full name: asked once, as it may take a name server's answer."""
    import socket
    return socket.getfqdn()


def _host_name(names: Any) -> str:
    name = _first_of(names.environ, 'TMDAHOST', 'QMAILHOST', 'MAILHOST')
    return Kinds.address_part(name or _own_domain_name(), names.home)


def _sendmail(names: Any) -> str:
    places = ('/usr/sbin/sendmail', '/usr/lib/sendmail')
    return next((place for place in places if os.path.isfile(place)), places[0])


def _cookie_format(names: Any) -> str:
    return '1.3' if names.is_set('HMAC_ALGO') or names.is_set('HMAC_ROUNDS') else '1.1'


def _in_data(*parts: str) -> Callable[[Any], str]:
    return lambda names: os.path.join(names['DATADIR'], *parts)


def _by_format(old: Any, new: Any) -> Callable[[Any], Any]:
    return lambda names: old if names['COOKIE_FORMAT'] == '1.1' else new


def _same_as(name: str) -> Callable[[Any], Any]:
    return lambda names: names[name]


VARIABLES: Dict[str, Variable] = {}


def _out(name: str, kind: Kinds.Kind, default: Any, meaning: str,
         default_text: Optional[str] = None, environ: str = '') -> None:
    shown = repr(default) if default_text is None else default_text
    VARIABLES[name] = Variable(name, default, kind, 'out', meaning, shown, environ)


# Files, and who the user is
_out('TMDARC', Kinds.path, None, 'User\'s configuration file; the global file may set it',
     '~/.tmda/config')
_out('CONFIG_EXEC', Kinds.switch, True,
     'Global file only: False makes the user\'s configuration an ini file')
_out('DATADIR', Kinds.path, lambda names: expand_home('~/.tmda', names.home),
     'Directory of the user\'s key, filters, lists and logs', '~/.tmda')
_out('FULLNAME', Kinds.line, _full_name, 'Name for a From field that has none',
     '$TMDANAME, $QMAILNAME, $NAME, $MAILNAME, or the account\'s')
_out('USERNAME', Kinds.address_part, _user_name, 'Left side of the user\'s address',
     '$TMDAUSER, $QMAILUSER, $USER, $LOGNAME, or the account')
_out('HOSTNAME', Kinds.address_part, _host_name, 'Right side of the user\'s address',
     '$TMDAHOST, $QMAILHOST, $MAILHOST, or the host\'s full name')

# Where mail goes
_out('MAIL_TRANSFER_AGENT', Kinds.choice('exim', 'postfix', 'qmail', 'sendmail'), 'qmail',
     'Mail system behind SENDMAIL_PROGRAM')
_out('MAIL_TRANSPORT', Kinds.choice('sendmail', 'smtp'), 'sendmail',
     'How mail is handed on: to a program, or to SMTPHOST')
_out('SENDMAIL_PROGRAM', Kinds.path, _sendmail, 'The program, if MAIL_TRANSPORT is sendmail',
     'first of /usr/sbin/sendmail, /usr/lib/sendmail')
_out('SMTPHOST', Kinds.host_port, 'localhost', 'The server, if MAIL_TRANSPORT is smtp')
_out('SMTPAUTH_USERNAME', Kinds.line, None, 'Login at SMTPHOST')
_out('SMTPAUTH_PASSWORD', Kinds.text, None, 'Password at SMTPHOST')
_out('SMTPSSL', Kinds.tls, False, 'TLS to SMTPHOST')
_out('SMTPSSL_KEYFILE', Kinds.path, None, 'Key of the client certificate shown to SMTPHOST')
_out('SMTPSSL_CERTFILE', Kinds.path, None, 'Client certificate shown to SMTPHOST')
_out('SMTP_MAX_SESSIONS_PER_CONNECTION', Kinds.number(0, 10**9), 0,
     'Messages sent over one connection to SMTPHOST; 0 is no limit')

# What is done to a message
_out('FILTER_OUTGOING', Kinds.path, _in_data('filters', 'outgoing'), 'The outgoing filter',
     'DATADIR/filters/outgoing', 'TMDA_FILTER_OUTGOING')
_out('ACTION_OUTGOING', Kinds.text, 'dated', 'Action where no rule of the filter matches')
_out('X_TMDA_IN_SUBJECT', Kinds.switch, False,
     'Whether a Subject may begin with an override as "X-TMDA ACTION"')
_out('MESSAGE_FROM_STYLE', Kinds.text, 'angles',
     'Form of the From field: angles (NAME <ADDRESS>) or address (ADDRESS)')
_out('MESSAGE_TAG_HEADER_STYLE', Kinds.text, 'angles',
     'Form of addresses in fields that a tag action adds: angles or address')
_out('ADDED_HEADERS_CLIENT', Kinds.table, None, 'Header fields to add, as {NAME: VALUE}')
_out('PURGED_HEADERS_CLIENT', Kinds.words, ['bcc', 'resent-bcc'], 'Header fields to remove')
_out('MAIL_FOLLOWUP_TO', Kinds.words_or_path, None,
     'Mailing lists, or a file of them, whose mail gets a Mail-Followup-To field')
_out('FINGERPRINT', Kinds.words, None,
     'Header fields, and "body", that X-TMDA-Fingerprint is made of')
_out('TMDAINJECT', Kinds.text, None, 'Letters: d replaces Date, i replaces Message-ID')
_out('BARE_APPEND', Kinds.path, None, 'List that the action bare=append appends to')
_out('DB_BARE_APPEND', Kinds.text, None, 'The same for a database: an SQL INSERT statement')
_out('DB_CONNECTION', Kinds.anything, None, 'DB-API connection to the database')
_out('LOGFILE_DEBUG', Kinds.path, None, 'Log of tracebacks')
_out('LOGFILE_OUTGOING', Kinds.path, None, 'Log of outgoing messages')

# Tagged addresses
_out('RECIPIENT_DELIMITER', Kinds.delimiter, '-', 'What separates user, tag and cookie')
_out('TAGS_DATED', Kinds.tags, ['dated'], 'Tag words of dated addresses')
_out('TAGS_SENDER', Kinds.tags, ['sender'], 'Tag words of sender addresses')
_out('TAGS_KEYWORD', Kinds.tags, ['keyword'], 'Tag words of keyword addresses')
_out('TAGS_CONFIRM', Kinds.tags, ['confirm'], 'Tag words of confirmation addresses')
_out('DATED_TIMEOUT', Kinds.interval, '5d', 'How long a dated address is valid',
     environ='TMDA_TIMEOUT')

# Keys and codes
_out('CRYPT_KEY_FILE', Kinds.path, _in_data('crypt_key'), 'The secret key', 'DATADIR/crypt_key')
_out('ALLOW_MODE_640', Kinds.switch, False, 'Whether a key file may have mode 640')
_out('COOKIE_FORMAT', Kinds.choice('1.1', '1.3'), _cookie_format,
     'Release of TMDA whose codes are made',
     "'1.1', but '1.3' if HMAC_ALGO or HMAC_ROUNDS is set")
_out('HMAC_ALGO', Kinds.algorithm, _by_format('sha1', 'p2sha256'), 'Hash that codes are made with',
     'sha1 (1.1), p2sha256 (1.3)')
_out('HMAC_ROUNDS', Kinds.number(0, 9), 5,
     'PBKDF2 makes 10 to the power of HMAC_ROUNDS rounds')
_out('HMAC_BYTES', Kinds.number(1, 64), _by_format(3, 5), 'Octets of the hash that a code shows',
     '3 (1.1), 5 (1.3)')
_out('HMAC_ENCODING_COMPAT', Kinds.switch, False,
     'Format 1.3: accept codes of format 1.1 too, and make none that looks like one')
_out('CRYPT_KEY_FILE_ROLLOVER', Kinds.path, None, 'A former key that still verifies')
_out('HMAC_ALGO_ROLLOVER', Kinds.algorithm, _same_as('HMAC_ALGO'),
     'Hash that codes were made with under the former key', 'HMAC_ALGO')
_out('HMAC_ROUNDS_ROLLOVER', Kinds.number(0, 9), _same_as('HMAC_ROUNDS'),
     'HMAC_ROUNDS under the former key', 'HMAC_ROUNDS')
_out('HMAC_BYTES_ROLLOVER', Kinds.number(1, 64), _same_as('HMAC_BYTES'),
     'HMAC_BYTES under the former key', 'HMAC_BYTES')

_INCOMING = """
    ACTION_EXPIRED_DATED ACTION_FAIL_DATED ACTION_FAIL_KEYWORD ACTION_FAIL_SENDER
    ACTION_INCOMING ACTION_INVALID_CONFIRMATION ACTION_MISSING_PENDING
    ADDED_HEADERS_SERVER AUTORESPONSE_INCLUDE_SENDER_COOKIE BOUNCE_ENV_SENDER
    BOUNCE_TEXT_FILTER_INCOMING BOUNCE_TEXT_INVALID_CONFIRMATION
    BOUNCE_TEXT_INVALID_DATED BOUNCE_TEXT_INVALID_KEYWORD BOUNCE_TEXT_INVALID_SENDER
    BOUNCE_TEXT_MISSING_PENDING BOUNCE_TEXT_NONEXISTENT_PENDING
    CGI_ACTIVE CGI_CLEANUP_ODDS CGI_DATE_FORMAT CGI_PAGER_SIZE CGI_SETTINGS CGI_URL
    CGI_USER CGI_VIRTUALUSER
    CONFIRM_ACCEPT_CC CONFIRM_ACCEPT_NOTIFY CONFIRM_ACCEPT_TEXT_ALREADY_CONFIRMED
    CONFIRM_ACCEPT_TEXT_ALREADY_DELETED CONFIRM_ACCEPT_TEXT_ALREADY_RELEASED
    CONFIRM_ACCEPT_TEXT_INITIAL CONFIRM_ADDRESS CONFIRM_APPEND CONFIRM_CC
    CONFIRM_MAX_MESSAGE_SIZE DB_CONFIRM_APPEND
    DB_PENDING_BLACKLIST_APPEND DB_PENDING_DELETE_APPEND DB_PENDING_RELEASE_APPEND
    DB_PENDING_WHITELIST_APPEND DELIVERED_CACHE DELIVERED_CACHE_LEN DELIVERY
    FILTER_INCOMING LOCALE LOGFILE_INCOMING MAX_AUTORESPONSES_PER_DAY
    PARENTDIR PENDING_BLACKLIST_APPEND PENDING_CACHE PENDING_CACHE_LEN
    PENDING_CLEANUP_ODDS PENDING_DELETE_APPEND PENDING_DIR PENDING_LIFETIME
    PENDING_QUEUE_FORMAT PENDING_RELEASE_APPEND PENDING_WHITELIST_APPEND
    PENDING_WHITELIST_RELEASE PRIMARY_ADDRESS_MATCH PURGED_HEADERS_SERVER
    PURGED_HEADERS_DELIVERY ADDED_HEADERS_DELIVERY RESPONSE_DIR SUMMARY_HEADERS
    TEMPLATE_DIR TEMPLATE_DIR_MATCH_RECIPIENT TEMPLATE_DIR_MATCH_SENDER
    TEMPLATE_EMAIL_HEADERS USEVIRTUALDOMAINS VIRTUALDOMAINS VPOPMAIL_HOME
""".split()

for _name in _INCOMING:
    VARIABLES[_name] = Variable(_name, None, Kinds.anything, 'in',
                                'Incoming mail: accepted, without effect here', '')
