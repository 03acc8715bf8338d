# SPDX-License-Identifier: GPL-2.0-or-later
"""The processes of a session, over a channel that the test speaks on, also as a liar would."""
import hashlib
import hmac
import json
import os
import socket
import threading
from time import monotonic

import pytest

from TMDA.inject.limits import Limits
from TMDA.ofmipd import child, ipc, privileges, sasl
from TMDA.ofmipd.accounts import account_name
from TMDA.ofmipd.child import Child, DescriptorSpool, Rules
from TMDA.ofmipd.inprocess import Policy
from TMDA.ofmipd.options import Source

CLIENT = {'session': '1f', 'address': '192.0.2.1', 'name': '', 'port': 1,
          'local_address': '192.0.2.9', 'local_port': 25}
MESSAGE = b'From: ann@example.com\r\nSubject: x\r\n\r\nhello\r\n'
SUBMIT = {'sender': 'ann@example.com', 'recipients': [['b@example.net', '', '']],
          'size': len(MESSAGE), 'body': '', 'smtputf8': False, 'ret': '', 'envid': '',
          'received': 'from x', 'session': '1f'}


class Silent:
    """A log that keeps the events."""

    def __init__(self):
        self.events = []

    def event(self, name, **facts):
        self.events.append((name, facts))


def soon():
    return monotonic() + 10


@pytest.fixture
def rules(tmp_path):
    """Rules with a password file and --configdir."""
    passwords = tmp_path / 'passwords'
    passwords.write_text('ann:secret\nroot:rootpw\nnobody-here:pw\nnobody:pw\n')
    passwords.chmod(0o600)
    (tmp_path / 'ann').mkdir()

    def make(source=Source('file', str(passwords)), account=None, configdir=str(tmp_path),
             vhome_script='', vdomains_path='', **limits):
        return Rules((source,), '', configdir, vhome_script, vdomains_path, Policy(),
                     Limits(**limits), account)

    return make


class Asked:
    """Child.ask in a thread; `answer` is what it returned."""

    def __init__(self, rules, rooted=(), copies=()):
        ours, theirs = socket.socketpair()
        self.link = ipc.Link(ours)
        self.sock = ours
        self.log = Silent()
        self.answer = None
        self._theirs = theirs
        self._thread = threading.Thread(target=self._run,
                                        args=(Child(rules, self.log), dict(rooted), dict(copies)))
        self._thread.start()

    def _run(self, asker, rooted, copies):
        with self._theirs:
            self.answer = asker.ask(self._theirs, rooted, copies)

    def __enter__(self):
        try:
            self.link.send('client', CLIENT, soon())
        except ipc.Ended:
            pass  # one that waits no time at all may be gone
        return self

    def __exit__(self, *unused):
        self.link.close()
        self._thread.join(10)

    def ask(self, kind, **fields):
        """The frame that answers."""
        self.link.send(kind, fields, soon())
        return self.link.receive(('refused', 'salt'), soon(), ipc.LARGE)

    def end(self):
        """What ask() returned in the end."""
        self._thread.join(10)
        assert not self._thread.is_alive()
        return self.answer


def test_right_password_gives_the_account(rules):
    with Asked(rules()) as asked:
        asked.link.send('password', {'user': ' Ann ', 'password': 'secret'}, soon())
        account, _, rest = asked.end().partition('\n')
    assert account == 'ann'
    found = json.loads(rest)
    assert found.pop('mechanisms') == ['SCRAM-SHA-256', 'CRAM-MD5', 'PLAIN', 'LOGIN']
    assert found == {'login': 'ann', 'local_address': '192.0.2.9', 'signature': ''}


def test_wrong_passwords_may_be_followed_by_the_right_one(rules):
    with Asked(rules()) as asked:
        for user, password in (('ann', 'no'), ('nobody', ''), ('nobody-at-all', 'secret')):
            fields = asked.ask('password', user=user, password=password).fields
            assert (fields['code'], fields['enhanced']) == (535, '5.7.8')
            assert fields['lines'] == ['Authentication failed']
        asked.link.send('password', {'user': 'ann', 'password': 'secret'}, soon())
        assert asked.end()


def test_cram_md5_and_scram_are_checked(rules):
    with Asked(rules()) as asked:
        fields = {'user': 'ann', 'challenge': '<1@h>', 'digest': '0' * 32}
        assert asked.ask('cram_md5', **fields).fields['code'] == 535
        fields = asked.ask('scram_start', user='ann').fields
        salt, iterations = fields['salt'].encode('latin-1'), fields['iterations']
        client_key = hmac.digest(hashlib.pbkdf2_hmac('sha256', b'secret', salt, iterations),
                                 b'Client Key', 'sha256')
        stored_key, server_key = sasl.scram_keys('secret', salt, iterations)
        mask = hmac.digest(stored_key, b'auth', 'sha256')
        proof = bytes(one ^ other for one, other in zip(client_key, mask))
        asked.link.send('scram', {'user': 'ann', 'auth_message': 'auth',
                                  'proof': proof.decode('latin-1')}, soon())
        found = json.loads(asked.end().partition('\n')[2])
    signature = sasl.Scram('ann', b'auth', proof).server_signature(server_key)
    assert found['signature'].encode('latin-1') == signature


def test_mechanism_that_is_no_longer_possible_is_a_temporary_failure(rules):
    with Asked(rules(source=Source('authprog', '/bin/false'))) as asked:
        for kind, fields in (('scram_start', {'user': 'ann'}),
                             ('cram_md5', {'user': 'a', 'challenge': '', 'digest': ''})):
            refused = asked.ask(kind, **fields).fields
            assert refused['code'] == 454
            assert refused['mechanisms'] == ['PLAIN', 'LOGIN']


@pytest.mark.parametrize('user, code, cause', [
    ('root', 535, 'uid 0'),
    ('nobody-here', 454, 'no account nobody-here'),
    ('nobody', 535, 'network side'),
])
def test_account_that_nobody_may_become_is_refused(rules, user, code, cause):
    network = privileges.find('nobody')
    with Asked(rules(account=network, configdir='')) as asked:
        password = {'root': 'rootpw'}.get(user, 'pw')
        fields = asked.ask('password', user=user, password=password).fields
    assert fields['code'] == code
    assert cause in fields['cause']


def test_name_with_a_directory_is_the_owners_with_configdir(rules, tmp_path, monkeypatch):
    monkeypatch.setattr(child, 'find',
                        lambda name, network: privileges.Account(name, 1, 1))
    import pwd
    with Asked(rules(account=privileges.find('nobody'))) as asked:
        asked.link.send('password', {'user': 'ann', 'password': 'secret'}, soon())
        account = asked.end().partition('\n')[0]
    assert account == pwd.getpwuid(os.stat(tmp_path / 'ann').st_uid).pw_name


@pytest.mark.parametrize('login, code', [('ann', 535), ('../x@example.com', 535)])
def test_login_that_is_no_virtual_user_is_refused(rules, tmp_path, login, code):
    (tmp_path / 'passwords').write_text('%s:pw\n' % login)
    with Asked(rules(configdir='', vhome_script='/bin/true')) as asked:
        assert asked.ask('password', user=login, password='pw').fields['code'] == code


def test_virtual_user_of_an_unknown_domain_is_a_temporary_failure(rules, tmp_path):
    (tmp_path / 'passwords').write_text('ann@example.com:pw\n')
    (tmp_path / 'virtualdomains').write_text('example.net:x\n')
    with Asked(rules(configdir='', vhome_script='/bin/true', account=privileges.find('nobody'),
                     vdomains_path=str(tmp_path / 'virtualdomains'))) as asked:
        assert asked.ask('password', user='ann@example.com', password='pw').fields['code'] == 454


def test_password_file_that_is_gone_is_a_temporary_failure(rules, tmp_path):
    (tmp_path / 'passwords').unlink()
    with Asked(rules()) as asked:
        fields = asked.ask('password', user='ann', password='secret').fields
    assert fields['code'] == 454
    assert 'no such file' in fields['cause']


def test_password_file_is_read_from_its_copy(rules, tmp_path):
    copy = privileges.copy_for(None, str(tmp_path / 'passwords'))
    (tmp_path / 'passwords').unlink()
    with Asked(rules(), copies={str(tmp_path / 'passwords'): copy}) as asked:
        fields = asked.ask('password', user='ann', password='no').fields
        assert fields['cause'] == 'file:%s/passwords: no: wrong password' % tmp_path
        asked.link.send('password', {'user': 'ann', 'password': 'secret'}, soon())
        assert asked.end()
    os.close(copy)


def test_judge_names_the_file(tmp_path):
    path = tmp_path / 'passwords'
    path.write_text('no colon\n')
    path.chmod(0o600)
    assert child.judge(str(path), '/etc/tofmipd').startswith('/etc/tofmipd:1: ')
    path.write_text('a:b\n')
    assert child.judge(str(path), '/etc/tofmipd') == ''


@pytest.mark.parametrize('lie', [
    lambda asked: asked.link.send('submit', SUBMIT, soon(), MESSAGE),
    lambda asked: asked.link.send('client', CLIENT, soon()),
    lambda asked: asked.link.send('identity', {'login': 'ann'}, soon()),
    lambda asked: asked.link.send(
        'password', {'user': 'ann', 'password': 'secret', 'login': 'bob'}, soon()),
    lambda asked: asked.link.send('password', {'user': 'ann', 'password': 'secret'}, soon(),
                                  descriptor=0),
    lambda asked: asked.sock.sendall(b'\xff' * 100),
    lambda asked: asked.sock.sendall(ipc.PREFIX.pack(1 << 30, 0)),
    lambda asked: asked.sock.shutdown(socket.SHUT_WR),
])
def test_liar_gets_nothing_before_the_login(rules, lie):
    with Asked(rules()) as asked:
        lie(asked)
        assert asked.end() == ''


def test_asker_does_not_wait_for_ever(rules):
    with Asked(rules(login_seconds=0, login_failures=0)) as asked:
        assert asked.end() == ''


class Served:
    """Child.serve in a process of its own, over a channel of the test."""

    def __init__(self, rules, login='ann'):
        ours, theirs = socket.socketpair()
        self.link = ipc.Link(ours)
        self.sock = ours
        self._process = os.fork()
        if not self._process:
            ours.close()
            rest = {'login': login, 'mechanisms': [], 'local_address': '', 'signature': ''}
            Child(rules, None).serve(theirs, json.dumps(rest))
            os._exit(98)
        theirs.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.link.close()
        if self._process:
            os.waitpid(self._process, 0)

    def begin(self):
        """The identity."""
        return self.link.receive(('identity',), soon()).fields

    def submit(self, body=MESSAGE, descriptor=None, **replaced):
        """The outcome of a message."""
        self.link.send('submit', dict(SUBMIT, **replaced), soon(), body, descriptor)
        return self.link.receive(('outcome',), soon(), ipc.LARGE).fields

    def status(self):
        """The exit status, once it has ended."""
        process, self._process = self._process, 0
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.fixture
def sent(tmp_path):
    """A configuration for ann whose sendmail writes what it gets to files."""
    script = tmp_path / 'sendmail'
    script.write_text('#!/bin/sh\ncd %s\necho "$@" >arguments\ncat >message\n' % tmp_path)
    script.chmod(0o755)
    (tmp_path / 'ann' / 'config').write_text(
        'MAIL_TRANSPORT = "sendmail"\nSENDMAIL_PROGRAM = %r\nACTION_OUTGOING = "bare"\n'
        'DATADIR = %r\nCRYPT_KEY_FILE = %r\n'
        % (str(script), str(tmp_path / 'ann'), str(tmp_path / 'ann' / 'key')))
    (tmp_path / 'ann' / 'key').write_text('00112233445566778899aabbccddeeff00112233')
    (tmp_path / 'ann' / 'key').chmod(0o600)
    return tmp_path


def test_message_is_sent_for_the_identity(rules, sent):
    with Served(rules()) as served:
        assert served.begin() == {'login': 'ann', 'signature': '', 'mechanisms': []}
        for _ in range(2):
            outcome = served.submit()
            assert outcome['code'] == 250, outcome
        served.link.close()
        assert served.status() == 0
    assert b'\nhello\n' in (sent / 'message').read_bytes().replace(b'\r', b'')
    assert 'ann@example.com' in (sent / 'arguments').read_text()


def test_message_in_a_file_is_sent(rules, sent, tmp_path):
    path = tmp_path / 'spool'
    path.write_bytes(MESSAGE * 100)
    with Served(rules()) as served, open(path, 'rb') as file:
        served.begin()
        file.seek(17)  # whose offset must not matter, nor change
        outcome = served.submit(b'', file.fileno(), size=100 * len(MESSAGE))
        assert outcome['code'] == 250, outcome
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 17
    assert (sent / 'message').read_bytes().count(b'hello') == 100


@pytest.mark.parametrize('code', [
    'raise SystemExit(0)', 'import sys; sys.exit()', '1/0', 'raise KeyboardInterrupt',
    'syntax error',
    'import os; os.setuid(0); raise ValueError',
])
def test_configuration_that_fails_is_a_temporary_failure(rules, sent, code):
    (sent / 'ann' / 'config').write_text(code + '\n')
    with Served(rules()) as served:
        served.begin()
        assert served.submit()['code'] == 451
        (sent / 'ann' / 'config').write_text('ACTION_OUTGOING = "bare"\nDATADIR = %r\n'
                                             'CRYPT_KEY_FILE = %r\nSENDMAIL_PROGRAM = %r\n'
                                             % tuple(map(str, (sent / 'ann', sent / 'ann/key',
                                                               sent / 'sendmail'))))
        assert served.submit()['code'] == 250


def test_configuration_that_ends_the_process_ends_the_channel(rules, sent):
    (sent / 'ann' / 'config').write_text('import os\nos._exit(0)\n')
    with Served(rules()) as served:
        served.begin()
        with pytest.raises(ipc.Ended):
            served.submit()


def test_configuration_that_forks_has_one_voice(rules, sent):
    (sent / 'ann' / 'config').write_text('import os\nos.fork()\nraise ValueError\n')
    with Served(rules()) as served:
        served.begin()
        assert served.submit()['code'] == 451
        with pytest.raises(ipc.TimedOut):
            served.link.receive(('outcome',), monotonic() + 0.3)


@pytest.mark.parametrize('lie', [
    lambda served, file: served.link.send('password', {'user': 'bob', 'password': 'x'}, soon()),
    lambda served, file: served.link.send('client', CLIENT, soon()),
    lambda served, file: served.link.send('submit', dict(SUBMIT, login='bob'), soon(), MESSAGE),
    lambda served, file: served.link.send('submit', dict(SUBMIT, size=1), soon(), MESSAGE),
    lambda served, file: served.link.send('submit', dict(SUBMIT, size=99), soon(), MESSAGE),
    lambda served, file: served.link.send('submit', SUBMIT, soon()),
    lambda served, file: served.link.send('submit', dict(SUBMIT, size=0, recipients=[
        ['b@example.net', '', '']] * 1001), soon()),
    lambda served, file: served.link.send('submit', dict(SUBMIT, size=5), soon(), b'', file),
    lambda served, file: served.link.send('submit', dict(SUBMIT, size=4), soon(), b'body', file),
    lambda served, file: served.link.send('submit', SUBMIT, soon(), b'',
                                          os.open('/dev/zero', os.O_RDONLY)),
    lambda served, file: served.link.send('submit', SUBMIT, soon(), b'', served.sock.fileno()),
    lambda served, file: socket.send_fds(served.sock, [frame('submit', SUBMIT)], [file, file]),
    lambda served, file: served.sock.sendall(ipc.PREFIX.pack(10, 1 << 31)),
])
def test_liar_gets_nothing_after_the_login(rules, sent, tmp_path, lie):
    (tmp_path / 'four').write_bytes(b'four')
    with Served(rules()) as served, open(tmp_path / 'four', 'rb') as file:
        served.begin()
        lie(served, file.fileno())
        with pytest.raises(ipc.Ended):
            served.link.receive(('outcome',), soon())
        assert served.status() == 0
    assert not (sent / 'message').exists()


def frame(kind, fields):
    """The octets of a frame."""
    header = json.dumps([kind, fields]).encode()
    return ipc.PREFIX.pack(len(header), 0) + header


def test_message_as_large_as_may_be_is_taken_and_no_larger(rules, sent, tmp_path):
    limit = len(MESSAGE)
    for size, taken in ((limit, True), (limit + 1, False)):
        (tmp_path / 'spool').write_bytes(MESSAGE.ljust(size, b'.'))
        with Served(rules(message_size=limit)) as served, open(tmp_path / 'spool', 'rb') as file:
            served.begin()
            if taken:
                assert served.submit(b'', file.fileno(), size=size)['code'] == 250
            else:
                with pytest.raises(ipc.Ended):
                    served.submit(b'', file.fileno(), size=size)


def test_user_without_a_home_is_a_temporary_failure(rules):
    with Served(rules(configdir='', vhome_script='/bin/false'), 'ann@example.com') as served:
        fields = served.link.receive(('refused',), soon()).fields
        assert fields['code'] == 454
        assert 'exit status 1' in fields['cause']
        assert served.status() == 98


@pytest.fixture
def spool(tmp_path):
    """A spool over a file of ten octets."""
    path = tmp_path / 'spool'
    path.write_bytes(b'0123456789')
    with DescriptorSpool(os.open(path, os.O_RDWR), 10) as made:
        yield made


def test_descriptor_spool_reads_like_a_spool(spool, monkeypatch):
    monkeypatch.setattr(child, 'BLOCK', 4)
    assert list(spool.chunks()) == [b'0123', b'4567', b'89']
    assert list(spool.chunks(9)) == [b'9']
    assert list(spool.chunks(10)) == []
    assert [spool.head(limit) for limit in (0, 3, 10, 99)] == [b'', b'012', b'0123456789',
                                                              b'0123456789']


def test_descriptor_spool_that_is_cut_short_fails(spool):
    os.ftruncate(spool.fileno(), 5)
    with pytest.raises(OSError):
        list(spool.chunks())
    with pytest.raises(OSError):
        spool.head(10)


def test_descriptor_spool_that_grew_ends_where_it_was_said_to(spool):
    os.pwrite(spool.fileno(), b'more', 10)
    assert b''.join(spool.chunks()) == b'0123456789'


def test_owner_of_nothing_is_unknown(tmp_path):
    with pytest.raises(KeyError):
        account_name(str(tmp_path), 'no-such-account')
    with pytest.raises(KeyError):
        account_name('', 'no-such-account')
