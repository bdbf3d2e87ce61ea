"""A TLS server that does nothing, on asyncio's own TLS: what a connection costs before any protocol.

`serve LOOP CERTIFICATE KEY`, or `client PORT`, which opens as many connections as it is asked for.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from typing import Any

from bench.peers.base import HOST, answer_questions, say


async def serve(certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, HOST, 0, ssl=context, backlog=1024)
    say(port=server.sockets[0].getsockname()[1])
    await asyncio.get_running_loop().create_future()


def client(port: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is the server's memory that is measured
    held: list[ssl.SSLSocket] = []

    def handle(question: dict[str, Any]) -> dict[str, Any]:
        held.extend(
            context.wrap_socket(socket.create_connection((HOST, int(port)))) for _ in range(question["count"])
        )
        return {"connections": len(held)}

    answer_questions(handle)


if __name__ == "__main__":
    if sys.argv[1] == "client":
        client(sys.argv[2])
    elif sys.argv[2] == "uvloop":
        import uvloop

        uvloop.run(serve(*sys.argv[3:]))
    else:
        asyncio.run(serve(*sys.argv[3:]))
