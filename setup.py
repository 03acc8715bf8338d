# SPDX-License-Identifier: GPL-2.0-or-later
"""Build and install tmda-ofmipd.

The version comes from lib/TMDA/Version.py, read as text: a build must not need
the package that it builds.  The extra "test" is what tests/requirements.txt
lists, so that tests/run and pip install the same things.

What is not code goes where Unix programs have it, below the prefix (of a virtual
environment, too): manual pages, the documentation with the contributed files that it
refers to, and the completion for shells.  Which files there are, the directories say.
"""
import re
from collections import defaultdict
from pathlib import Path

import setuptools

HERE = Path(__file__).resolve().parent
LICENSE = 'GPL-2.0-or-later'
DOCUMENTATION = 'share/doc/tmda-ofmipd'
PAGES = ('htdocs/*.html', 'htdocs/*.css', 'htdocs/*.svg')
COMPLETIONS = {
    'contrib/completion/tmda-ofmipd.bash': 'share/bash-completion/completions',
    'contrib/completion/_tmda-ofmipd': 'share/zsh/site-functions',
}


def version():
    """The value of VERSION in lib/TMDA/Version.py."""
    text = (HERE / 'lib/TMDA/Version.py').read_text(encoding='utf-8')
    return re.search(r"^VERSION = '([^']+)'$", text, re.MULTILINE).group(1)


def license_keyword():
    """The license under the keyword that this setuptools has for SPDX expressions (PEP 639)."""
    major = int(setuptools.__version__.split('.')[0])
    return {'license_expression' if major >= 77 else 'license': LICENSE}


def data_files():
    """Pairs of a directory below the prefix and the files that are installed there."""
    found = defaultdict(list)
    for path in sorted(HERE.glob('man/*.[1-8]')):
        found['share/man/man' + path.suffix[1:]].append(path)
    for name in ('COPYING', 'NEWS', 'README.md'):
        found[DOCUMENTATION].append(HERE / name)
    for pattern in PAGES:
        found[DOCUMENTATION + '/htdocs'] += sorted(HERE.glob(pattern))
    for path in sorted(HERE.glob('contrib/**/*')):
        if path.is_file() and str(path.relative_to(HERE)) not in COMPLETIONS:
            found[DOCUMENTATION + '/' + str(path.parent.relative_to(HERE))].append(path)
    for path, directory in COMPLETIONS.items():
        found[directory].append(HERE / path)
    return [(directory, [str(path.relative_to(HERE)) for path in paths])
            for directory, paths in found.items()]


setuptools.setup(
    name='tmda-ofmipd',
    version=version(),
    description='Authenticated SMTP submission proxy that tags outgoing mail for TMDA',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license_files=['COPYING'],
    python_requires='>=3.9',
    package_dir={'': 'lib'},
    packages=['TMDA', 'TMDA.inject', 'TMDA.ofmipd', 'TMDA.tools'],
    scripts=[
        'bin/tmda-ofmipd',
        'bin/tmda-inject',
        'bin/tmda-sendmail',
        'bin/tmda-keygen',
        'bin/tmda-address',
        'bin/tmda-check-address',
    ],
    data_files=data_files(),
    extras_require={
        'test': (HERE / 'tests/requirements.txt').read_text(encoding='utf-8').splitlines(),
    },
    classifiers=[
        'Environment :: No Input/Output (Daemon)',
        'Intended Audience :: End Users/Desktop',
        'Intended Audience :: System Administrators',
        'Operating System :: POSIX',
        'Programming Language :: Python :: 3',
        'Topic :: Communications :: Email :: Filters',
        'Topic :: Communications :: Email :: Mail Transport Agents',
    ],
    **license_keyword(),
)
