# SPDX-License-Identifier: GPL-2.0-or-later
"""What strangers see of our TLS: openssl s_client and sslscan find nothing old and nothing weak.

The daemon has default options and listens with --ssl and with STARTTLS; its key is RSA or of an
elliptic curve, because only with RSA could there be suites without forward secrecy.
"""
from __future__ import annotations

import re
import subprocess

import pytest

from real.launchers import skip_without
from real.logins import CERTIFICATE_OPTIONS
from support.daemon import Daemon, make_home, needs_account

pytestmark = needs_account
SECURITY = {'ssl': 0, 'starttls': 1}

OLD = ('SSLv2', 'SSLv3', 'TLSv1.0', 'TLSv1.1')
# What must not be in the name of a suite: no forward secrecy, no authenticated encryption ...
WEAK = re.compile(r'NULL|EXP|RC[24]|DES|MD5|anon|^A(EC)?DH|PSK|SRP|CBC|SEED|IDEA|CAMELLIA|ARIA'
                  r'|^AES')


@pytest.fixture(scope='module', params=['ec', 'rsa'])
def daemon(request, tmp_path_factory):
    home = make_home(tmp_path_factory.mktemp('scan'))
    options = CERTIFICATE_OPTIONS
    if request.param == 'rsa':
        file = home / 'rsa.pem'
        skip_without('openssl')
        subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2',
                        '-subj', '/CN=localhost', '-keyout', str(file), '-out',
                        str(home / 'cert')],
                       check=True, timeout=60, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        file.chmod(0o600)
        options = ('--ssl-cert=%s' % (home / 'cert'), '--ssl-key=%s' % file)
    with Daemon(home, '-plocalhost:0/ssl', '-plocalhost:0/tls', *options) as running:
        yield running


def s_client(daemon, security, *options):
    """(status, output) of a handshake that would take whatever the server has to offer."""
    skip_without('openssl')
    port = daemon.ports[SECURITY[security]]
    command = ['openssl', 's_client', '-connect', 'localhost:%d' % port,
               '-cipher', 'ALL:COMPLEMENTOFALL:@SECLEVEL=0', *options]
    if security == 'starttls':
        command += ['-starttls', 'smtp']
    run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, timeout=60, check=False)
    return run.returncode, run.stdout.decode('utf-8', 'replace')


@pytest.mark.parametrize('security', SECURITY)
@pytest.mark.parametrize('protocol', ['TLSv1.2', 'TLSv1.3'])
def test_s_client_new_protocol(daemon, security, protocol):
    option = {'TLSv1.2': '-tls1_2', 'TLSv1.3': '-tls1_3'}[protocol]
    status, output = s_client(daemon, security, option)
    assert status == 0
    suite = re.search(r'New, (\S+), Cipher is (\S+)', output)
    assert suite.group(1) == protocol and not WEAK.search(suite.group(2))


@pytest.mark.parametrize('security', SECURITY)
@pytest.mark.parametrize('option', ['-tls1', '-tls1_1'])
def test_s_client_old_protocol(daemon, security, option):
    status, output = s_client(daemon, security, option)
    assert status != 0 and 'Cipher is (NONE)' in output


@pytest.mark.parametrize('security', SECURITY)
@pytest.mark.parametrize('suites', [
    'aNULL', 'eNULL', 'kRSA', 'RC4', '3DES', 'EXPORT', 'PSK', 'SHA1', 'AES128-SHA256',
    'ECDHE-ECDSA-AES256-SHA384:ECDHE-RSA-AES256-SHA384'])
def test_s_client_weak_suites(daemon, security, suites):
    listed = subprocess.run(['openssl', 'ciphers', suites + ':@SECLEVEL=0'], check=False,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, timeout=60)
    if listed.returncode:
        pytest.skip('this OpenSSL has no such suites itself')
    status, output = s_client(daemon, security, '-tls1_2', '-cipher', suites + ':@SECLEVEL=0')
    assert status != 0 and 'Cipher is (NONE)' in output


@pytest.mark.parametrize('security', SECURITY)
def test_sslscan(daemon, security):
    skip_without('sslscan')
    command = ['sslscan', '--no-colour', '--show-ciphers', '--no-check-certificate',
               'localhost:%d' % daemon.ports[SECURITY[security]]]
    if security == 'starttls':
        command.insert(1, '--starttls-smtp')
    run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, timeout=120, check=False)
    output = run.stdout.decode()
    assert run.returncode == 0, output
    protocols = dict(re.findall(r'^((?:SSL|TLS)v[\d.]+) +(enabled|disabled)$', output,
                                re.MULTILINE))
    assert protocols['TLSv1.2'] == protocols['TLSv1.3'] == 'enabled', output
    assert all(protocols[name] == 'disabled' for name in OLD), output
    suites = re.findall(r'^(?:Preferred|Accepted) +(\S+) +\d+ bits +(?:0x\w+ +)?(\S+)', output,
                        re.MULTILINE)
    assert suites and {protocol for protocol, suite in suites} == {'TLSv1.2', 'TLSv1.3'}, output
    assert not [suite for protocol, suite in suites if WEAK.search(suite)], output
    assert 'Compression enabled' not in output
    assert 'Insecure session renegotiation supported' not in output
