# SPDX-License-Identifier: GPL-2.0-or-later
"""Advice on configuration files that were written for Python 2.

TMDA 1.1 ran under Python 2, and its users' configurations are older than
Python 3.  When one fails to compile or to run, ConfigFile asks here whether
the mistake is one of the usual differences, and adds the advice to the error.
"""
from __future__ import annotations

import re

# (pattern of the offending source line, advice), for what no longer compiles.
SYNTAX = tuple((re.compile(pattern), advice) for pattern, advice in (
    (r'(?:^|[:;])\s*print\b(?!\s*\()', 'print is a function: print(...)'),
    (r'(?:^|[:;])\s*exec\b(?!\s*\()', 'exec is a function: exec(...)'),
    (r'\bexcept\b[^:]*,\s*\w+\s*:', 'write "except ERROR as NAME:"'),
    (r'^\s*raise\s+\w+\s*,', 'write "raise ERROR(TEXT)"'),
    (r'(?<![\w.])0[0-7]+[lL]?\b(?!\.)', 'octal numbers begin with 0o, as 0o600'),
    (r'(?<![\w.])(\d+|0[xX][0-9a-fA-F]+)[lL]\b', 'long numbers need no L'),
    (r'<>', 'write != for <>'),
    (r'`', 'write repr(...) for backquotes'),
    (r'\b[uU][rR]["\']', 'write r"..." without the u'),
))

# (pattern of the exception's text, advice), for what compiles and then fails.
RUNTIME = tuple((re.compile(pattern), advice) for pattern, advice in (
    (r"for >>: 'builtin_function_or_method'", 'print is a function: print(..., file=...)'),
    (r"name 'execfile'", 'write exec(open(FILE).read()) for execfile(FILE)'),
    (r"name 'file'", 'write open for file'),
    (r"name 'unicode'", 'write str for unicode'),
    (r"name 'basestring'", 'write str for basestring'),
    (r"name 'unichr'", 'write chr for unichr'),
    (r"name 'long'", 'write int for long'),
    (r"name 'xrange'", 'write range for xrange'),
    (r"name 'raw_input'", 'write input for raw_input'),
    (r"name '(reduce|reload|apply|cmp|intern|buffer|coerce)'",
     'this function is no longer built in'),
    (r"attribute 'has_key'", 'write KEY in DICT for DICT.has_key(KEY)'),
    (r"attribute 'iter(items|keys|values)'", 'write items, keys or values without iter'),
    (r"module 'string' has no attribute", 'use the methods of str'),
    (r"module '(os|subprocess)' has no attribute '(popen[234]|getcwdu|spawnvp)'",
     'use the subprocess module'),
    (r"No module named '(commands|popen2)'", 'use the subprocess module'),
    (r"No module named '(ConfigParser|Queue|SocketServer|cPickle|StringIO|cStringIO|"
     r"urllib2|urlparse|httplib|md5|sha|sets|anydbm|dumbdbm|whichdb|gdbm|email\.Utils)'",
     'this module has another name or place in Python 3'),
    (r"No module named 'MySQLdb'", 'install mysqlclient or PyMySQL for Python 3'),
    (r"can't concat (str to bytes|bytes to str)|must be str, not bytes|"
     r'bytes-like object is required', 'text and bytes are different types in Python 3'),
    (r"'<' not supported between|'>' not supported between",
     'values of different types no longer compare'),
))


def syntax_advice(message: str, line: str) -> str:
    """Advice for a SyntaxError with this message on this source line, else ''.

    Text in quotes and comments is left out, so that a `0600` in a string
    misleads nobody.
    """
    code = re.sub(r"""(["'])(?:\\.|(?!\1).)*\1""", '""', line).split('#')[0]
    for pattern, advice in SYNTAX:
        if pattern.search(code):
            return f'Python 2: {advice}'
    if 'tabs and spaces' in message:
        return 'Python 2: indent with tabs or with spaces, not with both'
    if any(words in message for words in ("can't decode", '(unicode error)', 'Non-UTF-8 code')):
        return 'say the encoding in the first line: # -*- coding: latin-1 -*-'
    return ''


def runtime_advice(message: str) -> str:
    """Advice for an exception with this text, else ''."""
    for pattern, advice in RUNTIME:
        if pattern.search(message):
            return f'Python 2: {advice}'
    return ''
