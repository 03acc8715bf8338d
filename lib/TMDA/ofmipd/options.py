# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: one table of options, and parse(), which makes a value of it.

OPTIONS is what the parser, --help, the manual page, the shell completion and the documentation
are made from; rows of inject.limits.LIMITS that have an option are part of it.  An option with
the same name as another sets the same attribute (-b and -f; -a, -A, -R and -m).

parse() is called by main and has no effect on anything: it looks at no file.  Relative paths
become absolute, because the daemon leaves its directory when it detaches.

The scanner is our own, 30 lines: with -1 every connection pays for the start, and argparse would
be a tenth of it.  Its rules are getopt's, as ever in TMDA: long options may be shortened, the
argument of a short one may follow it directly, and `--` ends the options.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from TMDA.inject.limits import LIMITS, Limits
from TMDA.ofmipd.failure import UsageError

GROUPS = ('General', 'Setup', 'Connection', 'Encryption', 'Authentication', 'Virtual domains',
          'Limits')
TLS_MODES = ('optional', 'localoptional', 'on')
UPSTREAM_TLS = ('starttls', 'wrapper', 'none')
LISTENER_MODES = {'ssl': 'ssl', 'tls': 'on', 'plain': '',
                  'tls=optional': 'optional', 'tls=localoptional': 'localoptional', 'tls=on': 'on'}
DEFAULT_PORT = 8025


class Option(NamedTuple):
    """One row: attribute of Options, flags, argument ('' for none), group, kind, meaning.

    The kind says how the argument is read (see _READERS) and, for main, what has to exist:
    'file' (readable), 'program' (executable) and 'directory'; an 'output' is written.
    """

    name: str
    flags: tuple[str, ...]
    argument: str
    group: str
    kind: str
    meaning: str


class ListenSpec(NamedTuple):
    """One -p or -6: HOST:PORT as written, host, port, whether IPv6 is meant, TLS mode.

    The mode is None where --ssl and --tls decide, else a value of LISTENER_MODES.
    """

    text: str
    host: str
    port: int
    ipv6: bool
    mode: str | None


class Source(NamedTuple):
    """One source of passwords: kind 'file', 'authprog', 'remote' or 'pam', and its argument."""

    kind: str
    value: str


SHORT_FLAGS = {'--connections': ('-C',)}  # options of LIMITS that have a letter, too
UNIT_KINDS = {'octets': 'size'}           # units that may be written with K, M or G

OPTIONS = (
    Option('short_version', ('--version',), '', 'General', 'flag',
           'Print the version and exit.'),
    Option('version', ('-V',), '', 'General', 'flag',
           'Print the versions of tmda-ofmipd, Python, the platform and OpenSSL and exit.'),
    Option('help', ('-h', '--help'), '', 'General', 'flag',
           'Print this text and exit.'),
    Option('debug', ('-d', '--debug'), '', 'General', 'flag',
           'Print the protocol and everything that -L logs to stderr. Passwords are left out.'),
    Option('log', ('-L', '--log'), '', 'General', 'flag',
           'Log one line for each event, without the protocol.'),
    Option('log_file', ('--log-file',), 'FILE', 'General', 'output',
           'Append log lines to FILE, which is opened again after SIGHUP.'),
    Option('background', ('-b', '--background'), '', 'General', 'flag',
           'Detach and log to syslog, facility mail (the default).'),
    Option('background', ('-f', '--foreground'), '', 'General', 'clear',
           'Stay in the foreground and log to stderr.'),
    Option('username', ('-u', '--username'), 'USER', 'General', 'text',
           'When started by root: the account of the network side. Default: tofmipd.'),
    Option('configdir', ('-c', '--configdir'), 'DIR', 'General', 'directory',
           'Use DIR/<user>/config instead of ~user/.tmda/config.'),
    Option('pid_file', ('--pid-file',), 'FILE', 'General', 'output',
           'Write the process id to FILE; it is removed at the end.'),
    Option('stats', ('--stats',), 'FILE', 'General', 'output',
           'Write counters to FILE each minute (OpenMetrics text).'),
    Option('check', ('--check',), '', 'General', 'flag',
           'Check everything that a start with these options would read, print it and exit.'),
    Option('explain', ('--explain',), 'RECIPIENT', 'General', 'text',
           'Print which rule matches RECIPIENT and which address would be used, and exit.'),
    Option('sender', ('--from',), 'ADDRESS', 'General', 'text',
           'With --explain: the address in From.'),
    Option('login', ('--login',), 'USER', 'General', 'text',
           'With --check and --explain: look at the files of this user only.'),
    Option('demo', ('--demo',), '', 'General', 'flag',
           'Send a message through a temporary daemon, show what becomes of it, and exit.'),
    Option('keep', ('--keep',), '', 'General', 'flag',
           'With --demo: go on listening, for a try with a mail client.'),
    Option('setup', ('--setup',), '', 'Setup', 'flag',
           'Make the files that a user needs, ask what is not known, try the upstream server, and '
           'exit. Nothing is overwritten.'),
    Option('full_name', ('--name',), 'NAME', 'Setup', 'text', 'Your name.'),
    Option('address', ('--address',), 'ADDRESS', 'Setup', 'text', 'Your mail address.'),
    Option('upstream', ('--upstream',), 'HOST[:PORT]', 'Setup', 'text',
           'The server that takes your mail. Default port: 587; with wrapper 465, without TLS '
           '25.'),
    Option('upstream_tls', ('--upstream-tls',), 'MODE', 'Setup', 'upstream_tls',
           'TLS to it: starttls (the default), wrapper (from the first byte) or none (the default '
           'for a server on this host).'),
    Option('upstream_login', ('--upstream-login',), 'USER', 'Setup', 'text',
           'Your login at that server, if it wants one.'),
    Option('upstream_password_file', ('--upstream-password-file',), 'FILE', 'Setup', 'path',
           'The password for it is the first line of FILE. Default: $TMDA_UPSTREAM_PASSWORD, or '
           'it is asked.'),
    Option('autoconfig', ('--autoconfig',), '', 'Setup', 'flag',
           'Print what configures mail clients by themselves: an XML file and DNS records.'),
    Option('dry_run', ('--dry-run',), '', 'Setup', 'flag',
           'With --setup: only print what would be done.'),
    Option('listeners', ('-p', '--proxyport'), 'HOST:PORT[/MODE]', 'Connection', 'listener',
           'Listen there; may be repeated. :PORT is every interface, [::1]:8025 is IPv6. MODE is '
           'ssl, tls, tls=optional, tls=localoptional or plain, and replaces --ssl and --tls for '
           'this port. Default: FQDN:8025, or localhost:8025 where the FQDN is not an address '
           'of this host.'),
    Option('listeners', ('-6', '--ipv6proxyport'), 'HOST:PORT[/MODE]', 'Connection', 'listener6',
           'The same for IPv6; brackets are not needed.'),
    Option('one_session', ('-1', '--one-session'), '', 'Connection', 'flag',
           'Serve one session on descriptor 0 (a socket, or a pipe with descriptor 1 for the '
           'other way) and exit: for xinetd, tcpserver, stunnel and systemd.'),
    Option('pure_proxy', ('-P', '--pure-proxy'), '', 'Connection', 'flag',
           'Pass mail of users who have no configuration file on unaltered, to '
           '$TMDA_SENDMAIL_PROGRAM or /usr/sbin/sendmail.'),
    Option('throttle_script', ('-t', '--throttle-script'), 'PATH', 'Connection', 'program',
           'Run PATH <login> before a message is accepted; it may say no by a non-zero status.'),
    Option('proxy_protocol', ('--proxy-protocol',), 'CIDR[,CIDR...]', 'Connection', 'networks',
           'Connections from these addresses begin with a PROXY protocol header (haproxy, '
           'stunnel), which names the client.'),
    Option('workers', ('--workers',), 'N', 'Connection', 'count',
           'Serve with N processes. Default: 1.'),
    Option('all_processors', ('--all-processors',), '', 'Connection', 'flag',
           'Let each process use all processors. Without it each keeps to one, which is faster, '
           'for Python runs only one of its threads at a time.'),
    Option('ssl', ('--ssl',), '', 'Encryption', 'flag',
           'TLS from the first byte (port 465).'),
    Option('tls', ('--tls',), 'MODE', 'Encryption', 'tls',
           'STARTTLS (port 587): optional; localoptional, required except from this host; or on, '
           'required.'),
    Option('ssl_cert', ('--ssl-cert',), 'FILE', 'Encryption', 'file',
           'The certificate and its chain, PEM.'),
    Option('ssl_key', ('--ssl-key',), 'FILE', 'Encryption', 'file',
           'Its private key, PEM. Not needed when the key is in the certificate file.'),
    Option('ssl_dh', ('--ssl-dh',), 'FILE', 'Encryption', 'file',
           'Diffie-Hellman parameters, PEM.'),
    Option('ciphers', ('--ciphers',), 'LIST', 'Encryption', 'text',
           'Cipher suites, as OpenSSL writes them. Default: those of Python.'),
    Option('ssl_no_v2', ('--ssl-no-v2',), '', 'Encryption', 'flag',
           'No effect: SSL 2 is never spoken.'),
    Option('ssl_no_v3', ('--ssl-no-v3',), '', 'Encryption', 'flag',
           'No effect: SSL 3 is never spoken. The oldest protocol is TLS 1.2.'),
    Option('sources', ('-a', '--authfile'), 'FILE', 'Authentication', 'authfile',
           'A password file: lines of user:password, mode 600 or 400. Default: /etc/tofmipd '
           'when started by root, else ~/.tmda/tofmipd.'),
    Option('sources', ('-A', '--authprog'), '"PROGRAM ARGS"', 'Authentication', 'authprog',
           'A checkpassword-compatible program, such as "/bin/checkpassword-pam -s id -- '
           '/bin/true".'),
    Option('sources', ('-R', '--remoteauth'), 'PROTO://HOST[:PORT][/DN]', 'Authentication',
           'remoteauth', 'Ask a server: imap, imaps, pop3, apop, ldap or ldaps. ldap needs a DN with '
           '%s for the user. PROTO alone asks this host.'),
    Option('sources', ('-m', '--pamauth'), 'SERVICE', 'Authentication', 'pamauth',
           'Ask PAM, by this service. -a, -A, -R and -m may be repeated and mixed; they are '
           'tried in the order given.'),
    Option('fallback', ('-F', '--fallback'), '', 'Authentication', 'flag',
           'When -R and -A say no, try the password file, too.'),
    Option('password', ('--password',), 'USER', 'Authentication', 'text',
           'Add USER to the password file, or change the password, and exit. It is asked twice, '
           'or is one line on stdin.'),
    Option('plain', ('--plain',), '', 'Authentication', 'flag',
           'With --password: keep it in plain, which CRAM-MD5 needs, instead of hashed.'),
    Option('vhome_script', ('-S', '--vhome-script'), 'PATH', 'Virtual domains', 'program',
           'PATH <user> <domain> prints the home directory of a virtual user.'),
    Option('vdomains_path', ('-v', '--vdomains-path'), 'FILE', 'Virtual domains', 'path',
           'The virtualdomains file of qmail. Default: /var/qmail/control/virtualdomains.'),
) + tuple(
    Option(row.name, SHORT_FLAGS.get(row.option, ()) + (row.option,), 'N', 'Limits',
           UNIT_KINDS.get(row.unit, 'count'),
           'Limit for %s. Default: %s.' % (row.meaning, '%d %s' % (row.default, row.unit)
                                           if row.default else 'none'))
    for row in LIMITS if row.option)

ACTIONS = ('short_version', 'version', 'help', 'check', 'explain', 'setup', 'demo', 'password')
# Options that mean nothing without one of some others.
COMPANIONS = {
    'sender': ('explain',),
    'keep': ('demo',),
    'plain': ('password',),
    'login': ('check', 'explain'),
    'full_name': ('setup', 'autoconfig'),
    'address': ('setup', 'autoconfig'),
    'upstream': ('setup',),
    'upstream_tls': ('setup',),
    'upstream_login': ('setup',),
    'upstream_password_file': ('setup',),
    'dry_run': ('setup',),
}
_FALLBACK_ORDER = ('remote', 'pam', 'authprog', 'file')
_LISTS = ('listeners', 'sources', 'proxy_protocol')
_FLAGS = ('flag', 'clear')


def _defaults() -> dict:
    """The value of each attribute when its option is not given."""
    values = {row.name: False if row.kind in _FLAGS else '' for row in OPTIONS}
    values.update({row.name: row.default for row in LIMITS if row.option})
    values.update(dict.fromkeys(_LISTS, ()), background=True, username='tofmipd', workers=1,
                  vdomains_path='/var/qmail/control/virtualdomains')
    return values


_DEFAULTS = _defaults()


class Options:
    """What the command line asks for: one attribute for each name in OPTIONS; immutable.

    Keyword arguments replace defaults; TypeError for a name that is not in the table.
    """

    def __init__(self, **given):
        unknown = given.keys() - _DEFAULTS.keys()
        if unknown:
            raise TypeError('no such option: ' + ', '.join(sorted(unknown)))
        self.__dict__.update(_DEFAULTS, **given)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError('Options are not to be changed')

    @property
    def limits(self) -> Limits:
        """All limits, with those that options set."""
        return Limits(**{row.name: getattr(self, row.name) for row in LIMITS if row.option})

    @property
    def tls_mode(self) -> str:
        """What --ssl and --tls say: '', 'ssl', 'optional', 'localoptional' or 'on'."""
        return 'ssl' if self.ssl else self.tls

    @property
    def wants_tls(self) -> bool:
        """Whether any port needs a certificate."""
        return bool(self.tls_mode or any(spec.mode for spec in self.listeners))


def parse(arguments: list[str]) -> Options:
    """The Options of a command line without its program name.  Raises UsageError."""
    values = dict(_DEFAULTS)
    for flag, row, text in _scan(arguments):
        try:
            value = _READERS[row.kind](text)
        except ValueError as error:
            raise UsageError('%s: %s' % (flag, error)) from None
        values[row.name] = values[row.name] + value if row.name in _LISTS else value
    options = Options(**values)
    _check(options)
    return options


def _scan(arguments: list[str]):
    """Yield (flag, row, argument) for each option, in order."""
    rows = {flag: row for row in OPTIONS for flag in row.flags}
    words = list(reversed(arguments))
    while words:
        word = words.pop()
        if word == '--' or word == '-' or word[:1] != '-':
            words += [] if word == '--' else [word]
            break
        if word[:2] == '--':
            name, equals, text = word.partition('=')
            flag = _complete(name, rows)
            row = rows[flag]
            if equals and not row.argument:
                raise UsageError('%s takes no argument' % flag)
        else:
            flag, text = word[:2], word[2:]
            row = rows.get(flag)
            if row is None:
                raise UsageError('option %s not recognized' % flag)
            equals = text and row.argument
            if text and not row.argument:
                words.append('-' + text)
        if row.argument and not equals:
            if not words:
                raise UsageError('option %s needs an argument' % flag)
            text = words.pop()
        yield flag, row, text
    if words:
        raise UsageError('unexpected argument %r' % words[-1])


def _complete(name: str, rows: dict[str, Option]) -> str:
    """The long flag that name is, or is the beginning of."""
    found = [name] if name in rows else [flag for flag in rows if flag.startswith(name)]
    if len(found) != 1:
        problem = 'not unique: ' + ', '.join(found) if found else 'not recognized'
        raise UsageError('option %s %s' % (name, problem))
    return found[0]


def _check(options: Options) -> None:
    """Raise UsageError for options that contradict each other."""
    actions = [name for name in ACTIONS if getattr(options, name)]
    rules = (
        (options.ssl and options.tls, '--ssl and --tls exclude each other'),
        (options.configdir and options.vhome_script,
         '--configdir and --vhome-script exclude each other'),
        (options.wants_tls and not options.ssl_cert,
         '--ssl and --tls need --ssl-cert and --ssl-key'),
        (options.one_session and options.workers > 1,
         '--one-session and --workers exclude each other'),
        (options.one_session and options.stats,
         '--one-session and --stats exclude each other'),
        *((getattr(options, name) and not any(getattr(options, other) for other in needed),
           '%s is for %s' % (_flag(name), ' and '.join(map(_flag, needed))))
          for name, needed in COMPANIONS.items()),
        (len(actions) > 1, 'only one of ' + ', '.join(map(_flag, actions))),
        (options.autoconfig and actions and not options.setup,
         '--autoconfig goes with --setup, or alone'),
    )
    for broken, text in rules:
        if broken:
            raise UsageError(text)


def _flag(name: str) -> str:
    return next(row.flags[-1] for row in OPTIONS if row.name == name)


def ordered_sources(options: Options, default_file: str) -> tuple[Source, ...]:
    """The sources of passwords in the order in which to ask them.

    None given: the default password file.  With --fallback (TMDA 1.1.12) the password file comes
    last, after -R and -A, and is asked whether it was named or not.
    """
    default = Source('file', default_file)
    if not options.fallback:
        return options.sources or (default,)
    kinds = [source.kind for source in options.sources]
    chain = options.sources if 'file' in kinds else options.sources + (default,)
    if len(set(kinds)) < len(kinds):
        return chain
    return tuple(sorted(chain, key=lambda source: _FALLBACK_ORDER.index(source.kind)))


def help_text() -> str:
    """What --help prints."""
    import textwrap
    lines = ['Usage: tmda-ofmipd [OPTION]...',
             'An authenticated SMTP proxy that tags outgoing mail for TMDA.']
    for group in GROUPS:
        lines += ['', group + ':']
        for row in OPTIONS:
            if row.group == group:
                lines += _help_lines(row, textwrap.wrap(row.meaning, 50))
    return '\n'.join(lines) + '\n'


def _help_lines(row: Option, meaning: list[str]) -> list[str]:
    """The flags on the left, the meaning on the right; on lines of their own if too long."""
    flags = ', '.join(row.flags)
    if row.argument:
        flags += ('=' if len(row.flags[-1]) > 2 else ' ') + row.argument
    left = ('  ' if row.flags[0][:2] != '--' else '      ') + flags
    if len(left) <= 26:
        left, meaning = '%-28s%s' % (left, meaning[0]), meaning[1:]
    return [left] + [' ' * 28 + line for line in meaning]


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:19]) and len(text) < 19):
        raise ValueError('%r is not a positive whole number' % text)
    return int(text)


def _size(text: str) -> int:
    unit = {'K': 1024, 'M': 1024 ** 2, 'G': 1024 ** 3}.get(text[-1:].upper())
    return _count(text[:-1]) * unit if unit else _count(text)


def _path(text: str) -> str:
    if not text:
        raise ValueError('an empty name')
    return os.path.abspath(os.path.expanduser(text))


def _tls(text: str) -> str:
    if text not in TLS_MODES:
        raise ValueError('%r is none of %s' % (text, ', '.join(TLS_MODES)))
    return text


def _upstream_tls(text: str) -> str:
    if text not in UPSTREAM_TLS:
        raise ValueError('%r is none of %s' % (text, ', '.join(UPSTREAM_TLS)))
    return text


def _listener(text: str, ipv6: bool = False) -> tuple[ListenSpec, ...]:
    """Read HOST:PORT[/MODE]; HOST may be empty, and in brackets if it is an IPv6 address."""
    address, slash, mode = text.partition('/')
    host, colon, port = address.rpartition(':')
    bracketed = host[:1] == '[' and host[-1:] == ']'
    if bracketed:
        host = host[1:-1]
    elif ':' in host and not ipv6:
        raise ValueError('%r: an IPv6 address needs brackets, [%s]:%s' % (text, host, port))
    if not (colon and port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 65536):
        raise ValueError('%r is not HOST:PORT' % text)
    if slash and mode not in LISTENER_MODES:
        raise ValueError('%r: /%s is none of %s' % (text, mode, ', '.join(LISTENER_MODES)))
    return (ListenSpec(address, host, int(port), ipv6 or bracketed,
                       LISTENER_MODES[mode] if slash else None),)


def _listener6(text: str) -> tuple[ListenSpec, ...]:
    return _listener(text, ipv6=True)


def _authprog(text: str) -> tuple[Source, ...]:
    program, *rest = text.split(None, 1) or ('',)
    if not program:
        raise ValueError('an empty command')
    if '/' in program and program[0] not in '/\'"':
        program = os.path.abspath(program)
    return (Source('authprog', ' '.join([program] + rest)),)


def _networks(text: str) -> tuple:
    """Addresses and networks, as objects of the ipaddress module."""
    from ipaddress import ip_network
    return tuple(ip_network(word.strip()) for word in text.split(','))


_READERS = {
    'flag': lambda text: True,
    'clear': lambda text: False,
    'text': str,
    'path': _path,
    'file': _path,
    'program': _path,
    'directory': _path,
    'output': _path,
    'count': _count,
    'size': _size,
    'tls': _tls,
    'upstream_tls': _upstream_tls,
    'listener': _listener,
    'listener6': _listener6,
    'authfile': lambda text: (Source('file', _path(text)),),
    'authprog': _authprog,
    'remoteauth': lambda text: (Source('remote', text),),
    'pamauth': lambda text: (Source('pam', text),),
    'networks': _networks,
}
