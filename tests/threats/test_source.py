# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules that the source text itself has to keep, because no test could reach every place.

Whoever has a good reason to break one adds the module to the rule's list, with the reason.
"""
import ast
from pathlib import Path

import pytest

LIB = Path(__file__).resolve().parents[2] / 'lib'
MODULES = {str(path.relative_to(LIB)): path for path in sorted(LIB.rglob('*.py'))}

# str.splitlines() cuts at VT, FF, FS, NEL, LS and PS too: a second idea of what a line is.
SPLITS_LINES = {
    'TMDA/tools/common.py',   # our own error texts, for the terminal
    'TMDA/ofmipd/demo.py',    # its own filter, for the terminal
}
# fork() in a process with threads copies locks that nobody will ever release.
FORKS = {
    'TMDA/ofmipd/daemon.py',      # into the background, before there are threads
    'TMDA/ofmipd/workers.py',     # a parent without threads
    'TMDA/ofmipd/monitor.py',     # a monitor without threads
    'TMDA/ofmipd/privileges.py',  # what the monitor has forked
    'TMDA/ofmipd/users.py',       # --check and --explain, without threads
}
# os.environ belongs to the process; what is of a message or session may not be there.
CHANGES_ENVIRONMENT = {
    'TMDA/ofmipd/accounts.py',  # a process that has become a user: of a session, or of --check
    'TMDA/ofmipd/demo.py',      # --demo's own process, before it serves
}
# A shell may run what the user's own files name, and nothing else.
RUNS_A_SHELL = {'TMDA/inject/actions.py'}


def calls(tree):
    """(dotted name of what is called, call) for all calls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def users_of(found):
    """The modules for whose syntax tree found() is true."""
    return {name for name, path in MODULES.items()
            if found(ast.parse(path.read_text(encoding='utf-8')))}


def test_splitlines_is_not_used_on_protocol_or_header():
    used = users_of(lambda tree: any(name.endswith('.splitlines') for name, _ in calls(tree)))
    assert used <= SPLITS_LINES


def test_fork_only_where_there_are_no_threads():
    used = users_of(lambda tree: any(name in ('os.fork', 'os.forkpty', 'pty.fork')
                                     for name, _ in calls(tree)))
    assert used <= FORKS


def test_no_code_between_fork_and_exec():
    used = users_of(lambda tree: any(keyword.arg == 'preexec_fn' for _, call in calls(tree)
                                     for keyword in call.keywords))
    assert used == set()


def test_environment_of_the_process_is_not_changed():
    changing = ('os.environ.update', 'os.environ.clear', 'os.environ.pop', 'os.environ.setdefault',
                'os.putenv', 'os.unsetenv', 'os.environ.popitem')

    def changes(tree):
        targets = [target for node in ast.walk(tree)
                   if isinstance(node, (ast.Assign, ast.AugAssign, ast.Delete))
                   for target in getattr(node, 'targets', None) or [getattr(node, 'target', None)]]
        return (any(name in changing for name, _ in calls(tree))
                or any(ast.unparse(target).startswith('os.environ')
                       for target in targets if target))
    assert users_of(changes) <= CHANGES_ENVIRONMENT


def test_shell_only_for_the_users_own_commands():
    def runs(tree):
        return (any(name in ('os.system', 'os.popen', 'subprocess.getoutput')
                    for name, _ in calls(tree))
                or any(keyword.arg == 'shell' for _, call in calls(tree)
                       for keyword in call.keywords))
    assert users_of(runs) == set()
    named = {name for name, path in MODULES.items() if "['/bin/sh'" in path.read_text('utf-8')}
    assert named <= RUNS_A_SHELL


def test_no_temporary_names():
    """Temporary files have no name, or one that tempfile made and that is renamed at once."""
    used = users_of(lambda tree: any(name.split('.')[-1] in (
        'mktemp', 'NamedTemporaryFile', 'tmpnam') for name, _ in calls(tree)))
    assert used == set()


def test_no_pickle_but_the_restricted_one():
    used = users_of(lambda tree: any(name in ('pickle.load', 'pickle.loads', 'marshal.load')
                                     for name, _ in calls(tree)))
    assert used == set()


@pytest.mark.parametrize('names', [SPLITS_LINES, FORKS, CHANGES_ENVIRONMENT, RUNS_A_SHELL])
def test_exceptions_exist(names):
    assert names <= MODULES.keys()
