# SPDX-License-Identifier: GPL-2.0-or-later
"""The console transcripts in htdocs and README.md print what the documentation says."""
from __future__ import annotations

import os
import shutil

import pytest

from support import examples
from TMDA.ofmipd.demoupstream import Upstream

PAGES = sorted((examples.ROOT / 'htdocs').glob('*.html'))


def transcripts(path):
    return examples.of_markdown(path) if path.suffix == '.md' else examples.of_page(path)


WITH_EXAMPLES = [path for path in PAGES + [examples.ROOT / 'README.md'] if transcripts(path)]


@pytest.mark.skipif(os.geteuid() == 0, reason='the examples are those of an ordinary account')
@pytest.mark.skipif(not shutil.which('bash'), reason='no bash')
@pytest.mark.parametrize('path', WITH_EXAMPLES, ids=lambda path: path.name)
def test_transcripts_print_what_the_page_says(path, tmp_path):
    upstream = Upstream()
    try:
        stage = examples.Stage(tmp_path, upstream.port)
        wrong = [text for example in transcripts(path) for text in stage.run(example)]
    finally:
        upstream.close()
    assert not wrong, '\n\n'.join(wrong)


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.name)
def test_every_transcript_is_run_or_says_why_not(path):
    for line, attributes, text in examples.preformatted(path):
        if text.startswith('$ '):
            assert 'data-run' in attributes or attributes.get('data-not-run'), (
                '%s:%d: neither data-run nor a reason in data-not-run' % (path.name, line))
