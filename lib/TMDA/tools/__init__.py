# SPDX-License-Identifier: GPL-2.0-or-later
"""The mains of the companion commands in bin/, one module each.

Every main(arguments=None) takes the command's arguments (by default those of
the process) and returns its exit status.
"""
