# SPDX-License-Identifier: GPL-2.0-or-later
"""Completion of tmda-ofmipd's options in bash and zsh, made of options.OPTIONS."""
from TMDA.ofmipd.options import OPTIONS, TLS_MODES, UPSTREAM_TLS

# Kind of an option, or its name where that says more -> what completes its argument.
FILES = ('file', 'path', 'output', 'program', 'authfile')
WORDS = {'tls': TLS_MODES, 'upstream_tls': UPSTREAM_TLS,
         'remoteauth': ('imap://', 'imaps://', 'pop3://', 'pop3s://', 'apop://', 'ldap://',
                        'ldaps://')}
USERS = ('username', 'login', 'password')

_HEAD = ('# Completion of tmda-ofmipd for %s.  Written by htdocs/generate from the table of '
         'options.\n')


def _completer(row) -> str:
    """'file', 'directory', 'user', 'words' or '' for an argument that can't be completed."""
    if row.kind in FILES:
        return 'file'
    if row.kind == 'directory':
        return 'directory'
    if row.name in USERS:
        return 'user'
    return 'words' if row.kind in WORDS else ''


_BASH_ACTIONS = {'file': '-f', 'directory': '-d', 'user': '-u', '': "-W ''"}


def bash() -> str:
    """A file for bash's completions directory; needs nothing besides bash 4."""
    lines = [_HEAD % 'bash', '_tmda_ofmipd()', '{',
             '    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}',
             "    # Where '=' divides words, --tls=o comes as three.",
             "    [[ $before == '=' ]] && before=${COMP_WORDS[COMP_CWORD-2]}",
             "    [[ $word == '=' ]] && before=${COMP_WORDS[COMP_CWORD-1]} word=",
             '    case $before in']
    for row in OPTIONS:
        if row.argument:
            kind = _completer(row)
            action = "-W '%s'" % ' '.join(WORDS[row.kind]) if kind == 'words' \
                else _BASH_ACTIONS[kind]
            lines += ['    %s)' % '|'.join(row.flags),
                      '        COMPREPLY=($(compgen %s -- "$word")); return ;;' % action]
    flags = [flag for row in OPTIONS for flag in row.flags]
    lines += ['    esac', "    COMPREPLY=($(compgen -W '%s' -- \"$word\"))" % ' '.join(flags),
              '}', 'complete -o filenames -F _tmda_ofmipd tmda-ofmipd', '']
    return '\n'.join(lines)


_ZSH_ACTIONS = {'file': '_files', 'directory': '_files -/', 'user': '_users', '': ' '}


def zsh() -> str:
    """A file for a directory in zsh's $fpath."""
    lines = ['#compdef tmda-ofmipd', _HEAD % 'zsh', '_arguments -s -S \\']
    for row in OPTIONS:
        lines.append('  %s \\' % _zsh_specification(row))
    return '\n'.join(lines)[:-2] + '\n'


def _zsh_specification(row) -> str:
    forms = [flag + ('=' if flag.startswith('--') else '+') * bool(row.argument)
             for flag in row.flags]
    several = '*' if row.kind in ('listener', 'listener6', 'authfile', 'authprog', 'remoteauth',
                                  'pamauth', 'networks') else ''
    meaning = row.meaning.partition('. ')[0].rstrip('.')
    for special, harmless in (("'", "'\\''"), ('[', '('), (']', ')'), (':', '\\:')):
        meaning = meaning.replace(special, harmless)
    text = '[%s]' % meaning
    if row.argument:
        kind = _completer(row)
        action = '(%s)' % ' '.join(WORDS[row.kind]).replace(':', '\\:') if kind == 'words' \
            else _ZSH_ACTIONS[kind]
        text += ':%s:%s' % (row.argument.replace(':', '\\:').replace('[', '').replace(']', '')
                            .replace('"', ''), action)
    if len(forms) == 1:
        return "'%s%s%s'" % (several, forms[0], text)
    if several:
        return "'*'{%s}'%s'" % (','.join(forms), text)
    return "'(%s)'{%s}'%s'" % (' '.join(row.flags), ','.join(forms), text)
