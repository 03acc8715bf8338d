# SPDX-License-Identifier: GPL-2.0-or-later
"""htdocs/security.html: its table of limits, its HTML, and that what it names exists."""
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
PAGE = TOP / 'htdocs' / 'security.html'
VOID = {'meta', 'link', 'br', 'hr', 'img', 'col', 'input'}


class Checker(HTMLParser):
    """Raises AssertionError for elements that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open = []
        self.attributes = []

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, (tag, self.getpos())


@pytest.fixture
def page():
    return PAGE.read_text(encoding='utf-8')


def test_limits_are_those_of_the_program(page, monkeypatch):
    """The table is made of inject/limits.py by htdocs/generate."""
    monkeypatch.setattr(sys, 'path', [str(TOP / 'htdocs'), *sys.path])
    from generator import tables
    made = page.partition('<!-- generated limits -->\n')[2].partition('<!-- end limits -->')[0]
    assert made.rstrip('\n') == tables.limits(PAGE.name), 'run htdocs/generate'


def test_page_is_well_formed_and_self_contained(page):
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert {tag for tag, _, _ in checker.attributes} & {'script', 'iframe', 'img'} == set()
    loaded = {value for tag, name, value in checker.attributes
              if name == 'src' or (tag == 'link' and name == 'href')}
    assert loaded == {'style.css'}


def test_files_that_are_named_exist(page):
    named = re.findall(r'<code>((?:tests|contrib|lib)/[\w./-]+)', page)
    assert named
    for name in named:
        assert (TOP / name).exists(), name
