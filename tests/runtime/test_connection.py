"""The pump: handshake, deadlines, last words, fairness, and bugs that cost one connection only."""

from __future__ import annotations

import asyncio
import logging
import os

import pytest
from tests import kit
from tests.runtime.house import House, face_to_face
from tests.transports.conformance import Recorder

from towline.base.errors import (
    BadProof,
    Busy,
    ConnectionLost,
    Draining,
    HandshakeTimeout,
    NotTowline,
    TowlineError,
    WrongPin,
)
from towline.base.limits import CONTROL_QUEUE
from towline.protocol.codec import Frame, encode
from towline.protocol.table import PREFACE, Class, Kind, Role
from towline.runtime.channel import Channel
from towline.runtime.pump import Connection
from towline.transports import memory, unix


async def _stranger(house: House) -> Recorder:
    """A peer without a session, at the other end of `house`'s connection."""
    peer = Recorder()
    memory.connect_pair(peer, house.connection)
    await kit.until(lambda: peer.is_connected, "connected")
    return peer


@pytest.mark.parametrize("loop", kit.LOOPS)
def test_the_handshake_deadline_is_absolute(loop: str) -> None:
    async def talk() -> None:
        node = House(Role.NODE)
        node.patience = 0.05
        peer = await _stranger(node)

        def trickle() -> None:
            if not peer.is_lost and len(trickled) < len(PREFACE):
                peer.there.write([PREFACE[len(trickled) : len(trickled) + 1]])
                trickled.append(1)
                asyncio.get_running_loop().call_later(0.01, trickle)

        trickled: list[int] = []
        trickle()
        await kit.until(lambda: node.closed, "closed")
        assert isinstance(node.closed[0], HandshakeTimeout)
        assert "0.05 s" in node.closed[0].sentence
        await kit.until(lambda: peer.is_lost, "lost")

    kit.run(talk(), loop)


@pytest.mark.parametrize("loop", kit.LOOPS)
def test_a_client_does_not_wait_for_ever_either(loop: str) -> None:
    async def talk() -> None:
        client = House(Role.CLIENT)
        client.patience = 0.03
        peer = await _stranger(client)
        await kit.until(lambda: client.closed, "closed")
        assert isinstance(client.closed[0], HandshakeTimeout)
        assert peer.data.startswith(PREFACE)

    kit.run(talk(), loop)


def test_a_stranger_without_tls_gets_a_line_too() -> None:
    async def talk() -> None:
        node = House(Role.NODE)
        peer = await _stranger(node)
        peer.there.write(
            [b"GET / HTTP/1.1\r\nHost: a-host-with-a-rather-long-name.example\r\nAccept: */*\r\n\r\n" * 2]
        )
        await kit.until(lambda: peer.is_lost, "lost")
        assert peer.data.startswith(b"This is a Towline node. The other side speaks HTTP")
        assert isinstance(node.closed[0], NotTowline)

    kit.run(talk())


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.HELLO])
def test_no_other_frame_opens_the_conversation(kind: Kind) -> None:
    async def talk() -> None:
        node = House(Role.NODE)
        peer = await _stranger(node)
        size = {Kind.CREDIT: 8, Kind.PING: 8, Kind.PONG: 8}.get(kind, 0)
        stream = 1 if kind in (Kind.OPEN, Kind.ACCEPT, Kind.DATA, Kind.CREDIT, Kind.END, Kind.RESET) else 0
        header = {
            Kind.PROVE: {"method": "peer"},
            Kind.WELCOME: {"person": "root", "grants": "admin"},
            Kind.RESET: {"code": 1, "message": "", "retryable": False},
            Kind.GOAWAY: {"code": 600, "message": "bye", "retryable": True},
        }.get(kind)
        peer.there.write([PREFACE, encode(Frame(kind, 0, stream, header, bytes(size)))])
        await kit.until(lambda: node.closed and peer.is_lost, "closed")
        assert node.closed[0] is not None
        assert not node.events, "nothing was asked of the house"

    kit.run(talk())


def test_a_refusal_at_the_door_is_told_once_and_says_nothing() -> None:
    async def talk() -> None:
        client = House(Role.CLIENT)
        client.refuse = WrongPin("not that one")
        peer = await _stranger(client)
        await kit.until(lambda: client.closed and peer.is_lost, "closed")
        assert [type(error) for error in client.closed] == [WrongPin]
        assert peer.data == b"", "not a byte to the wrong node"

    kit.run(talk())


def test_a_reason_is_heard_behind_a_full_backlog() -> None:
    async def talk() -> None:
        async with face_to_face() as (client, node):
            there = client.open({"service": "x"}, Class.BULK)
            channel = await node.stream()
            for _ in range(20):
                channel.send_nowait(os.urandom(100_000))
            node.connection.flush()
            node.connection.close(BadProof("because"))
            await there.wait_ended()
            while there.receive_nowait() is not None:
                pass
            with pytest.raises(BadProof, match="because"):
                await there.receive()
            await client.wait_closed()
            await client.wait_closed()

    kit.run(talk())


def test_closing_before_there_is_a_transport() -> None:
    async def talk() -> None:
        house = House(Role.CLIENT)
        house.connection.abort()
        await house.connection.wait_closed()
        house.connection.close(ConnectionLost("never mind"))
        house.connection.close(ConnectionLost("never mind"))
        assert len(house.closed) == 1
        assert not house.connection.is_open
        with pytest.raises(ConnectionLost):
            house.connection.open({"service": "x"})

    kit.run(talk())


@pytest.mark.parametrize("loop", kit.LOOPS)
def test_a_peer_that_does_not_let_us_close_is_cut(
    loop: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It neither reads nor closes; after the linger we are rid of it all the same."""
    monkeypatch.setattr("towline.transports.streams.LINGER", 0.05)
    path = str(tmp_path_factory.mktemp("s") / "s")
    os.chmod(os.path.dirname(path), 0o700)

    async def talk() -> None:
        house = House(Role.NODE)
        server = await unix.listen(path, lambda: house.connection)
        reader, writer = await asyncio.open_unix_connection(path)
        await kit.until(lambda: house.connection.transport is not None, "accepted")
        house.connection.close(Busy())
        await kit.finished(house.connection.wait_closed())
        assert isinstance(house.closed[0], Busy)
        writer.close()
        server.close()
        await reader.read()
        await writer.wait_closed()

    kit.run(talk(), loop)


def test_a_keystroke_overtakes_a_file() -> None:
    """Interactive messages queued behind megabytes of bulk arrive long before them."""
    order: list[str] = []

    async def note(channel: Channel) -> None:
        while await channel.receive() is not None:
            order.append(channel.service)

    async def talk() -> None:
        async with face_to_face(note) as (client, node):
            bulk = client.open({"service": "bulk"}, Class.BULK)
            chat = client.open({"service": "chat"}, Class.CHAT)
            keys = client.open({"service": "keys"}, Class.INTERACTIVE)
            await kit.until(lambda: len(node.channels) == 3, "streams")
            for _ in range(60):
                bulk.send_nowait(bytes(32_000))
            for _ in range(3):
                chat.send_nowait(b"hello")
            for _ in range(3):
                keys.send_nowait(b"k")
            for each in (bulk, chat, keys):
                each.end()
            await asyncio.gather(*node.tasks)

    kit.run(talk())
    assert len(order) == 66
    assert order[:6] == ["keys"] * 3 + ["chat"] * 3


def test_two_files_share_the_road() -> None:
    order: list[str] = []

    async def note(channel: Channel) -> None:
        while await channel.receive() is not None:
            order.append(channel.service)

    async def talk() -> None:
        async with face_to_face(note) as (client, node):
            channels = [client.open({"service": name}, Class.BULK) for name in ("one", "two")]
            for channel in channels:
                for _ in range(40):
                    channel.send_nowait(bytes(30_000))
                channel.end()
            await kit.until(lambda: len(node.tasks) == 2, "streams")
            await asyncio.gather(*node.tasks)

    kit.run(talk())
    first = order[:40]
    assert 10 <= first.count("one") <= 30, first


def test_draining_lets_work_finish_and_takes_no_more() -> None:
    go = asyncio.Event()

    async def work(channel: Channel) -> None:
        await go.wait()
        await channel.send(b"done")

    async def talk() -> None:
        async with face_to_face(work) as (client, node):
            channel = client.open({"service": "x"})
            await node.stream()
            node.connection.drain(Draining("later"), 30)
            await kit.until(lambda: client.session.going_away, "GOAWAY")
            with pytest.raises(Draining):
                client.open({"service": "y"})
            go.set()
            message = await channel.receive()
            assert message is not None
            assert message.body == b"done"
            channel.end()
            await kit.until(lambda: node.closed, "closed when the last stream was over")
            assert isinstance(node.closed[0], Draining)

    kit.run(talk())


@pytest.mark.parametrize("loop", kit.LOOPS)
def test_draining_ends_in_time(loop: str) -> None:
    async def talk() -> None:
        async with face_to_face() as (client, node):
            channel = client.open({"service": "x"})
            await node.stream()
            node.connection.drain(Draining("later"), 0.02)
            with pytest.raises(Draining):
                await channel.receive()
            await kit.until(lambda: node.closed, "closed")

    kit.run(talk(), loop)


def test_a_peer_that_asks_without_listening_is_cut() -> None:
    async def talk() -> None:
        async with face_to_face() as (client, node):
            peer = client.transport
            assert peer is not None
            node.connection.session.ping(0.0)
            ping = encode(Frame(Kind.PING, body=bytes(8)))
            peer.write([ping * (CONTROL_QUEUE.value + 200)])
            await kit.until(lambda: node.closed, "closed")
            assert isinstance(node.closed[0], TowlineError)

    kit.run(talk())


def test_a_bug_costs_one_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def talk() -> None:
        async with face_to_face() as (healthy, node):
            broken = House(Role.NODE)
            broken.bug = ZeroDivisionError("ours")
            client = House(Role.CLIENT)
            memory.connect_pair(client.connection, broken.connection)
            await kit.until(lambda: broken.closed and client.closed, "the broken one is gone")
            channel = healthy.open({"service": "x"})
            there = await node.stream()
            channel.send_nowait(b"fine")
            assert await there.receive() is not None

    with caplog.at_level(logging.ERROR):
        kit.run(talk())
    assert "ZeroDivisionError" in caplog.text
    assert "a bug ended the connection" in caplog.text


def test_a_bug_while_coming_up(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(House):
        def session_for(self, connection: Connection, now: float, nonce: bytes) -> object:  # type: ignore[override]
            raise ZeroDivisionError("ours")

    async def talk() -> None:
        house = Broken(Role.NODE)
        peer = Recorder()
        memory.connect_pair(peer, house.connection)
        await kit.until(lambda: house.closed and peer.is_lost, "gone")
        assert len(house.closed) == 1

    kit.run(talk())
    assert "ZeroDivisionError" in caplog.text
