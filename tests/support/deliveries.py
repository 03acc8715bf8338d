# SPDX-License-Identifier: GPL-2.0-or-later
"""Deliveries, settings and a spool for tests of the transports."""
from types import SimpleNamespace

from TMDA.inject import transport
from TMDA.inject.envelope import Envelope, Recipient
from TMDA.inject.limits import Limits
from TMDA.inject.message import Body
from TMDA.inject.spool import Spool
from TMDA.inject.tagging import Delivery

ANN, BOB, CAT = 'ann@example.com', 'bob@example.com', 'cat@example.com'
HEADER = b'From: ann@example.com\r\nSubject: test\r\n\r\n'


def spool_of(content, memory_limit=262144):
    """A spool that holds content."""
    spool = Spool(memory_limit)
    spool.write(content)
    return spool


def delivery(sender, *recipients, header=HEADER, body=b'Hello.\r\n'):
    """A delivery to recipients, each an address or a Recipient."""
    return Delivery(
        sender, tuple(Recipient(one) if isinstance(one, str) else one for one in recipients),
        header, Body(spool_of(body, len(body)), 0), None, ())


def envelope(**parameters):
    """What MAIL said besides the sender."""
    return Envelope('', (), **parameters)


def smtp_settings(host, **replaced):
    """What the smtp transport asks of a user's settings; host may be an Upstream."""
    values = {
        'MAIL_TRANSPORT': 'smtp', 'HOSTNAME': 'client.test', 'SMTPHOST': host, 'SMTPSSL': False,
        'SMTPAUTH_USERNAME': None, 'SMTPAUTH_PASSWORD': None, 'SMTPSSL_CERTFILE': None,
        'SMTPSSL_KEYFILE': None, 'SMTP_MAX_SESSIONS_PER_CONNECTION': 0,
        'expand': lambda path: path,
    }
    if not isinstance(host, str):
        values['SMTPHOST'] = '%s:%d' % (host.host, host.port)
    values.update(replaced)
    return SimpleNamespace(**values)


def send(upstream, *deliveries, memory=None, limits=None, parameters=None, **settings):
    """Deliver to upstream; the Outcome."""
    return transport.deliver(list(deliveries), parameters or envelope(),
                             smtp_settings(upstream, **settings),
                             limits or Limits(upstream_seconds=20, connect_seconds=20),
                             memory, 'user', lambda: b'digest of the message')


def one():
    """A message to one recipient."""
    return [delivery('from@a.test', ANN)]


def two():
    """A message to two recipients with different tags."""
    return [delivery('from+ann@a.test', ANN), delivery('from+bob@a.test', BOB)]
