# SPDX-License-Identifier: GPL-2.0-or-later
"""A relay as aiosmtpd's users write it: PORT UPSTREAM-PORT are its arguments.

Each message goes to the upstream server by smtplib, in a thread of asyncio's, before the client
is answered.  Run by the interpreter of an environment that has aiosmtpd.
"""
import asyncio
import smtplib
import sys

from aiosmtpd.smtp import SMTP


class Relay:
    """The handler."""

    def __init__(self, upstream_port: int):
        self._upstream_port = upstream_port

    async def handle_DATA(self, server, session, envelope) -> str:
        """Called for each message."""
        await asyncio.get_running_loop().run_in_executor(None, self._send, envelope)
        return '250 2.0.0 OK'

    def _send(self, envelope) -> None:
        with smtplib.SMTP('127.0.0.1', self._upstream_port, 'relay.example') as client:
            client.sendmail(envelope.mail_from, envelope.rcpt_tos, envelope.content)


async def serve(port: int, upstream_port: int) -> None:
    """Listen until the process is ended."""
    relay = Relay(upstream_port)
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(relay, hostname='relay.example'), '127.0.0.1', port)
    await server.serve_forever()


asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
