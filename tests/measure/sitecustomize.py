# SPDX-License-Identifier: GPL-2.0-or-later
"""Measure coverage in every Python process of a test run, the programs under test included.

tests/run puts this directory on PYTHONPATH, so each interpreter that starts
imports this module.  A process that shall not be measured (one that looks at
what a bare start imports, say) is started with python -I.  Programs of the
system that are written in Python have no coverage and need none.
"""
try:
    import coverage
except ImportError:
    pass
else:
    coverage.process_startup()
