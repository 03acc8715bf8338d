# SPDX-License-Identifier: GPL-2.0-or-later
"""The option table and what parse() makes of a command line (mistakes: tests/badconfig)."""
import os

import pytest

from TMDA.inject.limits import LIMITS
from TMDA.ofmipd import options
from TMDA.ofmipd.failure import USAGE, UsageError
from TMDA.ofmipd.options import ListenSpec, Options, Source, help_text, ordered_sources, parse

# Every option letter and word of TMDA 1.1.12 and 1.3.
CLASSIC = '''
    -V --version -h --help -d --debug -L --log -b --background -f --foreground -u --username
    -c --configdir -p --proxyport -6 --ipv6proxyport -C --connections -1 --one-session
    -P --pure-proxy -t --throttle-script --ssl --tls --ssl-cert --ssl-key --ssl-dh --ciphers
    --ssl-no-v2 --ssl-no-v3 -a --authfile -A --authprog -R --remoteauth -m --pamauth
    -F --fallback -S --vhome-script -v --vdomains-path
'''.split()


def changed(command):
    """What a command line changes, as a dict."""
    result, default = parse(command.split()), Options()
    return {name: value for name, value in vars(result).items() if value != getattr(default, name)}


@pytest.mark.parametrize('command, expected', [
    ('', {}),
    ('-d', {'debug': True}),
    ('--debug --log', {'debug': True, 'log': True}),
    ('-f', {'background': False}),
    ('-f -b', {}),
    ('-dLf', {'debug': True, 'log': True, 'background': False}),
    ('--fore', {'background': False}),
    ('--version', {'short_version': True}),
    ('-V', {'version': True}),
    ('-u mail', {'username': 'mail'}),
    ('-umail -1', {'username': 'mail', 'one_session': True}),
    ('--username=mail', {'username': 'mail'}),
    ('--username mail', {'username': 'mail'}),
    ('--user mail', {'username': 'mail'}),
    ('--ciphers=', {}),
    ('--log', {'log': True}),
    ('-C 20', {'sessions': 20}),
    ('-fC20', {'background': False, 'sessions': 20}),
    ('--connections=20', {'sessions': 20}),
    ('--timeout=600 --recipients=50', {'command_seconds': 600, 'recipients': 50}),
    ('--message-size=5M', {'message_size': 5 * 1024 * 1024}),
    ('--message-size=70k', {'message_size': 70 * 1024}),
    ('--message-size=1000', {'message_size': 1000}),
    ('--ssl-no-v2 --ssl-no-v3', {'ssl_no_v2': True, 'ssl_no_v3': True}),
    ('--tls=on --ssl-cert=/c', {'tls': 'on', 'ssl_cert': '/c'}),
    ('-a /etc/x -c /d', {'sources': (Source('file', '/etc/x'),), 'configdir': '/d'}),
    ('-R imap -m mail', {'sources': (Source('remote', 'imap'), Source('pam', 'mail'))}),
    ('-S /v -v /w', {'vhome_script': '/v', 'vdomains_path': '/w'}),
    ('--workers=4 -P -F', {'workers': 4, 'pure_proxy': True, 'fallback': True}),
    ('--explain a@b --from=c@d', {'explain': 'a@b', 'sender': 'c@d'}),
    ('--password bob', {'password': 'bob'}),
    ('-f --', {'background': False}),
])
def test_parse(command, expected):
    assert changed(command) == expected


@pytest.mark.parametrize('argument, expected', [
    ('-plocalhost:8025', ('localhost:8025', 'localhost', 8025, False, None)),
    ('-p:8025', (':8025', '', 8025, False, None)),
    ('-p[::1]:8025', ('[::1]:8025', '::1', 8025, True, None)),
    ('-p:465/ssl', (':465', '', 465, False, 'ssl')),
    ('-p:587/tls', (':587', '', 587, False, 'on')),
    ('-p:587/tls=optional', (':587', '', 587, False, 'optional')),
    ('-p:587/tls=localoptional', (':587', '', 587, False, 'localoptional')),
    ('-p:8025/plain', (':8025', '', 8025, False, '')),
    ('-6::1:8025', ('::1:8025', '::1', 8025, True, None)),
    ('-6[::1]:8025/plain', ('[::1]:8025', '::1', 8025, True, '')),
    ('-6:8025', (':8025', '', 8025, True, None)),
    ('-6host:0', ('host:0', 'host', 0, True, None)),
])
def test_parse_listener(argument, expected):
    assert parse([argument, '--ssl-cert=x']).listeners == (ListenSpec(*expected),)


def test_parse_repeated_listeners_keep_their_order():
    found = parse(['-p', 'b:2', '-6', '::1:3', '-p', 'a:1']).listeners
    assert [spec.text for spec in found] == ['b:2', '::1:3', 'a:1']


def test_parse_relative_paths_become_absolute(monkeypatch):
    monkeypatch.setenv('HOME', '/home/alice')
    result = parse(['-a', 'x', '-t', '~/y', '-A', 'bin/check "a b" c', '--ssl-cert=../z'])
    here = os.getcwd()
    assert result.sources == (Source('file', here + '/x'),
                              Source('authprog', here + '/bin/check "a b" c'))
    assert result.throttle_script == '/home/alice/y'
    assert result.ssl_cert == os.path.abspath('../z')


@pytest.mark.parametrize('command', ['checkpassword-pam -s id', '/bin/check a/b', '"a/b c" d'])
def test_parse_other_programs_stay_as_written(command):
    assert parse(['-A', command]).sources == (Source('authprog', command),)


def test_parse_networks():
    found = parse(['--proxy-protocol=127.0.0.1,10.0.0.0/8', '--proxy-protocol', '::1']).proxy_protocol
    assert [str(network) for network in found] == ['127.0.0.1/32', '10.0.0.0/8', '::1/128']


def test_parse_usage_error_has_its_status():
    with pytest.raises(UsageError) as caught:
        parse(['--none'])
    assert caught.value.status == USAGE == 64


@pytest.mark.parametrize('command, kinds', [
    ('', ['file:/default']),
    ('-a /x', ['file:/x']),
    ('-R imap', ['remote:imap']),
    ('-a /x -A check -R imap -m id', ['file:/x', 'authprog:check', 'remote:imap', 'pam:id']),
    ('-F', ['file:/default']),
    ('-F -R imap', ['remote:imap', 'file:/default']),
    ('-F -a /x -A check -R imap', ['remote:imap', 'authprog:check', 'file:/x']),
    ('-F -a /x -a /y', ['file:/x', 'file:/y']),
    ('-F -A one -R imap -A two', ['authprog:one', 'remote:imap', 'authprog:two', 'file:/default']),
])
def test_ordered_sources(command, kinds):
    assert ['%s:%s' % source for source in ordered_sources(parse(command.split()), '/default')] \
        == kinds


def test_options_are_a_value():
    result = Options(debug=True)
    with pytest.raises(AttributeError):
        result.debug = False
    with pytest.raises(TypeError, match='no such option: speed'):
        Options(speed=1)


def test_options_limits():
    limits = parse(['-C', '5', '--timeout=7']).limits
    assert (limits.sessions, limits.command_seconds, limits.recipients) == (5, 7, 1000)


@pytest.mark.parametrize('command, mode, wants', [
    ('', '', False),
    ('--ssl --ssl-cert=x', 'ssl', True),
    ('--tls=on --ssl-cert=x', 'on', True),
    ('-p :1/ssl --ssl-cert=x', '', True),
    ('-p :1/plain', '', False),
])
def test_options_tls(command, mode, wants):
    result = parse(command.split())
    assert (result.tls_mode, result.wants_tls) == (mode, wants)


def test_table_has_all_classic_options():
    flags = [flag for row in options.OPTIONS for flag in row.flags]
    assert len(flags) == len(set(flags))
    assert set(CLASSIC) <= set(flags)


def test_table_has_all_limits_with_an_option():
    flags = {flag for row in options.OPTIONS if row.group == 'Limits' for flag in row.flags}
    assert {row.option for row in LIMITS if row.option} <= flags


def test_table_is_whole():
    for row in options.OPTIONS:
        assert row.group in options.GROUPS
        assert row.kind in options._READERS
        assert bool(row.argument) is (row.kind not in ('flag', 'clear'))
        assert row.meaning[0].isupper() and row.meaning.endswith('.'), row.flags


def test_help_shows_every_option_in_its_group():
    text = help_text()
    assert all(len(line) < 80 for line in text.split('\n'))
    groups = text.split('\n\n')[1:]
    assert [group.split(':')[0] for group in groups] == list(options.GROUPS)
    for row in options.OPTIONS:
        flags = ', '.join(row.flags)
        assert flags in groups[options.GROUPS.index(row.group)]
