"""The octets of a message: what TMDA does not touch arrives as it came.

Generated messages and a corpus of difficult ones go through tagging; the body must be the same to
the octet, and so must every header field that no rule names, in the same order and folding.
"""

import random

import pytest

from TMDA.inject import submit, transport
from TMDA.inject.envelope import Envelope, Recipient
from TMDA.inject.limits import Limits
from TMDA.inject.reply import Outcome, reply
from TMDA.inject.spool import Spool
from TMDA.inject.user import User

CHANGED = (b'from', b'received', b'date', b'message-id', b'x-submission-agent', b'bcc')

SIGNED = (b'Content-Type: multipart/signed; boundary="sig";\r\n protocol="application/pgp-signature"\r\n'
          b'\r\n--sig\r\nContent-Type:text/plain\r\nX-Trail: blanks   \r\n\r\nHello, =\r\nworld.  \r\n'
          b'-- \r\nAlice\r\n\r\n--sig  \r\nContent-Type: application/pgp-signature\r\n\r\nabc\r\n--sig--')

CORPUS = {
    'eight-bit': b'Subject: \xe4\xf6\r\n\r\ncaf\xc3\xa9 \xff\xfe \x00 \x80\r\n',
    'signed-multipart': SIGNED,
    'line-of-998-octets': b'X-Long: ' + b'x' * 990 + b'\r\n\r\n' + b'y' * 998 + b'\r\n',
    'line-of-100000-octets': b'Subject: x\r\n\r\n' + b'z' * 100000 + b'\r\n',
    'dots': b'Subject: x\r\n\r\n.\r\n..\r\n.hidden\r\n...\r\n',
    'from-lines': b'Subject: x\r\n\r\nFrom here on\r\n>From there\r\n',
    'no-final-newline': b'Subject: x\r\n\r\nno newline at the end',
    'empty-body': b'Subject: x\r\n\r\n',
    'header-only': b'Subject: x\r\n',
    'blank-lines': b'Subject: x\r\n\r\n\r\n\r\n\r\n',
    'odd-folding': b'Subject: one\r\n\t\ttwo\r\n     three  \r\nX:\r\n y\r\nZ:nothing\r\n\r\nbody\r\n',
    'duplicates': b'X-Dup: one\r\nX-Other: o\r\nx-dup:two\r\n\r\nbody\r\n',
    'long-unbroken': b'X-Token: ' + b'q' * 900 + b'\r\n\r\n.',
    'folded-to-blank-line': b'X: a\r\n \r\n b\r\n\r\nbody\r\n',
}


def generated_message(seed):
    """A message of random fields and a random body, CRLF line ends."""
    chance = random.Random(seed)

    def octets(most):
        alphabet = b'abc \t.:;<>"\\()@=?-\x00\x80\xff\x0b\x0c\x85'
        return bytes(chance.choice(alphabet) for _ in range(chance.randrange(most)))

    fields = []
    for _ in range(chance.randrange(8)):
        name = chance.choice([b'Subject', b'X-A', b'x-a', b'To', b'Cc', b'References', b'MIME-Version'])
        lines = [octets(60)] + [b'\r\n' + chance.choice([b' ', b'\t', b'  \t']) + octets(40)
                                for _ in range(chance.randrange(3))]
        fields.append(name + chance.choice([b':', b': ', b' :', b':\t']) + b''.join(lines) + b'\r\n')
    body = b'\r\n'.join(chance.choice([b'', b'.', b'..', b'From x', octets(80)])
                        for _ in range(chance.randrange(12)))
    return b''.join(fields) + b'\r\n' + body


@pytest.fixture
def alice(tmp_path):
    data = tmp_path / '.tmda'
    (data / 'filters').mkdir(parents=True)
    (data / 'crypt_key').write_text('0123456789abcdef' * 3)
    (data / 'crypt_key').chmod(0o600)
    (data / 'config').write_text('USERNAME = "alice"\nHOSTNAME = "example.net"\n')
    (data / 'filters/outgoing').write_text('to * dated\n')
    environ = {'HOME': str(tmp_path), 'GLOBAL_TMDARC': str(tmp_path / 'none')}
    return User('alice', str(tmp_path), str(data / 'config'), environ)


def send(user, data, monkeypatch):
    """What the transport gets for data: (header block, body)."""
    sent = []

    def deliver(deliveries, *unused):
        sent.extend((d.header, b''.join(d.body.chunks())) for d in deliveries)
        return Outcome(reply(250, '2.0.0', 'Ok'), {})

    monkeypatch.setattr(transport, 'deliver', deliver)
    with Spool(1000) as spool:
        spool.write(data)
        envelope = Envelope('alice@example.net', (Recipient('bob@example.org'),))
        outcome = submit.submit(submit.Submission(user, envelope, spool, 'from x by y; z'), Limits())
    assert outcome.reply.success, outcome
    return sent[0]


def fields_of(block):
    """Raw fields of a header block, cut without the code under test."""
    fields = []
    for line in block.split(b'\r\n')[:-1]:
        if line[:1] in (b' ', b'\t') and fields:
            fields[-1] += b'\r\n' + line
        elif line:
            fields.append(line)
    return fields


def untouched(block):
    return [field for field in fields_of(block)
            if field.split(b':')[0].strip().lower() not in CHANGED]


def check(user, data, monkeypatch):
    header, body = send(user, data, monkeypatch)
    before, separator, expected_body = data.partition(b'\r\n\r\n')
    if data.startswith(b'\r\n'):
        before, expected_body = b'', data[2:]
    if not separator and not data.startswith(b'\r\n'):
        before, expected_body = data[:-2], b''
    assert body == expected_body
    assert untouched(header) == untouched(before + b'\r\n')


@pytest.mark.parametrize('name', CORPUS)
def test_difficult_message_keeps_its_octets(name, alice, monkeypatch):
    data = CORPUS[name]
    check(alice, data, monkeypatch)


@pytest.mark.parametrize('block', range(20))
def test_generated_messages_keep_their_octets(block, alice, monkeypatch):
    for seed in range(block * 25, block * 25 + 25):
        check(alice, generated_message(seed), monkeypatch)


def test_message_without_a_header_becomes_a_body(alice, monkeypatch):
    header, body = send(alice, b'just text\r\nmore text\r\n', monkeypatch)
    assert body == b'just text\r\nmore text\r\n'
    assert header.endswith(b'\r\n\r\n')


def test_from_keeps_its_folding_where_only_the_address_changes(alice, monkeypatch):
    header, _body = send(alice, b'From: Alice\r\n\tLiddell\r\n  <alice@example.net>\r\n\r\nx', monkeypatch)
    assert b'From: Alice\r\n\tLiddell\r\n  <alice-dated-' in header
