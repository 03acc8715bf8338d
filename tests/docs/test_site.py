# SPDX-License-Identifier: GPL-2.0-or-later
"""The pages of htdocs: well-formed HTML 5 without scripts, and no link that leads nowhere."""
from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / 'htdocs').glob('*.html'))

# HTML's elements that have no end tag; and SVG's, which are written as <rect/>.
EMPTY = {'meta', 'link', 'br', 'hr', 'img', 'col', 'input', 'wbr'}
FORBIDDEN = {'script', 'iframe', 'object', 'embed', 'form', 'base', 'font', 'center', 'style',
             'img'}
# Element -> the elements that it may stand in.
PARENTS = {
    'li': {'ul', 'ol'}, 'dt': {'dl'}, 'dd': {'dl'}, 'tr': {'table', 'tbody', 'thead'},
    'td': {'tr'}, 'th': {'tr'}, 'caption': {'table'}, 'figcaption': {'figure'},
    'title': {'head', 'svg'}, 'h1': {'main'}, 'h2': {'main', 'section'}, 'h3': {'main', 'section'},
    'main': {'div', 'body'}, 'nav': {'div', 'body'}, 'header': {'body'}, 'footer': {'body'},
}
# What may not stand in a paragraph or heading, whose end tag browsers would put in front of it.
BLOCKS = {'p', 'ul', 'ol', 'dl', 'pre', 'table', 'figure', 'div', 'h1', 'h2', 'h3', 'h4', 'nav',
          'main', 'section'}
PHRASES = {'p', 'h1', 'h2', 'h3', 'h4', 'dt', 'pre', 'code', 'span'}


class Page(HTMLParser):
    """Reads a page strictly; `problems` says what is wrong, `ids` and `links` what is there."""

    def __init__(self, path: Path):
        super().__init__(convert_charrefs=True)
        self.problems: list[str] = []
        self.ids: set[str] = set()
        self.links: list[tuple[int, str]] = []
        self.resources: list[str] = []
        self.counts: dict[str, int] = {}
        self._open: list[str] = []
        self._heading = 0
        self._text = path.read_text(encoding='utf-8')
        if not self._text.startswith('<!DOCTYPE html>\n<html lang="en">\n'):
            self._problem('does not begin as an HTML 5 page')
        for found in re.finditer(r'&(?!\w+;|#\d+;)', self._text):
            self._problem('a bare & at octet %d' % found.start())
        self.feed(self._text)
        self.close()
        if self._open:
            self._problem('not closed: ' + ' '.join(self._open))

    def _problem(self, text: str) -> None:
        self.problems.append('line %d: %s' % (self.getpos()[0], text))

    def handle_starttag(self, tag, attributes):
        self._look_at(tag, attributes)
        if tag not in EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        if 'svg' not in self._open:
            self._problem('<%s/> is for SVG' % tag)
        self._look_at(tag, attributes)

    def handle_endtag(self, tag):
        if not self._open or self._open.pop() != tag:
            self._problem('</%s> closes nothing' % tag)
            self._open = self._open[:len(self._open) - self._open[::-1].index(tag) - 1] \
                if tag in self._open else self._open

    def _look_at(self, tag: str, attributes: list) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self._place(tag)
        names = [name for name, _ in attributes]
        if len(set(names)) < len(names):
            self._problem('an attribute twice in <%s>' % tag)
        for name, value in attributes:
            if name == 'style' or name.startswith('on'):
                self._problem('attribute %s' % name)
            if name == 'id':
                if value in self.ids:
                    self._problem('id %s twice' % value)
                self.ids.add(value)
            if name == 'href' and tag == 'a':
                self.links.append((self.getpos()[0], value))
            elif name in ('href', 'src', 'xlink:href'):
                self.resources.append(value)
        if re.fullmatch(r'h[1-6]', tag):
            level = int(tag[1])
            if level > self._heading + 1:
                self._problem('%s behind a heading of level %d' % (tag, self._heading))
            self._heading = level

    def _place(self, tag: str) -> None:
        parent = self._open[-1] if self._open else ''
        if tag in FORBIDDEN:
            self._problem('<%s> is not wanted here' % tag)
        if tag in PARENTS and parent not in PARENTS[tag]:
            self._problem('<%s> in <%s>' % (tag, parent))
        if tag in BLOCKS and 'svg' not in self._open:
            for around in reversed(self._open):
                if around in PHRASES:
                    self._problem('<%s> in <%s>' % (tag, around))
                    break
                if around in BLOCKS | {'dd', 'li', 'td'}:
                    break


READ = {path.name: Page(path) for path in PAGES}
by_page = pytest.mark.parametrize('name', sorted(READ))


@by_page
def test_page_is_well_formed(name):
    assert READ[name].problems == []


@by_page
def test_page_has_its_frame(name):
    counts = READ[name].counts
    assert {tag: counts.get(tag) for tag in ('title', 'h1', 'main', 'nav', 'header', 'footer')
            if tag != 'title'} == dict.fromkeys(('h1', 'main', 'nav', 'header', 'footer'), 1)
    text = (ROOT / 'htdocs' / name).read_text(encoding='utf-8')
    assert '<meta charset="utf-8">' in text
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert re.search(r'<title>[^<]+ · tmda-ofmipd</title>', text)


@by_page
def test_page_loads_nothing_but_the_style_sheet(name):
    assert READ[name].resources == ['style.css']


def test_style_sheet_loads_nothing():
    text = (ROOT / 'htdocs' / 'style.css').read_text(encoding='utf-8')
    assert 'url(' not in text
    assert '@import' not in text
    assert text.count('{') == text.count('}')


@by_page
def test_links_lead_somewhere(name):
    broken = []
    for line, link in READ[name].links:
        if re.match(r'https?://', link):
            continue
        target, _, anchor = link.partition('#')
        page = READ.get(target or name)
        if page is None and (ROOT / 'htdocs' / target).is_file():
            continue
        if page is None or (anchor and anchor not in page.ids):
            broken.append('line %d: %s' % (line, link))
    assert broken == []


def test_every_page_is_in_the_list_of_pages():
    linked = {link for _, link in READ['index.html'].links}
    assert set(READ) <= linked


@by_page
def test_pictures_say_what_they_show(name):
    text = (ROOT / 'htdocs' / name).read_text(encoding='utf-8')
    for found in re.finditer(r'<svg [^>]*>', text):
        assert 'role="img"' in found[0]
        for label in re.search(r'aria-labelledby="([^"]+)"', found[0])[1].split():
            assert label in READ[name].ids


@pytest.mark.skipif(not shutil.which('tidy'), reason='tidy is not installed')
@by_page
def test_tidy_has_nothing_to_say(name):
    text = (ROOT / 'htdocs' / name).read_bytes()
    done = subprocess.run(['tidy', '-quiet', '-errors', '-utf8',
                           '--warn-proprietary-attributes', 'no'], input=text,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.stdout.decode() == ''
