# SPDX-License-Identifier: GPL-2.0-or-later
"""What an attacker sends so that one program sees an end of data where another sees text.

FORMS are octets that look like an end of data and are none (RFC 5321 4.1.1.4 knows CRLF.CRLF and
nothing else).  normalized() says in the words of the RFC, line by line, what must arrive.
"""
from __future__ import annotations

import random

END = b'\r\n.\r\n'

FORMS = [
    # line ends of other systems around the dot, alone and mixed (CVE-2023-51764, -51765, -51766)
    b'\n.\n', b'\r.\r', b'\n.\r\n', b'\r.\r\n', b'\r\n.\n', b'\r\n.\r', b'\n.\r', b'\r.\n',
    b'\n\n.\n', b'\n\n.\r\n', b'\r\r.\r\n', b'\n\r.\r\n', b'\n\r.\n\r', b'\r\n\n.\n', b'\r\n\r.\r',
    b'\r\n.\r\r\n', b'\r\n.\n\r\n', b'\r\n.\n\r', b'\r\n\r.\r\n', b'\r\n.\n.\r\n',
    # several in a row (CVE-2024-27305), and stuffed dots
    b'\n.\n.\n.\n', b'\r.\r.\r.\r', b'\r\n..\r\n', b'\n..\n', b'\r..\r', b'\r\n..\n', b'\n..\r\n',
    # NUL and other octets that somebody may strip
    b'\r\n.\0\r\n', b'\r\n\0.\r\n', b'\n\0.\r\n', b'\r\0\n.\r\n', b'\r\n.\r\0\n', b'\0\n.\n\0',
    b'\r\n. \r\n', b'\r\n .\r\n', b'\r\n.\t\r\n', b'\r\n.\x1a\r\n', b'\r\n\x08.\r\n',
    # what str.splitlines() takes for a line end: VT, FF, FS, GS, RS, NEL, LS, PS
    b'\x0b.\x0b', b'\x0c.\x0c', b'\x1c.\x1c', b'\x1d.\x1d', b'\x1e.\x1e', b'\x85.\x85',
    b'\xc2\x85.\xc2\x85', b'\xe2\x80\xa8.\xe2\x80\xa8', b'\xe2\x80\xa9.\r\n', b'\r\n.\xc2\x85\r\n',
    # escapes that nobody may interpret
    b'%0d%0a.%0d%0a', b'\\r\\n.\\r\\n', b'=0D=0A.=0D=0A', b'&#13;&#10;.&#13;&#10;',
]

# What an attacker puts behind, to be read as commands by the next server.
SMUGGLED = (b'MAIL FROM:<admin@example.org>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\n'
            b'X: y\r\n\r\nboo')

_TOKENS = (b'\r', b'\n', b'.', b'\r\n', b'\r\n.', b'\n.', b'..', b'\0', b'MAIL FROM:<a@b>',
           b'QUIT', b'text', b' ', b'\xff', b'\x85', b'\xe2\x80\xa8')


def mixes(seed: int, number: int) -> list[bytes]:
    """Random texts of these octets, none of which holds an end of data."""
    chance = random.Random(seed)
    made = []
    for _ in range(number):
        text = b''.join(chance.choices(_TOKENS, k=chance.randint(0, 30)))
        made.append(without_end(text))
    return made


def without_end(text: bytes) -> bytes:
    """text with a second dot wherever it would end the data, behind a line and in front of END."""
    framed = b'\r\n' + text + b'\r\n'
    while END in framed:
        framed = framed.replace(END, b'\r\n..\r\n')
    return framed[2:-2]


def normalized(text: bytes) -> bytes:
    """The text that CRLF-terminated lines in `text`, dots stuffed, stand for; CRLF only."""
    lines = []
    for line in text.split(b'\r\n'):
        line = line[1:] if line.startswith(b'.') else line
        lines.append(line.replace(b'\r', b'\n').replace(b'\n', b'\r\n'))
    return b'\r\n'.join(lines)


def pieces(data: bytes, chance: random.Random) -> list[bytes]:
    """data in pieces of random sizes, some of a single octet."""
    cut = []
    while data:
        size = chance.choice((1, 2, 3, 7, 50, 1000))
        cut.append(data[:size])
        data = data[size:]
    return cut
