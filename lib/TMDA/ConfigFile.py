# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading one configuration file: a Python program, or an ini file.

Defaults.load calls this for the global and for the user's file.  A file is
compiled or parsed once and kept while it stays the same (FileCache); it is
executed each time, as configurations compute values for each message.

Whatever goes wrong, and whatever a program raises (SystemExit as well), is a
ConfigError that says `FILE:LINE: text`.  A configuration is a program that
decides about a user's mail, so a file that somebody else could have written is
refused before it is read.
"""
from __future__ import annotations

import builtins
import os
import re
import stat
from types import CodeType
from typing import Any, Collection, Dict, List, NamedTuple, Optional, Tuple

from TMDA import Kinds, MessageOs
from TMDA.Errors import ConfigError
from TMDA.FileCache import FileCache
from TMDA.Variables import VARIABLES

SECTION = 'TMDA_CONFIG'

_WORDS = {form: value
          for word, value in (('on', True), ('yes', True), ('true', True),
                              ('off', False), ('no', False), ('false', False))
          for form in (word.upper(), word.capitalize(), word)}
_BUILTINS = {**vars(builtins), **_WORDS}

# An ini value of a variable of these kinds is a text whatever it looks like.
_TEXT_KINDS = (Kinds.text, Kinds.line, Kinds.address_part, Kinds.delimiter, Kinds.path)

_programs = FileCache()
_inifiles = FileCache()


class Entry(NamedTuple):
    """One option of an ini file: its name in capitals, the text of its value, its line."""

    name: str
    text: str
    line: Optional[int]


def at(path: str, line: Optional[int], text: str) -> ConfigError:
    """The error that says `PATH:LINE: text`, without LINE if that is None."""
    place = path if line is None else f'{path}:{line}'
    return ConfigError(f'{place}: {text}')


def find(path: str, owners: Collection[int]) -> Optional[os.stat_result]:
    """The state of the file at `path`; None if there is no such file.

    Raises ConfigError if it can't be looked at, is no regular file, may be
    written by anyone, or belongs to an account that is not in `owners`.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise at(path, None, _reason(error)) from error
    if path != os.devnull:
        _refuse_unsafe(path, status, owners)
    return status


def _refuse_unsafe(path: str, status: os.stat_result, owners: Collection[int]) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise at(path, None, 'not a regular file')
    if status.st_mode & stat.S_IWOTH:
        raise at(path, None, 'anyone may write this file; take that away (chmod o-w)')
    if status.st_uid not in owners:
        raise at(path, None, f'belongs to user {status.st_uid}, who may not configure this')


def _reason(error: Exception) -> str:
    return getattr(error, 'strerror', None) or str(error)


def _read(path: str, owners: Collection[int]) -> Tuple[bytes, os.stat_result]:
    """The file's octets and its state; checked again, on what was really opened."""
    try:
        with open(path, 'rb') as file:
            status = os.fstat(file.fileno())
            if path != os.devnull:
                _refuse_unsafe(path, status, owners)
            return file.read(), status
    except OSError as error:
        raise at(path, None, _reason(error)) from error


def execute(path: str, status: os.stat_result, owners: Collection[int],
            namespace: Dict[str, Any]) -> None:
    """Run the Python file at `path` in `namespace`, which set_up() has prepared."""
    code = _programs.get(path, status)
    if code is None:
        source, status = _read(path, owners)
        code = _compile(path, source)
        _programs.put(path, status, code)
    namespace['__file__'] = path
    try:
        exec(code, namespace)
    except BaseException as error:  # a user's sys.exit() must not end the daemon
        raise _failure(path, error) from error


def set_up(namespace: Dict[str, Any], environ: Dict[str, str], home: str) -> None:
    """Make `namespace` fit to run configurations that see `environ` as os.environ."""
    os_view, import_hook = MessageOs.view(environ, home)
    namespace['__builtins__'] = dict(_BUILTINS, os=os_view, __import__=import_hook)
    namespace['__name__'] = 'tmdarc'


def _compile(path: str, source: bytes) -> CodeType:
    try:
        return compile(source, path, 'exec', dont_inherit=True)
    except SyntaxError as error:
        from TMDA import Python2
        line = error.text or _line_of(source, error.lineno)
        text = _with_advice(error.msg, Python2.syntax_advice(error.msg, line))
        raise at(path, error.lineno, text) from error
    except (ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise at(path, None, f'not a Python program: {error}') from error


def _line_of(source: bytes, number: Optional[int]) -> str:
    lines = source.decode('latin-1').split('\n')
    return lines[number - 1] if number and number <= len(lines) else ''


def _with_advice(text: str, advice: str) -> str:
    return f'{text} ({advice})' if advice else text


def _failure(path: str, error: BaseException) -> ConfigError:
    """What a running configuration raised, with the line of the file that led to it."""
    import traceback
    from TMDA import Python2
    line = None
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == path:
            line = number
    text = traceback.format_exception_only(type(error), error)[-1]
    text = ' '.join(text.split())[:500]
    return at(path, line, _with_advice(text, Python2.runtime_advice(text)))


def read_ini(path: str, status: os.stat_result, owners: Collection[int],
             namespace: Dict[str, Any]) -> None:
    """Set the options of the ini file at `path` in `namespace`."""
    entries = _inifiles.get(path, status)
    if entries is None:
        source, status = _read(path, owners)
        entries = _parse_ini(path, source.decode('utf-8', 'surrogateescape'))
        _inifiles.put(path, status, entries)
    for entry in entries:
        try:
            namespace[entry.name] = _ini_value(entry)
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            raise at(path, entry.line, f'{entry.name}: value cannot be read: {entry.text}'
                     ) from error


def _parse_ini(path: str, source: str) -> List[Entry]:
    import configparser
    parser = configparser.RawConfigParser(strict=False, inline_comment_prefixes=(';',))
    parser.optionxform = str.upper
    try:
        parser.read_string(source, path)
    except configparser.MissingSectionHeaderError as error:
        raise at(path, error.lineno, f'an ini file begins with a line [{SECTION}] (the global '
                 'file sets CONFIG_EXEC = False)') from error
    except configparser.ParsingError as error:
        raise at(path, error.errors[0][0], 'not a line of an ini file') from error
    if parser.sections() and not parser.has_section(SECTION):
        raise at(path, None, f'has no section [{SECTION}]')
    options = parser.items(SECTION) if parser.sections() else ()
    return [Entry(name, text, _last_setting(source, name)) for name, text in options]


def setting_line(path: str, name: str) -> Optional[int]:
    """The last line of the file at `path` that sets the variable; None if there is none."""
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            return _last_setting(file.read(), name)
    except OSError:
        return None


def _last_setting(source: str, name: str) -> Optional[int]:
    setting = re.compile(rf'\s*{re.escape(name)}\s*[=:]', re.IGNORECASE)
    numbers = [number for number, line in enumerate(source.split('\n'), 1) if setting.match(line)]
    return numbers[-1] if numbers else None


def _ini_value(entry: Entry) -> Any:
    """The value: a whole number, float, True, False, None, [...] or {...}, else text."""
    text = entry.text
    if text == 'None':
        return None
    variable = VARIABLES.get(entry.name)
    if variable is not None and variable.kind in _TEXT_KINDS:
        return text
    if text in ('True', 'False'):
        return text == 'True'
    if re.fullmatch(r'-?(0|[1-9][0-9]{0,17})', text):
        return int(text)
    if re.fullmatch(r'-?[0-9]+\.[0-9]*([eE][-+]?[0-9]+)?', text):
        return float(text)
    if text[:1] in ('[', '{'):
        import ast
        return ast.literal_eval(text)
    return text
