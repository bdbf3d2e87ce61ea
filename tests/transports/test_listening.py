"""Addresses, listeners, and the Unix socket's folder."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests import kit
from tests.transports.conformance import Recorder
from tests.transports.conftest import Tls

from towline.base.errors import ConnectionLost, InUse, LaxPermissions, Unreachable, UsageError
from towline.transports import blocking, tcp, unix


def _soon() -> float:
    return time.monotonic() + kit.DEADLINE


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:7440", "127.0.0.1", 7440),
        ("[::1]:0", "::1", 0),
        (":80", "", 80),
        ("home.example:1", "home.example", 1),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert tcp.split_address(text) == (host, port)
    assert tcp.join_address(host, port) == text


@pytest.mark.parametrize(
    "text", ["", "7440", "host", "host:", "host:x", "host:65536", "host:-1", "host:٤", "[::1]", "::1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="is not HOST:PORT"):
        tcp.split_address(text)


def test_a_default_port() -> None:
    assert tcp.split_address("host", default_port=7440) == ("host", 7440)
    assert tcp.split_address("[::1]", default_port=7440) == ("::1", 7440)
    assert tcp.split_address("host:1", default_port=7440) == ("host", 1)


@pytest.mark.parametrize("loop", kit.LOOPS)
def test_a_port_that_is_taken_and_a_host_that_is_none(tls: Tls, loop: str) -> None:
    async def talk() -> None:
        server, address = await tcp.listen("127.0.0.1", 0, tls.node, Recorder)
        with pytest.raises(InUse, match=f"Cannot listen on {address}"):
            await tcp.listen(*tcp.split_address(address), tls.node, Recorder)
        with pytest.raises(UsageError, match=r"Cannot listen on no-such-host\.invalid:0"):
            await tcp.listen("no-such-host.invalid", 0, tls.node, Recorder)
        with pytest.raises(InUse, match="Cannot assign"):
            await tcp.listen("192.0.2.1", 0, tls.node, Recorder)
        server.close()

    kit.run(talk(), loop)


@pytest.mark.parametrize("loop", kit.LOOPS)
@pytest.mark.parametrize("host", ["localhost", ""])
def test_a_name_with_several_addresses_has_one_port(tls: Tls, loop: str, host: str) -> None:
    async def talk() -> None:
        server, address = await tcp.listen(host, 0, tls.node, Recorder)
        ports = {sock.getsockname()[1] for sock in server.sockets}
        assert ports == {tcp.split_address(address)[1]}
        server.close()

    kit.run(talk(), loop)


@pytest.mark.parametrize("loop", kit.LOOPS)
def test_the_unix_socket_is_ours_alone(tmp_path: Path, loop: str) -> None:
    path = str(tmp_path / "run" / "tow.sock")

    async def talk() -> None:
        server = await unix.listen(path, Recorder)
        assert stat.S_IMODE(os.stat(tmp_path / "run").st_mode) == 0o700
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        with pytest.raises(InUse, match="Another process listens on"):
            await unix.listen(path, Recorder)
        server.close()
        await kit.until(lambda: True)
        unix.remove(path)
        unix.remove(path)
        with pytest.raises(Unreachable, match="No such file"):
            await unix.connect(path, Recorder())

    kit.run(talk(), loop)


def test_a_lax_folder_a_file_in_the_way_and_a_stale_socket(tmp_path: Path) -> None:
    async def talk() -> None:
        lax = tmp_path / "lax"
        lax.mkdir(mode=0o755)
        lax.chmod(0o755)
        with pytest.raises(LaxPermissions, match=r"open to others \(0755\).*chmod 700"):
            await unix.listen(str(lax / "s"), Recorder)
        lax.chmod(0o1777)
        with pytest.raises(LaxPermissions, match=r"open to others \(1777\); choose one of your own$"):
            await unix.listen(str(lax / "s"), Recorder)
        ours = tmp_path / "ours"
        ours.mkdir(mode=0o700)
        (ours / "file").write_text("")
        with pytest.raises(InUse, match="is not a socket"):
            await unix.listen(str(ours / "file"), Recorder)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(ours / "s"))
        with pytest.raises(Unreachable, match="nothing listens there"):
            await unix.connect(str(ours / "s"), Recorder())
        (await unix.listen(str(ours / "s"), Recorder)).close()
        if os.getuid() == 0:
            os.chown(ours, 12345, -1)
            with pytest.raises(LaxPermissions, match="belongs to user 12345, you are user 0; choose a folder"):
                await unix.listen(str(ours / "t"), Recorder)

    kit.run(talk(), "asyncio")


@pytest.mark.parametrize("loop", kit.LOOPS)
def test_a_path_longer_than_a_socket_address(tmp_path: Path, loop: str) -> None:
    folder = tmp_path / ("deep" * 20) / ("deeper" * 20)
    folder.mkdir(parents=True, mode=0o700)
    path = str(folder / "tow.sock")

    async def talk() -> None:
        node, client = Recorder(), Recorder()
        server = await unix.listen(path, lambda: node)
        await unix.connect(path, client)
        client.there.write([b"hello"])
        await kit.until(lambda: node.data == b"hello", "hello")
        client.there.close()
        await kit.until(lambda: client.is_lost and node.is_lost, "lost")
        server.close()

    kit.run(talk(), loop)
    with pytest.raises(UsageError, match="too long"):
        kit.run(unix.connect(str(folder / ("x" * 65)), Recorder()), loop)


def test_a_blocking_pipe_over_a_long_unix_path(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 30)
    folder.mkdir(mode=0o700)
    path = str(folder / "tow.sock")

    async def talk() -> None:
        node = Recorder()
        server = await unix.listen(path, lambda: node)
        pipe, certificate = await asyncio.to_thread(blocking.dial, f"unix:{path}", None, deadline=_soon())
        assert certificate is None
        pipe.write([b"hello"])
        await kit.until(lambda: node.data == b"hello", "hello")
        pipe.shutdown()
        pipe.shutdown()
        with pytest.raises(ConnectionLost):
            pipe.write([b"x" * 10])
        pipe.close()
        await kit.until(lambda: node.is_lost, "lost")
        server.close()
        with pytest.raises(Unreachable):
            await asyncio.to_thread(blocking.dial, f"unix:{folder}/none", None, deadline=_soon())

    kit.run(talk(), "uvloop")


@pytest.mark.parametrize("size", [10, 1_000_000])  # taken as it comes; waited for in one call
def test_a_blocking_reader_wakes_up_when_another_thread_shuts_it_down(tls: Tls, size: int) -> None:
    async def talk() -> None:
        node = Recorder()
        server, address = await tcp.listen("127.0.0.1", 0, tls.node, lambda: node)
        pipe, certificate = await asyncio.to_thread(blocking.dial, address, tls.client, deadline=_soon())
        assert certificate
        reading = asyncio.ensure_future(asyncio.to_thread(pipe.read_exactly, memoryview(bytearray(size))))
        await kit.until(lambda: node.is_connected, "connected")
        node.there.write([b"half"])
        pipe.shutdown()
        assert await reading in {0, 4}
        pipe.close()
        await kit.until(lambda: node.is_lost, "lost")
        server.close()

    kit.run(talk(), "uvloop")


def test_a_silent_peer_is_noticed_by_a_blocking_pipe() -> None:
    left, right = socket.socketpair()
    pipe = blocking.BlockingPipe(left, None, timeout=0.05)
    assert pipe.read_exactly(memoryview(bytearray(1))) == 0
    with pytest.raises(ConnectionLost, match="no sign of life in time"):
        pipe.write([bytes(10_000_000)])
    pipe.close()
    right.close()


class _Clock:
    """Moves on by 10 s each time that somebody looks."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        self._now += 10.0
        return self._now


def test_whoever_trickles_is_not_waited_for_beyond_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "time", _Clock())
    left, right = socket.socketpair()
    pipe = blocking.BlockingPipe(left, None, timeout=kit.DEADLINE)
    right.sendall(b"abc")
    assert pipe.read_exactly(memoryview(bytearray(10)), deadline=15.0) == 3
    right.sendall(b"d")
    assert pipe.read_exactly(memoryview(bytearray(10)), deadline=25.0) == 0
    pipe.close()
    right.close()


def test_a_handshake_that_trickles_in_is_not_waited_for(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "time", _Clock())
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        dialling = pool.submit(blocking.dial, address, tls.client, deadline=30.0)
        there, _ = server.accept()
        with there:
            there.sendall(b"\x16")  # a record begins
            assert isinstance(dialling.exception(kit.DEADLINE), ConnectionLost)


@pytest.mark.parametrize("sent", [0, 1, 99_999])
@pytest.mark.parametrize("closes", [True, False])
def test_what_came_before_a_peer_fell_silent_or_left_counts(sent: int, closes: bool) -> None:
    left, right = socket.socketpair()
    pipe = blocking.BlockingPipe(left, None, timeout=0.05)
    data = os.urandom(sent)
    right.sendall(data)
    if closes:
        right.close()
    buffer = bytearray(100_000)
    assert pipe.read_exactly(memoryview(buffer)) == sent
    assert buffer[:sent] == data
    pipe.close()
    right.close()
