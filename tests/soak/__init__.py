# SPDX-License-Identifier: GPL-2.0-or-later
"""Endurance: run has the program serve sessions by the hundred thousand and looks what is left."""
