# SPDX-License-Identifier: GPL-2.0-or-later
"""--check: everything that a start with these options would read, and what each user's mail needs.

run() prints a line for each file: `ok`, `note`, `warning` or `error` (findings.py), the file, and
the line in it where there is one.  It returns 78 if there was an error, else 0.  Nothing is
changed, no server is asked, no socket is opened.

Which users: --login's; else those of the password file, and with --configdir everybody who has a
DIR/<user>/config; in personal mode, where they share one home, that.  Each one's files are read as
that user, in a process of its own (users.py, userfiles.py).
"""

from __future__ import annotations

import os
import pwd
import sys
from datetime import datetime, timedelta, timezone

from TMDA.Errors import ConfigError
from TMDA.ofmipd import users
from TMDA.ofmipd.assembly import check_paths, default_files
from TMDA.ofmipd.failure import CONFIG, StartError
from TMDA.ofmipd.findings import ERROR, WARNING, Findings, plural, printable
from TMDA.ofmipd.options import OPTIONS, Options, ordered_sources
from TMDA.ofmipd.users import password_owners
from TMDA.ofmipd.userfiles import APPEND, trouble_with

EXPIRY_DAYS = 14  # a certificate that ends so soon is worth a warning
PATH_KINDS = ('file', 'program', 'directory')


def run(options: Options) -> int:
    """Print what is there; the exit status."""
    try:
        lines, listed = users.apart(lambda: _of_daemon(options))
    except StartError as error:
        lines, listed = [(ERROR, str(error))], []
    findings = Findings(lines)
    print(findings.text(), end='', flush=True)
    totals = {verdict: findings.count(verdict) for verdict in (ERROR, WARNING)}
    for login in users.find_logins(options, listed):
        found = _of_user(options, login)
        print('\nUser %s\n%s' % (printable(login), found.text()), end='', flush=True)
        for verdict in totals:
            totals[verdict] += found.count(verdict)
    print('\n%s, %s' % tuple(plural(totals[verdict], verdict) for verdict in (ERROR, WARNING)))
    sys.stdout.flush()
    return CONFIG if totals[ERROR] else 0


def _of_user(options: Options, login: str) -> Findings:
    from TMDA.ofmipd.userfiles import check
    try:
        return Findings(users.inspect(options, login,
                                      lambda user: check(user, options.pure_proxy)))
    except StartError as error:
        return Findings([(ERROR, str(error))])


def _of_daemon(options: Options) -> tuple[list, list[str]]:
    """(lines, users in password files); called in a process that ends afterwards."""
    findings = Findings()
    _paths(options, findings)
    if os.geteuid() == 0:
        _account(options.username, findings)
    if options.wants_tls:
        _certificate(options, findings)
    listed = _sources(options, findings)
    _listeners(options, findings)
    return findings.lines, listed


def _paths(options: Options, findings: Findings) -> None:
    """Files, programs and directories that options name."""
    for row in OPTIONS:
        path = getattr(options, row.name)
        if row.kind not in PATH_KINDS + ('output',) or not path:
            continue
        try:
            check_paths(Options(**{row.name: path}))
            trouble = trouble_with(path, APPEND) if row.kind == 'output' else ''
        except StartError as error:
            findings.error(str(error))
            continue
        if trouble:
            findings.error('%s: %s: %s' % (row.flags[-1], path, trouble))
        elif not row.name.startswith('ssl_'):
            findings.ok('%s: %s' % (path, row.flags[-1]))


def _account(name: str, findings: Findings) -> None:
    """-u: who the network side becomes."""
    try:
        uid = pwd.getpwnam(name).pw_uid
    except KeyError:
        findings.error('-u: there is no account %s' % name)
        return
    if uid == 0:
        findings.error('-u: %s has uid 0' % name)
    else:
        findings.ok('account %s, uid %d, for the network side' % (name, uid))


def _certificate(options: Options, findings: Findings) -> None:
    """Certificate and key as a start would use them, and the dates of the whole chain."""
    from TMDA.ofmipd import certificates, tls
    try:
        certificate = tls.Certificate(options)
        chain = certificates.read(options.ssl_cert)
    except (StartError, OSError, ValueError) as error:
        findings.error(str(error))
        return
    if certificate.exposed_key:
        findings.warning('%s: any account of this host may read the private key'
                         % certificate.exposed_key)
    now = datetime.now(timezone.utc)
    for number, (begin, end) in enumerate(chain, 1):
        which = 'certificate' if number == 1 else 'certificate %d of the chain' % number
        dates = '%s, valid from %s to %s UTC' % (which, begin.strftime('%Y-%m-%d %H:%M'),
                                                 end.strftime('%Y-%m-%d %H:%M'))
        if not begin <= now <= end:
            findings.error('%s: %s: not now' % (options.ssl_cert, dates))
        elif end - now < timedelta(days=EXPIRY_DAYS):
            findings.warning('%s: %s: that is soon' % (options.ssl_cert, dates))
        else:
            findings.ok('%s: %s' % (options.ssl_cert, dates))


def _sources(options: Options, findings: Findings) -> list[str]:
    """The sources of passwords; returns the users in password files."""
    from TMDA.ofmipd.sources import Chain
    password_file, ipauthmap = default_files(os.geteuid() == 0)
    made: list = []
    listed: list[str] = []
    for kind, value in ordered_sources(options, password_file):
        try:
            made += _source(kind, value, options, findings, ipauthmap)
            if kind == 'file':
                listed += _password_file(value, options, findings)
            else:
                findings.ok('%s, asked for passwords' % made[-1].name)
        except ConfigError as error:
            findings.error(str(error))
    if made:
        findings.ok('AUTH offers %s' % ', '.join(Chain(made).mechanisms))
    return sorted(set(listed))


def _source(kind: str, value: str, options: Options, findings: Findings, ipauthmap: str) -> list:
    from TMDA.ofmipd.remote import MAPPED_HOST
    from TMDA.ofmipd.remoteurl import parse
    from TMDA.ofmipd.sources import build
    made = build([(kind, value)], options.limits.source_seconds, password_owners(options),
                 ipauthmap)
    if kind == 'remote' and parse(value).host == MAPPED_HOST:
        _ipauthmap(ipauthmap, findings)
    return list(made.sources)


def _password_file(path: str, options: Options, findings: Findings) -> list[str]:
    from TMDA.ofmipd.passwords import read_file
    entries, _ = read_file(path, password_owners(options))
    plain = sum(entry.plain for entry in entries.values())
    findings.ok('%s: password file, %s, %d in plain' % (path, plural(len(entries), 'user'), plain))
    return list(entries)


def _ipauthmap(path: str, findings: Findings) -> None:
    """Bad lines, which a daemon would skip."""
    from TMDA.ofmipd.ipauthmap import parse_line
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            lines = file.read().split('\n')
    except FileNotFoundError:
        findings.note('%s: no such file: the address that a client connected to is asked' % path)
        return
    except OSError as error:
        findings.error('%s: %s' % (path, error.strerror))
        return
    findings.ok('%s: which server to ask for passwords' % path)
    for number, line in enumerate(lines, 1):
        try:
            parse_line(line)
        except ValueError as error:
            findings.warning('%s:%d: skipped: %s' % (path, number, error))


def _listeners(options: Options, findings: Findings) -> None:
    from TMDA.ofmipd.mailclient import SECURITY, servers
    if options.one_session:
        return
    for server in servers(options):
        findings.note('listens on %s:%d, security: %s'
                      % (server.host, server.port, SECURITY[server.tls_mode]))
