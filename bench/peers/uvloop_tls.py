"""A bare uvloop TLS server with a length prefix of 4 bytes: what the libraries below Towline cost for a message.

`serve CERTIFICATE KEY`, or a client of the given port. No session, no streams, no credit.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import struct
import sys
import time
from collections.abc import Callable
from typing import cast

from bench.machine import package_version
from bench.peers.base import HOST, Helper, Peer, say
from bench.peers.loads import PAYLOAD

_PREFIX = struct.Struct(">I")


class UvloopTls(Peer):
    """`client()` is a helper process that answers `roundtrips` and `pipeline`."""

    name = "bare uvloop TLS, length prefix"
    programs = ("openssl",)
    modules = ("uvloop",)

    def start(self) -> None:
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        key, certificate = os.path.join(self.folder, "key.pem"), os.path.join(self.folder, "certificate.pem")
        argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                "2", "-subj", "/CN=peer", "-keyout", key, "-out", certificate]  # fmt: skip
        self.bench.processes.run(argv)
        self._server = Helper(self.bench, "bench.peers.uvloop_tls", "serve", certificate, key)
        self._port = self._server.answer()["port"]

    def stop(self) -> None:
        self._server.close()

    def version(self) -> str:
        return f"uvloop {package_version('uvloop')}"

    def client(self) -> Helper:
        return Helper(self.bench, "bench.peers.uvloop_tls", str(self._port))


class Framed(asyncio.Protocol):
    """Bytes to messages and back."""

    def __init__(self, on_message: Callable[[Framed, bytes], None]) -> None:
        self.count = 0
        self._on_message = on_message
        self._held = b""
        self._room: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only

    def data_received(self, data: bytes) -> None:
        data = self._held + data
        at = 0
        while len(data) - at >= 4:
            (size,) = _PREFIX.unpack_from(data, at)
            if len(data) - at - 4 < size:
                break
            self._on_message(self, data[at + 4 : at + 4 + size])
            at += 4 + size
        self._held = data[at:]

    def send(self, body: bytes) -> None:
        self.transport.write(_PREFIX.pack(len(body)) + body)

    def pause_writing(self) -> None:
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._room is not None:
            self._room.set_result(None)
            self._room = None

    async def drained(self) -> None:
        if self._room is not None:
            await self._room


def _answer(connection: Framed, body: bytes) -> None:
    """`e…` is echoed, `s…` counted; an empty message asks for the count."""
    if body[:1] == b"e":
        connection.send(body)
    elif body:
        connection.count += 1
    else:
        connection.send(b"%d" % connection.count)
        connection.count = 0


async def serve(certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = await asyncio.get_running_loop().create_server(lambda: Framed(_answer), HOST, 0, ssl=context)
    say(port=server.sockets[0].getsockname()[1])
    await asyncio.get_running_loop().create_future()


async def client(port: str) -> None:
    loop = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is the cost of messages that is measured
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    _, connection = await loop.create_connection(
        lambda: Framed(lambda _, body: answers.put_nowait(body)), HOST, int(port), ssl=context
    )

    async def roundtrips(count: int) -> None:
        for _ in range(count):
            connection.send(b"e" + PAYLOAD[1:])
            await answers.get()

    while line := await loop.run_in_executor(None, sys.stdin.readline):
        question = json.loads(line)
        if question["do"] == "roundtrips":
            await roundtrips(100)
            begun = time.perf_counter()
            await roundtrips(question["count"])
        else:
            begun = time.perf_counter()
            for _ in range(question["count"]):
                connection.send(b"s" + PAYLOAD[1:])
                await connection.drained()
            connection.send(b"")
            assert int(await answers.get()) == question["count"]
        say(seconds=time.perf_counter() - begun)


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(*sys.argv[2:]) if sys.argv[1] == "serve" else client(sys.argv[1]))
