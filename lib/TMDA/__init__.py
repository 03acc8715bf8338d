# SPDX-License-Identifier: GPL-2.0-or-later
"""TMDA: the part of the Tagged Message Delivery Agent that tags outgoing mail.

The modules here are what TMDA is: configuration (Defaults), keys and cookies
(Cookie), tagged addresses (Address), outgoing filters (FilterParser,
FilterSources) and the cdb format (Cdb).  They open no sockets, start no
threads and write no log; everything they need comes in as an argument.

TMDA.inject turns a client's message into deliveries and hands them on.
TMDA.ofmipd is the SMTP daemon.  Imports point from TMDA.ofmipd to TMDA.inject
to here, never back.  TMDA.tools holds the mains of the companion commands.
"""
