# SPDX-License-Identifier: GPL-2.0-or-later
"""--check for one user: configuration, key, filter and its lists, all that a message would need.

check() is called in a process that is the user's own (users.py).  It reads the files through the
same code as a message does, so that its verdicts are those of a message; nothing is written, and
no database is made of a list.  `shell=` and `python=` actions are not carried out.
"""

from __future__ import annotations

import os
import re
import stat

from TMDA import Cookie, Defaults, FilterFiles, FilterLists, FilterParser
from TMDA.Errors import ConfigError, FilterError, IntervalError, TMDAError
from TMDA.FilterActions import check_intervals
from TMDA.FilterMacros import UNKNOWN_RECIPIENT
from TMDA.FilterSourceBase import PathSource
from TMDA.FilterSources import FileSource, IncomingSource, PatternSource
from TMDA.Variables import VARIABLES
from TMDA.inject.user import User
from TMDA.ofmipd import oldpython
from TMDA.ofmipd.findings import Findings, plural

# Other files that a configuration names: (variable, how they are used, when).
READ, RUN, APPEND = 'read', 'run', 'append'
NAMED_FILES = (
    ('SENDMAIL_PROGRAM', RUN, lambda settings: settings.MAIL_TRANSPORT == 'sendmail'),
    ('SMTPSSL_CERTFILE', READ, lambda settings: settings.MAIL_TRANSPORT == 'smtp'),
    ('SMTPSSL_KEYFILE', READ, lambda settings: settings.MAIL_TRANSPORT == 'smtp'),
    ('MAIL_FOLLOWUP_TO', READ, lambda settings: isinstance(settings.MAIL_FOLLOWUP_TO, str)),
    ('BARE_APPEND', APPEND, lambda settings: True),
    ('LOGFILE_OUTGOING', APPEND, lambda settings: True),
    ('LOGFILE_DEBUG', APPEND, lambda settings: True),
)
_INI = re.compile(r'(?:\s*[#;][^\n]*\n|\s)*\[')  # the beginning of an ini file
_NO_ADDRESS = 'check@unknown.invalid'


def check(user: User, pure_proxy: bool) -> list[tuple[str, str]]:
    """The lines for a user.  pure_proxy: without a configuration mail is passed on as it is."""
    findings = Findings()
    if pure_proxy and not os.path.exists(user.config_file):
        findings.note('%s: no such file: mail is passed on unaltered (--pure-proxy)'
                      % user.config_file)
        return findings.lines
    settings = _configuration(user, findings)
    if settings is not None:
        _variables(settings, findings)
        _keys(settings, findings)
        _filter(settings, findings)
    return findings.lines


# The configuration

def _configuration(user: User, findings: Findings):
    """The settings, None if there can be none."""
    try:
        settings = Defaults.load(user.environ, user.config_file)
    except ConfigError as error:
        findings.error(str(error))
        old_constructs(str(error), findings)
        return None
    if os.path.exists(settings.global_file):
        findings.ok('%s: configuration of all users' % settings.global_file)
    if settings.config_found:
        findings.ok('%s: configuration' % settings.config_file)
        _exposed_password(settings, findings)
    else:
        findings.note('%s: no such file: defaults apply' % settings.config_file)
    for path in (settings.global_file, settings.config_file):
        for text in _old_constructs_in(path):
            findings.warning(text)
    return settings


def old_constructs(error: str, findings: Findings) -> None:
    """Add which lines of the file that an error begins with need a change for Python 3."""
    path, _, rest = error.partition(':')
    said = 'Python 2' in rest and '%s:%s: ' % (path, rest.partition(':')[0])
    for text in _old_constructs_in(path):
        if not said or not text.startswith(said):
            findings.error(text)


def _old_constructs_in(path: str) -> list[str]:
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            source = file.read()
    except (OSError, ValueError):
        return []
    if _INI.match(source):
        return []
    return ['%s:%d: %s' % (path, line, advice) for line, advice in oldpython.find(source)]


def _exposed_password(settings, findings: Findings) -> None:
    if settings.SMTPAUTH_PASSWORD and os.stat(settings.config_file).st_mode & 0o077:
        findings.warning('%s: holds a password, and others may read it: chmod 600 %s'
                         % (settings.config_file, settings.config_file))


def _variables(settings, findings: Findings) -> None:
    """Values, and the files that they name."""
    for name in [name for name, variable in VARIABLES.items() if variable.direction == 'out']:
        try:
            getattr(settings, name)
        except ConfigError as error:
            findings.error('%s: %s' % (settings.config_file, error))
    _action(settings.ACTION_OUTGOING, settings, findings)
    for name, use, is_used in NAMED_FILES:
        path = getattr(settings, name)
        if path and is_used(settings):
            trouble = trouble_with(settings.expand(path), use)
            if trouble:
                findings.error('%s: %s: %s' % (name, path, trouble))


def _action(text: str, settings, findings: Findings) -> None:
    action = FilterParser.parse_action(text)
    try:
        check_intervals(action)
    except IntervalError as error:
        findings.error('%s: ACTION_OUTGOING: %s' % (settings.config_file, error))
    if action.kind == 'unknown':
        findings.warning('%s: ACTION_OUTGOING: %r is no action: mail leaves untagged'
                         % (settings.config_file, text))


def trouble_with(path: str, use: str) -> str:
    """Why a file can't be read, run or appended to; '' if it can."""
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        directory = os.path.dirname(path)
        if use != APPEND or not os.path.isdir(directory):
            return error.strerror
        return '' if os.access(directory, os.W_OK) else 'its directory can\'t be written'
    except OSError as error:
        return error.strerror
    if stat.S_ISDIR(status.st_mode):
        return 'is a directory'
    wanted = {READ: os.R_OK, RUN: os.X_OK, APPEND: os.W_OK}[use]
    words = {READ: 'can\'t be read', RUN: 'not executable', APPEND: 'can\'t be written'}
    return '' if os.access(path, wanted) else words[use]


# The key

def _keys(settings, findings: Findings) -> None:
    for name in ('CRYPT_KEY_FILE', 'CRYPT_KEY_FILE_ROLLOVER'):
        path = getattr(settings, name)
        if not path:
            continue
        try:
            key = Cookie.read_key(path, settings.ALLOW_MODE_640)
            Cookie.Cookies(settings)
        except TMDAError as error:
            findings.error(str(error))
            continue
        former = 'former ' if name.endswith('ROLLOVER') else ''
        findings.ok('%s: %skey, %d bits, for tags of TMDA %s'
                    % (path, former, 8 * len(key), settings.COOKIE_FORMAT))


# The filter

def _filter(settings, findings: Findings) -> None:
    path = settings.FILTER_OUTGOING
    if not os.path.exists(path):
        findings.note('%s: no such file: %s for everybody' % (path, settings.ACTION_OUTGOING))
        return
    try:
        rules = FilterParser.load(path, settings).rules
    except FilterError as error:
        for file, line, text in error.problems:
            findings.error('%s:%d: %s' % (file, line, text))
        return
    for file in dict.fromkeys([path] + [rule.file for rule in rules]):
        number = sum(rule.file == file for rule in rules)
        findings.ok('%s: filter, %s' % (file, plural(number, 'rule')))
    for rule in rules:
        _expressions(rule, rule.action, findings)
        _source(rule, settings, findings)


def _expressions(rule, action, findings: Findings) -> None:
    """Expressions after python= compile; Python 2's may not."""
    for part in [action] + [tag for _, tag in action.tags]:
        if part.kind == 'python':
            try:
                compile(part.option or '', 'python=', 'eval', dont_inherit=True)
            except (SyntaxError, ValueError) as error:
                findings.error('%s:%d: python=%s: %s' % (rule.file, rule.line, part.option, error))


def _source(rule, settings, findings: Findings) -> None:
    """What a rule looks its addresses up in."""
    source = rule.source
    place = '%s:%d' % (rule.file, rule.line)
    path = source.path if isinstance(source, PathSource) else ''
    if isinstance(source, (PatternSource, IncomingSource)):
        return
    if any(name in path for name in (UNKNOWN_RECIPIENT, UNKNOWN_RECIPIENT.replace('@', '='))):
        findings.note('%s: "%s": another file for each recipient' % (place, source.name))
        return
    try:
        if isinstance(source, FileSource):
            _list(path, findings)
        else:
            source.lookup(FilterParser.Query(_NO_ADDRESS, _NO_ADDRESS, settings))
            findings.ok('%s: "%s"%s' % (place, source.name, path and ' ' + path))
    except (FileNotFoundError, NotADirectoryError):
        if 'optional' in source.options:
            findings.note('%s: no such file, which is fine with -optional' % path)
        else:
            findings.error('%s: "%s": %s: no such file' % (place, source.name, path))
    except (FilterFiles.SourceError, ValueError, OSError) as error:
        findings.error('%s: "%s": %s' % (place, source.name, error))


def _list(path: str, findings: Findings) -> None:
    """A list file: every action in it has to be one."""
    data, _ = FilterFiles.read(path)
    number = bad = 0
    for line, _, text in FilterLists.read_lines(data):
        number += 1
        try:
            action = FilterParser.parse_action(text) if text else None
            if action is not None:
                check_intervals(action)
            wrong = action is not None and action.kind == 'unknown' and 'no action: %s' % text
        except IntervalError as error:
            wrong = str(error)
        if wrong:
            bad += 1
            findings.error('%s:%d: %s' % (path, line, wrong))
    if not bad:
        findings.ok('%s: list, %s' % (path, plural(number, 'entry')))
