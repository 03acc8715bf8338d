# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults by the hundred: run starts a storm (storm.py) and counts what was lost."""
