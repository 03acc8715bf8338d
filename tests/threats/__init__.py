# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of all threats and their tests, and the tests that belong nowhere else."""
