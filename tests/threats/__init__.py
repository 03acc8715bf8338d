# SPDX-License-Identifier: GPL-2.0-or-later
"""One table of all threats and their tests (test_rows.py), and the tests that belong nowhere else."""
