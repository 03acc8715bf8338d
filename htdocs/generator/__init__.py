# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of htdocs/generate: each module turns tables of the program into one kind of text."""
