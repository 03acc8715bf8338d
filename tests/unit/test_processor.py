# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that keep to one processor, and what may use all of them."""
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from support.daemon import Daemon, make_home, needs_account
from support.fake_backend import FakeChannel, make_service
from support.talk import Running
from TMDA.FilterActions import Action
from TMDA.inject import actions, processor, sendmail
from TMDA.inject.envelope import Envelope
from TMDA.inject.limits import Limits
from TMDA.inject.reply import ReplyError
from TMDA.inject.spool import Spool
from TMDA.ofmipd.client import Client
from TMDA.ofmipd.inprocess import InProcess, Policy
from TMDA.ofmipd.sasl import Password
from TMDA.ofmipd.session import LARGE
from TMDA.ofmipd.verdict import NO, Verdict

pytestmark = [
    pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='the system has no affinity'),
    pytest.mark.skipif(hasattr(os, 'sched_setaffinity') and len(os.sched_getaffinity(0)) < 2,
                       reason='there is only one processor')]


def in_a_process(code):
    """What code prints; it may use the names of processor, and `all_of_them`."""
    start = ('import os, subprocess, sys\nfrom TMDA.inject.processor import *\n'
             'all_of_them = sorted(os.sched_getaffinity(0))\n')
    done = subprocess.run([sys.executable, '-c', start + code], stdout=subprocess.PIPE, check=True,
                          env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)))
    return done.stdout.decode().split()


def test_numbers_in_a_row_get_different_processors():
    found = [in_a_process('keep_to_one(%d); print(*os.sched_getaffinity(0))' % number)
             for number in (41, 42)]
    assert [len(one) for one in found] == [1, 1]
    assert found[0] != found[1]


def test_thread_and_its_programs_may_go_anywhere():
    code = ('keep_to_one(1)\n'
            'with Anywhere():\n'
            '    print(sorted(os.sched_getaffinity(0)) == all_of_them, flush=True)\n'
            '    subprocess.run([sys.executable, "-c", "import os\\n'
            'print(len(os.sched_getaffinity(0)))"])\n'
            'print(len(os.sched_getaffinity(0)))\n'
            'with Anywhere(False):\n'
            '    print(len(os.sched_getaffinity(0)))\n')
    assert in_a_process(code) == ['True', str(len(os.sched_getaffinity(0))), '1', '1']


def test_nothing_changes_for_who_did_not_keep_to_one():
    before = os.sched_getaffinity(0)
    with processor.Anywhere():
        assert os.sched_getaffinity(0) == before
    assert os.sched_getaffinity(0) == before


def test_system_that_forbids_it_is_no_error(monkeypatch):
    def forbidden(*unused):
        raise PermissionError(1, 'no')

    monkeypatch.setattr(os, 'sched_setaffinity', forbidden)
    monkeypatch.setattr(processor, '_allowed', ())
    processor.keep_to_one(1)
    with processor.Anywhere():
        pass


def used(process):
    return os.sched_getaffinity(process)


@needs_account
def test_daemon_keeps_to_one_processor(tmp_path):
    with Daemon(make_home(tmp_path)) as daemon:
        assert len(used(daemon.process.pid)) == 1


@needs_account
def test_daemon_uses_all_processors_if_asked(tmp_path):
    with Daemon(make_home(tmp_path), '--all-processors') as daemon:
        assert used(daemon.process.pid) == os.sched_getaffinity(0)


@needs_account
def test_workers_keep_to_different_processors(tmp_path):
    with Daemon(make_home(tmp_path), '--workers=2') as daemon:
        daemon.wait_for('event=started', 2)
        workers = [int(line.partition('process=')[2].split()[0])
                   for line in daemon.events('started')]
        assert sorted(len(used(worker)) for worker in workers) == [1, 1]
        assert used(workers[0]) != used(workers[1])
        assert used(daemon.process.pid) == os.sched_getaffinity(0)


@pytest.fixture
def kept(monkeypatch):
    """This process keeps to one processor; the number of all. Put back at the end."""
    before = os.sched_getaffinity(0)
    monkeypatch.setattr(processor, '_allowed', ())
    processor.keep_to_one(0)
    yield len(before)
    os.sched_setaffinity(0, before)


COUNT = '%s -c "import os; print(len(os.sched_getaffinity(0)))"' % sys.executable


def test_shell_action_may_go_anywhere(kept):
    context = actions.Context(SimpleNamespace(environ={}), None, '', 0)
    action = Action('shell', COUNT)
    assert actions.literal(context, action, 'a@example.org') == str(kept)


def test_sendmail_program_may_go_anywhere(kept, tmp_path):
    program = tmp_path / 'sendmail'
    program.write_text('#!/bin/sh\n%s > %s/used\n' % (COUNT, tmp_path))
    program.chmod(0o755)
    with Spool(1000) as spool:
        spool.write(b'x\r\n')
        outcome = sendmail.pass_unaltered(str(program), Envelope('a@example.org', ()), spool, {},
                                          Limits())
    assert outcome.reply.code == 250
    assert (tmp_path / 'used').read_text().strip() == str(kept)


def test_password_is_checked_anywhere(kept):
    class Chain:
        def check(self, *unused):
            used.append(len(os.sched_getaffinity(0)))
            return Verdict(NO, 'x')

    used = []
    backend = InProcess(Chain(), None, Policy(), Limits())
    with pytest.raises(ReplyError):
        backend.authenticate(Password('a', 'b'), Client())
    assert used == [kept]
    assert len(os.sched_getaffinity(0)) == 1


@pytest.mark.parametrize('size, large', [(0, False), (LARGE - 1, False), (LARGE, True)])
def test_message_declared_large_may_go_anywhere(kept, monkeypatch, size, large):
    def counting(channel, transaction):
        used.append(len(os.sched_getaffinity(0)))
        return submit(channel, transaction)

    used, submit = [], FakeChannel.submit
    monkeypatch.setattr(FakeChannel, 'submit', counting)
    with Running(make_service()) as running:
        running.talk.reply()
        running.talk.login()
        for command in ('MAIL FROM:<a@example.org> SIZE=%d' % size, 'RCPT TO:<b@example.org>',
                        'DATA', 'x\r\n.'):
            assert running.talk.ask(command)[0] in '23'
    assert used == [kept if large else 1]


@needs_account
def test_program_of_a_session_may_go_anywhere(tmp_path):
    script = tmp_path / 'quota'
    script.write_text('#!%s\nimport os\nopen(os.environ["HOME"] + "/used", "w").write('
                      'str(len(os.sched_getaffinity(0))))\nraise SystemExit(1)\n' % sys.executable)
    script.chmod(0o755)
    with Daemon(make_home(tmp_path), '-t', str(script)) as daemon, daemon.connect() as talk:
        talk.reply()
        talk.login()
        codes = [talk.ask(command)[:3] for command in (
            'MAIL FROM:<bobby@example.net>', 'RCPT TO:<a@example.org>', 'DATA', 'x\r\n.')]
    assert codes == ['250', '250', '354', '450']
    assert (tmp_path / 'used').read_text() == str(len(os.sched_getaffinity(0)))
