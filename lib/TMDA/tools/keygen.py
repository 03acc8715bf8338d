# SPDX-License-Identifier: GPL-2.0-or-later
"""tmda-keygen: a new secret key.

Prints 512 random bits in hex.  --write puts them where the configuration wants
the key, with mode 600, and never over a file that is there: whoever replaces a
key invalidates every address that was made with it.
"""
from __future__ import annotations

import os
import secrets
from typing import Optional, Sequence

from TMDA.tools import common

NAME = 'tmda-keygen'
KEY_OCTETS = 64


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    return common.run(NAME, _keygen, arguments)


def _keygen(arguments: Optional[Sequence[str]]) -> int:
    parser = common.parser(NAME, 'Make a new secret key.')
    how = parser.add_mutually_exclusive_group()
    how.add_argument('-b', '--bare', action='store_true', help='print the key and nothing else')
    how.add_argument('--write', action='store_true',
                     help='create the key file, unless there is one')
    options = parser.parse_args(arguments)
    key = secrets.token_hex(KEY_OCTETS)
    if options.bare:
        print(key)
        return 0
    path = common.load(options).CRYPT_KEY_FILE
    if options.write:
        write_key(path, key)
        print(f'{path}: new key')
    else:
        print(f'{key}\n\nPut this line into {path}, and make the file yours alone:\n'
              f'    chmod 600 {path}')
    return 0


def write_key(path: str, key: str) -> None:
    """Create the file at `path` (mode 600, its directory 700) with the line `key`.

    Raises common.Failure if there is a file already, or if it can't be made.
    """
    try:
        os.makedirs(os.path.dirname(path) or '.', mode=0o700, exist_ok=True)
        # O_EXCL follows no symbolic link either.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise common.Failure(common.EX_CANTCREAT, f'{path} exists; it was left alone') from None
    except OSError as error:
        raise common.Failure(common.EX_CANTCREAT, f'{path}: {error.strerror}') from error
    try:
        with os.fdopen(descriptor, 'w', encoding='ascii') as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(key + '\n')
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        os.unlink(path)
        raise common.Failure(common.EX_CANTCREAT, f'{path}: {error.strerror}') from error
