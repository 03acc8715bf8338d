# SPDX-License-Identifier: GPL-2.0-or-later
"""The PAM source: codes, deadline, bounds.  tests/real has PAM services of its own."""
import ctypes
import threading
from types import SimpleNamespace

import pytest

from TMDA.Errors import ConfigError
from TMDA.ofmipd import libpam, pam
from TMDA.ofmipd.sasl import CramMD5, Password
from TMDA.ofmipd.verdict import NO, UNSURE, YES

SECONDS = 20
GOOD = Password('bob', 'secret')


@pytest.fixture
def answering(monkeypatch):
    """A function that replaces libpam by one that returns or raises this; gives its calls."""
    def replace(answer):
        calls = []

        def authenticate(*arguments):
            calls.append(arguments)
            if isinstance(answer, Exception):
                raise answer
            return answer
        monkeypatch.setattr(libpam, 'authenticate', authenticate)
        return calls
    return replace


@pytest.mark.parametrize('code, expected', [
    (0, YES), (6, NO), (7, NO), (10, NO), (11, NO), (12, NO), (13, NO), (16, NO), (27, NO),
    (1, UNSURE), (4, UNSURE), (8, UNSURE), (9, UNSURE), (19, UNSURE), (26, UNSURE), (99, UNSURE),
])
def test_codes(answering, code, expected):
    answering((code, 'words'))
    verdict = pam.Pam('tofmipd', SECONDS).check(GOOD)
    assert verdict.answer == expected
    assert verdict.cause == (f'PAM code {code}: words' if code else '')


def test_arguments(answering):
    calls = answering((0, ''))
    client = SimpleNamespace(address='192.0.2.1', local_address='192.0.2.2')
    pam.Pam('tofmipd', SECONDS).check(Password('bob', 'p\xe4ss'), client)
    assert calls == [('tofmipd', b'bob', 'p\xe4ss'.encode(), '192.0.2.1')]


def test_no_libpam(answering):
    answering(OSError('libpam.so: cannot open'))
    verdict = pam.Pam('tofmipd', SECONDS).check(GOOD)
    assert verdict.answer == UNSURE and 'libpam' in verdict.cause


@pytest.mark.parametrize('user, password', [
    ('bob', ''), ('', 'x'), ('bob', 'a\0b'), ('b\0b', 'x'), ('bob', 'a\nb'),
])
def test_credentials_that_pam_never_sees(answering, user, password):
    calls = answering((0, ''))
    assert pam.Pam('tofmipd', SECONDS).check(Password(user, password)).answer == NO
    assert not calls


def test_other_mechanisms_are_no(answering):
    answering((0, ''))
    source = pam.Pam('tofmipd', SECONDS)
    assert not source.plain and not source.scram and source.name == 'pam:tofmipd'
    assert source.check(CramMD5('bob', b'<1@x>', '0' * 32)).answer == NO


@pytest.mark.parametrize('service', ['', '/etc/pam.d/x', '../x', '.', '..', 'a\0b'])
def test_bad_service(service):
    with pytest.raises(ConfigError):
        pam.Pam(service, SECONDS)


def test_module_hangs_and_calls_are_bounded(monkeypatch):
    """A call that hangs is UNSURE in time; when too many hang, no more are made."""
    ending = threading.Event()
    monkeypatch.setattr(pam, '_calls', threading.BoundedSemaphore(2))
    monkeypatch.setattr(libpam, 'authenticate', lambda *_: (ending.wait(SECONDS), (7, ''))[1])
    source = pam.Pam('tofmipd', 0.1)
    before = set(threading.enumerate())
    try:
        assert [source.check(GOOD).cause for _ in range(2)] == ['timed out'] * 2
        verdict = source.check(GOOD)
        assert verdict.answer == UNSURE and 'running already' in verdict.cause
    finally:
        ending.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(SECONDS)
    source.seconds = SECONDS
    assert source.check(GOOD).answer == NO


def test_no_thread_to_be_had(answering, monkeypatch):
    answering((0, ''))

    def start(_thread):
        raise RuntimeError("can't start new thread")
    monkeypatch.setattr(pam._Call, 'start', start)
    monkeypatch.setattr(pam, '_calls', threading.BoundedSemaphore(1))
    source = pam.Pam('tofmipd', SECONDS)
    assert [source.check(GOOD).answer for _ in range(2)] == [UNSURE, UNSURE]
    assert pam._calls.acquire(blocking=False)


# libpam

def conversation(styles):
    """What the conversation function answers to prompts of these styles: (code, texts)."""
    libc = ctypes.CDLL(None)
    for name, (result, arguments) in libpam._LIBC.items():
        getattr(libc, name).restype, getattr(libc, name).argtypes = result, arguments
    function = libpam._answering(libc, b'bob', b'secret')
    messages = [libpam._Message(style, b'prompt') for style in styles]
    pointers = (ctypes.POINTER(libpam._Message) * len(styles))(*map(ctypes.pointer, messages))
    responses = ctypes.POINTER(libpam._Response)()
    code = function(len(styles), pointers, ctypes.pointer(responses), None)
    if code:
        return code, None
    texts = [ctypes.string_at(responses[number].text) if responses[number].text else None
             for number in range(len(styles))]
    return code, texts


@pytest.mark.parametrize('styles, expected', [
    ([1], (0, [b'secret'])),
    ([2, 1], (0, [b'bob', b'secret'])),
    ([3, 4], (0, [None, None])),
    ([4, 1, 3], (0, [None, b'secret', None])),
    ([5], (19, None)),
    ([1, 7], (19, None)),
])
def test_conversation(styles, expected):
    assert conversation(styles) == expected


def test_libpam_without_such_a_service():
    """Linux-PAM falls back to the service `other`, which lets nobody in."""
    try:
        libpam._libraries()
    except OSError:
        pytest.skip('no libpam')
    verdict = pam.Pam('tmda-no-such-service', SECONDS).check(Password('no-such-user', 'x'),
                                                             SimpleNamespace(address='192.0.2.1'))
    assert verdict.answer in (NO, UNSURE) and 'PAM code' in verdict.cause
