"""Two sessions on a simulated link: whatever is done in whatever order, the promises hold.

What was sent is received in order and once, or the stream was reset or the connection lost; credit is never exceeded
and never leaks; nothing is stuck. A failure prints the ladder of both sides.
"""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from towline.base.errors import LimitExceeded, StreamClosed, TowlineError
from towline.protocol.records import Limits
from towline.protocol.stream import Stream
from towline.protocol.table import Class, State
from world import SMALL, Side, World

MIDDLE = Limits(message=200_000, streams=8, stream_window=70_000, connection_window=90_000)
CLASSES = st.sampled_from([Class.INTERACTIVE, Class.CHAT, Class.BULK])
SIDES = st.sampled_from(["client", "node"])


class Conversation(RuleBasedStateMachine):
    """Both sides open, send, end, reset, release, stop reading; the link is cut at most once, at the end."""

    streams = Bundle("streams")

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.sent: dict[tuple[str, int], list[bytes]] = {}  # (receiving side, stream) -> bodies
        self.ended: set[tuple[str, int]] = set()
        self.counter = 0

    @initialize(seed=st.integers(0, 1000), small=st.booleans(), capacity=st.sampled_from([1, 20_000, 1 << 20]))
    def begin(self, seed: int, small: bool, capacity: int) -> None:
        limits = SMALL if small else MIDDLE
        self.world = World(seed, capacity=capacity, client_limits=limits, node_limits=limits).handshake()

    def side(self, name: str) -> Side:
        return self.world.client if name == "client" else self.world.node

    @rule(target=streams, name=SIDES, scheduling=CLASSES)
    def open(self, name: str, scheduling: Class) -> tuple[str, Stream | None]:
        try:
            return name, self.world.open(self.side(name), scheduling)
        except LimitExceeded:  # the budget of the other side
            return name, None

    @rule(pair=streams, answer=st.booleans(), size=st.sampled_from([0, 1, 100, 1024, 1025, 9000, 60_000]))
    def send(self, pair: tuple[str, Stream | None], answer: bool, size: int) -> None:
        name, stream = self._end_of(pair, answer)
        if stream is None:
            return
        self.counter += 1
        body = self.counter.to_bytes(4) * (size // 4) + b"." * (size % 4)
        try:
            self.side(name).session.send(stream, body, {"n": self.counter} if size % 2 else None)
        except (StreamClosed, TowlineError):
            assert not stream.can_send or self.world.is_cut
        else:
            self.sent.setdefault((_peer(name), stream.id), []).append(body)

    @rule(pair=streams, answer=st.booleans())
    def end(self, pair: tuple[str, Stream | None], answer: bool) -> None:
        name, stream = self._end_of(pair, answer)
        if stream is not None and stream.can_send and not self.world.is_cut:
            self.side(name).session.end(stream)
            self.ended.add((_peer(name), stream.id))

    @rule(pair=streams, answer=st.booleans())
    def reset(self, pair: tuple[str, Stream | None], answer: bool) -> None:
        name, stream = self._end_of(pair, answer)
        if stream is not None:
            self.side(name).session.reset(stream)

    @rule(pair=streams)
    def release(self, pair: tuple[str, Stream | None]) -> None:
        name, stream = self._end_of(pair, answer=True)
        if stream is not None:
            self.side(name).session.release(stream)

    @rule(name=SIDES, reading=st.booleans())
    def stop_or_start_reading(self, name: str, reading: bool) -> None:
        self.side(name).reading = reading
        if reading:
            self.side(name).read_all()

    @rule(seconds=st.sampled_from([0.0, 0.005, 0.1, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.wait(seconds)

    @rule()
    def everything_arrives(self) -> None:
        self.world.settle()

    @rule(name=SIDES)
    def ping(self, name: str) -> None:
        self.side(name).session.ping(self.world.now)

    @rule()
    @precondition(lambda self: self.counter > 12)
    def cut(self) -> None:
        self.world.cut()

    @invariant()
    def received_in_order_and_once(self) -> None:
        for side in (self.world.client, self.world.node):
            for number, messages in side.inbox.items():
                sent = self.sent.get((side.name, number), [])
                got = [body for _, body in messages]
                assert got == sent[: len(got)], self.world.ladder()

    @invariant()
    def closed_only_by_the_cut(self) -> None:
        for side in (self.world.client, self.world.node):
            assert (side.closed is None) == (not self.world.is_cut), f"{side.closed!r}\n{self.world.ladder()}"

    def teardown(self) -> None:
        """Let everybody read: then all has arrived, or was reset, or the link was cut; and no credit is missing."""
        world = self.world
        if world.is_cut:
            return
        for side in (world.client, world.node):
            side.reading = True
            side.read_all()
        world.settle()
        for (name, number), bodies in self.sent.items():
            side = self.side(name)
            over = number in side.resets or number in self.side(_peer(name)).resets or self._let_go(name, number)
            got = [body for _, body in side.inbox.get(number, [])]
            assert over or got == bodies, f"stream {number} at {name}\n{world.ladder()}"
            if (name, number) in self.ended and not over:
                assert number in side.ended, world.ladder()
        for side in (world.client, world.node):
            for stream in list(side.session.streams.values()):
                side.session.reset(stream)
                side.session.release(stream)
        world.settle()
        self._a_full_window_can_be_sent_again()

    def _a_full_window_can_be_sent_again(self) -> None:
        world = self.world
        for side in (world.client, world.node):
            peer = world.other(side)
            stream = world.open(side, Class.CHAT)
            size = side.session.peer_limits.message
            for _ in range(3):
                side.session.send(stream, bytes(size))
            world.settle()
            assert len(peer.inbox[stream.id]) == 3, f"credit is missing\n{world.ladder()}"
            side.session.reset(stream)
            peer.session.release(peer.opened[stream.id])

    def _end_of(self, pair: tuple[str, Stream | None], answer: bool) -> tuple[str, Stream | None]:
        """The opener's end of a stream, or the end that answers, which exists once OPEN has arrived."""
        name, stream = pair
        if answer and stream is not None:
            return _peer(name), self.side(_peer(name)).opened.get(stream.id)
        return name, stream

    def _let_go(self, name: str, number: int) -> bool:
        stream = self.side(name).session.streams.get(number) or self.side(name).opened.get(number)
        return stream is None or stream.released or stream.state.name == "CLOSED"


def _peer(name: str) -> str:
    return "node" if name == "client" else "client"


TestConversation = Conversation.TestCase
TestConversation.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate]
)  # not shrunk: the ladder tells more than a shorter list of calls, and sooner


@pytest.mark.parametrize("seed", range(8))
def test_a_stalled_reader_of_bulk_does_not_stop_chat(seed: int) -> None:
    world = World(seed, client_limits=MIDDLE, node_limits=MIDDLE).handshake()
    world.node.reading = False
    files = [world.open(world.client, Class.BULK) for _ in range(4)]
    for stream in files:
        world.client.session.send(stream, bytes(150_000))
    world.settle()
    chat = world.open(world.client, Class.CHAT)
    world.client.session.send(chat, b"hello")
    world.settle()
    assert world.node.inbox[chat.id] == [(None, b"hello")], world.ladder()


@pytest.mark.parametrize("seed", range(8))
def test_a_keystroke_waits_for_one_chunk(seed: int) -> None:
    world = World(seed, capacity=1, pieces=False).handshake()
    for _ in range(2):
        world.client.session.send(world.open(world.client, Class.BULK), bytes(900_000))
    world.wait(0.005)
    key = world.open(world.client, Class.INTERACTIVE)
    world.client.session.send(key, b"k")
    ahead = len(world.node.events)
    while key.id not in world.node.inbox:
        world.wait(0.001)
    parts = [e for e in world.node.events[ahead:] if type(e).__name__ == "DataReceived"]
    assert [e.stream.id for e in parts].index(key.id) <= 3, world.ladder()  # at most 64 KiB were taken already


def test_idle_connections_stay_alive_and_dead_ones_are_noticed() -> None:
    world = World(3).handshake()
    world.wait(300.0)
    assert world.client.closed is None, world.ladder()
    world.is_cut = True  # the link swallows everything from here on, and nobody is told
    world._flights.clear()
    world.wait(60.0)
    assert world.client.closed is not None
    assert world.node.closed is not None


def test_the_same_seed_is_the_same_run() -> None:
    def run() -> str:
        world = World(5).handshake()
        stream = world.open(world.client)
        for index in range(20):
            world.client.session.send(stream, bytes(index * 1000))
        return world.settle().ladder(10_000)

    assert run() == run()


def test_the_ladder_shows_both_sides() -> None:
    world = World(1, pieces=False).handshake()
    lines = world.ladder().splitlines()
    assert "HELLO" in lines[1].split("|")[0]
    assert any(line.split("|")[1].strip().startswith("HELLO") for line in lines[1:])
    assert world.client.session.state is State.OPEN
