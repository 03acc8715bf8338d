# SPDX-License-Identifier: GPL-2.0-or-later
"""A Postfix of its own as upstream: other configuration, queue and port than the machine's.

It takes mail from loopback for any address in the domain example.org and
delivers all of it to one Maildir.  The log is a file in its directory.  Needs
root, as Postfix does.
"""
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

MAIN_CF = '''\
compatibility_level = 3.6
queue_directory = {top}/queue
data_directory = {top}/data
maillog_file = {top}/log
maillog_file_prefixes = {top}
myhostname = upstream.example.net
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
local_recipient_maps =
local_transport = error:no local mail here
smtpd_peername_lookup = no
virtual_mailbox_domains = example.org
virtual_mailbox_base = {top}
virtual_mailbox_maps = static:mail/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
default_transport = error:no way out of here
'''

MASTER_CF = '''\
{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
'''


def free_port():
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


class Postfix:
    """The server: start(), port, messages(), stop().  Keyword arguments go to main.cf as well."""

    def __init__(self, **settings):
        self._settings = settings
        self.top = Path(tempfile.mkdtemp(prefix='tmda-postfix-'))
        self.top.chmod(0o755)
        self.port = free_port()
        self.maildir = self.top / 'mail'
        self.configuration = self.top / 'etc'

    def start(self):
        """Write the configuration and start the daemons; they listen when this returns."""
        owner = pwd.getpwnam('nobody')
        for name in ('etc', 'queue', 'data', 'mail'):
            (self.top / name).mkdir()
        os.chown(self.maildir, owner.pw_uid, owner.pw_gid)
        os.chown(self.top / 'data', pwd.getpwnam('postfix').pw_uid, -1)
        values = {'top': self.top, 'port': f'127.0.0.1:{self.port}',
                  'uid': owner.pw_uid, 'gid': owner.pw_gid}
        for name, text in (('main.cf', MAIN_CF), ('master.cf', MASTER_CF)):
            (self.configuration / name).write_text(text.format(**values), encoding='ascii')
        with open(self.configuration / 'main.cf', 'a', encoding='ascii') as file:
            file.writelines('%s = %s\n' % pair for pair in self._settings.items())
        self._command('start')

    def _command(self, word):
        run = subprocess.run(['postfix', '-c', str(self.configuration), word],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, timeout=60, check=False)
        assert run.returncode == 0, run.stdout.decode() + self.log()

    def log(self):
        """What Postfix has logged."""
        path = self.top / 'log'
        return path.read_text(encoding='utf-8', errors='replace') if path.exists() else ''

    def messages(self, number, seconds=20):
        """Take that many messages, as bytes, out of the Maildir; waits for them."""
        end = time.monotonic() + seconds
        while True:
            files = sorted((self.maildir / 'new').glob('*'))
            if len(files) >= number:
                break
            assert time.monotonic() < end, f'{len(files)} messages\n{self.log()}'
            time.sleep(0.02)
        contents = [path.read_bytes() for path in files]
        for path in files:
            path.unlink()
        return contents

    def stop(self):
        """End the daemons and remove all files."""
        self._command('stop')
        shutil.rmtree(self.top)
