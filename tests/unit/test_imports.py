# SPDX-License-Identifier: GPL-2.0-or-later
"""Imports in lib/: which way they point, that they make no circle, and that Python still has them.

The wings are TMDA, TMDA.inject, TMDA.ofmipd; each may import itself and those
before it.  TMDA.tools holds the mains of the companion commands: it may import
all and nothing imports it.  Imports inside functions count like any others,
also those that only a type checker sees.
"""
import ast
import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

LIB = Path(__file__).resolve().parents[2] / 'lib'

ALLOWED = {
    'TMDA': {'TMDA'},
    'TMDA.inject': {'TMDA', 'TMDA.inject'},
    'TMDA.ofmipd': {'TMDA', 'TMDA.inject', 'TMDA.ofmipd'},
    'TMDA.tools': {'TMDA', 'TMDA.inject', 'TMDA.ofmipd', 'TMDA.tools'},
}

# Removed in 3.12 (PEP 632 and 3.12's list) and 3.13 (PEP 594), or deprecated for a later removal.
GONE = set('''
    asynchat asyncore distutils imp smtpd
    aifc audioop cgi cgitb chunk crypt imghdr lib2to3 mailcap msilib nis nntplib ossaudiodev pipes
    sndhdr spwd sunau telnetlib uu xdrlib
'''.split())
GONE_NAMES = {
    ('codecs', 'open'), ('datetime', 'utcfromtimestamp'), ('datetime', 'utcnow'),
    ('locale', 'getdefaultlocale'), ('locale', 'resetlocale'), ('pkgutil', 'find_loader'),
    ('pkgutil', 'get_loader'), ('sqlite3', 'version'), ('ssl', 'PROTOCOL_SSLv23'),
    ('ssl', 'PROTOCOL_TLS'), ('ssl', 'match_hostname'), ('ssl', 'wrap_socket'),
    ('threading', 'activeCount'), ('threading', 'currentThread'),
}

# Each costs milliseconds; an inetd-style daemon starts once for each connection.
HEAVY = set('''
    asyncio configparser ctypes dbm email imaplib logging multiprocessing pickle poplib smtplib
    sqlite3 ssl subprocess tempfile unittest
'''.split())


def module_name(path):
    """Dotted name of a file below lib/."""
    parts = path.relative_to(LIB).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module_name(path): path for path in sorted(LIB.rglob('*.py'))}


def wing(module):
    """The wing that a module of lib/ belongs to."""
    first_two = '.'.join(module.split('.')[:2])
    return first_two if first_two in ALLOWED else 'TMDA'


def imports_in(source):
    """Modules that a source text imports; X of "from TMDA import X" if there is such a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'line {node.lineno}: relative import'
            for alias in node.names:
                inner = f'{node.module}.{alias.name}'
                yield inner if inner in MODULES else node.module


def imports_of(module):
    """The set of modules that a module of lib/ imports."""
    return set(imports_in(MODULES[module].read_text(encoding='utf-8')))


def is_standard(name):
    """Whether the running Python brings this top-level module."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return False
    if spec.origin in ('built-in', 'frozen'):
        return True
    path = Path(spec.origin)
    standard = Path(sysconfig.get_path('stdlib'))
    return standard in path.parents and not {'site-packages', 'dist-packages'} & set(path.parts)


def circle_from(start, graph):
    """A list of modules that leads from start back to start, or None."""
    waiting = [[start]]
    seen = set()
    while waiting:
        way = waiting.pop()
        for target in graph[way[-1]] & set(graph):
            if target == start:
                return way + [start]
            if target not in seen:
                seen.add(target)
                waiting.append(way + [target])
    return None


@pytest.mark.parametrize('module', MODULES)
def test_imports_point_down(module):
    for name in imports_of(module):
        if name.split('.')[0] == 'TMDA':
            assert name in MODULES, f'{module} imports {name}, which is not there'
            assert wing(name) in ALLOWED[wing(module)], f'{module} imports {name}'


@pytest.mark.parametrize('module', MODULES)
def test_imports_standard_library_only(module):
    for name in {name.split('.')[0] for name in imports_of(module)} - {'TMDA'}:
        assert name not in GONE, f'{name} is gone from Python or is going'
        assert is_standard(name), f'{name} is not in the standard library'


@pytest.mark.parametrize('module', MODULES)
def test_imports_no_names_that_are_gone(module):
    tree = ast.parse(MODULES[module].read_text(encoding='utf-8'))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value).split('.')[-1]
            assert (owner, node.attr) not in GONE_NAMES, f'line {node.lineno}'
        elif isinstance(node, ast.ImportFrom):
            used = {(node.module, alias.name) for alias in node.names}
            assert not used & GONE_NAMES, f'line {node.lineno}'


def test_imports_no_circle():
    graph = {module: set(imports_in(path.read_text(encoding='utf-8')))
             for module, path in MODULES.items()}
    for module in MODULES:
        circle = circle_from(module, graph)
        assert circle is None, ' -> '.join(circle)


def test_imports_circle_is_found():
    graph = {'a': {'b', 'os'}, 'b': {'c'}, 'c': {'a'}, 'd': {'a'}}
    assert circle_from('a', graph) == ['a', 'b', 'c', 'a']
    assert circle_from('d', graph) is None


@pytest.mark.parametrize('source, names', [
    ('import os.path, re', {'os.path', 're'}),
    ('from TMDA import Version', {'TMDA.Version'}),
    ('from TMDA.Version import VERSION', {'TMDA.Version'}),
    ('def f():\n    import ssl', {'ssl'}),
    ('if TYPE_CHECKING:\n    import ssl', {'ssl'}),
])
def test_imports_are_read_from_source(source, names):
    assert set(imports_in(source)) == names


def bare_python(code):
    """What a Python without site packages, started for this alone, prints for the code."""
    code = f'import sys; sys.path.insert(0, {str(LIB)!r})\n{code}'
    run = subprocess.run([sys.executable, '-B', '-I', '-S', '-W', 'error', '-c', code],
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, timeout=60, check=False)
    assert run.returncode == 0, run.stdout.decode()
    return run.stdout.decode()


def test_imports_each_module_alone():
    names = [name for name in MODULES if not name.endswith('.__main__')]
    bare_python(
        f'import importlib\n'
        f'for name in {names!r}:\n'
        f'    for old in [old for old in sys.modules if old.split(".")[0] == "TMDA"]:\n'
        f'        del sys.modules[old]\n'
        f'    importlib.import_module(name)\n')


def test_imports_of_the_start_are_cheap():
    loaded = bare_python('import TMDA.ofmipd.main; print(*sys.modules)').split()
    assert not HEAVY & set(loaded)
