"""The smaller parts: backoff, admission, tickets."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests import kit
from tests.runtime.house import House
from tests.transports.conformance import Recorder

from towline.base.errors import BadTicket, Busy, LimitExceeded
from towline.protocol.table import Kind, Role
from towline.runtime import listener
from towline.runtime.dialer import FIRST_DELAY, LONGEST_DELAY, Backoff
from towline.runtime.lanes import TICKET_SECONDS, TICKETS, Lane, SocketLane, TicketOffice
from towline.runtime.listener import Admission
from towline.transports import Peer, memory
from towline.transports.blocking import BlockingPipe


def _waits(seed: int, count: int, give_up: float = 1e9) -> list[float | None]:
    backoff = Backoff(give_up, 0.0, random.Random(seed).uniform)
    return [backoff.next_wait(0.0) for _ in range(count)]


def test_the_first_attempt_is_at_once_and_the_rest_jitter_below_a_bound_that_doubles() -> None:
    many = [_waits(seed, 20) for seed in range(300)]
    assert all(waits[0] == 0.0 for waits in many)
    for turn in range(1, 20):
        bound = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (turn + 1))
        column = [waits[turn] for waits in many]
        assert all(wait is not None and 0 <= wait <= bound for wait in column)
        assert max(w for w in column if w is not None) > bound * 0.9, "it uses the whole range"
        assert min(w for w in column if w is not None) < bound * 0.1, "full jitter"


def test_the_same_seed_waits_the_same() -> None:
    assert _waits(1, 10) == _waits(1, 10)
    assert _waits(1, 10) != _waits(2, 10)


def test_it_heeds_the_nodes_wish_and_does_not_come_back_in_a_crowd() -> None:
    waits = set()
    for seed in range(50):
        backoff = Backoff(600.0, 0.0, random.Random(seed).uniform)
        wait = backoff.next_wait(0.0, 5.0)
        assert wait is not None
        assert 5.0 <= wait <= 5.0 + 2 * FIRST_DELAY
        waits.add(wait)
    assert len(waits) == 50


def test_it_gives_up_in_time_and_never_waits_past_it() -> None:
    backoff = Backoff(10.0, 100.0, random.Random(1).uniform)
    assert backoff.next_wait(100.0) == 0.0
    assert backoff.next_wait(109.5, 60.0) == pytest.approx(0.5)
    assert backoff.next_wait(110.0) is None
    assert backoff.next_wait(110.0, 5.0) is None
    assert backoff.attempt == 4


# --- admission ---


class _FromHost(memory.MemoryTransport):
    def __init__(self, receiver: object, host: str) -> None:
        super().__init__(receiver)  # type: ignore[arg-type]
        self.peer = Peer("memory", host, host)


def _arrive(hall: Admission, host: str) -> House:
    house = House(Role.NODE)
    near, far = _FromHost(house.connection, host), memory.MemoryTransport(Recorder())
    near.far_end, far.far_end = far, near
    far.receiver.opening(far)
    house.connection.opening(near)
    hall.arrive(house.connection)
    return house


@contextmanager
def _limit(monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> Iterator[None]:

    with monkeypatch.context() as patched:
        patched.setattr(listener, name, getattr(listener, name)._replace(value=value))
        yield


def test_the_oldest_stranger_of_a_crowded_address_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        hall = Admission()
        with _limit(monkeypatch, "UNPROVED_PER_HOST", 3):
            other = _arrive(hall, "192.0.2.9")
            crowd = [_arrive(hall, "192.0.2.1") for _ in range(5)]
            await kit.until(lambda: crowd[0].closed and crowd[1].closed, "the first two are gone")
            assert isinstance(crowd[0].closed[0], Busy)
            assert not other.closed
            assert hall.everyone() == [each.connection for each in (other, *crowd[2:])]

    kit.run(talk())


def test_a_full_hall_sends_the_oldest_away_wherever_from(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        hall = Admission()
        with _limit(monkeypatch, "UNPROVED", 3):
            crowd = [_arrive(hall, f"192.0.2.{number}") for number in range(4)]
            await kit.until(lambda: crowd[0].closed, "the first is gone")
            assert len(hall.everyone()) == 3
            hall.prove(crowd[1].connection)
            _arrive(hall, "192.0.2.77")
            assert not crowd[1].closed
            assert not crowd[2].closed, "who has proved a key stands in nobody's way"

    kit.run(talk())


def test_a_full_house_says_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        hall = Admission()
        with _limit(monkeypatch, "CONNECTIONS", 1):
            first, second = _arrive(hall, "a"), _arrive(hall, "a")
            hall.prove(first.connection)
            with pytest.raises(Busy) as busy:
                hall.prove(second.connection)
            assert busy.value.retry_after
            hall.leave(first.connection)
            hall.leave(first.connection)
            hall.prove(second.connection)
            assert hall.everyone() == [second.connection]

    kit.run(talk())


# --- tickets ---


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def _nothing(_: Lane) -> None:
    pass


def test_a_ticket_is_good_once() -> None:
    office = TicketOffice()
    driven: list[Lane] = []
    ticket = office.issue("ann", driven.append)
    person, drive = office.redeem(ticket)
    ours, theirs = _pipes()
    drive(ours)
    assert (person, driven) == ("ann", [ours])
    ours.close()
    theirs.close()
    for bad in (ticket, "", "0" * 32, ticket.upper()):
        with pytest.raises(BadTicket):
            office.redeem(bad)


def test_a_ticket_is_for_dialling_at_once() -> None:
    clock = _Clock()
    office = TicketOffice(clock)
    late, just = office.issue("ann", _nothing), office.issue("ann", _nothing)
    clock.now += TICKET_SECONDS.value - 0.001
    office.redeem(just)
    clock.now += 0.001
    with pytest.raises(BadTicket):
        office.redeem(late)


def test_unused_tickets_are_bounded_for_each_person() -> None:
    clock = _Clock()
    office = TicketOffice(clock)
    for _ in range(TICKETS.value):
        office.issue("ann", _nothing)
    with pytest.raises(LimitExceeded, match=f"Limit tickets is {TICKETS.value}"):
        office.issue("ann", _nothing)
    office.issue("bob", _nothing)
    clock.now += TICKET_SECONDS.value
    office.issue("ann", _nothing)


def _pipes() -> tuple[SocketLane, BlockingPipe]:
    ours, theirs = socket.socketpair()
    return SocketLane(BlockingPipe(ours, None, timeout=kit.DEADLINE)), BlockingPipe(
        theirs, None, timeout=kit.DEADLINE
    )


def test_shutting_the_office_wakes_its_lanes_and_admits_no_more() -> None:
    office = TicketOffice()
    started = threading.Event()

    def wait_for_ever(lane: Lane) -> None:
        started.set()
        assert lane.receive() is None

    lane, pipe = _pipes()
    ticket = office.issue("ann", _nothing)
    office.run(pipe, [b"first words"], wait_for_ever)
    assert started.wait(kit.DEADLINE)
    office.shutdown()
    office.join(kit.DEADLINE)
    first = bytearray(20)
    assert _read(lane, first) == len(b"first words")
    assert first.startswith(b"first words")
    with pytest.raises(BadTicket):
        office.redeem(ticket)
    late_lane, late_pipe = _pipes()
    office.run(late_pipe, [], wait_for_ever)
    assert late_lane.receive() is None
    lane.close()
    late_lane.close()


def test_a_bug_in_a_lane_ends_that_lane(caplog: pytest.LogCaptureFixture) -> None:
    office = TicketOffice()

    def broken(_: Lane) -> None:
        raise ZeroDivisionError("ours")

    lane, pipe = _pipes()
    office.run(pipe, [], broken)
    assert lane.receive() is None
    office.join(kit.DEADLINE)
    assert "ZeroDivisionError" in caplog.text
    lane.close()


def _read(lane: SocketLane, into: bytearray) -> int:
    return lane.read_body(memoryview(into))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lane: lane.send(Kind.OPEN, {"service": "x"}),
        lambda lane: lane.send(Kind.DATA, None, b"body"),
        lambda lane: lane.send(Kind.END, {"ok": True}),
    ],
)
def test_frames_of_a_lane(spoil: Callable[[SocketLane], None]) -> None:
    lane, pipe = _pipes()
    other = SocketLane(pipe)
    spoil(lane)
    frame = other.receive()
    assert frame is not None
    if frame.size:
        body = bytearray(frame.size)
        assert _read(other, body) == frame.size
        assert body == b"body"
    lane.close()
    assert other.receive() is None
    other.close()
