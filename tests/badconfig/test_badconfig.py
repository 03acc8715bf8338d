# SPDX-License-Identifier: GPL-2.0-or-later
"""One mistake each: the line that tmda-ofmipd prints, and its exit status.

Every row is (name, command line, exit status, line without `tmda-ofmipd: `).  In command line and
line, HOME is the home directory, HERE this directory and TLS that of the test certificate; the
home has a good password file and the files that FILES lists.  The program is not started for
this: main() is called, and has to fail before it would serve.
"""
import os
import socket
from pathlib import Path

import pytest

from TMDA.ofmipd import main as program

HERE = Path(__file__).parent
TLS = HERE.parent / 'support' / 'tls'
CERT = '--ssl-cert=TLS/cert.pem --ssl-key=TLS/key.pem'

FILES = {
    '.tmda/tofmipd': (0o600, 'bobby:FooBar\n'),
    'open': (0o644, 'bobby:FooBar\n'),
    'nocolon': (0o600, 'bobby:FooBar\n\nchloe\n'),
    'empty.pem': (0o600, ''),
    'script': (0o600, '#!/bin/sh\n'),
}

USAGE = [
    ('unknown_long', '--portal', 'option --portal not recognized'),
    ('unknown_short', '-dxf', 'option -x not recognized'),
    ('ambiguous', '--proxy=x', 'option --proxy not unique: --proxyport, --proxy-protocol'),
    ('argument_missing_long', '--tls', 'option --tls needs an argument'),
    ('argument_missing_short', '-fp', 'option -p needs an argument'),
    ('argument_unwanted', '--ssl=on', '--ssl takes no argument'),
    ('word', '-f start', "unexpected argument 'start'"),
    ('port_missing', '-p localhost', "-p: 'localhost' is not HOST:PORT"),
    ('port_no_number', '-p localhost:smtp', "-p: 'localhost:smtp' is not HOST:PORT"),
    ('port_too_high', '-p :65536', "-p: ':65536' is not HOST:PORT"),
    ('brackets_missing', '-p ::1:25', "-p: '::1:25': an IPv6 address needs brackets, [::1]:25"),
    ('mode_unknown', '-p :465/tsl',
     "-p: ':465/tsl': /tsl is none of ssl, tls, plain, tls=optional, tls=localoptional, tls=on"),
    ('connections_zero', '-C 0', "-C: '0' is not a positive whole number"),
    ('connections_negative', '-C -5', "-C: '-5' is not a positive whole number"),
    ('connections_word', '--connections=many',
     "--connections: 'many' is not a positive whole number"),
    ('size_unit', '--message-size=5X', "--message-size: '5X' is not a positive whole number"),
    ('tls_word', '--tls=yes', "--tls: 'yes' is none of optional, localoptional, on"),
    ('tls_and_ssl', f'--tls=on --ssl {CERT}', '--ssl and --tls exclude each other'),
    ('certificate_not_named', '--tls=on', '--ssl and --tls need --ssl-cert and --ssl-key'),
    ('certificate_not_named_for_port', '-p :465/ssl',
     '--ssl and --tls need --ssl-cert and --ssl-key'),
    ('configdir_and_vhome', '-c HOME -S HOME/script',
     '--configdir and --vhome-script exclude each other'),
    ('one_session_and_workers', '-1 --workers=2',
     '--one-session and --workers exclude each other'),
    ('from_alone', '--from=a@b', '--from is for --explain'),
    ('keep_alone', '--keep', '--keep is for --demo'),
    ('two_actions', '--check --demo', 'only one of --check, --demo'),
    ('network', '--proxy-protocol=10.0.0.1/8',
     '--proxy-protocol: 10.0.0.1/8 has host bits set'),
    ('file_without_name', '-a ""', '-a: an empty name'),
    ('program_without_name', '-A ""', '-A: an empty command'),
    ('ciphers', f'-f --ssl {CERT} --ciphers=NONE-SUCH',
     "--ciphers: OpenSSL finds no cipher in 'NONE-SUCH'"),
    ('key_nowhere', '-f --ssl --ssl-cert=TLS/cert.pem',
     '--ssl-key is needed: there is no private key in TLS/cert.pem'),
]

FILE = [
    ('password_file_missing', '-f -a HOME/none',
     'HOME/none: no such file: write USER:PASSWORD lines into it, then chmod 600 HOME/none'),
    ('password_file_open', '-f -a HOME/open',
     'HOME/open: mode is 644, must be 600 or 400: chmod 600 HOME/open'),
    ('password_file_line', '-f -a HOME/nocolon',
     'HOME/nocolon:3: no colon: write USER:PASSWORD'),
    ('password_file_directory', '-f -a HOME', 'HOME: not a regular file'),
    ('ldap_without_dn', '-f -R ldap://localhost', None),
    ('remote_unknown', '-f -R gopher://localhost', None),
    ('pam_path', '-f -m ../x', "PAM service '../x': write the name of a file in /etc/pam.d"),
    ('authprog_quote', '-f -A \'x "y\'',
     'authentication program \'x "y\': No closing quotation'),
    ('configdir_missing', '-f -c HOME/none', '--configdir: HOME/none: No such file or directory'),
    ('configdir_file', '-f -c HOME/script', '--configdir: HOME/script: not a directory'),
    ('throttle_missing', '-f -t HOME/none',
     '--throttle-script: HOME/none: No such file or directory'),
    ('throttle_mode', '-f -t HOME/script', '--throttle-script: HOME/script: not executable'),
    ('throttle_directory', '-f -t HOME', '--throttle-script: HOME: is a directory'),
    ('certificate_missing', '-f --ssl --ssl-cert=HOME/none',
     '--ssl-cert: HOME/none: No such file or directory'),
    ('certificate_empty', '-f --ssl --ssl-cert=HOME/empty.pem --ssl-key=TLS/key.pem',
     'HOME/empty.pem: there is no PEM certificate in it'),
    ('key_empty', '-f --ssl --ssl-cert=TLS/cert.pem --ssl-key=HOME/empty.pem',
     'HOME/empty.pem: there is no PEM private key in it'),
    ('key_of_another', '-f --tls=on --ssl-cert=TLS/cert.pem --ssl-key=HERE/other.key',
     'HERE/other.key: not the private key of TLS/cert.pem'),
    ('key_encrypted', '-f --tls=on --ssl-cert=TLS/cert.pem --ssl-key=HERE/encrypted.key',
     'HERE/encrypted.key: the private key has a pass phrase'),
    ('dh_empty', f'-f --tls=on {CERT} --ssl-dh=HOME/empty.pem',
     'HOME/empty.pem: there are no PEM Diffie-Hellman parameters in it'),
]

SYSTEM = [
    ('address_foreign', '-f -p 192.0.2.123:8025', 71,
     '192.0.2.123:8025: Cannot assign requested address'),
    ('address_unknown', '-f -p nohost.invalid:8025', 71,
     'nohost.invalid:8025: Name or service not known'),
    ('log_file_directory', '-f --log-file=HOME', 71, 'HOME: Is a directory'),
    ('pid_file_directory', '-f -p 127.0.0.1:0 --pid-file=HOME', 71, 'HOME: Is a directory'),
]

CASES = ([row[:2] + (64,) + row[2:] for row in USAGE]
         + [row[:2] + (78,) + row[2:] for row in FILE] + SYSTEM)

needs_account = pytest.mark.skipif(os.geteuid() == 0, reason='root does not start personal mode')


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Call main() with a command line; return (status, stderr), with directories by their names."""
    for name, (mode, text) in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    monkeypatch.setenv('HOME', str(tmp_path))
    names = {'HOME': str(tmp_path), 'HERE': str(HERE), 'TLS': str(TLS)}
    umask = os.umask(0o022)

    def call(command):
        import shlex
        for name, path in names.items():
            command = command.replace(name, path)
        status = program.main(shlex.split(command))
        printed = capsys.readouterr()
        assert printed.out == ''
        text = printed.err
        for name, path in names.items():
            text = text.replace(path, name)
        return status, text

    yield call
    os.umask(umask)


@needs_account
@pytest.mark.parametrize('command, status, line', [case[1:] for case in CASES],
                         ids=[case[0] for case in CASES])
def test_badconfig(run, command, status, line):
    got_status, printed = run(command)
    assert got_status == status
    assert printed.startswith('tmda-ofmipd: ')
    assert printed.count('\n') == 1
    if line is not None:
        assert printed == 'tmda-ofmipd: %s\n' % line


@needs_account
def test_badconfig_address_in_use(run):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        where = '127.0.0.1:%d' % taken.getsockname()[1]
        assert run('-f -p ' + where) == (75, 'tmda-ofmipd: %s: Address already in use\n' % where)


@needs_account
def test_badconfig_not_available(run, monkeypatch):
    monkeypatch.setattr(program, 'STATISTICS', 'TMDA.ofmipd.missing')
    assert run('--stats=HOME/stats') == (
        69, 'tmda-ofmipd: --stats is not available in this version\n')
