# SPDX-License-Identifier: GPL-2.0-or-later
"""The TLS that is spoken, and certificates that are renewed while the daemon runs (mistakes in
the files: tests/badconfig)."""
import shutil
import ssl
import warnings
from pathlib import Path

import pytest

from TMDA.ofmipd.failure import StartError
from TMDA.ofmipd.options import Options
from TMDA.ofmipd.tls import Certificate, make_context

SUPPORT = Path(__file__).parents[1] / 'support' / 'tls'
BADCONFIG = Path(__file__).parents[1] / 'badconfig'


@pytest.fixture
def options(tmp_path):
    """Options with copies of the test certificate that a test may change."""
    for name in ('cert.pem', 'key.pem'):
        shutil.copy(SUPPORT / name, tmp_path / name)
    (tmp_path / 'key.pem').chmod(0o600)
    return Options(ssl=True, ssl_cert=str(tmp_path / 'cert.pem'), ssl_key=str(tmp_path / 'key.pem'))


def handshake(server_context, client_context):
    """Let two contexts agree in memory; (version, cipher) or an ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server)
    for _ in range(10):
        done = 0
        for side in (client, server):
            try:
                side.do_handshake()
                done += 1
            except ssl.SSLWantReadError:
                pass
        if done == 2:
            return client.version(), client.cipher()[0]
    raise AssertionError('no end')


def lax_client(ciphers='ALL:@SECLEVEL=0', version=None):
    """A client that would speak anything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers(ciphers)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        if version is not None:
            context.maximum_version = version
    return context


def test_context_floor_and_switches(options):
    context = make_context(options)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    for switch in (ssl.OP_NO_COMPRESSION, ssl.OP_CIPHER_SERVER_PREFERENCE,
                   ssl.OP_NO_RENEGOTIATION):
        assert context.options & switch


def test_context_offers_forward_secrecy_only(options):
    for cipher in make_context(options).get_ciphers():
        name = cipher['name']
        assert name.startswith(('TLS_', 'ECDHE-', 'DHE-')), name
        assert cipher['strength_bits'] >= 128
        for weak in ('NULL', 'EXP', 'RC4', 'DES', 'MD5', 'PSK', 'SRP', 'ADH', 'AECDH'):
            assert weak not in name.split('-'), name


def test_context_speaks_the_newest(options):
    assert handshake(make_context(options), lax_client())[0] == 'TLSv1.3'


def test_context_speaks_1_2(options):
    version, cipher = handshake(make_context(options), lax_client(version=ssl.TLSVersion.TLSv1_2))
    assert version == 'TLSv1.2'
    assert cipher.startswith('ECDHE-')


@pytest.mark.parametrize('client', [
    {'version': 'TLSv1_1'}, {'version': 'TLSv1'},
    {'version': 'TLSv1_2', 'ciphers': 'kRSA:@SECLEVEL=0'},
    {'version': 'TLSv1_2', 'ciphers': 'aNULL:@SECLEVEL=0'},
], ids=str)
def test_context_refuses(options, client):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        version = getattr(ssl.TLSVersion, client['version'])
    try:
        context = lax_client(client.get('ciphers', 'ALL:@SECLEVEL=0'), version)
    except ssl.SSLError as error:
        pytest.skip('this OpenSSL has no %s: %s' % (client, error))
    with pytest.raises(ssl.SSLError):
        handshake(make_context(options), context)


def test_context_ciphers_of_the_option(options):
    context = make_context(Options(**dict(vars(options), ciphers='ECDHE+CHACHA20')))
    older = [cipher['name'] for cipher in context.get_ciphers()
             if not cipher['name'].startswith('TLS_')]
    assert older and all('CHACHA20' in name for name in older)


def test_context_takes_dh_parameters(options):
    dh = str(BADCONFIG / 'dh.pem')
    context = make_context(Options(**dict(vars(options), ssl_dh=dh)))
    client = lax_client('DHE+AESGCM:@SECLEVEL=0', ssl.TLSVersion.TLSv1_2)
    if any(cipher['name'].startswith('DHE-ECDSA') for cipher in context.get_ciphers()):
        assert handshake(context, client)[1].startswith('DHE-')


def test_context_key_in_the_certificate_file(options, tmp_path):
    both = tmp_path / 'both.pem'
    both.write_bytes((SUPPORT / 'cert.pem').read_bytes() + (SUPPORT / 'key.pem').read_bytes())
    context = make_context(Options(ssl=True, ssl_cert=str(both)))
    assert handshake(context, lax_client())[0] == 'TLSv1.3'


def test_certificate_reload_swaps_the_context(options):
    certificate = Certificate(options)
    before = certificate()
    assert certificate() is before
    certificate.reload()
    assert certificate() is not before


@pytest.mark.parametrize('damage', [
    lambda path: path.write_bytes(b''),
    lambda path: path.unlink(),
    lambda path: shutil.copy(BADCONFIG / 'other.key', path),
    lambda path: shutil.copy(BADCONFIG / 'encrypted.key', path),
    lambda path: path.write_bytes(path.read_bytes()[:-60]),
], ids=['empty', 'gone', 'of another', 'encrypted', 'cut'])
def test_certificate_reload_keeps_the_old_one_when_the_new_is_broken(options, damage):
    certificate = Certificate(options)
    before = certificate()
    damage(Path(options.ssl_key))
    with pytest.raises(StartError) as caught:
        certificate.reload()
    assert options.ssl_key in str(caught.value)
    assert certificate() is before
    assert handshake(before, lax_client())[0] == 'TLSv1.3'


@pytest.mark.parametrize('mode, exposed', [(0o600, False), (0o640, False), (0o644, True)])
def test_certificate_exposed_key(options, mode, exposed):
    Path(options.ssl_key).chmod(mode)
    assert bool(Certificate(options).exposed_key) is exposed
