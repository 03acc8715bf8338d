# SPDX-License-Identifier: GPL-2.0-or-later
"""Fake IMAP, POP3 and LDAP servers that do what a test's script says, well or badly.

A script is a function that is called with a Peer for each connection, in a
thread of its own.  It returns to hang up.  `with ScriptedServer(script) as
server:` listens on server.port of 127.0.0.1; server.received is what all
clients sent.
"""
import base64
import re
import shutil
import socket
import subprocess
import threading

HANG_SECONDS = 30  # how long a server that hangs does so if nobody ends it


class Peer:
    """The server's end of one connection."""

    def __init__(self, server, sock):
        self._server = server
        self._socket = sock
        self._file = sock.makefile('rb')

    def send(self, data):
        """Send octets."""
        self._socket.sendall(data)

    def line(self):
        """The next line without its end; b'' when the client has hung up."""
        line = self._file.readline()
        self._server.received += line
        return line.rstrip(b'\r\n')

    def read(self, size):
        """That many octets, fewer if the client hangs up."""
        data = self._file.read(size)
        self._server.received += data
        return data

    def some(self):
        """What the client sends first, at least one octet."""
        data = self._file.read1(4096)
        self._server.received += data
        return data

    def hang(self, *_):
        """Say nothing more until the test ends."""
        self._server.ending.wait(HANG_SECONDS)

    def drip(self, data, seconds=0.02):
        """Send the data again and again, one octet at a time, until nobody listens."""
        while not self._server.ending.wait(seconds):
            for number in range(len(data)):
                self.send(data[number:number + 1])
                if self._server.ending.wait(seconds):
                    return

    def close(self):
        """Hang up."""
        self._file.close()
        self._socket.close()


class ScriptedServer:
    """A server on a free port; with `tls`, an ssl.SSLContext, TLS from the first octet."""

    def __init__(self, script, tls=None, host='127.0.0.1'):
        self.received = b''
        self.connections = 0
        self.ending = threading.Event()
        self._script = script
        self._tls = tls
        self._listener = socket.create_server((host, 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self):
        self._threads[0].start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        with socket.socket() as knock:  # accept() does not notice that its socket is closed
            knock.settimeout(1)
            knock.connect(self._listener.getsockname())
        for thread in self._threads:
            thread.join(HANG_SECONDS)
        self._listener.close()

    def _accept(self):
        while True:
            sock, _ = self._listener.accept()
            if self.ending.is_set():
                sock.close()
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock):
        sock.settimeout(HANG_SECONDS)
        try:
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_side=True)
            peer = Peer(self, sock)
            try:
                self._script(peer)
            finally:
                peer.close()
        except OSError:
            pass  # the client hung up, which is what many tests want
        finally:
            sock.close()


def saying(data):
    """A script that sends octets at once and waits for the client to go."""
    def script(peer):
        peer.send(data)
        while peer.line():
            pass
    return script


QUOTED = rb'"((?:[^"\\]|\\["\\])*)"'


def imap(accepts=(b'bob', b'secret'), refusal=b'NO [AUTHENTICATIONFAILED] wrong',
         capabilities=b'IMAP4rev1 AUTH=PLAIN', logout=b'* BYE see you\r\n%s OK done\r\n'):
    """An IMAP server with one user; `refusal` is the answer to any other login."""
    def script(peer):
        peer.send(b'* OK IMAP4rev1 ready\r\n')
        while True:
            tag, _, command = peer.line().partition(b' ')
            verb = command.partition(b' ')[0].upper()
            if verb == b'CAPABILITY':
                peer.send(b'* CAPABILITY %s\r\n%s OK done\r\n' % (capabilities, tag))
            elif verb in (b'LOGIN', b'AUTHENTICATE'):
                good = _imap_credentials(peer, command) == accepts
                peer.send(b'%s %s\r\n' % (tag, b'OK welcome' if good else refusal))
            elif verb == b'LOGOUT':
                peer.send(logout % tag)
                return
            else:
                return
    return script


def _imap_credentials(peer, command):
    login = re.fullmatch(rb'LOGIN %s %s' % (QUOTED, QUOTED), command)
    if login:
        return tuple(re.sub(rb'\\(.)', rb'\1', part) for part in login.groups())
    if command != b'AUTHENTICATE PLAIN':
        return None
    peer.send(b'+ \r\n')
    return tuple(base64.b64decode(peer.line()).split(b'\0')[1:])


def pop3(accepts=(b'bob', b'secret'), refusal=b'-ERR [AUTH] wrong', greeting=b'+OK ready',
         user_answer=b'+OK go on', quit_answer=b'+OK bye'):
    """A POP3 server with one user, who may use USER and PASS or, always rightly, APOP."""
    def script(peer):
        peer.send(greeting + b'\r\n')
        user = b''
        while True:
            verb, _, argument = peer.line().partition(b' ')
            if verb == b'USER':
                user, answer = argument, user_answer
            elif verb == b'PASS':
                answer = b'+OK welcome' if (user, argument) == accepts else refusal
            elif verb == b'APOP':
                answer = b'+OK welcome' if argument.split()[0] == accepts[0] else refusal
            elif verb == b'QUIT':
                answer = quit_answer
            else:
                return
            peer.send(answer + b'\r\n')
    return script


def ldap(response):
    """An LDAP server that answers any request with these octets."""
    def script(peer):
        if peer.some():
            peer.send(response)
            peer.some()
    return script


def certificate(directory, host='localhost'):
    """A self-signed certificate for a host name: (certificate file, key file); needs openssl."""
    chain, key = directory / f'{host}.pem', directory / f'{host}.key'
    kind = 'IP' if host[0].isdigit() else 'DNS'
    subprocess.run([shutil.which('openssl') or 'openssl', 'req', '-x509', '-newkey', 'ec',
                    '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
                    '-subj', f'/CN={host}', '-addext', f'subjectAltName={kind}:{host}',
                    '-keyout', str(key), '-out', str(chain)],
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, timeout=60, check=True)
    return chain, key
