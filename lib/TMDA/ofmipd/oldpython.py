# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a configuration that was written for Python 2 needs a change: all lines at once.

When such a file is read, the first of its mistakes is reported, and the next when that is mended.
find() lists them at once, for --check and --explain.  It knows what TMDA.Python2 knows, and looks
at the text of the program with strings and comments taken out: a file that does not compile can't
be looked at otherwise.  So it may miss something, and is wrong only about names that a program
has from elsewhere.
"""

from __future__ import annotations

import re

from TMDA import Python2

# Strings, the long ones first, and comments.
_TEXT = re.compile(r'''
    ("""|\'\'\')(?:\\.|(?!\1).)*(?:\1|\Z)
  | "(?:\\.|[^"\\\n])*"? | '(?:\\.|[^'\\\n])*'?
  | \#[^\n]*
''', re.VERBOSE | re.DOTALL)
_NAME = re.compile(r'(?<![\w.])[A-Za-z_]\w*(?=\s*[(,)\]])')
_ATTRIBUTE = re.compile(r'\.([A-Za-z_]\w*)\s*\(')
_OF_MODULE = re.compile(r'\b(string|os|subprocess)\.(\w+)\s*\(')
_IMPORT = re.compile(r'^\s*(?:import|from)\s+([\w.]+)')
_PRINT_TO = re.compile(r'(?:^|[:;])\s*print\s*>>')
_STILL_IN_STRING = ('capwords', 'Template', 'Formatter')
_SET = r'\b(?:def|class|as|import|for)\s+%s\b|\b%s\s*=(?!=)'


def find(source: str) -> list[tuple[int, str]]:
    """(line number, advice) for each line of the program that only Python 2 understands."""
    code = _TEXT.sub(_blank, source)
    is_broken = not _compiles(source)
    found = []
    for number, line in enumerate(code.split('\n'), 1):
        advice = (is_broken and Python2.syntax_advice('', line)) or _advice(line, code)
        if advice:
            found.append((number, advice))
    return found


def _blank(text: re.Match) -> str:
    """An empty string of as many lines, or nothing for a comment."""
    shown = text.group()
    return '' if shown[0] == '#' else '""' + '\n' * shown.count('\n')


def _compiles(source: str) -> bool:
    try:
        compile(source, 'configuration', 'exec', dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def _advice(line: str, code: str) -> str:
    """What there is to say about names: each is tried in the errors that Python 3 would raise."""
    errors = ["name '%s'" % name for name in _NAME.findall(line) if not _is_set(name, code)]
    errors += ["attribute '%s'" % name for name in _ATTRIBUTE.findall(line)]
    errors += ["No module named '%s'" % name for name in _IMPORT.findall(line)]
    errors += ["module '%s' has no attribute '%s'" % found for found in _OF_MODULE.findall(line)
               if found[1] not in _STILL_IN_STRING]
    if _PRINT_TO.search(line):
        errors.append("for >>: 'builtin_function_or_method'")
    return next(filter(None, map(Python2.runtime_advice, errors)), '')


def _is_set(name: str, code: str) -> bool:
    return re.search(_SET % (name, name), code) is not None
