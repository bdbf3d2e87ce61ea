"""Peers that speak something else, at the node and at the client."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from tests import kit
from tests.transports.conformance import Recorder
from tests.transports.conftest import Tls

from towline.base.errors import ConnectionLost, NotTowline, TowlineError, Unreachable
from towline.protocol.table import PREFACE
from towline.transports import blocking, tcp
from towline.transports.interface import Receiver

_HTTP = b"GET / HTTP/1.1\r\nHost: node\r\n\r\n"
_SSH = b"SSH-2.0-OpenSSH_9.6\r\n"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def _node(tls: Tls) -> AsyncIterator[tuple[int, list[Recorder]]]:
    """A TLS listener; its port, and the connections that came."""
    came: list[Recorder] = []

    def new() -> Receiver:
        came.append(Recorder())
        return came[-1]

    server, address = await tcp.listen("127.0.0.1", 0, tls.node, new)
    try:
        yield tcp.split_address(address)[1], came
    finally:
        server.close()
        for each in came:
            each.there.abort()
        await kit.until(lambda: all(each.is_lost for each in came), "all lost")


def _answer(tls: Tls, loop: str, *pieces: bytes) -> tuple[bytes, Recorder]:
    """What a node says to a peer that sends these pieces, and what it made of the connection."""

    async def talk() -> tuple[bytes, Recorder]:
        async with _node(tls) as (port, came):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await kit.until(lambda: True)
            if not pieces:
                writer.write_eof()
            said = await reader.read()
            writer.close()
            await writer.wait_closed()
            await kit.until(lambda: came and came[0].is_lost, "lost")
            return said, came[0]

    return kit.run(talk(), loop)


@pytest.mark.parametrize("loop", kit.LOOPS)
@pytest.mark.parametrize(
    ("first", "name"),
    [
        (_HTTP, "HTTP"),
        (b"POST /upload HTTP/1.1\r\n\r\n" + bytes(200_000), "HTTP"),
        (_SSH, "SSH"),
        (b"220 mail.example ESMTP\r\n", "FTP or SMTP"),
        (PREFACE + b"\0" * 40, "without TLS"),
        (random.Random(1).randbytes(64).replace(b"\x16", b"\x17"), "does not speak Towline"),
        (b"\0", "does not speak Towline"),
        (b"G", "HTTP"),
    ],
)
def test_a_stranger_at_the_node_gets_one_readable_line(tls: Tls, loop: str, first: bytes, name: str) -> None:
    said, recorder = _answer(tls, loop, first)
    assert said.startswith(b"This is a Towline node. ")
    assert said.endswith(b"\r\n")
    assert said.count(b"\n") == 1
    assert name.encode() in said
    assert recorder.calls == ["opening", "lost"]
    assert isinstance(recorder.error, NotTowline)


def test_byte_by_byte_is_the_same(tls: Tls) -> None:
    said, recorder = _answer(tls, "uvloop", *(bytes([byte]) for byte in _HTTP))
    assert said.startswith(b"This is a Towline node. The other side speaks HTTP")
    assert isinstance(recorder.error, NotTowline)


@pytest.mark.parametrize("loop", kit.LOOPS)
def test_one_that_says_nothing_and_leaves(tls: Tls, loop: str) -> None:
    said, recorder = _answer(tls, loop)
    assert said == b""
    assert recorder.calls == ["opening", "lost"]
    assert isinstance(recorder.error, ConnectionLost)


@pytest.mark.parametrize("seed", range(20))
def test_random_tls_records_end_the_connection_and_nothing_else(tls: Tls, seed: int) -> None:
    rng = random.Random(seed)
    records = b"".join(
        bytes([0x16, 3, rng.randrange(5)]) + len(body).to_bytes(2) + body
        for body in (rng.randbytes(rng.randrange(1, 300)) for _ in range(5))
    )
    said, recorder = _answer(tls, "uvloop", records[: rng.randrange(6, len(records))], bytes(20_000))
    assert b"Towline" not in said, "only a TLS alert"
    assert recorder.calls == ["opening", "lost"]
    assert isinstance(recorder.error, TowlineError)


def test_another_protocol_inside_tls_is_refused_at_the_handshake(tls: Tls) -> None:
    async def talk() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        for protocols in ([], ["h2", "http/1.1"]):
            if protocols:
                context.set_alpn_protocols(protocols)
            async with _node(tls) as (port, came):
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
                    await reader.read()
                    writer.close()
                    await writer.wait_closed()
                except (ssl.SSLError, ConnectionError):
                    pass  # the alert; with or without it, the node has closed
                await kit.until(lambda came=came: came and came[0].is_lost, "lost")
                assert isinstance(came[0].error, NotTowline)
                assert came[0].calls == ["opening", "lost"]

    kit.run(talk(), "asyncio")


def test_an_old_tls_is_refused(tls: Tls) -> None:
    async def talk() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        async with _node(tls) as (port, came):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection("127.0.0.1", port, ssl=context)
            await kit.until(lambda: came and came[0].is_lost, "lost")
            assert isinstance(came[0].error, NotTowline)

    kit.run(talk(), "asyncio")


def test_a_broken_record_in_the_middle_does_not_take_the_ones_before_it_along(tls: Tls) -> None:
    """A relay of ours flips one byte of the second record."""

    async def talk() -> None:
        async with _node(tls) as (port, came):
            pieces: list[bytes] = []

            async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)

                async def back() -> None:
                    while data := await inner_reader.read(65536):
                        writer.write(data)
                    writer.close()

                task = asyncio.ensure_future(back())
                while data := await reader.read(65536):
                    if came and came[0].is_connected:
                        pieces.append(data)
                        if sum(map(len, pieces)) < 1100:
                            continue
                        data = bytearray(b"".join(pieces))
                        data[-1] ^= 1
                    inner_writer.write(data)
                await task
                inner_writer.close()

            async with _server(relay) as relay_port:
                client = Recorder()
                await tcp.connect("127.0.0.1", relay_port, tls.client, client)
                await kit.until(lambda: client.is_connected and came and came[0].is_connected, "connected")
                client.there.write([b"whole" * 100])
                client.there.write([b"broken" * 100])
                await kit.until(lambda: came[0].is_lost, "lost")
                assert came[0].data == b"whole" * 100
                assert isinstance(came[0].error, ConnectionLost)
                client.there.abort()
                await kit.until(lambda: client.is_lost, "lost")

    kit.run(talk(), "uvloop")


# --- at the client ---


@asynccontextmanager
async def _server(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (ConnectionError, ssl.SSLError):
            pass  # the client left

    server = await asyncio.start_server(quietly, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await kit.until(lambda: True)


async def _http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


async def _ssh(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_SSH)
    await reader.read(100)


async def _noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\x01\x02" + random.Random(3).randbytes(5000))


async def _close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    pass


async def _reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)  # a reset that comes earlier may hit the connect itself
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


async def _cut_short(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"\x16\x03\x03\x10\x00" + bytes(100))


async def _read_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


_SERVERS = [
    (_http, NotTowline, "speaks HTTP, not Towline; check the address and port"),
    (_ssh, NotTowline, "speaks SSH, not Towline; check the address and port"),
    (_noise, NotTowline, "does not speak Towline; check the address and port"),
    (_close_at_once, ConnectionLost, "closed the connection during the handshake|reset by peer"),
    (_reset, ConnectionLost, "The connection was lost|during the handshake"),
    (_cut_short, ConnectionLost, "during the handshake"),
]


@pytest.mark.parametrize("loop", kit.LOOPS)
@pytest.mark.parametrize(("serve", "kind", "words"), _SERVERS)
def test_a_strange_server(tls: Tls, loop: str, serve: Serve, kind: type[TowlineError], words: str) -> None:
    async def talk() -> None:
        async with _server(serve) as port:
            client = Recorder()
            await tcp.connect("127.0.0.1", port, tls.client, client)
            await kit.until(lambda: client.is_lost, "lost")
            assert client.calls == ["opening", "lost"]
            with pytest.raises(kind, match=words):
                raise client.error or AssertionError("no reason was given")

    kit.run(talk(), loop)


@pytest.mark.parametrize(("serve", "kind"), [(serve, kind) for serve, kind, _ in _SERVERS])
def test_a_strange_server_at_a_blocking_dial(tls: Tls, serve: Serve, kind: type[TowlineError]) -> None:
    async def talk() -> None:
        async with _server(serve) as port:
            with pytest.raises(kind):
                await asyncio.to_thread(
                    blocking.dial, f"127.0.0.1:{port}", tls.client, deadline=time.monotonic() + 10
                )

    kit.run(talk(), "asyncio")


@pytest.mark.parametrize("loop", kit.LOOPS)
def test_a_tls_server_that_is_no_node(tls: Tls, loop: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = tmp_path_factory.mktemp("other")
    folder.chmod(0o700)
    from towline.trust.certificate import node_certificate
    from towline.trust.keys import Identity

    certificate, key, _ = node_certificate(Identity.load_or_create(str(folder)), str(folder), "other")
    plain.load_cert_chain(certificate, key)

    async def talk() -> None:
        async with _server(_read_on, plain) as port:
            client = Recorder()
            await tcp.connect("127.0.0.1", port, tls.client, client)
            await kit.until(lambda: client.is_lost, "lost")
            assert isinstance(client.error, NotTowline)
            assert "TLS but not Towline" in client.error.sentence
            with pytest.raises(NotTowline, match="TLS but not Towline"):
                await asyncio.to_thread(
                    blocking.dial, f"127.0.0.1:{port}", tls.client, deadline=time.monotonic() + 10
                )

    kit.run(talk(), loop)


@pytest.mark.parametrize("loop", kit.LOOPS)
def test_nobody_listens(tls: Tls, loop: str) -> None:
    async def talk() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound, not listening: refused for sure
            port = taken.getsockname()[1]
            for host in ("127.0.0.1", "localhost"):
                with pytest.raises(Unreachable, match=f"{host}:{port} cannot be reached: nothing listens there"):
                    await tcp.connect(host, port, tls.client, Recorder())
            with pytest.raises(Unreachable, match=r"nothing listens|refused"):
                await asyncio.to_thread(
                    blocking.dial, f"127.0.0.1:{port}", tls.client, deadline=time.monotonic() + 10
                )

    kit.run(talk(), loop)


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a" * 64 + ".invalid", "a..b", "\u202e.invalid"])
def test_names_that_are_none(tls: Tls, name: str) -> None:
    async def talk() -> None:
        with pytest.raises(Unreachable, match="cannot be resolved") as refused:
            await tcp.connect(name, 1, tls.client, Recorder())
        assert "\u202e" not in refused.value.sentence

    kit.run(talk(), "asyncio")
