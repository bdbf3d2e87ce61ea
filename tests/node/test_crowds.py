"""Strangers in numbers and of every kind: the node lives, stays small, and serves a real client meanwhile."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests import kit
from tests.kit import NodeProcess

import towline
from towline.base.limits import HANDSHAKE_SECONDS
from towline.protocol.codec import Decoder, Frame, encode
from towline.protocol.records import Hello, Limits
from towline.protocol.table import FRAMES, PREFACE, PREFIX, Kind
from towline.runtime.descriptors import raise_descriptor_limit
from towline.transports.tcp import split_address
from towline.trust.tls import client_context

MIB = 1024 * 1024
_PATIENCE = 1.5


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node whose handshake deadline is short; the same for all tests here: it has to live through them all."""
    folder = tmp_path_factory.mktemp("crowds")
    command = (sys.executable, "-m", "tests.node.short_patience", str(_PATIENCE))
    with kit.running_node(folder, command=command) as process:
        process.join(folder / "client")
        yield process


@pytest.fixture
def home(node: NodeProcess) -> str:
    return str(node.data.parent / "client")


@asynccontextmanager
async def _tls(node: NodeProcess) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection whose TLS is right; what is said inside is the test's."""
    host, port = split_address(node.address)
    reader, writer = await asyncio.open_connection(host, port, ssl=client_context())
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        try:
            await writer.wait_closed()
        except (OSError, ssl.SSLError):
            pass


async def _alive(home: str) -> None:
    async with towline.connect("home", home=home) as line:
        channel = await line.channel({"service": "echo"})
        await channel.send(b"are you there?")
        message = await channel.receive()
        assert message is not None
        assert message.body == b"are you there?"
        channel.end()


def _hello(limits: Limits | None = None, **header: object) -> bytes:
    hello = Hello("test", bytes(32), limits or Limits()).to_header()
    return encode(Frame(Kind.HELLO, header=hello | {"pad": "." * 800} | header))


async def _answer(node: NodeProcess, *pieces: bytes) -> bytes:
    """What the node says inside TLS until it closes."""
    async with _tls(node) as (reader, writer):
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            return await kit.finished(reader.read())
        except (ConnectionError, ssl.SSLError):
            return b""


def _frames(said: bytes) -> list[Frame]:
    return list(Decoder(1 << 16, 1 << 20).feed(said.removeprefix(PREFACE)))


def test_a_thousand_that_say_nothing_each_gone_at_its_deadline(node: NodeProcess, home: str) -> None:
    raise_descriptor_limit()
    host, port = split_address(node.address)

    async def crowd() -> list[float]:
        gone: list[float] = []

        async def one() -> None:
            since = time.monotonic()  # before the node's own time for it begins: we may hear of the connection late
            reader, writer = await asyncio.open_connection(host, port)
            assert await reader.read() == b""
            gone.append(time.monotonic() - since)
            writer.close()
            await writer.wait_closed()

        everyone = [asyncio.ensure_future(one()) for _ in range(1000)]
        while not all(each.done() for each in everyone):
            await _alive(home)  # a real client is served meanwhile
        await asyncio.gather(*everyone)
        return gone

    kit.run(_alive(home))
    before = node.memory()
    first = kit.run(crowd())
    after = node.memory()
    assert len(first) == 1000
    assert min(first) > _PATIENCE * 0.5
    assert max(first) < HANDSHAKE_SECONDS.value, "its own deadline, not the usual one"
    assert after - before < 30 * MIB, "a silent stranger costs a few KiB"
    kit.run(crowd())
    assert node.memory() - after < 8 * MIB, "and leaves nothing behind"


def test_slow_client_hellos_do_not_outlive_the_deadline(node: NodeProcess, home: str) -> None:
    """A byte now and then, of a true ClientHello, extends nothing."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context().wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    host, port = split_address(node.address)

    async def talk() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        reading = asyncio.ensure_future(reader.read())
        for byte in hello[:-1]:
            writer.write(bytes([byte]))
            if (await asyncio.wait([reading], timeout=0.05))[0]:
                break
        else:
            raise AssertionError("all of it was waited for")
        assert reading.exception() is not None or reading.result() == b""
        writer.transport.abort()
        await _alive(home)

    kit.run(talk())


def test_slow_frames_inside_tls_do_not_outlive_the_deadline(node: NodeProcess) -> None:
    async def talk() -> None:
        async with _tls(node) as (reader, writer):
            reading = asyncio.ensure_future(reader.read())
            for byte in PREFACE + _hello()[:200]:
                writer.write(bytes([byte]))
                if (await asyncio.wait([reading], timeout=0.05))[0]:
                    break
            else:
                raise AssertionError("all of it was waited for")

    kit.run(talk())


@pytest.mark.parametrize("kind", [*Kind, 0, 13, 255])
def test_every_kind_where_a_hello_is_awaited(node: NodeProcess, home: str, kind: int) -> None:
    async def talk() -> None:
        spec = FRAMES.get(kind)
        for body in (0, 8, 4000):
            for stream in (0, 1, 2, 0xFFFFFFFF):
                if kind == Kind.HELLO and stream == 0 and not body:
                    continue
                said = await _answer(node, PREFACE, PREFIX.pack(kind, 0, 0, body, stream) + bytes(body))
                assert len(said) <= len(PREFACE) + PREFIX.size + body, "no more out than in"
                for frame in _frames(said):
                    assert frame.kind == Kind.GOAWAY, spec
        await _alive(home)

    kit.run(talk())


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.PROVE])
def test_every_kind_where_a_proof_is_awaited(node: NodeProcess, home: str, kind: Kind) -> None:
    """Skipping the proof is the oldest trick (CVE-2018-7749)."""
    header = {
        Kind.HELLO: Hello("again", bytes(32), Limits()).to_header(),
        Kind.WELCOME: {"person": "root", "grants": "admin"},
        Kind.OPEN: {"service": "admin", "op": "people"},
        Kind.RESET: {"code": 100, "message": "", "retryable": False},
        Kind.GOAWAY: {"code": 600, "message": "", "retryable": False},
    }.get(kind)
    body = bytes(8) if kind in (Kind.CREDIT, Kind.PING, Kind.PONG) else b""
    stream = 1 if FRAMES[kind].on_stream else 0

    async def talk() -> None:
        said = await _answer(node, PREFACE + _hello() + encode(Frame(kind, 0, stream, header, body)))
        kinds = [frame.kind for frame in _frames(said)]
        assert kinds[0] == Kind.HELLO
        assert kinds[1:] in ([], [Kind.GOAWAY])
        await _alive(home)

    kit.run(talk())


@pytest.mark.parametrize(
    "first",
    [
        PREFIX.pack(Kind.HELLO, 0, 65535, 0, 0),
        PREFIX.pack(Kind.HELLO, 0, 100, 0xFFFFFFFF, 0),
        PREFIX.pack(Kind.DATA, 0, 0, 0xFFFFFFFF, 1),
        b"\xff" * 12,
    ],
)
def test_a_length_of_four_gibibytes_is_refused_before_anything_is_kept(
    node: NodeProcess, home: str, first: bytes
) -> None:
    before = node.memory()

    async def talk() -> None:
        for _ in range(20):
            await _answer(node, PREFACE + first, bytes(100_000))
        await _alive(home)

    kit.run(talk())
    assert node.memory() - before < 8 * MIB


@pytest.mark.parametrize("lane", ["", "0" * 32, "x" * 1000, "\u0000\u001b[31m"])
def test_a_lane_without_a_ticket(node: NodeProcess, home: str, lane: str) -> None:
    async def talk() -> None:
        said = await _answer(node, PREFACE + _hello(lane=lane))
        frames = _frames(said)
        assert [frame.kind for frame in frames] == [Kind.GOAWAY]
        assert frames[0].header is not None
        assert frames[0].header["code"] == 209
        await _alive(home)

    kit.run(talk())


@pytest.mark.parametrize("seed", range(30))
def test_noise_of_every_kind(node: NodeProcess, home: str, seed: int) -> None:
    """Random bytes outside TLS and inside, and damaged frames where they hurt most."""
    rng = random.Random(seed)
    host, port = split_address(node.address)

    async def talk() -> None:
        for _ in range(10):
            noise = rng.randbytes(rng.choice((1, 5, 100, 5000)))
            match rng.randrange(4):
                case 0:  # bare
                    reader, writer = await asyncio.open_connection(host, port)
                    writer.write(noise)
                    if noise[0] == 0x16:
                        writer.write_eof()
                    try:
                        await kit.finished(reader.read())
                    except ConnectionError:
                        pass
                    writer.transport.abort()
                case 1:  # inside TLS, before the preface
                    await _answer(node, noise, bytes(3000))
                case 2:  # behind the preface
                    await _answer(node, PREFACE, noise, bytes(5000))
                case 3:  # a HELLO and then a damaged PROVE
                    prove = bytearray(
                        encode(Frame(Kind.PROVE, header={"method": "key", "key": "00", "signature": ""}))
                    )
                    prove[rng.randrange(len(prove))] ^= 1 << rng.randrange(8)
                    await _answer(node, PREFACE + _hello(), bytes(prove), bytes(5000))
        await _alive(home)

    kit.run(talk())


def test_open_and_go(node: NodeProcess, home: str) -> None:
    """Port scans and resets in the middle of the TLS handshake."""
    host, port = split_address(node.address)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context().wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    for length in (0, 1, 5, len(hello) // 2, len(hello)):
        for reset in (False, True):
            with socket.create_connection((host, port)) as sock:
                sock.sendall(hello[:length])
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    kit.run(_alive(home))


def test_the_socket_file_answers_strangers_too(node: NodeProcess, home: str) -> None:
    async def talk() -> None:
        reader, writer = await asyncio.open_unix_connection(node.listening["unix"])
        writer.write(b"GET / HTTP/1.1\r\nHost: " + b"x" * 100 + b"\r\n\r\n")
        said = await kit.finished(reader.read())
        assert said.startswith(b"This is a Towline node. The other side speaks HTTP")
        writer.close()
        await _alive(home)

    kit.run(talk())


def test_the_data_folder_is_where_it_was(node: NodeProcess) -> None:
    assert Path(node.listening["unix"]).is_relative_to(node.data)
