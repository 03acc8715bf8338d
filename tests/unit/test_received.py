# SPDX-License-Identifier: GPL-2.0-or-later
import email.utils
import time

import pytest

from TMDA.ofmipd.client import Client
from TMDA.ofmipd.received import clean_name, compose, format_date, protocol
from TMDA.ofmipd.wire import TlsInfo


@pytest.fixture
def utc(monkeypatch):
    monkeypatch.setenv('TZ', 'UTC')
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def value(client, helo='client.example', tls=None):
    return compose(client, helo, 'mail.example.org', 'ESMTPA', '0123abcd', tls, 0)


def test_received_over_tls(utc):
    client = Client('192.0.2.7', 'host.example', 4711)
    assert value(client, tls=TlsInfo('TLSv1.3', 'TLS_AES_256_GCM_SHA384')) == (
        'from client.example (host.example [192.0.2.7])'
        ' (using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384)'
        ' by mail.example.org (tmda-ofmipd) with ESMTPA id 0123abcd; '
        'Thu, 1 Jan 1970 00:00:00 +0000')


@pytest.mark.parametrize('client, shown', [
    (Client('192.0.2.7'), '(unknown [192.0.2.7])'),
    (Client('2001:db8::1', 'six.example'), '(six.example [IPv6:2001:db8::1])'),
    (Client(), '(unknown)'),
    (Client('', 'only.a.name'), '(only.a.name)'),
    (Client('192.0.2.7', 'a) by evil (b'), '(a??by?evil??b [192.0.2.7])'),
])
def test_received_says_what_is_known_of_the_client(client, shown):
    assert value(client).startswith('from client.example %s by mail.example.org ' % shown)


@pytest.mark.parametrize('helo, shown', [
    ('[192.0.2.7]', '[192.0.2.7]'), ('[IPv6:::1]', '[IPv6:::1]'), ('my_pc', 'my_pc'),
    ('a\r\nBcc: x@y', 'a??Bcc:?x?y'), ('a (b); c', 'a??b???c'), ('\x1b[31m', '?[31m'),
    ('b\xfccher', 'b?cher'), ('x' * 1000, 'x' * 255), ('', 'unknown'), ('a\u2028b', 'a?b'),
])
def test_received_helo_is_made_harmless(helo, shown):
    assert value(Client('192.0.2.7'), helo).startswith('from %s (unknown ' % shown)


@pytest.mark.parametrize('facts, name', [
    ((False, False, False, False), 'SMTP'), ((True, False, False, False), 'ESMTP'),
    ((True, False, True, False), 'ESMTPA'), ((True, True, False, False), 'ESMTPS'),
    ((True, True, True, False), 'ESMTPSA'), ((False, True, True, False), 'ESMTPSA'),
    ((True, False, False, True), 'UTF8SMTP'), ((True, False, True, True), 'UTF8SMTPA'),
    ((True, True, False, True), 'UTF8SMTPS'), ((True, True, True, True), 'UTF8SMTPSA'),
])
def test_protocol_keyword(facts, name):
    assert protocol(*facts) == name


@pytest.mark.parametrize('zone', ['UTC', 'Europe/Berlin', 'America/New_York', 'Asia/Kolkata',
                                  'America/St_Johns'])
def test_date_is_what_the_library_makes(monkeypatch, zone):
    monkeypatch.setenv('TZ', zone)
    time.tzset()
    try:
        for moment in (0, 1162169425, 1720000000):
            ours = email.utils.parsedate_tz(format_date(moment))
            assert ours == email.utils.parsedate_tz(email.utils.formatdate(moment, localtime=True))
    finally:
        monkeypatch.undo()
        time.tzset()


def test_clean_name_keeps_names():
    assert clean_name('mail-1.example.org') == 'mail-1.example.org'
