# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtual users: names that may come in, whose domain it is, and what the script may print."""
import pytest

from TMDA.inject.reply import ReplyError
from TMDA.ofmipd.accounts import UnsafeLogin
from TMDA.ofmipd.vhome import Domains, VirtualHomes, VirtualUser, split_login

VIRTUALDOMAINS = '''
# comment:nobody
special@example.com:carol
example.com:alice
.example.com:bob
 Other.Example.org : dave
example.com:late
gone.example.net:
gone.example.net:late
no colon
'''


@pytest.mark.parametrize('text, user', [
    ('ann@example.com', ('ann', 'example.com')),
    (' Ann@Example.COM ', ('ann', 'example.com')),
    ('ann-list@sub.example.com', ('ann-list', 'sub.example.com')),
])
def test_login_is_split(text, user):
    assert split_login(text) == user


@pytest.mark.parametrize('text', [
    'ann', '', '@', 'ann@', '@example.com', 'a@b@example.com', '../ann@example.com',
    '..@example.com',
    '-ann@example.com', 'ann@-example.com', 'ann@../x', 'ann@.example.com', 'ann@a..b', 'ann@a/b',
    'ann@a b', 'a\0b@example.com', 'a\nb@example.com', 'ann@' + 'x' * 254,
    'x' * 256 + '@example.com',
])
def test_login_that_is_unsafe_is_refused(text):
    with pytest.raises(UnsafeLogin):
        split_login(text)


@pytest.fixture
def domains(tmp_path):
    path = tmp_path / 'virtualdomains'
    path.write_text(VIRTUALDOMAINS)
    return Domains(str(path))


@pytest.mark.parametrize('login, owner', [
    ('ann@example.com', 'alice'), ('ann@EXAMPLE.com', 'alice'), ('special@example.com', 'carol'),
    ('ann@sub.example.com', 'bob'), ('special@sub.example.com', 'bob'),
    ('ann@other.example.org', 'dave'),
])
def test_owner_is_that_of_the_first_matching_line(domains, login, owner):
    assert domains.owner(split_login(login)) == owner


@pytest.mark.parametrize('login', [
    'ann@example.net', 'ann@notexample.com', 'comment@comment', 'ann@gone.example.net',
    'ann@nocolon',
])
def test_owner_of_an_unknown_domain_is_a_temporary_failure(domains, login):
    with pytest.raises(ReplyError) as caught:
        domains.owner(split_login(login))
    assert caught.value.reply.code == 454
    assert login in caught.value.cause


def test_owner_without_the_file_is_a_temporary_failure(tmp_path):
    with pytest.raises(ReplyError) as caught:
        Domains(str(tmp_path / 'none')).owner(VirtualUser('a', 'b'))
    assert caught.value.reply.code == 454


def homes(tmp_path, body, seconds=10):
    """VirtualHomes with a shell script of that body."""
    script = tmp_path / 'script'
    script.write_text('#!/bin/sh\n' + body)
    script.chmod(0o755)
    return VirtualHomes(str(script), seconds, {'PATH': '/usr/bin:/bin', 'TCPLOCALIP': '192.0.2.9'})


def test_home_is_what_the_script_prints(tmp_path):
    user = homes(tmp_path, 'echo "/vhome/$2/$1"').user('Ann@example.com', '192.0.2.1')
    assert (user.login, user.home) == ('Ann@example.com', '/vhome/example.com/ann')
    assert user.config_file == '/vhome/example.com/ann/.tmda/config'
    assert user.environ == {
        'PATH': '/usr/bin:/bin', 'HOME': user.home, 'LOGIN': 'Ann@example.com', 'USER': 'ann',
        'LOGNAME': 'ann', 'MAILHOST': 'example.com', 'TCPLOCALIP': '192.0.2.1'}


def test_home_script_gets_arguments_without_a_shell(tmp_path):
    printed = tmp_path / 'arguments'
    virtual = homes(tmp_path, 'printf "%%s\\n" "$#" "$@" >%s; echo /x' % printed)
    virtual.user("$(touch pwned)'\"*@example.com")
    assert printed.read_text() == '2\n$(touch pwned)\'"*\nexample.com\n'


@pytest.mark.parametrize('body, cause', [
    ('exit 0', 'no home printed'),
    ('echo /x; exit 3', 'exit status 3'),
    ('echo relative/path', 'not an absolute path'),
    ('printf "/a\\n/b\\n"', 'more than one line'),
    ('printf "/a\\033[2J\\n"', 'more than one line'),
    ('while :; do echo /xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done', 'timed out'),
    ('kill -9 $$', 'exit status -9'),
])
def test_home_script_that_fails_is_a_temporary_failure(tmp_path, body, cause):
    with pytest.raises(ReplyError) as caught:
        homes(tmp_path, body, 0.5).user('ann@example.com')
    assert caught.value.reply.code == 454
    assert cause in caught.value.cause


@pytest.mark.parametrize('body', ['sleep 600', 'sleep 600 & wait', 'exec >&-; sleep 600'])
def test_home_script_that_hangs_is_ended(tmp_path, body):
    with pytest.raises(ReplyError, match='timed out'):
        homes(tmp_path, body, 0.1).user('ann@example.com')


def test_home_script_that_is_missing_is_a_temporary_failure(tmp_path):
    with pytest.raises(ReplyError) as caught:
        VirtualHomes(str(tmp_path / 'none'), 1, {}).user('ann@example.com')
    assert caught.value.reply.code == 454
