# SPDX-License-Identifier: GPL-2.0-or-later
"""tmda-sendmail: tmda-inject with the command line of sendmail(1), for mail clients that want one.

-t takes recipients from the header as well, -F gives the full name.  All other options of sendmail
that have to do with sending are accepted and have no effect; in particular the sender is made by
the outgoing filter, not by -f.  Modes other than sending (-bs, -bd, -bp ...) are refused.
"""
from __future__ import annotations

import getopt
import os
import re
import sys
from typing import Optional, Sequence

from TMDA import Version
from TMDA.tools import common
from TMDA.tools.inject import inject

NAME = 'tmda-sendmail'
OPTIONS = 'A:B:b:C:c:D:F:f:Gh:IiL:M:mN:nO:o:p:R:r:sTtUV:vX:x'
HELP = """\
usage: tmda-sendmail [-t] [-F NAME] [-c FILE] [sendmail options] [RECIPIENT ...]

Tag the message on standard input according to the outgoing filter, and send it.
  -t           recipients from To, Cc and Bcc as well
  -F NAME      full name of the sender
  -c FILE      configuration file instead of ~/.tmda/config
  -V           show the versions of TMDA, Python and OpenSSL, and exit
  --version    show the version and exit
  -h, --help   show this and exit
Other options of sendmail are accepted and have no effect.
"""

# -d, -e and -q have a value only where it is attached, which getopt does not know.
_IGNORED = re.compile(r'-[deq][^-]*\Z')
_INFORMATION = {
    '-V': Version.details,
    '--version': lambda: Version.TMDA,
    '-h': HELP.rstrip,
    '--help': HELP.rstrip,
}


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    return common.run(NAME, _sendmail, arguments)


def _sendmail(arguments: Optional[Sequence[str]]) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if len(words) == 1 and words[0] in _INFORMATION:
        print(_INFORMATION[words[0]]())
        return 0
    pairs, addresses = parse(words)
    options = dict(pairs)
    if options.get('-b', 'm') != 'm':
        raise common.Failure(common.EX_USAGE, '-b%s: only sending (-bm) is possible'
                             % options['-b'])
    if not addresses and '-t' not in options:
        raise common.Failure(common.EX_USAGE, 'no recipients (-t takes them from the header)')
    environ = dict(os.environ)
    if options.get('-F'):
        environ['TMDANAME'] = options['-F']
    return inject(NAME, sys.stdin.buffer, addresses, options.get('-c'), environ,
                  header_too='-t' in options)


def parse(words: list) -> tuple:
    """(list of (option, value), recipients).  Raises Failure(64) for what sendmail does not know."""
    end = words.index('--') if '--' in words else len(words)
    kept = [word for word in words[:end] if not _IGNORED.match(word)]
    try:
        return getopt.gnu_getopt(kept + words[end:], OPTIONS)
    except getopt.GetoptError as error:
        raise common.Failure(common.EX_USAGE, str(error)) from None
