# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that keep to one processor, and what may use all of them."""
import os
import subprocess
import sys

import pytest

from support.daemon import Daemon, make_home, needs_account
from TMDA.inject import processor

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
