# SPDX-License-Identifier: GPL-2.0-or-later
"""Who says yes: the sources of authentication that were configured, asked in order.

build() makes a Chain of the options -a, -A, -R and -m; backends ask the chain.  The first YES
counts.  Without one, a single source that could not tell makes the answer UNSURE (the client gets
454, so that it keeps its password) and otherwise it is NO (535).  The verdict's cause
names what every source said, for the log.

What a source and a verdict are: verdict.py.  The modules of the sources are imported when the
configuration names them.
"""

from __future__ import annotations

from typing import Callable, Collection, Iterable, Sequence, Tuple

from TMDA.Errors import ConfigError
from TMDA.ofmipd.verdict import NO, UNSURE, YES, Verdict

class Chain:
    """Several sources in order."""

    def __init__(self, sources: Sequence):
        """sources: at least one; ConfigError if there is none."""
        if not sources:
            raise ConfigError('no source of authentication given')
        self.sources = tuple(sources)

    @property
    def mechanisms(self) -> Tuple[str, ...]:
        """The SASL mechanisms that every source can check, in the order of our preference.

        This may change while the daemon runs, with what stands in the password file.
        """
        scram = all(source.scram for source in self.sources)
        plain = all(source.plain for source in self.sources)
        return (('SCRAM-SHA-256',) * scram + ('CRAM-MD5',) * plain) + ('PLAIN', 'LOGIN')

    def scram_start(self, user: str) -> Tuple[bytes, int]:
        """(salt, iterations) of the first source that knows the user, else made-up ones.

        Only to be called while SCRAM-SHA-256 is one of the mechanisms.
        """
        sources = [source for source in self.sources if source.scram]
        for source in sources:
            if source.knows(user):
                return source.scram_start(user)
        return sources[0].scram_start(user)

    def check(self, credentials, client=None) -> Verdict:
        """Asks the sources; `source` of a YES is the name of the one that said it.

        Takes at most the sources' own limits one after the other.  Never raises.
        """
        answer, causes = NO, []
        for source in self.sources:
            verdict = _ask(source, credentials, client)
            if verdict.answer == YES:
                return verdict._replace(source=source.name, cause='; '.join(causes))
            if verdict.answer == UNSURE:
                answer = UNSURE
            word = 'no' if verdict.answer == NO else 'cannot tell'
            causes.append(f'{source.name}: {word}: {verdict.cause}')
        return Verdict(answer, '; '.join(causes))

    def reload(self) -> None:
        """Reads files again (SIGHUP); a bad one is logged and the old content kept."""
        for source in self.sources:
            if hasattr(source, 'reload'):
                source.reload()


def _ask(source, credentials, client) -> Verdict:
    try:
        return source.check(credentials, client)
    except Exception as error:  # a fault of ours; its text might hold the password
        return Verdict(UNSURE, f'internal error: {type(error).__name__}')


def build(specs: Iterable[Tuple[str, str]], seconds: float, owners: Collection[int] = (),
          ipauthmap: str = '', log: Callable[[str], None] | None = None) -> Chain:
    """The chain for `specs`: (kind, value of the option) in the order in which they are asked.

    Kinds are file, authprog, remote and pam (options.Source).  seconds bounds each source
    (limits.source_seconds).  owners: uids that may own a password file, default the effective
    one.  ipauthmap: path of that file, for -R with host 0.0.0.0.  log is called with one line
    of text for what is found out later, such as a bad new version of a file.

    ConfigError, one line, for a value that cannot be used or an unsafe password file.
    """
    made = []
    for kind, value in specs:
        if kind == 'file':
            from TMDA.ofmipd.passwords import PasswordFile
            made.append(PasswordFile(value, owners, log))
        elif kind == 'authprog':
            from TMDA.ofmipd.checkpassword import Checkpassword
            made.append(Checkpassword(value, seconds))
        elif kind == 'remote':
            made.append(_remote(value, seconds, ipauthmap, log))
        elif kind == 'pam':
            from TMDA.ofmipd.pam import Pam
            made.append(Pam(value, seconds))
        else:
            raise ConfigError(f'{kind}: no such source of authentication')
    return Chain(made)


def _remote(value: str, seconds: float, ipauthmap: str, log):
    from TMDA.ofmipd import remote, remoteurl
    from TMDA.ofmipd.ipauthmap import IPAuthMap

    url = remoteurl.parse(value)
    if url.host == remote.MAPPED_HOST and ipauthmap:
        return remote.RemoteSource(url, seconds, IPAuthMap(ipauthmap, log))
    return remote.RemoteSource(url, seconds)
