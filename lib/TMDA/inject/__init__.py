# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to a message between a client and the mail system.

Used by the daemon (TMDA.ofmipd) and by tmda-inject and tmda-sendmail.  `submit.submit` is the one
entry; `tagging` is the pure heart; `transport` hands the result over.
"""
