# SPDX-License-Identifier: GPL-2.0-or-later
"""Build and install tmda-ofmipd.

The version comes from lib/TMDA/Version.py, read as text: a build must not need
the package that it builds.  The extra "test" is what tests/requirements.txt
lists, so that tests/run and pip install the same things.
"""
import re
from pathlib import Path

import setuptools

HERE = Path(__file__).resolve().parent
LICENSE = 'GPL-2.0-or-later'


def version():
    """The value of VERSION in lib/TMDA/Version.py."""
    text = (HERE / 'lib/TMDA/Version.py').read_text(encoding='utf-8')
    return re.search(r"^VERSION = '([^']+)'$", text, re.MULTILINE).group(1)


def license_keyword():
    """The license under the keyword that this setuptools has for SPDX expressions (PEP 639)."""
    major = int(setuptools.__version__.split('.')[0])
    return {'license_expression' if major >= 77 else 'license': LICENSE}


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
