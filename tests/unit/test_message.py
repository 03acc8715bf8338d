"""Header fields keep their octets; the header ends where mail systems agree that it ends."""

import pytest

from TMDA.inject.message import LINE_LIMIT, Header, Message, clean_value, split_header
from TMDA.inject.reply import ReplyError
from TMDA.inject.spool import Spool


def read(data, limit=10 ** 6):
    spool = Spool(10 ** 6)
    spool.write(data)
    return Message.read(spool, limit)


def whole(message):
    return message.header.to_bytes() + message.separator + b''.join(message.body.chunks())


@pytest.mark.parametrize('data', [
    b'A: 1\r\nB: 2\r\n\r\nbody\r\n',
    b'A: 1\r\n folded\r\n\tagain\r\nB:no blank\r\n\r\n\r\nbody',
    b'A: 1\r\n\r\n',
    b'A: 1\r\n',
    b'Subject : blank before the colon\r\n\r\nx\r\n',
    b'\r\nonly a body\r\n',
    b'A: \xff\x00\x80\r\n\r\n\x00',
])
def test_message_that_is_not_edited_keeps_its_octets(data):
    assert whole(read(data)) == data


@pytest.mark.parametrize('data, expected', [
    (b'no header at all\r\nmore\r\n', b'\r\nno header at all\r\nmore\r\n'),
    (b'A: 1\r\nthis is no field\r\nB: 2\r\n', b'A: 1\r\n\r\nthis is no field\r\nB: 2\r\n'),
    (b'A: 1', b'A: 1\r\n'),
    (b'From someone Fri Nov 22\r\nA: 1\r\n\r\nx', b'A: 1\r\n\r\nx'),
    (b' starts with a blank\r\n\r\nx', b'\r\n starts with a blank\r\n\r\nx'),
    (b'', b''),
])
def test_header_that_ends_in_an_odd_way_is_ended_properly(data, expected):
    assert whole(read(data)) == expected


def test_header_beyond_the_limit_is_refused():
    with pytest.raises(ReplyError) as caught:
        read(b'A: ' + b'x' * 100 + b'\r\n\r\n', limit=50)
    assert caught.value.reply.code == 552


def test_header_at_the_limit_is_taken():
    data = b'A: ' + b'x' * 43 + b'\r\n\r\nbody'
    assert whole(read(data, limit=50)) == data


def test_get_unfolds_and_ignores_case():
    header = Header(split_header(b'sUBJECT: one\r\n\t two\r\nX:y\r\n')[0])
    assert header.get('Subject') == b'one two'
    assert header.get('x') == b'y'
    assert header.get('absent') is None


def test_set_edits_in_place_and_replace_moves_to_the_end():
    header = Header(split_header(b'A: 1\r\nB: 2\r\nA: 3\r\n')[0])
    header.set('a', b'9')
    assert header.to_bytes() == b'a: 9\r\nB: 2\r\nA: 3\r\n'
    header.replace('A', b'8')
    assert header.to_bytes() == b'B: 2\r\nA: 8\r\n'


def test_copy_is_independent():
    header = Header(split_header(b'A: 1\r\n')[0])
    header.copy().remove('A')
    assert header.get('A') == b'1'


def test_long_value_is_folded_at_blanks_only():
    header = Header([])
    header.add('X', b' '.join([b'word'] * 400))
    lines = header.to_bytes().split(b'\r\n')
    assert len(lines) > 2 and max(map(len, lines)) <= LINE_LIMIT
    assert header.get('X') == b' '.join([b'word'] * 400)


@pytest.mark.parametrize('value, expected', [
    (b'a\r\nBcc: x', b'a Bcc: x'),
    (b'a\nb\rc\0d', b'a b c d'),
    (b'  plain  ', b'plain'),
])
def test_clean_value_cannot_start_a_new_line(value, expected):
    assert clean_value(value) == expected
