# SPDX-License-Identifier: GPL-2.0-or-later
"""What the processes of one session do, without privileges, over the channel of that session.

privileges.session() forks and changes accounts; it calls, of the Child made at the start,

    ask()    in the asker, as the account of the network side: reads credentials, asks the sources
             and answers refusals, until one says yes; returns the account to become.
    serve()  in the process that has become that account: says who has logged in, then sends
             messages for that user until the channel closes.

The identity is bound to the channel: no frame can change it, and none names it.  Frames are
checked (ipc.py): a message before the login, a second login after it, or anything malformed ends
the session.  There are no deadlines here, except for the login: a user's code could undo them.
The network process stops waiting, and the monitor ends the process.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic
from types import SimpleNamespace

from TMDA.Errors import ConfigError
from TMDA.inject.envelope import Recipient
from TMDA.inject.limits import Limits
from TMDA.inject.reply import Outcome, ReplyError, reply
from TMDA.inject.spool import Spool
from TMDA.ofmipd import ipc, sasl
from TMDA.ofmipd.accounts import (Accounts, UnsafeLogin, account_name, login_name,
                                  take_surroundings)
from TMDA.ofmipd.backend import CANNOT_TELL, WRONG_LOGIN, Identity, Transaction
from TMDA.ofmipd.client import Client
from TMDA.ofmipd.inprocess import InProcess, Policy
from TMDA.ofmipd.options import Source
from TMDA.ofmipd.privileges import QUESTION_LIMIT, Account, Refused, find
from TMDA.ofmipd.sources import Chain, build
from TMDA.ofmipd.trouble import fault
from TMDA.ofmipd.verdict import NO, UNSURE, AskingSource, Verdict
from TMDA.ofmipd.vhome import Domains, VirtualHomes, split_login

# Which mechanism must be possible for a frame; a password can always be checked.
MECHANISMS = {'scram_start': 'SCRAM-SHA-256', 'scram': 'SCRAM-SHA-256', 'cram_md5': 'CRAM-MD5'}
INTERNAL_ERROR = reply(451, '4.3.0', 'Internal error; try again later')
# Fields of a submit frame that make a Transaction.
TRANSACTION = ('sender', 'body', 'smtputf8', 'ret', 'envid', 'session')
BLOCK = 262144              # octets of a spool file read at a time
LOGIN_DELAY = 30            # seconds that the network process may wait after a failed login
FORKED = os.EX_SOFTWARE     # exit status of a copy that a user's code made of the process


@dataclass(frozen=True)
class Rules:
    """What the command line says about users.  sources: as options.ordered_sources() gives them,
    for sources.build().  account: of the network side, None where the daemon is not root."""

    sources: tuple[Source, ...]
    ipauthmap: str
    configdir: str
    vhome_script: str
    vdomains_path: str
    policy: Policy
    limits: Limits
    account: Account | None = None

    @property
    def patience(self) -> int:
        """Seconds that all sources and a script may take one after the other."""
        return (len(self.sources) * self.limits.source_seconds
                + self.limits.script_seconds * bool(self.vhome_script))


class RootSource(AskingSource):
    """A source that is asked in a process that is still root (privileges.ask_as_root)."""

    def __init__(self, name: str, seconds: float, questions):
        super().__init__(name, seconds)
        self._questions = questions

    def ask(self, user: bytes, password: bytes, client, deadline: float) -> Verdict:
        """See AskingSource, which has looked at user and password."""
        try:
            self._questions.settimeout(deadline - monotonic() + 1)
            self._questions.send(b'\0'.join((user, password, client.address.encode('ascii'))))
            return Verdict(*self._questions.recv(QUESTION_LIMIT).decode('utf-8').split('\0', 1))
        except (OSError, ValueError, TypeError):
            self._questions.close()  # or a late answer would be taken for the next one's
            return Verdict(UNSURE, 'the process that asks it has failed')


class Child:
    """See the module.  log is for the asker only."""

    def __init__(self, rules: Rules, log):
        self._rules = rules
        self._log = log

    def ask(self, channel, rooted: dict, copies: dict[str, int]) -> str:
        """The account to become, LF, and what serve() needs to know; '' when the session has ended.

        rooted: options.Source -> socket of a process that asks that source.  copies: path of
        a password file -> descriptor of its copy.
        """
        rules = self._rules
        deadline = (monotonic() + rules.limits.login_seconds
                    + rules.limits.login_failures * (LOGIN_DELAY + rules.patience))
        link = ipc.Link(channel)
        try:
            client = Client(**{name: value for name, value in
                               link.receive(('client',), deadline).fields.items()
                               if name != 'session'})
            chain = self._chain(rooted, copies)
            while True:
                frame = link.receive(ipc.BEFORE_LOGIN, deadline)
                answer = self._answer(link, frame, chain, client)
                if answer:
                    return answer
        except ipc.Broken as error:
            self._log.event('session-failed', cause=error)
        except (ipc.Ended, ipc.TimedOut):
            pass
        return ''

    def _chain(self, rooted: dict, copies: dict[str, int]) -> Chain:
        """The sources, in order; those that can't be made cannot tell."""
        made = []
        for source in self._rules.sources:
            try:
                made.append(self._source(source, rooted.get(source), copies.get(source.value)))
            except ConfigError as error:
                made.append(_Missing(source.kind, str(error)))
        return Chain(made)

    def _source(self, source: Source, questions, copy: int | None):
        if questions is not None:
            return RootSource('%s:%s' % (source.kind, source.value.split()[0]),
                              self._rules.limits.source_seconds, questions)
        if source.kind == 'file' and copy is not None:
            made = self._build(Source('file', '/dev/fd/%d' % copy))
            made.name = 'file:' + source.value
            return made
        return self._build(source)

    def _build(self, source: Source):
        return build([source], self._rules.limits.source_seconds, (os.geteuid(),),
                     self._rules.ipauthmap,
                     lambda text: self._log.event('source-trouble', cause=text)).sources[0]

    def _answer(self, link: ipc.Link, frame: ipc.Frame, chain: Chain, client: Client) -> str:
        """Answer one frame; what ask() returns if it was the right password."""
        mechanisms = list(chain.mechanisms)
        if MECHANISMS.get(frame.kind, 'PLAIN') not in mechanisms:
            # It was offered before the password file changed: no reason to doubt the password.
            refusal = ReplyError(CANNOT_TELL, 'the mechanism is no longer possible')
            link.send('refused', _refusal(refusal, mechanisms))
            return ''
        if frame.kind == 'scram_start':
            salt, iterations = chain.scram_start(frame.fields['user'])
            link.send('salt', {'salt': salt.decode('latin-1'), 'iterations': iterations,
                               'mechanisms': mechanisms})
            return ''
        try:
            verdict = chain.check(_credentials(frame), client)
            if verdict.answer != 'yes':
                raise ReplyError(WRONG_LOGIN if verdict.answer == NO else CANNOT_TELL,
                                 verdict.cause)
            login, account = self._account(frame.fields['user'])
        except ReplyError as refusal:
            link.send('refused', _refusal(refusal, mechanisms))
            return ''
        rest = {'login': login, 'mechanisms': mechanisms, 'local_address': client.local_address,
                'signature': verdict.server_signature.decode('latin-1')}
        return account + '\n' + json.dumps(rest)

    def _account(self, user: str) -> tuple[str, str]:
        """(login, name of the account to become).  Raises ReplyError: 535 for who may never come
        in, with the words of a wrong password, and 454 for an account that is not there."""
        rules = self._rules
        try:
            if rules.vhome_script:
                virtual = split_login(user)
                login = '%s@%s' % virtual
                account = Domains(rules.vdomains_path).owner(virtual) if rules.account else ''
            else:
                account = login = login_name(user.strip())
            if rules.account:
                account = find(account_name(rules.configdir, account), rules.account).name
        except (UnsafeLogin, Refused) as error:
            raise ReplyError(WRONG_LOGIN, 'the password is right, but: %s' % error) from None
        except (KeyError, ValueError):
            raise ReplyError(CANNOT_TELL, 'the password is right, but there is no account %s'
                             % account) from None
        return login, account

    def serve(self, channel, found: str) -> None:
        """Say who has logged in, as ask() found, and send that user's messages, until the channel
        closes."""
        try:
            self._serve(ipc.Link(channel), json.loads(found))
        except (ipc.Ended, ipc.Broken):
            os._exit(0)  # by Broken the network process has lost the session
        except BaseException:
            os._exit(os.EX_SOFTWARE)

    def _serve(self, link: ipc.Link, found: dict) -> None:
        os.umask(0o077)
        os.chdir('/')
        if self._rules.account is not None:
            take_surroundings()
        try:
            user = self._homes().user(found['login'], found['local_address'])
        except ReplyError as refusal:
            link.send('refused', _refusal(refusal, found['mechanisms']))
            return
        link.send('identity', {name: found[name] for name in ('login', 'signature', 'mechanisms')})
        backend = InProcess(None, None, self._rules.policy, self._rules.limits)
        identity = Identity(found['login'], user)
        while True:
            self._submit(link, backend, identity)

    def _homes(self):
        rules = self._rules
        if rules.vhome_script:
            return VirtualHomes(rules.vhome_script, rules.limits.script_seconds, os.environ)
        return Accounts(rules.configdir, os.environ)

    def _submit(self, link: ipc.Link, backend: InProcess, identity: Identity) -> None:
        """Take one message, send it, and say what became of it."""
        limits = self._rules.limits
        frame = link.receive(('submit',), None, envelope_limit(limits), limits.spool_memory)
        process = os.getpid()
        with _spool(frame, limits) as spool:
            fields = frame.fields
            if len(fields['recipients']) > limits.recipients:
                raise ipc.Broken('submit: too many recipients')
            transaction = Transaction(**{name: fields[name] for name in TRANSACTION})
            transaction.recipients += [Recipient(*one) for one in fields['recipients']]
            transaction.spool, transaction.received = spool, fields['received']
            try:
                outcome = backend.submit(identity, transaction)
            except ReplyError as refusal:
                outcome = Outcome(refusal.reply, {'cause': refusal.cause})
            except Exception as error:
                outcome = Outcome(INTERNAL_ERROR, fault(error))
        if os.getpid() != process:
            os._exit(FORKED)
        link.send('outcome', dict(ipc.reply_fields(outcome.reply),
                                  facts=ipc.fact_fields(outcome.facts)))


def envelope_limit(limits: Limits) -> int:
    """Octets of the header of the largest submit frame: JSON writes up to six for a character."""
    return ipc.SMALL + 6 * limits.command_line * limits.recipients


def judge(path: str, name: str) -> str:
    """What is wrong with the password file at path, whose real name is name; '' if nothing is."""
    try:
        build([Source('file', path)], 0, (os.geteuid(),))
    except ConfigError as error:
        return str(error).replace(path, name)
    return ''


class _Missing(SimpleNamespace):
    """A source that could not be made, such as a password file that is gone."""

    plain = scram = False

    def __init__(self, name: str, cause: str):
        super().__init__(name=name, cause=cause)

    def check(self, credentials, client=None) -> Verdict:
        """Cannot tell."""
        return Verdict(UNSURE, self.cause)


class DescriptorSpool:
    """A message in a file that another process has written; read as a Spool is.

    The offset of the file belongs to that other process and is not touched.
    """

    def __init__(self, descriptor: int, size: int):
        self._descriptor = descriptor
        self.size = size

    def __enter__(self) -> DescriptorSpool:
        return self

    def __exit__(self, *unused) -> None:
        self.close()

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """All octets from offset start on, in blocks.  Raises OSError if the file is cut short."""
        while start < self.size:
            block = self.read(start, BLOCK)
            yield block
            start += len(block)

    def head(self, limit: int) -> bytes:
        """The first octets, at most limit."""
        pieces: list[bytes] = []
        start, end = 0, min(limit, self.size)
        while start < end:
            pieces.append(self.read(start, end - start))
            start += len(pieces[-1])
        return b''.join(pieces)

    def read(self, start: int, limit: int) -> bytes:
        """At least one octet from offset start, at most limit.  Raises OSError."""
        block = os.pread(self._descriptor, min(limit, self.size - start), start)
        if not block:
            raise OSError(0, 'the spool file is too short')
        return block

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _spool(frame: ipc.Frame, limits: Limits) -> Spool | DescriptorSpool:
    """The message of a submit frame.  Raises ipc.Broken when it is not what the frame says."""
    size = frame.fields['size']
    if frame.descriptor is None:
        if len(frame.body) != size:
            raise ipc.Broken('submit: not as large as it says')
        spool = Spool(size)
        spool.write(frame.body)
        return spool
    status = os.fstat(frame.descriptor)
    if (frame.body or not stat.S_ISREG(status.st_mode) or status.st_size != size
            or size > limits.message_size):
        os.close(frame.descriptor)
        raise ipc.Broken('submit: not a file as it has to be')
    return DescriptorSpool(frame.descriptor, size)


def _credentials(frame: ipc.Frame):
    """Credentials as sasl.py makes them."""
    fields = frame.fields
    if frame.kind == 'password':
        return sasl.Password(fields['user'], fields['password'])
    if frame.kind == 'cram_md5':
        return sasl.CramMD5(fields['user'], fields['challenge'].encode('latin-1'),
                            fields['digest'])
    return sasl.Scram(fields['user'], fields['auth_message'].encode('latin-1'),
                      fields['proof'].encode('latin-1'))


def _refusal(refusal: ReplyError, mechanisms: list[str]) -> dict:
    return dict(ipc.reply_fields(refusal.reply), cause=refusal.cause[:ipc.TEXT],
                mechanisms=mechanisms)
