# SPDX-License-Identifier: GPL-2.0-or-later
"""--setup: from nothing to a daemon that can be started, for one account (personal mode).

What is not known is taken from options, or asked on a terminal: name, address, upstream server
with TLS and login.  Its password is asked, or comes from --upstream-password-file or
$TMDA_UPSTREAM_PASSWORD; it is never an argument.  Then

1. the upstream server is tried: connect, TLS, login.  What failed is one line; somebody at a
   terminal may correct the answers at once;
2. DATADIR is filled: crypt_key, config, filters/outgoing, lists/, tofmipd with a new password, all
   of them the account's own (modes 600 and 700).  What exists is left alone, and said to be.  With
   an existing configuration nothing is asked: its upstream server is tried, and its DATADIR used;
3. what to type into a mail client is printed, with --autoconfig for programs, too.

--dry-run changes nothing on the disk.  The exit status is 0, or 69 if the upstream server does not
take us: the files are made all the same, and the next --setup tries what the configuration says.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
from typing import NamedTuple

from TMDA.inject.reply import ReplyError
from TMDA.ofmipd import mailclient, starter, terminal, users
from TMDA.ofmipd.accounts import own_home
from TMDA.ofmipd.failure import CONFIG, UNAVAILABLE, StartError, UsageError
from TMDA.ofmipd.findings import printable
from TMDA.ofmipd.options import Options
from TMDA.ofmipd.passwordentry import password_file
from TMDA.ofmipd.starter import Answers

KEY_OCTETS = 64
PASSWORD_OCTETS = 12     # of chance in a generated password
CONNECT_SECONDS = 20     # somebody waits
ANSWER_SECONDS = 30
PORTS = {'starttls': 587, 'wrapper': 465, 'none': 25}
PASSWORD_VARIABLE = 'TMDA_UPSTREAM_PASSWORD'

_HOST = re.compile(r'(\[[0-9A-Fa-f:.]+\]|[^][:/@\s]+)(?::([0-9]{1,5}))?')


class Item(NamedTuple):
    """Something to be made: a directory where text is None, else a file."""

    path: str
    text: str | None
    meaning: str


def run(options: Options) -> int:
    """Do it; the exit status."""
    if users.is_shared(options):
        raise UsageError('--setup is for one account: run it as that account, and without '
                         '--configdir and --vhome-script')
    os.umask(0o077)
    settings = _existing()
    answers = None
    if settings.config_found:
        address = '%s@%s' % (settings.USERNAME, settings.HOSTNAME)
        trouble = try_configured(settings)
    else:
        answers, trouble = _tried(_answers(options, settings))
        address = answers.address
    made = _make(_plan(options, settings, answers), options.dry_run)
    _tell_client(options, password_file(options), made, address)
    if options.autoconfig:
        from TMDA.ofmipd import autoconfig
        print()
        autoconfig.show(options, address)
    if trouble and not options.dry_run:
        print('\nThe upstream server does not take your mail yet.  Correct %s and try it with '
              '--setup.' % settings.config_file)
    return UNAVAILABLE if trouble else 0


def _existing():
    """The settings as they are now; defaults where there is no configuration."""
    from TMDA import Defaults
    home = own_home(os.environ)
    if not home:
        raise StartError(CONFIG, 'this account has no home directory')
    environ = dict(os.environ, HOME=home)
    return Defaults.load(environ, os.path.join(home, '.tmda', 'config'))


# The answers

def _answers(options: Options, settings) -> Answers:
    """All that is not known yet.  Raises UsageError."""
    if not terminal.is_interactive():
        missing = [flag for flag, value in (('--address', options.address),
                                            ('--upstream', options.upstream)) if not value]
        if missing:
            raise UsageError('--setup needs %s where it can ask nobody' % ' and '.join(missing))
    name = options.full_name or _ask('Your name', settings.FULLNAME)
    address = starter.checked_address(options.address or _ask('Your mail address'))
    given = Answers(name, address, options.upstream, options.upstream_tls, options.upstream_login)
    return _ask_upstream(given, options.upstream_password_file)


def _ask(question: str, default: str = '') -> str:
    return terminal.ask(question, default) if terminal.is_interactive() else default


def _ask_upstream(known: Answers, file: str, again: bool = False) -> Answers:
    """known with all about the upstream server; again: ask for what is there, too."""
    def ask(question: str, value: str, default: str = '') -> str:
        return value if value and not again else _ask(question, value or default)

    where = ask('Server that takes your mail (HOST or HOST:PORT)', known.upstream)
    tls = ask('TLS to it: starttls, wrapper or none', known.tls, upstream(where, '')[2])
    host, port, tls = upstream(where, tls)
    login = ask('Your login there (nothing if it wants none)', known.login)
    password = _upstream_password(login, '' if again else file) if login else ''
    return known._replace(upstream='%s:%d' % (host, port), tls=tls, login=login, password=password)


def upstream(text: str, tls: str) -> tuple[str, int, str]:
    """(host, port, TLS) of HOST[:PORT], with what is usual for what is not said.

    Raises UsageError.
    """
    found = _HOST.fullmatch(text)
    if not found or not 0 < int(found[2] or 1) < 65536:
        raise UsageError('%r is not HOST[:PORT]; an IPv6 address needs brackets' % text)
    if tls and tls not in PORTS:
        raise UsageError('%r is none of %s' % (tls, ', '.join(PORTS)))
    host, port = found[1], int(found[2] or 0)
    is_local = mailclient.Server(host.strip('[]'), port, '').is_local
    tls = tls or ('wrapper' if port == PORTS['wrapper'] else 'none' if is_local else 'starttls')
    return host, port or PORTS[tls], tls


def _upstream_password(login: str, file: str) -> str:
    """From the file, the environment, or whoever sits at the terminal.  Raises UsageError."""
    if file:
        try:
            with open(file, encoding='utf-8', errors='surrogateescape') as opened:
                return terminal.first_line(opened.read())
        except OSError as error:
            raise StartError(CONFIG, '%s: %s' % (file, error.strerror)) from None
    if os.environ.get(PASSWORD_VARIABLE):
        return os.environ[PASSWORD_VARIABLE]
    if terminal.is_interactive():
        return terminal.ask_password('Password of %s there' % login)
    raise UsageError('--upstream-login needs a password: --upstream-password-file or $%s'
                     % PASSWORD_VARIABLE)


# The trial

def _tried(answers: Answers) -> tuple[Answers, str]:
    """Try the upstream server, as often as somebody wants to correct the answers.

    Returns the last answers, and what is wrong with them or ''.
    """
    from TMDA.inject.smtplink import Peer
    while True:
        host, _, port = answers.upstream.rpartition(':')
        tls = '' if answers.tls == 'none' else answers.tls
        trouble = try_peer(Peer(host.strip('[]'), int(port), tls, answers.login, answers.password),
                           answers.address.partition('@')[2])
        if not trouble or not terminal.is_interactive():
            return answers, trouble
        if terminal.ask('Correct the answers about it (yes or no)', 'yes')[:1] not in 'yY':
            return answers, trouble
        answers = _ask_upstream(answers, '', again=True)


def try_configured(settings) -> str:
    """Try the way that the configuration names; '' or what is wrong with it."""
    if settings.MAIL_TRANSPORT == 'sendmail':
        works = os.access(settings.SENDMAIL_PROGRAM, os.X_OK)
        _say('upstream', '%s: %s' % (settings.SENDMAIL_PROGRAM,
                                     'is there' if works else 'can\'t be run'))
        return '' if works else settings.SENDMAIL_PROGRAM
    from TMDA.inject.smtplink import Peer
    try:
        peer = Peer.of(settings)
    except ReplyError as error:
        _say('upstream', 'failed: ' + error.cause)
        return error.cause
    return try_peer(peer, settings.HOSTNAME)


def try_peer(peer, hostname: str) -> str:
    """Connect, secure and log in as a message would; '' or what failed.  Says either."""
    from TMDA.inject.limits import Limits
    from TMDA.inject.smtplink import connect
    limits = Limits(connect_seconds=CONNECT_SECONDS, upstream_seconds=ANSWER_SECONDS)
    try:
        connect(peer, hostname, limits).quit()
    except ReplyError as error:
        trouble = ' '.join((error.cause or error.reply.text).split())
        _say('upstream', 'failed: ' + trouble)
        return trouble
    steps = ['connected']
    if peer.tls:
        steps.append('TLS')
    if peer.username:
        steps.append('logged in as ' + peer.username)
    _say('upstream', '%s: %s' % (peer, ', '.join(steps)))
    return ''


# The files

def _plan(options: Options, settings, answers: Answers | None) -> list[Item]:
    """All that has to be there, in the order in which it is made.  answers: None where there is a
    configuration."""
    data = settings.DATADIR
    text = starter.configuration(answers) if answers else ''
    password = '%s:%s\n' % (users.own_login(), secrets.token_urlsafe(PASSWORD_OCTETS))
    return [
        Item(data, None, ''),
        Item(os.path.dirname(settings.FILTER_OUTGOING), None, ''),
        Item(os.path.join(data, 'lists'), None, 'for lists of addresses'),
        Item(settings.CRYPT_KEY_FILE, secrets.token_hex(KEY_OCTETS) + '\n',
             'the key of your tagged addresses: keep a copy'),
        Item(settings.config_file, text, 'configuration'),
        Item(settings.FILTER_OUTGOING, starter.FILTER, 'rules for outgoing mail'),
        Item(password_file(options), password, 'password for your mail client'),
    ]


def _make(items: list[Item], dry_run: bool) -> dict[str, str]:
    """Make what is not there; path -> text of the files that were made, or would be."""
    made = {}
    for item in items:
        if os.path.lexists(item.path):
            _say('left alone', '%s: exists' % item.path)
            continue
        if not dry_run:
            _make_one(item)
        made[item.path] = item.text or ''
        _say('would make' if dry_run else 'made',
             item.path + (', ' + item.meaning if item.meaning else ''))
    return made


def _make_one(item: Item) -> None:
    """Raises OSError; a file that could not be written to its end does not stay."""
    if item.text is None:
        os.makedirs(item.path, 0o700)
        return
    # O_EXCL overwrites nothing and follows no symbolic link.
    descriptor = os.open(item.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, 'w', encoding='utf-8', errors='surrogateescape') as file:
            file.write(item.text)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        os.unlink(item.path)
        raise


# What to do next

def _tell_client(options: Options, path: str, made: dict[str, str], address: str) -> None:
    """What to type, and how to start.  path is the password file."""
    server = mailclient.servers(options)[0]
    login = users.own_login()
    password = 'as in %s (--password %s sets a new one)' % (path, login)
    if path in made:
        password = 'made by --setup without --dry-run' if options.dry_run \
            else made[path].partition(':')[2].strip()
    takes_cram = path in made or mailclient.takes_cram(options)
    rows = (('Server', server.host), ('Port', str(server.port)),
            ('Security', mailclient.SECURITY[server.tls_mode]),
            ('Authentication', 'encrypted password' if takes_cram and not server.tls_mode
                               else 'normal password'),
            ('User', login), ('Password', password))
    print('\nType this into your mail client, as server for outgoing mail (SMTP) of %s:\n'
          % address)
    for name, value in rows:
        print('    %-16s%s' % (name, printable(value)))
    print('\nStart the daemon:  ' + mailclient.start_command(options))
    print('Look at a tag:     %s --explain bob@example.org'
          % shlex.quote(mailclient.command_name()))


def _say(what: str, text: str) -> None:
    print('%-12s %s' % (what, printable(text)), flush=True)
