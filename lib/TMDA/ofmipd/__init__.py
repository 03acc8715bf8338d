# SPDX-License-Identifier: GPL-2.0-or-later
"""How a message gets in: the SMTP submission daemon.

A session (session.py) reads commands from a wire (wire.py), understands them (grammar.py), lets a
client log in (login.py, sasl.py), reads a message (datareader.py) and hands it to a backend
(backend.py).  Nothing below TMDA.inject or TMDA imports from here.
"""
