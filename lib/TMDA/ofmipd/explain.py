# SPDX-License-Identifier: GPL-2.0-or-later
"""--explain RECIPIENT [--from ADDRESS]: what would become of a message to that recipient.

Which rule of which file at which line matches, the address that would be used, as envelope sender
and in From, and the other fields that the rule adds.  A message is made up and goes the way of
all messages through inject.tagging, up to the point where it would be handed over: nothing is
sent, logged or appended.  Commands and expressions that the filter names are run, as their
result is what was asked for.

Without --from it is the user's own address (USERNAME@HOSTNAME).  Where there are several users,
--login says whose files are meant.  Exit status 78 if their mail would be deferred.
"""

from __future__ import annotations

import os
import sys
import time

from TMDA.Errors import ConfigError, FilterError, TMDAError
from TMDA.inject.reply import ReplyError
from TMDA.inject.user import User
from TMDA.ofmipd import users
from TMDA.ofmipd.failure import CONFIG, UsageError
from TMDA.ofmipd.findings import Findings, printable
from TMDA.ofmipd.options import Options


def run(options: Options) -> int:
    """Print it; the exit status."""
    if options.explain[:1] in ('', '-', '@') or not options.explain.isprintable():
        raise UsageError('--explain: %r is no address' % options.explain)
    if users.is_shared(options) and not options.login:
        raise UsageError('--explain needs --login=USER where there are several users')

    def work(user: User) -> tuple[list, list]:
        return explain(user, options.explain, options.sender, options.pure_proxy)

    login = options.login or users.own_login()
    facts, problems = users.inspect(options, login, work)
    for name, value in facts:
        print('%-16s %s' % (name, printable(value)))
    for problem in problems:
        print('tmda-ofmipd: %s' % printable(problem), file=sys.stderr)
    return CONFIG if problems else 0


def explain(user: User, recipient: str, sender: str, pure_proxy: bool) -> tuple[list, list]:
    """(facts, problems): pairs of name and text, and texts.  sender is '' for the user's own."""
    facts: list[tuple[str, str]] = [('recipient', recipient)]
    if pure_proxy and not os.path.exists(user.config_file):
        facts.append(('action', 'none: %s does not exist, so mail is passed on unaltered '
                      '(--pure-proxy)' % user.config_file))
        return facts, []
    try:
        _explain(user, recipient, sender, facts)
    except FilterError as error:
        return facts, ['%s:%d: %s' % problem for problem in error.problems]
    except ConfigError as error:
        return facts, [str(error)] + _old_constructs(str(error))
    except ReplyError as error:
        return facts, [error.cause or error.reply.text]
    except TMDAError as error:
        return facts, [str(error)]
    return facts, []


def _old_constructs(error: str) -> list[str]:
    from TMDA.ofmipd.userfiles import old_constructs
    findings = Findings()
    old_constructs(error, findings)
    return [text for _, text in findings.lines]


def _explain(user: User, recipient: str, sender: str, facts: list) -> None:
    """Add to facts as far as it goes.  Raises TMDAError, ReplyError."""
    from TMDA import Cookie, Defaults
    from TMDA.inject import tagging
    from TMDA.inject.envelope import Envelope, Recipient
    from TMDA.inject.limits import Limits
    from TMDA.inject.message import Message, clean_value
    from TMDA.inject.spool import Spool

    settings = Defaults.load(user.environ, user.config_file)
    cookies = Cookie.Cookies(settings)
    with Spool(Limits().spool_memory) as spool:
        author = clean_value(sender.encode('utf-8', 'surrogateescape'))
        spool.write((b'From: %s\r\n' % author if sender else b'') + b'\r\n')
        message = Message.read(spool, Limits().header_size)
        found = tagging.Author.find(settings, message.header)
        facts.append(('from', found.address))
        action = _add_rule(settings, recipient, found.address, facts)
        envelope = Envelope(found.address, (Recipient(recipient),))
        delivery, = tagging.tag(settings, cookies, message, envelope, int(time.time()))
    facts.append(('From', _field(delivery, 'From')))
    facts.append(('envelope sender', '<%s>' % delivery.envelope_sender))
    facts += [(name, _field(delivery, name)) for name in _other_fields(action)]
    facts += _expiry(settings, cookies, delivery.envelope_sender)


def _add_rule(settings, recipient: str, author: str, facts: list):
    """Add the rule that matches, or what applies without one; returns the action."""
    from TMDA import ConfigFile, FilterParser
    rules = FilterParser.load(settings.FILTER_OUTGOING, settings)
    match = rules.match(FilterParser.Query(recipient, author, settings))
    default = FilterParser.parse_action(settings.ACTION_OUTGOING)
    if match is not None:
        facts.append(('rule', '%s:%d: %s' % (match.rule.file, match.rule.line, match.rule.text)))
        facts.append(('action', match.action.text))
        if match.action.kind != 'default':
            return match.action
    else:
        facts.append(('rule', 'none of %s matches' % settings.FILTER_OUTGOING))
    line = ConfigFile.setting_line(settings.config_file, 'ACTION_OUTGOING')
    where = '%s:%d' % (settings.config_file, line) if line else 'the default'
    facts.append(('ACTION_OUTGOING', '%s (%s)' % (settings.ACTION_OUTGOING, where)))
    return default


def _field(delivery, name: str) -> str:
    return (delivery.fields.get(name) or b'').decode('utf-8', 'replace')


def _other_fields(action) -> list[str]:
    from TMDA.inject.tagging import field_name
    return sorted(field_name(name) for name, _ in action.tags
                  if name not in ('from', 'resent-from', 'envelope'))


def _expiry(settings, cookies, address: str) -> list[tuple[str, str]]:
    """Until when a dated address is good."""
    from TMDA import Address
    try:
        if Address.kind(settings, address) != 'dated':
            return []
        expires = Address.verify(cookies, address, time.time())
    except TMDAError:
        return []
    return [('valid until', time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(expires)))]
