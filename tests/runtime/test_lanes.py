"""Lanes: over a connection of their own, admitted by ticket from the event loop to a thread, and over a stream."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests import kit
from tests.runtime.house import House, face_to_face
from tests.transports.conftest import Tls
from tests.transports.conftest import tls as tls  # the fixture

from towline.base.errors import BadTicket, ConnectionLost, LimitExceeded, TowlineError, UnexpectedFrame, WrongPin
from towline.protocol import events as ev
from towline.protocol.records import Welcome
from towline.protocol.table import Class, Kind, Role
from towline.runtime.lanes import LANES_OF_PERSON, Lane, SocketLane, StreamLane, TicketOffice, dial_lane
from towline.runtime.pump import Connection
from towline.transports import tcp, unix
from towline.transports.blocking import BlockingPipe
from towline.trust.tls import check_pin

_CHUNK = os.urandom(200_000)


class _Gate(House):
    """A node's house that admits lanes."""

    def __init__(self, office: TicketOffice) -> None:
        super().__init__(Role.NODE)
        self.office = office

    def on_event(self, connection: Connection, event: ev.Event) -> None:
        if not isinstance(event, ev.LaneRequested):
            return super().on_event(connection, event)
        try:
            person, drive = self.office.redeem(event.ticket)
        except TowlineError as error:
            return connection.close(error)
        connection.session.welcome(Welcome(person, "", lane=True))
        sock, state, first, rest = connection.detach()
        assert rest == b""
        return self.office.run(BlockingPipe(sock, state, timeout=kit.DEADLINE), first, drive)


@asynccontextmanager
async def _office(tls: Tls, path: str | None) -> AsyncIterator[tuple[TicketOffice, str]]:
    office = TicketOffice()
    houses: list[_Gate] = []

    def new() -> Connection:
        houses.append(_Gate(office))
        return houses[-1].connection

    if path is None:
        server, address = await tcp.listen("127.0.0.1", 0, tls.node, new)
    else:
        server, address = await unix.listen(path, new), f"unix:{path}"
    try:
        yield office, address
    finally:
        server.close()
        office.shutdown()
        await asyncio.to_thread(office.join, kit.DEADLINE)
        for house in houses:
            house.connection.abort()
            await kit.finished(house.connection.wait_closed())


def _echo(lane: Lane) -> None:
    """Give back each range under its name, upper case."""
    while (frame := lane.receive()) is not None:
        assert frame.kind is Kind.OPEN
        name = str(frame.header["name"])
        part = lane.receive()
        assert part is not None
        assert part.kind is Kind.DATA
        body = bytearray(part.size)
        assert lane.read_body(memoryview(body)) == part.size
        lane.send(Kind.OPEN, {"name": name.upper()})
        lane.send(Kind.DATA, None, body)
        lane.send(Kind.END, {"size": len(body)})


def _ask(lane: Lane, name: str, body: bytes) -> None:
    lane.send(Kind.OPEN, {"name": name})
    lane.send(Kind.DATA, None, body)
    opened, part = lane.receive(), lane.receive()
    assert opened is not None
    assert opened.header == {"name": name.upper()}
    assert part is not None
    back = bytearray(part.size)
    assert lane.read_body(memoryview(back)) == len(body)
    assert back == body
    end = lane.receive()
    assert end is not None
    assert end.kind is Kind.END
    assert end.header == {"size": len(body)}


@pytest.mark.parametrize("loop", kit.LOOPS)
@pytest.mark.parametrize("over", ["tcp", "unix"])
def test_a_lane_from_ticket_to_end(tls: Tls, tmp_path: Path, loop: str, over: str) -> None:
    async def talk() -> None:
        path = str(tmp_path / "run" / "s") if over == "unix" else None
        async with _office(tls, path) as (office, address):
            pinned: list[bytes] = []

            def drive() -> None:
                lane = dial_lane(
                    address, tls.client if path is None else None, office.issue("ann", _echo), pinned.append
                )
                for size in (1, 70_000, len(_CHUNK)):
                    _ask(lane, f"range-{size}", _CHUNK[:size])
                lane.shutdown()
                lane.close()

            await asyncio.gather(*(asyncio.to_thread(drive) for _ in range(4)))
            assert len(pinned) == (4 if over == "tcp" else 0)

    kit.run(talk(), loop)


@pytest.mark.parametrize("loop", kit.LOOPS)
def test_a_ticket_opens_one_lane_and_a_wrong_pin_none(tls: Tls, loop: str) -> None:
    async def talk() -> None:
        async with _office(tls, None) as (office, address):

            def drive() -> None:
                ticket = office.issue("ann", _echo)
                lane = dial_lane(address, tls.client, ticket, lambda _: None)
                for bad in (ticket, "", "0" * 32):
                    with pytest.raises(BadTicket):
                        dial_lane(address, tls.client, bad, lambda _: None)
                _ask(lane, "still fine", b"x")
                lane.close()
                fresh = office.issue("ann", _echo)
                with pytest.raises(WrongPin):
                    dial_lane(address, tls.client, fresh, lambda der: check_pin(der, "00" * 32, "home"))
                assert office.redeem(fresh), "the ticket was not shown to the wrong node"

            await asyncio.to_thread(drive)

    kit.run(talk(), loop)


def test_a_person_has_so_many_lanes_and_no_more(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towline.runtime.lanes.LANES_OF_PERSON", LANES_OF_PERSON._replace(value=2))

    async def talk() -> None:
        async with _office(tls, None) as (office, address):

            def drive() -> SocketLane:
                return dial_lane(address, tls.client, office.issue("ann", _echo), lambda _: None)

            def may_have_another() -> bool:
                try:
                    office.withdraw([office.issue("ann", _echo)])
                except LimitExceeded:
                    return False
                return True

            lanes = [await asyncio.to_thread(drive) for _ in range(2)]
            await kit.until(lambda: not may_have_another(), "both are counted")
            with pytest.raises(LimitExceeded, match="lanes_of_person"):
                office.issue("ann", _echo)
            assert office.issue("bob", _echo)
            lanes[0].close()
            await kit.until(may_have_another, "one has gone")
            lanes[1].close()

    kit.run(talk())


def test_a_node_without_threads_closes_the_lane(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        if thread.name == "towline-lane":
            raise RuntimeError("can't start new thread")
        begin(thread)

    begin = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)

    async def talk() -> None:
        async with _office(tls, None) as (office, address):
            with pytest.raises(ConnectionLost):
                await asyncio.to_thread(dial_lane, address, tls.client, office.issue("ann", _echo), lambda _: None)

    kit.run(talk())


def test_the_nodes_end_ends_its_lanes(tls: Tls) -> None:
    async def talk() -> None:
        async with _office(tls, None) as (office, address):
            lane = await asyncio.to_thread(dial_lane, address, tls.client, office.issue("ann", _echo), lambda _: None)
            waiting = asyncio.ensure_future(asyncio.to_thread(lane.receive))
            await asyncio.to_thread(office.shutdown)
            assert await waiting is None
            lane.close()

    kit.run(talk())


@pytest.mark.parametrize(
    "spoil",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(12),
        b"\x06\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x01",
        b"\x0a\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00" + bytes(8),
        b"\x04\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x01{bad}",
        b"\x09\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01",  # a RESET and a GOAWAY that say nothing
        b"\x0c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    ],
)
def test_a_lane_that_carries_something_else_raises_documented_errors_only(tls: Tls, spoil: bytes) -> None:
    told: queue.Queue[BaseException | None] = queue.Queue()

    def drive(lane: Lane) -> None:
        try:
            while lane.receive() is not None:
                pass
        except BaseException as error:
            told.put(error)
            raise
        told.put(None)

    async def talk() -> None:
        async with _office(tls, None) as (office, address):
            lane = await asyncio.to_thread(dial_lane, address, tls.client, office.issue("ann", drive), lambda _: None)
            lane.say([spoil])
            assert isinstance(await asyncio.to_thread(told.get, True, kit.DEADLINE), TowlineError)
            lane.close()

    kit.run(talk())


# --- over a stream ---


def _over_a_stream(client_does: Callable[[Lane], None], node_does: Callable[[Lane], None]) -> None:
    async def talk() -> None:
        async with face_to_face() as (client, node):
            ours = client.open({"service": "lane"}, Class.BULK)
            theirs = await node.stream()
            await asyncio.gather(
                asyncio.to_thread(client_does, StreamLane(ours)), asyncio.to_thread(node_does, StreamLane(theirs))
            )

    kit.run(talk())


def test_the_same_over_a_stream() -> None:
    def client(lane: Lane) -> None:
        for size in (1, 70_000, len(_CHUNK)):
            _ask(lane, f"range-{size}", _CHUNK[:size])
        lane.close()

    _over_a_stream(client, _echo)


def test_a_buffer_may_be_used_again_at_once() -> None:
    def client(lane: Lane) -> None:
        buffer = bytearray(100_000)
        for number in range(20):
            buffer[:] = bytes([number]) * len(buffer)
            lane.send(Kind.DATA, None, memoryview(buffer))
        lane.close()

    def node(lane: Lane) -> None:
        for number in range(20):
            frame = lane.receive()
            assert frame is not None
            body = bytearray(frame.size)
            lane.read_body(memoryview(body))
            assert set(body) == {number}
        assert lane.receive() is None

    _over_a_stream(client, node)


def test_shutdown_wakes_a_thread_that_waits_in_a_stream_lane() -> None:
    async def talk() -> None:
        async with face_to_face() as (client, node):
            lane = StreamLane(client.open({"service": "lane"}, Class.BULK))
            await node.stream()
            waiting = asyncio.ensure_future(asyncio.to_thread(lane.receive))
            await asyncio.sleep(0)
            lane.shutdown()
            try:
                assert await waiting is None
            except ConnectionLost:
                pass  # as documented
            with pytest.raises(ConnectionLost):
                await asyncio.to_thread(lane.send, Kind.DATA, None, b"late")

    kit.run(talk())


def test_a_stream_lane_whose_loop_is_gone() -> None:
    kept: list[StreamLane] = []

    async def talk() -> None:
        async with face_to_face() as (client, _):
            kept.append(StreamLane(client.open({"service": "lane"}, Class.BULK)))

    kit.run(talk())
    lane = kept[0]
    lane.shutdown()
    lane.close()
    for act in (lane.receive, lambda: lane.send(Kind.END)):
        with pytest.raises(ConnectionLost):
            act()


def test_a_stream_lane_whose_loop_is_closed_before_it_comes_to_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towline.runtime.lanes._LOOK_SECONDS", 0.01)
    kept: list[StreamLane] = []
    loop, asked = asyncio.new_event_loop(), threading.Event()

    async def talk() -> None:
        async with face_to_face() as (client, _):
            kept.append(StreamLane(client.open({"service": "lane"}, Class.BULK)))

    def call_soon_threadsafe(*args: Any, **kwargs: Any) -> object:
        handle = asyncio.BaseEventLoop.call_soon_threadsafe(loop, *args, **kwargs)
        asked.set()
        return handle

    loop.run_until_complete(talk())
    monkeypatch.setattr(loop, "call_soon_threadsafe", call_soon_threadsafe)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(kept[0].receive)
        assert asked.wait(kit.DEADLINE)
        loop.close()
        assert isinstance(waiting.exception(kit.DEADLINE), ConnectionLost)


def test_a_stream_lane_that_carries_something_else() -> None:
    async def talk() -> None:
        async with face_to_face() as (client, node):
            ours = client.open({"service": "lane"}, Class.BULK)
            theirs = StreamLane(await node.stream())
            for header in (
                {"kind": 1, "range": {}},
                {"kind": "4", "range": {}},
                {"kind": 4.0, "range": {}},
                {"kind": 4},
                {"kind": 8, "range": 3},
            ):
                await ours.send(b"", header)
                with pytest.raises(UnexpectedFrame):
                    await asyncio.to_thread(theirs.receive)

    kit.run(talk())
