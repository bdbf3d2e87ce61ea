"""A line: one connection for all who ask, back after a cut, and given up only in time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import kit

import towline
from towline.base.errors import (
    BadInvite,
    ConnectionLost,
    NotJoined,
    NotTowline,
    Revoked,
    TowlineError,
    UnknownAlias,
    UnknownService,
    Unreachable,
    WrongPin,
)
from towline.client.line import Connected, Reconnecting
from towline.client.outbox import Outbox
from towline.runtime.channel import Channel
from towline.trust.pins import KnownNodes, Node

patient = kit.patient
address = kit.address


async def _echo(line: towline.Line, text: bytes = b"hello") -> bytes:
    channel = await line.channel({"service": "echo"})
    await channel.send(text)
    message = await channel.receive()
    channel.end()
    assert message is not None
    return message.body


@pytest.fixture
def dead_port() -> Iterator[int]:
    with kit.dead_port() as port:
        yield port


def _point(home: str, *addresses: str) -> None:
    known = KnownNodes(home)
    node = known.find("home")
    from msgspec.structs import replace

    known.add(replace(node, address=addresses[0], addresses=addresses), replace=True)


@pytest.mark.parametrize("loop", kit.LOOPS)
def test_many_who_ask_at_once_share_one_connection(tmp_path: Path, loop: str) -> None:
    async def talk() -> None:
        async with kit.serving(tmp_path / "n") as node, kit.Relay(node.listening.address or "") as relay:
            home = await kit.joined(node, tmp_path / "c")
            _point(home, relay.address)
            async with towline.connect("home", home=home) as line:
                answers = await asyncio.gather(*(_echo(line, b"%d" % number) for number in range(30)))
                assert answers == [b"%d" % number for number in range(30)]
                assert relay.count == 1
                assert line.welcome is not None
                assert line.welcome.person == "ann"
                assert line.address == relay.address

    kit.run(talk(), loop)


@pytest.mark.parametrize("loop", kit.LOOPS)
def test_after_a_cut_the_line_comes_back(tmp_path: Path, loop: str) -> None:
    told: list[towline.LineEvent] = []

    async def talk() -> None:
        async with kit.serving(tmp_path / "n") as node, kit.Relay(node.listening.address or "") as relay:
            home = await kit.joined(node, tmp_path / "c")
            _point(home, relay.address)
            async with towline.connect("home", home=home, on_event=told.append) as line:
                for cut in range(3):
                    channel = await line.channel({"service": "echo"})
                    relay.cut()
                    with pytest.raises(ConnectionLost):
                        await channel.receive()
                    assert await asyncio.gather(_echo(line), _echo(line)) == [b"hello"] * 2
                    assert line.cuts == cut + 1
                assert relay.count == 4

    kit.run(talk(), loop)
    assert [type(each) for each in told] == [Connected] + [Reconnecting, Connected] * 3
    again = [each for each in told if isinstance(each, Reconnecting)]
    assert all(each.wait == 0 and isinstance(each.error, ConnectionLost) for each in again), (
        "the first try is at once"
    )
    assert [each.again for each in told if isinstance(each, Connected)] == [False, True, True, True]


async def _cut_off(line: towline.Line) -> None:
    """Ask for the service that ends the connection at once."""
    channel = await line.channel({"service": "cut"})
    with pytest.raises(ConnectionLost):
        await channel.receive()


async def _cut(channel: Channel) -> None:
    channel.connection.abort()


def test_a_node_that_lets_us_in_and_cuts_us_off_is_not_stormed(tmp_path: Path, patient: None) -> None:
    told: list[towline.LineEvent] = []

    async def talk() -> None:
        async with kit.serving(tmp_path / "n") as node:
            node.service("cut")(_cut)
            home = await kit.joined(node, tmp_path / "c")
            async with towline.connect("home", home=home, on_event=told.append) as line:
                for _ in range(4):
                    await _cut_off(line)
                assert await _echo(line) == b"hello"
                await _cut_off(line)
                assert await _echo(line) == b"hello"

    kit.run(talk())
    again = [(each.attempt, each.wait > 0) for each in told if isinstance(each, Reconnecting)]
    assert again == [(1, False), (2, True), (3, True), (4, True), (1, False)], "data from the node ends the caution"


def test_a_node_that_cuts_us_off_each_time_is_given_up(tmp_path: Path, patient: None) -> None:
    async def talk() -> None:
        async with kit.serving(tmp_path / "n") as node:
            node.service("cut")(_cut)
            home = await kit.joined(node, tmp_path / "c")
            async with towline.connect("home", home=home, give_up=0.3) as line:
                with pytest.raises(Unreachable, match="home: "):
                    while True:
                        await _cut_off(line)
                assert await _echo(line) == b"hello", "whoever asks anew has as much patience as before"

    kit.run(talk())


def test_a_node_that_restarts_is_found_again(tmp_path: Path, address: str) -> None:
    async def talk() -> None:
        async with kit.serving(tmp_path / "n", listen=address) as node:
            home = await kit.joined(node, tmp_path / "c")
            line = towline.connect("home", home=home)
            await line.connection()
        asking = asyncio.ensure_future(_echo(line))
        await kit.until(lambda: line.cuts, "the cut")
        async with kit.serving(tmp_path / "n", listen=address):
            assert await asking == b"hello"
            await line.close()

    kit.run(talk())


def test_a_cancelled_waiter_does_not_take_the_others_along(tmp_path: Path) -> None:
    async def talk() -> None:
        async with kit.serving(tmp_path / "n") as node, kit.Relay(node.listening.address or "") as relay:
            home = await kit.joined(node, tmp_path / "c")
            _point(home, relay.address)
            line = towline.connect("home", home=home)
            first, second, third = (asyncio.ensure_future(line.connection()) for _ in range(3))
            await kit.until(lambda: relay.count, "dialling")
            first.cancel()
            third.cancel()
            assert (await second).is_open
            assert first.cancelled()
            assert relay.count == 1
            await line.close()

    kit.run(talk())


@pytest.mark.parametrize("loop", kit.LOOPS)
def test_when_nobody_waits_any_more_the_dialling_ends(tmp_path: Path, loop: str) -> None:
    async def talk() -> None:
        async with kit.serving(tmp_path / "n") as node, kit.Relay(node.listening.address or "") as relay:
            home = await kit.joined(node, tmp_path / "c")
            _point(home, relay.address)
            relay.deaf = True
            line = towline.connect("home", home=home)
            waiting = [asyncio.ensure_future(line.connection()) for _ in range(2)]
            await kit.until(lambda: relay.count, "dialling")
            before = len(asyncio.all_tasks())
            for each in waiting:
                each.cancel()
            await asyncio.wait(waiting)
            await kit.until(lambda: len(asyncio.all_tasks()) < before - 2, "no task is left")
            relay.deaf = False
            assert (await line.connection()).is_open, "and the next one who asks dials anew"
            await line.close()

    kit.run(talk(), loop)


def test_a_failure_is_shared_too(tmp_path: Path, dead_port: int) -> None:
    told: list[towline.LineEvent] = []

    async def talk() -> None:
        async with kit.serving(tmp_path / "n") as node:
            home = await kit.joined(node, tmp_path / "c")
        _point(home, f"127.0.0.1:{dead_port}")
        line = towline.connect("home", home=home, give_up=0.2, on_event=told.append)
        results = await asyncio.gather(*(line.connection() for _ in range(20)), return_exceptions=True)
        assert all(isinstance(each, Unreachable) for each in results)
        assert "home: 127.0.0.1" in str(results[0])
        assert "nothing listens there" in str(results[0])
        await line.close()

    kit.run(talk())
    attempts = [each.attempt for each in told if isinstance(each, Reconnecting)]
    assert attempts == list(range(1, len(attempts) + 1)), "one series of attempts"


def test_a_node_that_accepts_and_says_nothing(tmp_path: Path) -> None:
    async def talk() -> None:
        async with kit.serving(tmp_path / "n") as node, kit.Relay(node.listening.address or "") as relay:
            home = await kit.joined(node, tmp_path / "c")
            _point(home, relay.address)
            relay.deaf = True
            line = towline.connect("home", home=home, give_up=0.1)
            with pytest.raises(Unreachable, match="did not answer within"):
                await line.connection()
            await line.close()

    kit.run(talk())


@pytest.mark.parametrize("loop", kit.LOOPS)
def test_closing_ends_the_waiting_and_everything_else(tmp_path: Path, loop: str) -> None:
    async def talk() -> None:
        async with kit.serving(tmp_path / "n") as node, kit.Relay(node.listening.address or "") as relay:
            home = await kit.joined(node, tmp_path / "c")
            _point(home, relay.address)
            relay.deaf = True
            line = towline.connect("home", home=home)
            waiting = asyncio.ensure_future(line.connection())
            await kit.until(lambda: relay.count, "dialling")
            await line.close()
            with pytest.raises(ConnectionLost, match="The line was closed"):
                await waiting
            await line.close()
            with pytest.raises(ConnectionLost, match="The line was closed"):
                await line.channel({"service": "echo"})

    kit.run(talk(), loop)


def test_closing_ends_open_streams(tmp_path: Path) -> None:
    async def talk() -> None:
        async with kit.serving(tmp_path / "n") as node:
            home = await kit.joined(node, tmp_path / "c")
            async with towline.connect("home", home=home) as line:
                channel = await line.channel({"service": "echo"})
            with pytest.raises(ConnectionLost):
                await channel.receive()

    kit.run(talk())


def test_several_addresses(tmp_path: Path, dead_port: int, patient: None) -> None:
    """A dead one, a neighbour's node and an HTTP server do not keep us from ours; alone, each is named."""

    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def talk() -> None:
        web = await asyncio.start_server(http, "127.0.0.1", 0)
        async with kit.serving(tmp_path / "n") as node, kit.serving(tmp_path / "m") as neighbour:
            dead, strange = f"127.0.0.1:{dead_port}", f"127.0.0.1:{web.sockets[0].getsockname()[1]}"
            other, ours = neighbour.listening.address or "", node.listening.address or ""
            home = await kit.joined(node, tmp_path / "c")
            _point(home, dead, other, strange, ours)
            async with towline.connect("home", home=home) as line:
                assert line.address == ours
                assert await _echo(line) == b"hello"
            for address, kind in ((other, WrongPin), (strange, NotTowline)):
                _point(home, address)
                with pytest.raises(kind):
                    await towline.connect("home", home=home).connection()
            _point(home, dead, other)
            with pytest.raises(Unreachable, match=r"nothing listens there.*shows another key"):
                await towline.connect("home", home=home, give_up=0.1).connection()
        web.close()
        await web.wait_closed()

    kit.run(talk(), "asyncio")


def test_what_trying_again_cannot_mend_is_told_at_once(tmp_path: Path) -> None:
    async def talk() -> None:
        async with kit.serving(tmp_path / "n") as node:
            home = await kit.joined(node, tmp_path / "c")
            os.unlink(tmp_path / "c" / "identity.key")
            told: list[towline.LineEvent] = []
            with pytest.raises(NotJoined):
                await towline.connect("home", home=home, on_event=told.append).connection()
            assert told == []

    kit.run(talk())


def test_whoever_is_shut_out_is_gone_at_once_and_stays_out(tmp_path: Path) -> None:
    async def talk() -> None:
        async with kit.serving(tmp_path / "n") as node:
            home = await kit.joined(node, tmp_path / "c")
            admin = await kit.joined(node, tmp_path / "a", "boss", "admin")
            async with towline.connect("home", home=home) as line, towline.connect("home", home=admin) as boss:
                channel = await line.channel({"service": "echo"})
                order = await boss.channel({"service": "admin", "op": "revoke", "name": "ann"})
                assert await order.receive() is not None
                with pytest.raises(Revoked):
                    await channel.receive()
                with pytest.raises(Revoked):
                    await line.channel({"service": "echo"})

    kit.run(talk())


def test_services_and_grants_at_the_door(tmp_path: Path) -> None:
    async def talk() -> None:
        async with kit.serving(tmp_path / "n") as node:
            home = await kit.joined(node, tmp_path / "c")
            async with towline.connect("home", home=home) as line:
                for header, kind in (
                    ({"service": "none\x1b"}, UnknownService),
                    ({}, UnknownService),
                    ({"service": 7}, TowlineError),
                    ({"service": "admin", "op": "people"}, towline.TowlineError),
                ):
                    channel = await line.channel(header)
                    with pytest.raises(kind) as refused:
                        await channel.receive()
                    assert "\x1b" not in refused.value.sentence
                assert await _echo(line) == b"hello"

    kit.run(talk())


def test_an_unknown_alias_and_bad_codes(tmp_path: Path) -> None:
    with pytest.raises(UnknownAlias):
        towline.connect("nowhere", home=str(tmp_path / "c"))

    async def talk() -> None:
        async with kit.serving(tmp_path / "n") as node:
            code = await node.invite("ann")
            await towline.join(code, "home", home=str(tmp_path / "c"))
            await towline.join(code, "home", home=str(tmp_path / "c"))  # its first answer may have been lost
            with pytest.raises(BadInvite, match="used already"):
                await towline.join(code, "home", home=str(tmp_path / "d"))
            with pytest.raises(BadInvite, match="mistyped"):
                await towline.join(code[:-1] + ("0" if code[-1] != "0" else "1"), home=str(tmp_path / "d"))
            assert KnownNodes(str(tmp_path / "d")).all() == []

    kit.run(talk())


def test_a_unix_socket_alone(tmp_path: Path) -> None:
    async def talk() -> None:
        async with kit.serving(tmp_path / "n", listen=None) as node:
            assert node.listening.address is None
            home = await kit.joined(node, tmp_path / "c")
            async with towline.connect("home", home=home) as line:
                assert line.address == f"unix:{node.listening.unix}"
                assert line.welcome is not None
                assert line.welcome.person == "ann", "with a key, not as the owner"
                assert await _echo(line) == b"hello"

    kit.run(talk())


def test_what_was_said_in_the_last_moment_stays_in_the_outbox(tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    KnownNodes(home).add(
        Node(alias="home", address="127.0.0.1:1", addresses=("127.0.0.1:1",), fingerprint="00" * 32, name="home")
    )

    async def work() -> None:
        line = towline.connect("home", home=home)
        waiting = line.room("lobby").post("in the last moment")
        await line.close()
        with pytest.raises(ConnectionLost, match="stays in the outbox"):
            await waiting

    kit.run(work())
    outbox = Outbox(home, "00" * 32)
    assert [b"in the last moment" in each.body for each in outbox.pending()] == [True]
    outbox.close()


def test_who_is_cancelled_while_closing_leaves_no_connection_open(tmp_path: Path) -> None:
    """… also when the loop ends right after that."""
    with kit.running_node(tmp_path) as node:
        node.join(tmp_path / "ann")

        async def work() -> None:
            line = await towline.connect("home", home=str(tmp_path / "ann")).__aenter__()
            assert await _echo(line) == b"hello"
            closing = asyncio.ensure_future(line.close())
            await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])

        for _ in range(3):
            kit.run(work())
