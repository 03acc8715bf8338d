# SPDX-License-Identifier: GPL-2.0-or-later
"""Which logins are safe, and whose home and configuration they mean."""
import os
import pwd

import pytest

from TMDA.inject.reply import ReplyError
from TMDA.ofmipd.accounts import Accounts, UnsafeLogin, login_name, own_home

ME = pwd.getpwuid(os.geteuid()).pw_name
OTHER = next((entry for entry in pwd.getpwall() if entry.pw_uid != os.geteuid()), None)


@pytest.mark.parametrize('text, login', [
    ('bobby', 'bobby'),
    ('Bobby', 'bobby'),
    ('bobby@example.org', 'bobby@example.org'),
    ('ÜNAL', 'ünal'),
    ('a.b-c_d', 'a.b-c_d'),
    ('...', '...'),
    ('two words', 'two words'),
    ('x' * 255, 'x' * 255),
])
def test_login_name_safe(text, login):
    assert login_name(text) == login


@pytest.mark.parametrize('text', [
    '', '.', '..', '/', '/etc/passwd', '../alice', 'a/b', 'a\0', '\0', 'a\nb', 'a\r', '\x1b', '\x7f',
    'a\x85b', '\x9b', '\u2028', '\u202e', '\ufeff', '\udcff', ' bobby', 'bobby ', '\tbobby', '-rf',
    '--help', 'x' * 256, 'ü' * 128,
])
def test_login_name_unsafe(text):
    with pytest.raises(UnsafeLogin):
        login_name(text)


def accounts(configdir='', **environ):
    return Accounts(configdir, dict({'HOME': '/home/alice', 'USER': 'alice', 'PATH': '/bin'},
                                    **environ))


def test_user_second_login_belongs_to_the_own_account():
    user = accounts().user('alices-telephone', '192.0.2.1')
    assert (user.login, user.home) == ('alices-telephone', '/home/alice')
    assert user.config_file == '/home/alice/.tmda/config'
    assert user.environ == {'HOME': '/home/alice', 'USER': 'alice', 'PATH': '/bin',
                            'LOGIN': 'alices-telephone', 'TCPLOCALIP': '192.0.2.1'}


def test_user_own_account_has_the_home_of_the_environment():
    assert accounts().user(ME).home == '/home/alice'


@pytest.mark.skipif(OTHER is None, reason='this host has one account')
def test_user_other_account_has_its_own_home():
    user = accounts().user(OTHER.pw_name)
    assert user.home == OTHER.pw_dir
    assert user.config_file == os.path.join(OTHER.pw_dir, '.tmda', 'config')
    assert user.environ['USER'] == user.environ['LOGNAME'] == OTHER.pw_name


def test_user_configdir_needs_no_account():
    user = accounts('/conf').user('no-account', '')
    assert (user.home, user.config_file) == ('/conf/no-account', '/conf/no-account/config')
    assert user.environ['HOME'] == '/conf/no-account'
    assert user.environ['USER'] == 'no-account'


@pytest.mark.skipif(OTHER is None, reason='this host has one account')
def test_user_configdir_account_keeps_its_home():
    user = accounts('/conf').user(OTHER.pw_name)
    assert (user.home, user.config_file) == (OTHER.pw_dir, '/conf/%s/config' % OTHER.pw_name)


def test_user_environment_is_without_the_daemons_own_variables():
    user = accounts(NOTIFY_SOCKET='/x', LISTEN_FDS='1', CREDENTIALS_DIRECTORY='/y',
                    TCPLOCALIP='192.0.2.99').user('phone')
    assert set(user.environ) == {'HOME', 'USER', 'PATH', 'LOGIN'}


def test_user_without_home_is_a_temporary_failure(monkeypatch):
    def unknown(uid):
        raise KeyError(uid)
    monkeypatch.setattr(pwd, 'getpwuid', unknown)
    with pytest.raises(ReplyError) as caught:
        Accounts('', {}).user('no-account')
    assert caught.value.reply.temporary
    assert caught.value.cause == 'no home directory for no-account'


def test_own_home_without_variable():
    assert own_home({}) == pwd.getpwuid(os.geteuid()).pw_dir
