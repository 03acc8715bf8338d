# SPDX-License-Identifier: GPL-2.0-or-later
"""Manual pages: formatters have no complaint, and they name what the programs know."""
from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from TMDA import Version

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / 'man').glob('*.[1-8]'))
TOOLS = sorted(path.name for path in (ROOT / 'bin').iterdir())
by_page = pytest.mark.parametrize('path', PAGES, ids=lambda path: path.name)


def run(*command):
    """(exit status, what it printed)."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout.decode('utf-8', 'replace')


def plain(path: Path) -> str:
    """The page's source as a reader would see its words."""
    text = path.read_text(encoding='utf-8')
    text = re.sub(r'\\f[BIRP]', '', text)
    for escape, letter in (('\\-', '-'), ('\\(aq', "'"), ('\\(ti', '~'), ('\\(dq', '"'),
                           ('\\&', ''), ('\\e', '\\')):
        text = text.replace(escape, letter)
    return text


@by_page
@pytest.mark.skipif(not shutil.which('groff'), reason='groff is not installed')
def test_groff_has_no_warning(path):
    status, printed = run('groff', '-ww', '-man', '-Tutf8', '-z', str(path))
    assert (status, printed) == (0, '')


@by_page
@pytest.mark.skipif(not shutil.which('mandoc'), reason='mandoc is not installed')
def test_mandoc_has_no_warning(path):
    status, printed = run('mandoc', '-T', 'lint', '-W', 'warning', str(path))
    assert (status, printed) == (0, '')


@by_page
def test_header_and_name(path):
    lines = path.read_text(encoding='utf-8').split('\n')
    name, section = path.stem, path.suffix[1:]
    header = next(line for line in lines if line.startswith('.TH '))
    assert header.replace('\\-', '-').startswith('.TH %s %s 2' % (name.upper(), section))
    assert '"TMDA %s"' % Version.VERSION in header
    assert lines[lines.index('.SH NAME') + 1].startswith(name + ' \\- ')


def test_every_program_has_a_page():
    assert set(TOOLS) <= {path.stem for path in PAGES}


@pytest.mark.parametrize('tool', [tool for tool in TOOLS if tool != 'tmda-ofmipd'])
def test_options_of_a_tool_are_those_of_its_help(tool):
    status, text = run(sys.executable, str(ROOT / 'bin' / tool), '--help')
    assert status == 0
    explained = text[re.search(r'^ +-', text, re.MULTILINE).start():]
    shown = set(re.findall(r'^ +(-\w)\b|(?<=, )(--[\w-]+)|^ +(--[\w-]+)', explained, re.MULTILINE))
    wanted = {flag for group in shown for flag in group if flag}
    page = plain(ROOT / 'man' / (tool + '.1'))
    section = page[page.index('.SH OPTIONS'):page.index('.SH EXIT STATUS')]
    heads = re.findall(r'^\.TP\n(.*)', section, re.MULTILINE)
    documented = set(re.findall(r'(?<![\w-])(--?[a-zA-Z][\w-]*)', ' '.join(heads)))
    assert documented == wanted
    html = (ROOT / 'htdocs' / 'tools.html').read_text(encoding='utf-8')
    for flag in wanted - {'-h', '--help', '-V', '--version', '-c', '--config-file'}:
        assert '<code>%s</code>' % flag in html


def test_references_to_our_pages_exist():
    there = {'%s(%s)' % (path.stem, path.suffix[1:]) for path in PAGES}
    for path in PAGES:
        for name, section in re.findall(r'\b(tmda[\w-]*) \((\d)\)', plain(path)):
            assert '%s(%s)' % (name, section) in there
