# SPDX-License-Identifier: GPL-2.0-or-later
"""What an action of the filter makes: an address, or text.

Called by tagging for each recipient.  The forms are those of the filter file: `dated=5d`,
`sender`, `keyword=word`, `shell=command` ... (htdocs/filter.html).
"""

from __future__ import annotations

from typing import NamedTuple

from TMDA import Address, FilterParser
from TMDA.Errors import ConfigError
from TMDA.inject import processor

LITERAL = ('text', 'shell', 'python')  # kinds whose result is text, inserted as it is
OF_RECIPIENT = ('sender', 'domain', 'shell', 'python')  # kinds that may differ for each recipient
COMMAND_SECONDS = 30
OUTPUT_LIMIT = 65536  # octets read of a command's output


class Context(NamedTuple):
    """What all actions of one message share: settings, cookies, the author's address, the time."""

    settings: object
    cookies: object
    base: str
    now: int


def address(context: Context, action: FilterParser.Action, recipient: str) -> str | None:
    """The address that action gives for recipient, or None where the author's own is to be used."""
    make = _MAKERS.get(action.kind)
    return make(context, action.option, recipient) if make else None


def looks_at_recipient(action: FilterParser.Action) -> bool:
    """False if action, with all its tags, means the same whoever the recipient is."""
    return action.kind in OF_RECIPIENT or any(part.kind in OF_RECIPIENT for _, part in action.tags)


def literal(context: Context, action: FilterParser.Action, recipient: str) -> str:
    """The text of an action whose kind is in LITERAL."""
    if action.kind == 'text':
        return action.text
    return _MAKERS[action.kind](context, action.option, recipient) or ''


def _dated(context: Context, option: str | None, recipient: str) -> str:
    return Address.dated(context.cookies, context.base, context.now, option or None)


def _sender(context: Context, option: str | None, recipient: str) -> str:
    return Address.sender(context.cookies, context.base, option or recipient)


def _domain(context: Context, option: str | None, recipient: str) -> str:
    return Address.sender(context.cookies, context.base, (option or recipient).rpartition('@')[2])


def _explicit(context: Context, option: str | None, recipient: str) -> str | None:
    return option or None


def _extension(context: Context, option: str | None, recipient: str) -> str | None:
    return Address.extension(context.settings, context.base, option) if option else None


def _keyword(context: Context, option: str | None, recipient: str) -> str | None:
    return Address.keyword(context.cookies, context.base, option) if option else None


def _shell(context: Context, option: str | None, recipient: str) -> str:
    """The first line that the command prints; it runs with the message's environment."""
    import subprocess
    try:
        with processor.Anywhere():
            done = subprocess.run(
                ['/bin/sh', '-c', option or ''], env=environment(context, recipient),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                timeout=COMMAND_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ConfigError('shell=%s: not done after %d seconds' % (option, COMMAND_SECONDS)) from None
    if done.returncode:
        message = done.stderr[:200].decode('utf-8', 'replace').strip()
        raise ConfigError('shell=%s: exit status %d: %s' % (option, done.returncode, message))
    return done.stdout[:OUTPUT_LIMIT].decode('utf-8', 'replace').split('\n')[0].strip()


def _python(context: Context, option: str | None, recipient: str) -> str:
    """The value of the expression in the configuration's namespace."""
    try:
        return str(eval(option or '', context.settings.namespace))
    except Exception as error:
        raise ConfigError('python=%s: %s: %s' % (option, type(error).__name__, error)) from error


def environment(context: Context, recipient: str) -> dict:
    """The environment for a command that is run for one recipient."""
    environ = dict(context.settings.environ)
    environ['TMDA_RECIPIENT'] = recipient
    environ['TMDA_VRECIPIENT'] = recipient.replace('@', '=')
    return environ


_MAKERS = {
    'dated': _dated,
    'sender': _sender,
    'domain': _domain,
    'exp': _explicit,
    'ext': _extension,
    'keyword': _keyword,
    'shell': _shell,
    'python': _python,
}
