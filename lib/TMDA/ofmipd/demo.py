# SPDX-License-Identifier: GPL-2.0-or-later
"""--demo: the whole of tmda-ofmipd at work, on a machine that has nothing but Python.

A temporary home with key, configuration, password file and a filter of four rules; an upstream
server (demoupstream.py) and the daemon, both in this process on free ports of 127.0.0.1; one
message to four recipients, sent by smtplib after AUTH.  What came out is printed and compared with
what was promised; exit status 0 only if all of it is true.  With --keep the daemon then goes on,
for the user's own mail client.

Started by root, say in a container, the process becomes `nobody` before it opens any socket.  It
may not be able to read its own modules any more after that, so it loads all it may need first.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import tempfile
import time

from TMDA.ofmipd.demoupstream import REFUSED_DOMAIN, Received, Upstream
from TMDA.ofmipd.options import Options, parse

FILTER = """\
to *@lists.example    keyword=lists    # a name for one purpose
to bob@example.org    sender           # only Bob can answer
to *@=shop.example    dated=14d        # answers for two weeks
to carol@example.com  bare             # an untagged address
"""
CONFIG = """\
USERNAME = 'alice'
HOSTNAME = 'example.net'
FULLNAME = 'Alice Liddell'
MAIL_TRANSPORT = 'smtp'
SMTPHOST = '127.0.0.1:%d'
"""
SENDER = 'alice@example.net'
RECIPIENTS = ('users@lists.example', 'bob@example.org', 'orders@shop.example', 'carol@example.com')
KINDS = ('keyword', 'sender', 'dated', 'bare')
MESSAGE = """\
From: Alice Liddell <alice@example.net>\r
To: users@lists.example, bob@example.org, orders@shop.example\r
Cc: carol@example.com\r
Subject: Curiouser and curiouser\r
\r
The same message to everybody; the address to answer to differs.\r
"""


class Failed(Exception):
    """What was to be shown is not so."""


def run(options: Options) -> int:
    """Show it; the exit status."""
    if os.geteuid() == 0:
        _load_everything()
        _become_nobody()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Control-C, and cleans up
    from TMDA.inject import transport
    with tempfile.TemporaryDirectory(prefix='tmda-demo-') as home:
        password = secrets.token_urlsafe(9)
        upstream = Upstream()
        server = None
        try:
            _lay_out(home, upstream.port, password)
            server, port = _start_daemon(home)
            _show_tags(home, upstream, port, password)
            _show_refusal(port, password)
            print('\nAll of this is as it should be.')
            if options.keep:
                _keep(upstream, port, password)
        except (Failed, OSError) as error:
            print('\ntmda-ofmipd: the demonstration failed: %s' % error, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print()
        finally:
            if server is not None:
                server.stop(5)
            transport.close()
            upstream.close()
    return 0


def _load_everything() -> None:
    """Import every module that a message may need; afterwards the files may be out of reach."""
    import encodings.idna  # noqa: F401  smtplib and socket use it without saying so
    import importlib
    import pkgutil

    import TMDA
    for module in pkgutil.walk_packages(TMDA.__path__, 'TMDA.'):
        if not module.name.endswith('__main__'):
            importlib.import_module(module.name)
    for name in ('email.header', 'email.utils', 'smtplib', 'ssl', 'subprocess', 'traceback'):
        importlib.import_module(name)


def _become_nobody() -> None:
    """Give up being root, for good."""
    import pwd
    try:
        account = pwd.getpwnam('nobody')
        uid, gid = account.pw_uid, account.pw_gid
    except KeyError:
        uid = gid = 65534
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    os.chdir('/')


def _lay_out(home: str, upstream_port: int, password: str) -> None:
    """The files of a TMDA user."""
    data = os.path.join(home, '.tmda')
    os.makedirs(os.path.join(data, 'filters'), mode=0o700)
    files = {
        'crypt_key': secrets.token_hex(20) + '\n',
        'tofmipd': 'alice:%s\n' % password,
        'config': CONFIG % upstream_port,
        'filters/outgoing': FILTER,
    }
    for name, text in files.items():
        descriptor = os.open(os.path.join(data, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, 'w') as file:
            file.write(text)


def _start_daemon(home: str):
    """(server, port) of a daemon in this process whose one user lives in home."""
    from TMDA.ofmipd import listeners, logs
    from TMDA.ofmipd.assembly import Assembly
    from TMDA.ofmipd.server import Server
    os.environ.update(HOME=home, GLOBAL_TMDARC=os.path.join(home, 'no-global-file'))
    os.environ.pop('TMDARC', None)
    options = parse(['-f', '-p', '127.0.0.1:0'])
    log = logs.Log(logs.StderrSink(), False, False)
    assembly = Assembly(options, log)
    listening = listeners.open_all(options.listeners, '', [], assembly.hostname)
    server = Server(listening, assembly.service, 0, (), log)
    server.start()
    return server, listening[0].sockets[0].getsockname()[1]


def _client(port: int, password: str):
    import smtplib
    client = smtplib.SMTP('127.0.0.1', port, local_hostname='client.example', timeout=20)
    client.login('alice', password)
    return client


def _show_tags(home: str, upstream: Upstream, port: int, password: str) -> None:
    print("The outgoing filter, ~/.tmda/filters/outgoing:\n")
    print(''.join('    %s\n' % line for line in FILTER.splitlines()))
    print('A mail client logged in as alice and sent one message to four recipients:\n')
    print('    MAIL FROM:<%s>' % SENDER)
    for recipient in RECIPIENTS:
        print('    RCPT TO:<%s>' % recipient)
    print('    From: Alice Liddell <%s>\n' % SENDER)
    with _client(port, password) as client:
        client.sendmail(SENDER, RECIPIENTS, MESSAGE)
    print('The upstream server got it in %d transactions:' % len(upstream.messages))
    if len(upstream.messages) != len(RECIPIENTS):
        raise Failed('%d transactions were expected' % len(RECIPIENTS))
    # They came over connections of their own, in any order.
    found = {received.recipients: received for received in upstream.messages}
    for recipient, kind in zip(RECIPIENTS, KINDS):
        if (recipient,) not in found:
            raise Failed('no transaction for %s alone' % recipient)
        _show_transaction(home, found[recipient,], recipient, kind)


def _show_transaction(home: str, received: Received, recipient: str, kind: str) -> None:
    from TMDA.inject.message import Header, split_header
    header = Header(split_header(received.text)[0])
    author = (header.get('From') or b'').decode('ascii')
    print('\n    MAIL FROM:<%s>' % received.sender)
    for address in received.recipients:
        print('    RCPT TO:<%s>' % address)
    print('    From: %s' % author)
    print('    tag: %s' % _verified(home, received.sender, recipient, kind))
    if not author.endswith('<%s>' % received.sender):
        raise Failed('the transaction for %s is not as promised' % recipient)
    if not received.text.endswith(MESSAGE.rpartition('\r\n\r\n')[2].encode('ascii')):
        raise Failed('the text for %s has changed' % recipient)


def _verified(home: str, address: str, recipient: str, kind: str) -> str:
    """A sentence on the tag of address.  Raises Failed if it is not what kind promises."""
    from TMDA import Address, Cookie, Defaults
    from TMDA.Errors import TMDAError
    if kind == 'bare':
        if address != SENDER:
            raise Failed('%s should be untagged' % address)
        return 'none, as the rule says'
    cookies = Cookie.Cookies(Defaults.load(dict(os.environ, HOME=home)))
    if '-%s-' % kind not in address:
        raise Failed('%s should have a %s tag' % (address, kind))
    try:
        expires = Address.verify(cookies, address, time.time(), recipient)
    except TMDAError as error:
        raise Failed('%s: %s' % (address, error)) from None
    if expires is None:
        return '%s, valid' % kind
    return '%s, valid until %s' % (kind, time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(expires)))


def _show_refusal(port: int, password: str) -> None:
    import smtplib
    stranger = 'stranger@' + REFUSED_DOMAIN
    print('\nA recipient that the upstream server refuses: the client is told why.\n')
    print('    RCPT TO:<%s>' % stranger)
    with _client(port, password) as client:
        try:
            client.sendmail(SENDER, [stranger], MESSAGE)
        except smtplib.SMTPDataError as error:
            answer = '%d %s' % (error.smtp_code, error.smtp_error.decode('ascii'))
        else:
            raise Failed('the refusal did not reach the client')
    print('    answer to the client: %s' % answer)
    if not answer.startswith('550 5.1.1'):
        raise Failed('the answer should be the upstream server\'s')


def _keep(upstream: Upstream, port: int, password: str) -> None:
    """Go on until Control-C, showing each message."""
    print("""
The daemon keeps running until you press Control-C.  In a mail client, set up an outgoing server:

    server    127.0.0.1
    port      %d
    security  none (this is a demonstration)
    user      alice
    password  %s

Messages are not delivered anywhere: what the upstream server would get is shown here.""" % (
        port, password), flush=True)
    seen = len(upstream.messages)
    while True:
        for received in upstream.messages[seen:]:
            print('\nMAIL FROM:<%s>\n%s' % (received.sender, ''.join(
                'RCPT TO:<%s>\n' % address for address in received.recipients)), flush=True)
            seen += 1
        time.sleep(0.2)
