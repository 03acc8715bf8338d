# SPDX-License-Identifier: GPL-2.0-or-later
"""What all pages have in common: the list of pages, and the contents of a long page."""
import html
import re

# File, name in the list of pages.
PAGES = (
    ('index.html', 'What it is'),
    ('howto.html', 'How-to'),
    ('clients.html', 'Mail clients'),
    ('options.html', 'Options'),
    ('configuration.html', 'Configuration'),
    ('filter.html', 'Outgoing filter'),
    ('tools.html', 'Companion tools'),
    ('logs.html', 'Logs and counters'),
    ('migration.html', 'From TMDA 1.1 and 1.3'),
    ('security.html', 'Security'),
    ('performance.html', 'Performance'),
    ('scaling.html', 'Scaling'),
    ('internals.html', 'Internals'),
    ('faq.html', 'Questions'),
)
_HEADING = re.compile(r'<h2 id="([^"]+)">(.*?)</h2>', re.DOTALL)
_TAG = re.compile(r'<[^>]+>')


def navigation(page: str) -> str:
    """The list of all pages, this one marked."""
    items = []
    for file, name in PAGES:
        current = ' aria-current="page"' if file == page else ''
        items.append('<li><a href="%s"%s>%s</a></li>' % (file, current, html.escape(name)))
    return '<nav id="pages" aria-label="Pages">\n<ul>\n%s\n</ul>\n</nav>' % '\n'.join(items)


def contents(text: str) -> str:
    """Links to the sections of this page."""
    items = ['<li><a href="#%s">%s</a></li>' % (name, _TAG.sub('', title))
             for name, title in _HEADING.findall(text)]
    return '<div class="contents">\n<ul>\n%s\n</ul>\n</div>' % '\n'.join(items)


PARTS = {'navigation': navigation, 'contents': contents}
