# SPDX-License-Identifier: GPL-2.0-or-later
"""The certificate, and the TLS that we speak: at least 1.2, no weak suites (RFC 8996, RFC 9325).

main makes one Certificate; wires ask it for a context when a handshake begins (Certificate is
what Service.tls_context is).  reload() reads the files again: a handshake that begins later uses
the new certificate, sessions keep what they have, and if anything is wrong with the new files
the old context stays.

Nothing here asks for a pass phrase: a key that has one is refused.
"""

from __future__ import annotations

import os
import ssl

from TMDA.ofmipd.failure import CONFIG, StartError, UsageError

# Forward secrecy and AEAD only.  Python's own list is that strict since 3.10, but Debian builds its
# Python with OpenSSL's, which has RSA key transport and PSK.  !PSK: ECDHE+AESGCM names PSK suites too.
CIPHERS = '@SECLEVEL=2:ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:!aNULL:!aDSS:!PSK'


class Certificate:
    """The files named by options; calling it gives the current ssl.SSLContext.

    Raises StartError when the files can't be used, UsageError for --ciphers and a missing key.
    """

    def __init__(self, options):
        self._options = options
        self._context = make_context(options)

    def __call__(self) -> ssl.SSLContext:
        return self._context

    def reload(self) -> None:
        """Read the files again.  Raises StartError and changes nothing if they can't be used."""
        self._context = make_context(self._options)

    @property
    def exposed_key(self) -> str:
        """The file of the private key if any account of this host may read it, else ''."""
        path = self._options.ssl_key or self._options.ssl_cert
        return path if os.stat(path).st_mode & 0o007 else ''


def make_context(options) -> ssl.SSLContext:
    """A server context for ssl_cert, ssl_key, ssl_dh and ciphers of Options."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= (ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
                        | ssl.OP_NO_RENEGOTIATION)
    _choose_ciphers(context, options.ciphers or CIPHERS)
    _load_certificate(context, options.ssl_cert, options.ssl_key)
    if options.ssl_dh:
        _load_parameters(context, options.ssl_dh)
    return context


def _choose_ciphers(context: ssl.SSLContext, ciphers: str) -> None:
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError:
        raise UsageError('--ciphers: OpenSSL finds no cipher in %r' % ciphers) from None


def _load_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Load chain and key; the errors of OpenSSL do not say which file they are about, ours do."""
    if b'-----BEGIN CERTIFICATE' not in _content(certificate):
        raise StartError(CONFIG, '%s: there is no PEM certificate in it' % certificate)
    if b'PRIVATE KEY-----' not in _content(key or certificate):
        if not key:
            raise UsageError('--ssl-key is needed: there is no private key in %s' % certificate)
        raise StartError(CONFIG, '%s: there is no PEM private key in it' % key)

    def refuse_pass_phrase() -> str:
        raise StartError(CONFIG, '%s: the private key has a pass phrase' % (key or certificate))

    try:
        context.load_cert_chain(certificate, key or None, refuse_pass_phrase)
    except ssl.SSLError as error:
        if error.reason == 'KEY_VALUES_MISMATCH':
            text = '%s: not the private key of %s' % (key or certificate, certificate)
        else:
            text = '%s, %s: OpenSSL says %s' % (certificate, key or certificate,
                                                error.reason or error)
        raise StartError(CONFIG, text) from None


def _load_parameters(context: ssl.SSLContext, path: str) -> None:
    _content(path)
    try:
        context.load_dh_params(path)
    except ssl.SSLError:
        raise StartError(CONFIG, '%s: there are no PEM Diffie-Hellman parameters in it'
                         % path) from None


def _content(path: str) -> bytes:
    try:
        with open(path, 'rb') as file:
            return file.read()
    except OSError as error:
        raise StartError(CONFIG, '%s: %s' % (path, error.strerror)) from None
