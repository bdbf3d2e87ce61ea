"""`websockets.broadcast` over TLS: `serve CERTIFICATE KEY`, or `readers PORT`, which only count what comes.

The readers are the same as Towline's in this bench, but for the handshake.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench.peers.base import HOST, say
from bench.peers.loads import Hearing, Reader, raise_descriptors

BODY = b"m" * 220  # as many bytes as a record of Towline's has on the wire
_FRAME = b"\x82\x7e" + len(BODY).to_bytes(2) + BODY  # RFC 6455, 5.2
_UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def server(certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    loop = asyncio.get_running_loop()

    async def handle(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with serve(handle, HOST, 0, ssl=context, compression=None, ping_interval=None, backlog=1024) as listening:
        say(port=next(iter(listening.sockets)).getsockname()[1])
        while await loop.run_in_executor(None, sys.stdin.readline):
            at = time.time()
            broadcast(listening.connections, BODY)
            say(at=at)


class Readers:
    """Those of this process."""

    def __init__(self, port: str) -> None:
        self._port = int(port)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE  # it is the fan-out that is measured
        self._hearing = Hearing()

    async def readers(self, count: int) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        for _ in range(count):
            sock = socket.create_connection((HOST, self._port))
            reader = Reader(self._hearing, _upgraded(self._context, sock), lambda plain: plain.count(_FRAME))
            await loop.create_connection(lambda reader=reader: reader, sock=sock)
        return {"readers": len(self._hearing.readers)}

    async def expect(self) -> dict[str, Any]:
        self._hearing.expect()
        return {}

    async def heard_by_all(self) -> dict[str, Any]:
        return {"times": await self._hearing.times()}


def _upgraded(context: ssl.SSLContext, sock: socket.socket) -> Callable[[bytes], bytes]:
    """Both handshakes; what decrypts from then on."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)

    def step(work: Callable[[], Any]) -> Any:
        while True:
            try:
                return work()
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65536))

    step(tls.do_handshake)
    tls.write(_UPGRADE)
    said = b""
    while not said.endswith(b"\r\n\r\n"):
        sock.sendall(outgoing.read())
        said += step(lambda: tls.read(65536))

    def decrypt(data: bytes) -> bytes:
        incoming.write(data)
        plain = b""
        while incoming.pending:
            plain += tls.read(65536)
        return plain

    return decrypt


async def readers(port: str) -> None:
    all_of_them, loop = Readers(port), asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        question = json.loads(line)
        try:
            say(**await getattr(all_of_them, question.pop("do"))(**question))
        except Exception as error:
            if os.environ.get("BENCH_DEBUG"):
                raise
            say(failed=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    raise_descriptors()
    uvloop.run(server(*sys.argv[2:]) if sys.argv[1] == "serve" else readers(*sys.argv[2:]))
