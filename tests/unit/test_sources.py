# SPDX-License-Identifier: GPL-2.0-or-later
"""Chains of sources: order, what they answer together, mechanisms, building from options."""
import hashlib
import hmac
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.mailservers import ScriptedServer, imap

from TMDA.Errors import ConfigError
from TMDA.ofmipd import passwordhashes, sources
from TMDA.ofmipd.sasl import CramMD5, Password, Scram
from TMDA.ofmipd.sources import Chain
from TMDA.ofmipd.verdict import NO, UNSURE, YES, AskingSource, Verdict

SECONDS = 10
GOOD = Password('bob', 'secret')


class Fixed:
    """A source that always answers the same."""

    def __init__(self, name, answer, plain=False, scram=False):
        self.name = name
        self.plain = plain
        self.scram = scram
        self.asked = 0
        self._answer = answer

    def check(self, _credentials, _client=None):
        self.asked += 1
        if isinstance(self._answer, Exception):
            raise self._answer
        return Verdict(self._answer, f'because of {self.name}')


def chain_of(*answers):
    """A chain of fixed sources named a, b, c."""
    return Chain([Fixed(name, answer) for name, answer in zip('abc', answers)])


@pytest.fixture
def file(tmp_path):
    """A function that makes a password file with this content."""
    def make(content, name='tofmipd'):
        path = tmp_path / name
        path.write_text(content, encoding='utf-8')
        path.chmod(0o600)
        return str(path)
    return make


# Chain

@pytest.mark.parametrize('answers, expected, asked', [
    ((YES,), YES, 1),
    ((NO,), NO, 1),
    ((UNSURE,), UNSURE, 1),
    ((YES, NO), YES, 1),
    ((NO, YES, UNSURE), YES, 2),
    ((UNSURE, YES), YES, 2),
    ((UNSURE, NO), UNSURE, 2),
    ((NO, UNSURE), UNSURE, 2),
    ((NO, NO, NO), NO, 3),
    ((NO, UNSURE, YES), YES, 3),
])
def test_chain_answer(answers, expected, asked):
    chain = chain_of(*answers)
    assert chain.check(GOOD).answer == expected
    assert sum(source.asked for source in chain.sources) == asked


def test_chain_says_who_and_why():
    assert chain_of(NO, UNSURE, YES).check(GOOD) == Verdict(
        YES, 'a: no: because of a; b: cannot tell: because of b', b'', 'c')
    assert chain_of(NO, NO).check(GOOD) == Verdict(
        NO, 'a: no: because of a; b: no: because of b')


def test_chain_survives_a_fault():
    chain = chain_of(ValueError('secret'), NO)
    verdict = chain.check(GOOD)
    assert verdict.answer == UNSURE and 'ValueError' in verdict.cause
    assert 'secret' not in verdict.cause


def test_chain_without_sources():
    with pytest.raises(ConfigError):
        Chain([])


@pytest.mark.parametrize('sources_can, expected', [
    ([(True, True)], ('SCRAM-SHA-256', 'CRAM-MD5', 'PLAIN', 'LOGIN')),
    ([(False, True)], ('SCRAM-SHA-256', 'PLAIN', 'LOGIN')),
    ([(False, False)], ('PLAIN', 'LOGIN')),
    ([(True, True), (False, True)], ('SCRAM-SHA-256', 'PLAIN', 'LOGIN')),
    ([(True, True), (False, False)], ('PLAIN', 'LOGIN')),
])
def test_chain_mechanisms(sources_can, expected):
    made = [Fixed('x', NO, plain, scram) for plain, scram in sources_can]
    assert Chain(made).mechanisms == expected


def test_chain_mechanisms_follow_the_file(file):
    chain = sources.build([('file', file('bob:secret'))], SECONDS)
    assert 'CRAM-MD5' in chain.mechanisms
    file('bob:' + passwordhashes.make_scram('secret', 4096))
    assert chain.mechanisms == ('SCRAM-SHA-256', 'PLAIN', 'LOGIN')


def proof(chain, user, password):
    """SCRAM credentials as a client makes them."""
    salt, iterations = chain.scram_start(user)
    stored_key, _ = passwordhashes.scram_keys(password, salt, iterations)
    salted = hashlib.pbkdf2_hmac('sha256', password.encode(), salt, iterations)
    client_key = hmac.digest(salted, b'Client Key', 'sha256')
    signature = hmac.digest(stored_key, b'message', 'sha256')
    return Scram(user, b'message', bytes(a ^ b for a, b in zip(client_key, signature)))


def test_chain_scram_over_two_files(file):
    hashed = passwordhashes.make_scram('other', 5000)
    chain = sources.build([('file', file('bob:secret\n', 'one')),
                           ('file', file(f'alice:{hashed}\ncarol:plain\n', 'two'))], SECONDS)
    for user, password in (('bob', 'secret'), ('alice', 'other'), ('carol', 'plain')):
        verdict = chain.check(proof(chain, user, password))
        assert verdict.answer == YES and len(verdict.server_signature) == 32
        assert chain.check(proof(chain, user, 'wrong')).answer == NO
    assert chain.scram_start('nobody') == chain.scram_start('nobody')
    assert chain.check(proof(chain, 'nobody', 'x')).answer == NO


def test_chain_reload(file, monkeypatch):
    path = file('bob:secret')
    chain = sources.build([('authprog', '/bin/false'), ('file', path)], SECONDS)
    reloaded = []
    monkeypatch.setattr(type(chain.sources[1]), 'reload', lambda self: reloaded.append(self))
    chain.reload()
    assert reloaded == [chain.sources[1]]


# AskingSource

@pytest.mark.parametrize('error, cause', [
    (TimeoutError('timed out'), 'timed out'),
    (ConnectionRefusedError(111, 'Connection refused'), 'Connection refused'),
    (OSError('x' * 1000), 'x' * 200),
])
def test_asking_source_failure(monkeypatch, error, cause):
    def ask(*_):
        raise error
    source = AskingSource('name', SECONDS)
    monkeypatch.setattr(source, 'ask', ask)
    assert source.check(GOOD) == Verdict(UNSURE, cause)


# build

def test_build_in_order(file):
    chain = sources.build([
        ('remote', 'imap://mail.example.org'), ('authprog', '/bin/true --x'),
        ('file', file('bob:secret')), ('pam', 'tofmipd'), ('remote', 'ldap:///cn=%s'),
    ], SECONDS)
    assert [source.name.partition(':')[0] for source in chain.sources] == [
        'imap', 'program', 'file', 'pam', 'ldap']
    assert all(source.seconds == SECONDS for source in chain.sources if source.name[0] != 'f')


def test_build_falls_back(file):
    """-R with a server that is down, then the file: 1.1.12's -F."""
    chain = sources.build([('remote', 'imap://127.0.0.1:1'), ('file', file('bob:secret'))],
                          SECONDS)
    verdict = chain.check(GOOD)
    assert verdict.answer == YES and verdict.source.startswith('file:')
    assert verdict.cause.startswith('imap://127.0.0.1:1: cannot tell: ')
    assert chain.check(Password('bob', 'wrong')).answer == UNSURE


def test_build_with_ipauthmap(tmp_path):
    with ScriptedServer(imap()) as server:
        table = tmp_path / 'ipauthmap'
        table.write_text(f'bad line\n127.0.0.5 127.0.0.1 {server.port}\n', encoding='ascii')
        said = []
        chain = sources.build([('remote', 'imap://0.0.0.0')], SECONDS, (), str(table), said.append)

        class Client:
            address, local_address = '192.0.2.1', '127.0.0.5'
        assert chain.check(GOOD, Client).answer == YES
    assert said and 'line 1' in said[0]


def test_build_gives_log_and_owners_to_the_file(file):
    path = file('bob:secret')
    with pytest.raises(ConfigError):
        sources.build([('file', path)], SECONDS, owners=(54321,))
    said = []
    chain = sources.build([('file', path)], SECONDS, (os.geteuid(),), '', said.append)
    os.unlink(path)
    assert chain.check(GOOD).answer == YES and len(said) == 1


@pytest.mark.parametrize('kind, value', [
    ('file', '/nonexistent'), ('authprog', '"'), ('authprog', ''), ('remote', 'gopher://x'),
    ('remote', 'ldap://host/cn=bob'), ('pam', 'a/b'), ('astrology', 'x'),
])
def test_build_refuses(kind, value):
    with pytest.raises(ConfigError) as caught:
        sources.build([(kind, value)], SECONDS)
    assert '\n' not in str(caught.value)


def test_build_nothing():
    with pytest.raises(ConfigError):
        sources.build([], SECONDS)


def test_cram_md5_needs_the_file(file):
    """Of a chain with other sources the file alone can say yes to CRAM-MD5."""
    chain = sources.build([('authprog', '/bin/true'), ('file', file('bob:secret'))], SECONDS)
    digest = hmac.new(b'secret', b'<1@x>', 'md5').hexdigest()
    assert 'CRAM-MD5' not in chain.mechanisms
    assert chain.check(CramMD5('bob', b'<1@x>', digest)).source.startswith('file:')


def test_build_loads_no_heavy_module(file):
    """One-session mode pays for every import before its banner."""
    lib = Path(sources.__file__).parents[2]
    code = (f'import sys; sys.path.insert(0, {str(lib)!r})\n'
            f'from TMDA.ofmipd import sources\n'
            f'sources.build([("file", {file("bob:secret")!r}), ("authprog", "x"), ("pam", "x"),'
            f' ("remote", "imaps"), ("remote", "ldap:///cn=%s"), ("remote", "apop")], 1)\n'
            f'print(*sys.modules)')
    run = subprocess.run([sys.executable, '-B', '-I', '-S', '-c', code], stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, timeout=60, check=True)
    loaded = set(run.stdout.decode().split())
    assert not loaded & {'ssl', 'imaplib', 'poplib', 'ctypes', 'subprocess', 'tempfile', 'email'}
