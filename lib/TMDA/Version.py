# SPDX-License-Identifier: GPL-2.0-or-later
"""The release, in the one place that says it.

Who needs it: setup.py, the --version and -V options of every command, and the
X-Submission-Agent field (`TMDA`) of each message that is tagged.
"""
from __future__ import annotations

VERSION = '2.0.0'
CODENAME = 'Ardbeg'
TMDA = f'TMDA/{VERSION} ({CODENAME})'


def details() -> str:
    """What -V prints: release, Python, platform and OpenSSL, a line each."""
    import platform
    import ssl
    return '\n'.join((
        TMDA,
        f'Python {platform.python_version()} ({platform.python_implementation()})',
        f'Platform {platform.platform()}',
        ssl.OPENSSL_VERSION,
    ))
