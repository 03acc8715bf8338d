# SPDX-License-Identifier: GPL-2.0-or-later
"""checkpassword programs: what they are given, what their exit means, how they are ended."""
import json
import os
import signal
import sys
import threading
import time

import pytest

from TMDA.Errors import ConfigError
from TMDA.ofmipd.checkpassword import Checkpassword, split
from TMDA.ofmipd.sasl import CramMD5, Password
from TMDA.ofmipd.verdict import NO, UNSURE, YES

SECONDS = 20
SHORT = 0.3

# Says everything that it can see; argument 1 is the file for it.
REPORT = '''
import json, os, signal, stat, sys
data = b''
while True:
    piece = os.read(3, 600)
    if not piece:
        break
    data += piece
os.close(3)
def null(number):
    return os.fstat(number).st_rdev == os.stat('/dev/null').st_rdev
with open(sys.argv[1], 'w') as file:
    json.dump({
        'data': data.decode('latin-1'),
        'arguments': sys.argv[1:],
        'environ': dict(os.environ),
        'null': [null(number) for number in range(3)],
        'descriptors': sorted(int(name) for name in os.listdir('/dev/fd')),
        'group': os.getpgrp() == os.getpid(),
        'pipe': signal.getsignal(signal.SIGPIPE) in (signal.SIG_IGN, signal.SIG_DFL),
        'blocked': len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    }, file)
'''

# A checkpassword as the interface says: one user, bob.
INTERFACE = '''
import os, sys
user, password, timestamp, rest = os.read(3, 513).split(b'\\0')
sys.exit(0 if (user, password) == (b'bob', b'secret') else 1)
'''


def python(tmp_path, source, *arguments):
    """The option value that runs a Python program."""
    program = tmp_path / 'check password.py'
    program.write_text(source, encoding='ascii')
    words = [sys.executable, '-I', '-S', str(program), *arguments]
    return ' '.join(f'"{word}"' for word in words)


def check(command, user='bob', password='secret', seconds=SECONDS):
    """The verdict of a command."""
    return Checkpassword(command, seconds).check(Password(user, password))


def report(tmp_path, user, password):
    """What a program saw."""
    output = tmp_path / 'seen'
    command = python(tmp_path, REPORT, str(output), "it's $HOME; `id`")
    assert check(command, user, password).answer == YES
    return json.loads(output.read_text())


def inheritable():
    """Our own descriptors that any child gets: whoever started the tests left them open."""
    found = set()
    for number in map(int, os.listdir('/dev/fd')):
        try:
            if os.get_inheritable(number):
                found.add(number)
        except OSError:
            pass  # the one of this listing
    return found


def test_fields_on_descriptor_3(tmp_path):
    before = int(time.time())
    seen = report(tmp_path, "bob'; touch x #", '$(id) p\xe4ss')
    user, password, timestamp, rest = seen['data'].encode('latin-1').split(b'\0')
    assert (user, password) == (b"bob'; touch x #", '$(id) p\xe4ss'.encode())
    assert before <= int(timestamp) <= time.time() and rest == b''
    assert seen['arguments'][1] == "it's $HOME; `id`"


def test_nothing_of_the_client_elsewhere(tmp_path):
    seen = report(tmp_path, 'unlikely-user', 'unlikely-password')
    del seen['data']
    assert 'unlikely' not in json.dumps(seen)
    assert seen['null'] == [True, True, True]
    # 3 is the program's output file by now, the next free one lists the directory.
    assert len(set(seen['descriptors']) - inheritable() - {0, 1, 2, 3}) <= 1
    assert seen['group'] and seen['pipe'] and not seen['blocked']


def test_descriptor_3_in_use_here(tmp_path):
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    try:
        assert check(python(tmp_path, INTERFACE)).answer == YES
    finally:
        for number in held:
            os.close(number)


@pytest.mark.parametrize('user, password, expected', [
    ('bob', 'secret', YES), ('bob', 'Secret', NO), ('alice', 'secret', NO),
])
def test_program_of_the_interface(tmp_path, user, password, expected):
    assert check(python(tmp_path, INTERFACE), user, password).answer == expected


@pytest.mark.parametrize('code, expected', [
    (0, YES), (1, NO), (2, NO), (3, NO), (100, NO), (111, UNSURE), (127, NO), (255, NO),
])
def test_exit_codes(code, expected):
    verdict = check(f'/bin/sh -c "exit {code}"')
    assert verdict.answer == expected
    assert verdict.cause.startswith(f'exit code {code}' if code else '')


def test_program_killed():
    verdict = check("/bin/sh -c 'kill -9 $$'")
    assert verdict.answer == UNSURE and 'signal 9' in verdict.cause


@pytest.mark.parametrize('command', ['/nonexistent/checkpassword', 'no-such-checkpassword -x',
                                     '/', '/etc/passwd'])
def test_program_missing(command):
    verdict = check(command)
    assert verdict.answer == UNSURE and verdict.cause


def test_program_hangs_and_its_group_is_killed(tmp_path):
    pids = tmp_path / 'pids'
    began = time.monotonic()
    verdict = check(f"/bin/sh -c 'sleep 60 & echo $$ $! > {pids}; wait'", seconds=1)
    assert verdict.answer == UNSURE and 'timed out' in verdict.cause
    assert time.monotonic() - began < 10
    deadline = time.monotonic() + 10
    for pid in map(int, pids.read_text().split()):
        while alive(pid):
            assert time.monotonic() < deadline


def alive(pid):
    """Whether a process exists and is no zombie (a zombie's parent may be slow to notice)."""
    try:
        with open(f'/proc/{pid}/stat', encoding='ascii', errors='replace') as file:
            return file.read().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


@pytest.mark.parametrize('user, password', [
    ('bob', 'nul\0inside'), ('b\0b', 'secret'), ('', 'secret'), ('bob', ''), ('bob', 'a\nb'),
    ('bob', 'x' * 500), ('x' * 500, 'secret'), ('bob', '\u20ac' * 170),
])
def test_credentials_that_no_program_sees(tmp_path, user, password):
    touched = tmp_path / 'touched'
    assert check(f'/bin/sh -c "touch {touched}"', user, password).answer == NO
    assert not touched.exists()


def test_largest_input(tmp_path):
    password = 'x' * (512 - len('bob\0\0') - len(str(int(time.time()))) - 1)
    assert len(report(tmp_path, 'bob', password)['data']) == 512
    assert check('/bin/true', password=password + 'x').answer == NO


@pytest.mark.parametrize('command', ['', '   ', 'checkpassword "open', "checkpassword 'x"])
def test_bad_option_value(command):
    with pytest.raises(ConfigError):
        Checkpassword(command, SECONDS)


def test_split_as_a_shell_would():
    assert split("""check -s 'a b' "c d" e\\ f""") == ['check', '-s', 'a b', 'c d', 'e f']


def test_other_mechanisms_are_no():
    source = Checkpassword('/bin/true', SECONDS)
    assert not source.plain and not source.scram and source.name == 'program:/bin/true'
    assert source.check(CramMD5('bob', b'<1@x>', '0' * 32)).answer == NO


def test_no_descriptor_or_process_left():
    before = os.listdir('/dev/fd')
    for command in ('/bin/true', '/nonexistent', '/bin/false'):
        check(command)
    assert len(os.listdir('/dev/fd')) == len(before)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_signals_ignored_here_are_default_there():
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN  # Python's own doing
    assert check("/bin/sh -c 'kill -PIPE $$'").cause == f'died of signal {signal.SIGPIPE:d}'


def test_many_threads_at_once(tmp_path):
    source = Checkpassword(python(tmp_path, INTERFACE), SECONDS)
    answers = {}

    def ask(number):
        password = 'secret' if number % 2 else 'wrong'
        answers[number] = source.check(Password('bob', password)).answer

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: YES if number % 2 else NO for number in range(8)}
