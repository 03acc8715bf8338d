# SPDX-License-Identifier: GPL-2.0-or-later
"""--autoconfig: the XML file for mail clients, and the SRV records."""
import os
import re
import xml.etree.ElementTree as ElementTree

import pytest

from support.daemon import make_home, needs_account
from TMDA.ofmipd import mailclient
from TMDA.ofmipd.autoconfig import document, records
from TMDA.ofmipd.mailclient import Server, servers, start_command
from TMDA.ofmipd.main import main
from TMDA.ofmipd.options import LISTENER_MODES, TLS_MODES, parse

NAME = r'([a-z0-9.-]+)\.'
SRV = re.compile(r'(_submissions?)\._tcp\.%s 3600 IN SRV (\d+) 1 (\d+) %s' % (NAME, NAME))
CERT = '--ssl-cert=/cert.pem'


def outgoing(text):
    """The outgoing servers of a file, each as a dict."""
    root = ElementTree.fromstring(text.encode('utf-8'))
    assert (root.tag, root.get('version')) == ('clientConfig', '1.1')
    provider, = root
    assert provider.tag == 'emailProvider' and provider.get('id') == provider.findtext('domain')
    assert provider.find('incomingServer').get('type') == 'imap'
    found = []
    for element in provider.findall('outgoingServer'):
        assert element.get('type') == 'smtp'
        found.append({child.tag: child.text for child in element})
    return found


@pytest.mark.parametrize('mode, cram, socket, authentication', [
    ('', True, 'plain', 'password-encrypted'),
    ('', False, 'plain', 'password-cleartext'),
    ('ssl', True, 'SSL', 'password-cleartext'),
    ('on', True, 'STARTTLS', 'password-cleartext'),
    ('optional', True, 'STARTTLS', 'password-cleartext'),
    ('localoptional', False, 'STARTTLS', 'password-cleartext'),
])
def test_document_of_one_server(mode, cram, socket, authentication):
    server = Server('mail.example.net', 587, mode)
    text = document('example.net', 'Example', [server], 'alice', cram)
    assert outgoing(text) == [{'hostname': 'mail.example.net', 'port': '587', 'socketType': socket,
                               'authentication': authentication, 'username': 'alice'}]


def test_document_escapes_what_was_typed():
    text = document('a<b.example', '"R&D" <x>', [Server('h&st', 1, '')], "o'<user>", True)
    server, = outgoing(text)
    assert (server['hostname'], server['username']) == ('h&st', "o'<user>")
    assert ElementTree.fromstring(text.encode()).findtext('.//displayName') == '"R&D" <x>'


def test_document_has_names_as_the_dns_has_them():
    server = Server('mäil.example.net', 465, 'ssl')
    text = document('exämple.net', 'Exämple', [server], 'a', True)
    assert outgoing(text)[0]['hostname'] == 'xn--mil-qla.example.net'
    assert '<domain>xn--exmple-cua.net</domain>' in text


def test_all_modes_of_a_port_have_a_word():
    assert set(mailclient.SECURITY) == set(LISTENER_MODES.values()) >= set(TLS_MODES)


def test_records():
    found = records('exämple.net', [Server('mail.example.net', 465, 'ssl'),
                                    Server('mail.example.net', 587, 'on'),
                                    Server('localhost', 8025, '')])
    assert [SRV.fullmatch(line).groups() for line in found[:2]] == [
        ('_submissions', 'xn--exmple-cua.net', '0', '465', 'mail.example.net'),
        ('_submission', 'xn--exmple-cua.net', '1', '587', 'mail.example.net')]
    assert found[2].startswith('; localhost:8025')


@pytest.mark.parametrize('command, expected', [
    ('', [('FQDN', 8025, '')]),
    ('-p :8025', [('FQDN', 8025, '')]),
    ('-p 0.0.0.0:25 -6 :::26', [('FQDN', 25, ''), ('FQDN', 26, '')]),
    ('-p [::1]:8025', [('::1', 8025, '')]),
    (f'-p mail.example:465/ssl -p :587/tls {CERT}',
     [('mail.example', 465, 'ssl'), ('FQDN', 587, 'on')]),
    (f'--tls=optional -p a:1 -p b:2/plain {CERT}', [('a', 1, 'optional'), ('b', 2, '')]),
])
def test_servers_of_options(monkeypatch, command, expected):
    monkeypatch.setattr(mailclient, 'fqdn', lambda: 'localhost')
    assert [('FQDN' if host == 'localhost' else host, port, mode)
            for host, port, mode in servers(parse(command.split()))] == expected


def test_servers_where_the_name_is_not_of_this_host(monkeypatch):
    monkeypatch.setattr(mailclient, 'fqdn', lambda: 'nohost.invalid')
    assert servers(parse([])) == [Server('localhost', 8025, '')]


@pytest.mark.parametrize('command', [
    'tmda-ofmipd',
    'tmda-ofmipd -p :465/ssl -6 ::1:587/tls -p localhost:25/plain --ssl-cert=/c --ssl-key=/k',
    "tmda-ofmipd -a /x -A '/bin/check a b' -R imap://h -m id --fallback",
    'tmda-ofmipd --tls=on --ssl-cert=/c --ciphers=HIGH --pure-proxy',
])
def test_start_command_means_the_same(command):
    import shlex
    options = parse(shlex.split(command)[1:])
    shown = start_command(options)
    assert vars(parse(shlex.split(shown)[1:])) == vars(options)
    assert shown.split()[0] == 'tmda-ofmipd'


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    return make_home(tmp_path)


@needs_account
def test_autoconfig_alone(home, capsys):
    assert main(['--autoconfig', '--address=bobby@example.net', '--name=Example',
                 '-p', 'mail.example.net:587/tls', '--ssl-cert=/c']) == 0
    printed = capsys.readouterr().out
    text, _, rest = printed.partition('\n; ')
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>')
    assert outgoing(text)[0]['hostname'] == 'mail.example.net'
    assert 'https://autoconfig.example.net/mail/config-v1.1.xml' in rest
    assert SRV.search(rest).group(1, 4) == ('_submission', '587')
    assert sorted(os.listdir(home)) == ['.tmda']


@needs_account
def test_autoconfig_takes_the_domain_of_the_configuration(home, capsys):
    (home / '.tmda' / 'config').write_text("HOSTNAME = 'conf.example'\n")
    assert main(['--autoconfig', '-p', 'mail.example.net:8025']) == 0
    text = capsys.readouterr().out.partition('\n; ')[0]
    assert '<domain>conf.example</domain>' in text
    assert outgoing(text)[0]['authentication'] == 'password-encrypted'


@pytest.mark.parametrize('arguments, name', [
    (['-S', '/bin/true'], '%EMAILADDRESS%'),
    (['-c', '/'], '%EMAILLOCALPART%'),
])
def test_autoconfig_user_name_for_many(arguments, name):
    from TMDA.ofmipd.autoconfig import user_name
    assert user_name(parse(arguments)) == name


@pytest.mark.parametrize('arguments, complaint', [
    (['--autoconfig', '--address=nobody'], "'nobody' is no mail address"),
    (['--autoconfig', '--check'], '--autoconfig goes with --setup, or alone'),
])
def test_autoconfig_misused(capsys, arguments, complaint):
    assert main(arguments) == 64
    assert capsys.readouterr().err == 'tmda-ofmipd: %s\n' % complaint
