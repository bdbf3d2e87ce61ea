"""How a node ends: work may finish, silence is not waited for, a second signal is obeyed at once."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest
from tests import kit

import towline
from towline.base.errors import Draining, InUse, TowlineError
from towline.node import Node, NodeConfig


async def _ended(node: kit.NodeProcess) -> int:
    return await asyncio.to_thread(node.wait)


def test_running_work_finishes_and_new_work_is_turned_away(tmp_path: Path) -> None:
    async def talk(node: kit.NodeProcess) -> None:
        async with towline.connect("home", home=str(tmp_path / "c")) as line:
            channel = await line.channel({"service": "echo"})
            await channel.send(b"one")
            assert await channel.receive() is not None
            connection = await line.connection()
            node.signal(signal.SIGTERM)
            await kit.until(lambda: connection.session.going_away, "GOAWAY")
            with pytest.raises(Draining):
                connection.open({"service": "echo"})
            await channel.send(b"two")
            message = await channel.receive()
            assert message is not None
            assert message.body == b"two", "what was running goes on"
            assert node.process.poll() is None
            channel.end()
            assert await _ended(node) == 0, "and the node ends with it, not with the time"

    with kit.running_node(tmp_path, "--drain", "1m") as node:
        node.join(tmp_path / "c")
        kit.run(talk(node))
        assert not (node.data / "run" / "tow.sock").exists()


def test_work_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    async def talk(node: kit.NodeProcess) -> None:
        async with towline.connect("home", home=str(tmp_path / "c")) as line:
            channel = await line.channel({"service": "echo"})
            await channel.send(b"one")
            assert await channel.receive() is not None
            started = time.monotonic()
            node.signal(signal.SIGTERM)
            with pytest.raises(Draining):
                await channel.receive()
            assert await _ended(node) == 0
            assert time.monotonic() - started > 0.2

    with kit.running_node(tmp_path, "--drain", "300ms") as node:
        node.join(tmp_path / "c")
        kit.run(talk(node))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(tmp_path: Path, number: int) -> None:
    async def talk(node: kit.NodeProcess) -> None:
        async with towline.connect("home", home=str(tmp_path / "c")) as line:
            channel = await line.channel({"service": "echo"})
            await channel.send(b"one")
            assert await channel.receive() is not None
            connection = await line.connection()
            node.signal(number)
            await kit.until(lambda: connection.session.going_away, "GOAWAY")
            node.signal(number)
            assert await _ended(node) == 130

    node = kit.NodeProcess(tmp_path, "--drain", "1m")
    try:
        node.join(tmp_path / "c")
        kit.run(talk(node))
        assert not kit.complaints(node.errors()), node.errors()
    finally:
        node.end()
    with kit.running_node(tmp_path):
        pass


def test_clients_that_do_nothing_are_not_waited_for(tmp_path: Path) -> None:
    async def talk(node: kit.NodeProcess) -> None:
        async with towline.connect("home", home=str(tmp_path / "c")) as line:
            connection = await line.connection()
            _, silent = await asyncio.open_connection(*node.address.rsplit(":", 1))
            done = await line.channel({"service": "files", "op": "shares"})
            assert await done.receive() is not None, "and a stream that only the client has not ended is no work"
            node.signal(signal.SIGTERM)
            assert await _ended(node) == 0
            await connection.wait_closed()
            assert isinstance(connection.session.error, Draining)
            silent.transport.abort()

    with kit.running_node(tmp_path, "--drain", "1m") as node:
        node.join(tmp_path / "c")
        kit.run(talk(node))


# --- embedded ---


@pytest.mark.parametrize("loop", kit.LOOPS)
def test_a_handler_that_looks_elsewhere_learns_of_the_end(tmp_path: Path, loop: str) -> None:
    heard: list[str] = []

    async def talk() -> None:
        node = Node(NodeConfig(str(tmp_path / "n"), listen="127.0.0.1:0", orphan=0.02))
        started = asyncio.Event()

        @node.service("stuck")
        async def stuck(channel: towline.Channel) -> None:
            started.set()
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                heard.append("cancelled")
                raise

        @node.service("careful")
        async def careful(channel: towline.Channel) -> None:
            try:
                async for _ in channel:
                    pass
            except TowlineError as error:
                heard.append(error.name)

        async with node:
            home = await kit.joined(node, tmp_path / "c")
            async with towline.connect("home", home=home) as line:
                one, two = await line.channel({"service": "stuck"}), await line.channel({"service": "careful"})
                await started.wait()
                one.reset()
                await kit.until(lambda: heard == ["cancelled"], "the end of its stream")
                await two.send(b"x")
            await kit.until(lambda: len(heard) == 2, "the end of the connection")

    kit.run(talk(), loop)
    assert heard == ["cancelled", "connection-lost"]


def test_a_handlers_bug_is_logged_and_costs_one_stream(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def talk() -> None:
        node = Node(NodeConfig(str(tmp_path / "n"), listen="127.0.0.1:0"))

        @node.service("broken")
        async def broken(channel: towline.Channel) -> None:
            raise ZeroDivisionError("ours")

        async with node:
            home = await kit.joined(node, tmp_path / "c")
            async with towline.connect("home", home=home) as line:
                channel = await line.channel({"service": "broken"})
                with pytest.raises(TowlineError, match="its log has the details") as told:
                    await channel.receive()
                assert told.value.name == "internal"
                assert "ZeroDivision" not in told.value.sentence
                echo = await line.channel({"service": "echo"})
                await echo.send(b"fine")
                assert await echo.receive() is not None

    kit.run(talk())
    assert "ZeroDivisionError" in caplog.text


def test_two_hundred_short_streams_on_one_connection(tmp_path: Path) -> None:
    """A client that never ends its side of one-shot requests does not run out of streams."""

    async def talk() -> None:
        node = Node(NodeConfig(str(tmp_path / "n"), listen="127.0.0.1:0"))

        @node.service("once")
        async def once(channel: towline.Channel) -> None:
            await channel.send(b"answer")

        async with node:
            home = await kit.joined(node, tmp_path / "c")
            async with towline.connect("home", home=home) as line:
                for _ in range(200):
                    channel = await line.channel({"service": "once"})
                    assert [body async for body in channel] == [b"answer"]
                    channel.end()

    kit.run(talk())


def test_a_node_that_cannot_start_leaves_nothing_behind(tmp_path: Path) -> None:
    async def talk() -> None:
        async with kit.serving(tmp_path / "one") as one:
            other = Node(NodeConfig(str(tmp_path / "two"), listen=one.listening.address))
            with pytest.raises(InUse):
                await other.start()
        async with kit.serving(tmp_path / "two") as two:  # its lock was let go
            assert two.listening.address
            with pytest.raises(InUse):
                await Node(NodeConfig(str(tmp_path / "two"), listen=None)).start()
            assert Path(two.listening.unix or "").exists()

    kit.run(talk())


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_an_invite_to_a_node_on_all_interfaces_names_real_addresses(tmp_path: Path, listen: str) -> None:
    async def talk() -> None:
        async with kit.serving(tmp_path / "n", listen=listen) as node:
            addresses = node.invite_addresses()
            assert addresses
            assert not any(each.startswith(("0.0.0.0", "[::]")) for each in addresses)
            assert addresses[-1].startswith(("127.0.0.1:", "[::1]:")), "this machine comes last"
            home = await kit.joined(node, tmp_path / "c")
            async with towline.connect("home", home=home) as line:
                assert line.address in addresses

    kit.run(talk())
