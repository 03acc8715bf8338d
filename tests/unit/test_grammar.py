# SPDX-License-Identifier: GPL-2.0-or-later
import random

import pytest

from TMDA.inject.envelope import Recipient
from TMDA.inject.reply import ReplyError
from TMDA.ofmipd.grammar import Mail, parse_mail, parse_rcpt, split_command


def code(function, *arguments):
    """The code and enhanced code of the refusal."""
    with pytest.raises(ReplyError) as caught:
        function(*arguments)
    return '%d %s' % caught.value.reply[:2]


@pytest.mark.parametrize('line, expected', [
    (b'NOOP\r\n', ('NOOP', b'')),
    (b'noop\n', ('NOOP', b'')),
    (b'DATA \t\r\n', ('DATA', b'')),
    (b'  QUIT\r\n', ('QUIT', b'')),
    (b'MAIL FROM:<a@b>  \r\n', ('MAIL', b'FROM:<a@b>')),
    (b'mail\tFROM:<a b>\r\n', ('MAIL', b'FROM:<a b>')),
    (b'\xc3\xa9 x\r\n', ('\xc9', b'x')),
    (b'\xff\r\n', ('\ufffd', b'')),
])
def test_command_is_split(line, expected):
    assert split_command(line) == expected


@pytest.mark.parametrize('line', [
    b'\r\n', b'\n', b'   \r\n', b'NOOP\r\r\n', b'MAIL FROM:<a\0@b>\r\n', b'MAIL\rRCPT\r\n',
    b'HELO \x1b[31m\r\n', b'NOOP\x7f\r\n', b'NOOP\x0b\r\n',
])
def test_command_empty_or_with_controls(line):
    assert code(split_command, line) == '500 5.5.2'


ADDRESSES = {  # what is written -> the address
    b'<a@b>': 'a@b',
    b'<a@b.example>': 'a@b.example',
    b'< a@b >': 'a@b',
    b'a@b': 'a@b',
    b'<a.b+c-d_e=f@g.example>': 'a.b+c-d_e=f@g.example',
    b'<bobby-dated-1234.abcdef@example.org>': 'bobby-dated-1234.abcdef@example.org',
    b'<-oQ/tmp@b>': '-oQ/tmp@b',
    b'<a..b.@docomo.example>': 'a..b.@docomo.example',
    b'<@relay.example:a@b>': 'a@b',
    b'<@one.example,@two.example:a@b>': 'a@b',
    b'<a@[192.0.2.1]>': 'a@[192.0.2.1]',
    b'<a@[IPv6:2001:db8::1]>': 'a@[IPv6:2001:db8::1]',
    b'<"a b"@c>': '"a b"@c',
    b'<"a@b"@c>': '"a@b"@c',
    b'<"a\\"b<>"@c>': '"a\\"b<>"@c',
    b'<""@c>': '""@c',
    b'<postmaster>': 'postmaster',
    b'<a@host_name.example>': 'a@host_name.example',
    b"<!#$%&'*+-/=?^_`{|}~@b>": "!#$%&'*+-/=?^_`{|}~@b",
}
NO_ADDRESSES = [
    b'', b'postmaster', b'SIZE=1', b'<', b'>', b'<a@b', b'a@b>', b'<<a@b>>', b'<a@b>>',
    b'<a b@c>', b'<a@b c>', b'<a@b><c@d>',
    b'<a@b>,<c@d>', b'<a@@b>', b'<@b>', b'<a@>', b'<a@.b>', b'<a@b..c>', b'<a@b.>', b'<a@b>x',
    b'<a@[1.2.3>', b'<a@1.2.3]>', b'<"a@b>', b'<a"b@c>', b'<a\\b@c>', b'<a(c)@b>', b'<a;b@c>',
    b'<a:b@c>', b'<@x:>x', b'<a@b>\x01', b'<\xff@b>', b'<a@\xc3>', b'Bobby <a@b>', b'<"a\tb"@c>',
    b'<a\xc2\xa0b@c>', b'<a\xe2\x80\xa8b@c>', b'<a\xc2\x85b@c>', b'<a@b\xc2\x9f>',
    b'<"a\xe2\x80\xa8b"@c>', b'<a@[\xc3\xa9]>', b'<a@[1<2]>', b'<a@[1>2]>',
]


@pytest.mark.parametrize('written, address', ADDRESSES.items())
def test_address_in_mail_and_rcpt(written, address):
    assert parse_mail(b'FROM:' + written) == Mail(address)
    assert parse_mail(b'From : ' + written + b' SIZE=5') == Mail(address, 5)
    assert parse_rcpt(b'to:\t' + written) == Recipient(address)


@pytest.mark.parametrize('written', NO_ADDRESSES)
def test_address_syntax_error(written):
    # With SMTPUTF8, so that nothing is refused only because it is not ASCII.
    assert code(parse_mail, b'FROM:' + written + b' SMTPUTF8') in ('501 5.1.7', '501 5.5.4')
    assert code(parse_rcpt, b'TO:' + written, True) in ('501 5.1.3', '501 5.5.4')


@pytest.mark.parametrize('argument', [b'<a@b>', b'FROM<a@b>', b'FROM', b'TO:<a@b>',
                                      b'FROMX:<a@b>'])
def test_mail_without_from(argument):
    assert code(parse_mail, argument) == '501 5.1.7'


def test_null_path_is_for_mail_only():
    assert parse_mail(b'FROM:<>') == Mail('')
    assert parse_mail(b'FROM: < >') == Mail('')
    assert code(parse_rcpt, b'TO:<>') == '501 5.1.3'


def test_address_beyond_ascii_needs_smtputf8():
    address = '<ünal@bücher.example>'.encode()
    assert code(parse_mail, b'FROM:' + address) == '553 5.6.7'
    assert code(parse_mail, b'FROM:' + address + b' SIZE=1') == '553 5.6.7'
    assert code(parse_rcpt, b'TO:' + address) == '553 5.6.7'
    mail = parse_mail(b'FROM:' + address + b' smtputf8')
    assert mail == Mail('ünal@bücher.example', smtputf8=True)
    assert parse_rcpt(b'TO:' + address, True) == Recipient('ünal@bücher.example')


@pytest.mark.parametrize('parameters, expected', [
    (b'SIZE=1000', Mail('a@b', 1000)),
    (b'size=0', Mail('a@b')),
    (b'SIZE=99999999999999999999', Mail('a@b', 99999999999999999999)),
    (b'BODY=8bitmime SIZE=7', Mail('a@b', 7, '8BITMIME')),
    (b'BODY=7BIT', Mail('a@b', 0, '7BIT')),
    (b'SMTPUTF8\tBODY=8BITMIME', Mail('a@b', 0, '8BITMIME', True)),
    (b'AUTH=<>', Mail('a@b')),
    (b'AUTH=e+2Bmc2@example.com', Mail('a@b')),
    (b'RET=hdrs ENVID=QQ314159', Mail('a@b', ret='HDRS', envid='QQ314159')),
    (b'RET=FULL ENVID=a+20b+7E', Mail('a@b', ret='FULL', envid='a+20b+7E')),
])
def test_mail_parameters(parameters, expected):
    assert parse_mail(b'FROM:<a@b> ' + parameters, dsn=True) == expected
    assert parse_mail(b'FROM:a@b  ' + parameters, dsn=True) == expected


@pytest.mark.parametrize('parameters, expected', [
    (b'SIZE', '501 5.5.4'), (b'SIZE=', '501 5.5.4'), (b'SIZE=x', '501 5.5.4'),
    (b'SIZE=-1', '501 5.5.4'), (b'SIZE=123456789012345678901', '501 5.5.4'),
    (b'SIZE=\xd9\xa1', '501 5.5.4'), (b'SIZE=1 SIZE=1', '501 5.5.4'),
    (b'BODY=BINARYMIME', '501 5.5.4'), (b'BODY', '501 5.5.4'), (b'SMTPUTF8=1', '501 5.5.4'),
    (b'=1', '501 5.5.4'), (b'SIZE=1=2', '501 5.5.4'), (b'-X=1', '501 5.5.4'),
    (b'RET=ALL', '501 5.5.4'), (b'ENVID=a=b', '501 5.5.4'), (b'ENVID=a+0Ab', '501 5.5.4'),
    (b'ENVID=' + b'x' * 101, '501 5.5.4'), (b'ENVID=a+b', '501 5.5.4'),
    (b'XFOO', '555 5.5.4'), (b'XFOO=1', '555 5.5.4'), (b'NOTIFY=NEVER', '555 5.5.4'),
])
def test_mail_parameters_refused(parameters, expected):
    assert code(parse_mail, b'FROM:<a@b> ' + parameters, True) == expected


@pytest.mark.parametrize('parameters, expected', [
    (b'NOTIFY=never', Recipient('a@b', 'NEVER')),
    (b'NOTIFY=SUCCESS,failure,DELAY', Recipient('a@b', 'SUCCESS,FAILURE,DELAY')),
    (b'ORCPT=rfc822;a+2Bc@b', Recipient('a@b', '', 'rfc822;a+2Bc@b')),
    (b'ORCPT=utf-8;a@b NOTIFY=DELAY', Recipient('a@b', 'DELAY', 'utf-8;a@b')),
])
def test_rcpt_parameters(parameters, expected):
    assert parse_rcpt(b'TO:<a@b> ' + parameters, dsn=True) == expected


@pytest.mark.parametrize('parameters, expected', [
    (b'NOTIFY=NEVER,DELAY', '501 5.5.4'), (b'NOTIFY=', '501 5.5.4'), (b'NOTIFY=SOON', '501 5.5.4'),
    (b'ORCPT=a@b', '501 5.5.4'), (b'ORCPT=rfc822;', '501 5.5.4'), (b'SIZE=1', '555 5.5.4'),
])
def test_rcpt_parameters_refused(parameters, expected):
    assert code(parse_rcpt, b'TO:<a@b> ' + parameters, False, True) == expected


def test_orcpt_beyond_ascii_needs_smtputf8():
    argument = 'TO:<a@b> ORCPT=utf-8;ü@b'.encode()
    assert parse_rcpt(argument, True, True).orcpt == 'utf-8;ü@b'
    assert code(parse_rcpt, argument, False, True) == '553 5.6.7'


@pytest.mark.parametrize('parameters', [b'RET=HDRS', b'ENVID=x'])
def test_dsn_parameters_where_not_offered(parameters):
    assert code(parse_mail, b'FROM:<a@b> ' + parameters) == '555 5.5.4'
    assert code(parse_rcpt, b'TO:<a@b> NOTIFY=NEVER') == '555 5.5.4'


def test_random_lines_give_values_or_refusals():
    """Whatever comes, there is no other exception, and no address could leave its line."""
    chance = random.Random(20240815)
    pieces = [b'FROM:', b'TO:', b'<', b'>', b'a', b'@', b'b.c', b'"', b'\\', b' ', b'\t', b'\r',
              b'\0', b'SIZE=', b'9', b'\xc3\xa9', b'\xff', b':', b',', b'[', b']', b'=',
              b'NOTIFY=NEVER']
    for _ in range(20000):
        line = b''.join(chance.choices(pieces, k=chance.randint(0, 12)))
        for parse in (parse_mail, parse_rcpt):
            try:
                parsed = parse(line, True) if parse is parse_mail else parse(line, True, True)
            except ReplyError as error:
                assert error.reply.code in (501, 553, 555)
                continue
            address = parsed[0] if parse is parse_mail else parsed.address
            assert not set(address) & set('\r\n\0\t')
            if '"' not in address:
                assert not set(address) & set('<> ,;:')


@pytest.mark.parametrize('argument', [
    b'FROM:<' + b'a' * 2000, b'FROM:<@' + b'a.' * 1000, b'FROM:<' + b'@a,' * 600,
    b'FROM:"' + b'\\a' * 1000, b'FROM:<a@' + b'b.' * 1000 + b'>', b'FROM:' + b'"" ' * 600,
])
def test_long_nonsense_is_refused_at_once(argument):
    from time import perf_counter
    started = perf_counter()
    code(parse_mail, argument)
    assert perf_counter() - started < 0.1
