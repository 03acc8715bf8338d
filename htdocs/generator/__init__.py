# SPDX-License-Identifier: GPL-2.0-or-later
"""What htdocs/generate is made of: each module turns tables of the program into one kind of text."""
