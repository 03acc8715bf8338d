# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzzers: engine.py makes cases, protocols.py and files.py say what must hold."""
