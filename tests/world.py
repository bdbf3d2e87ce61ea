"""A simulated world for the pure core: two sessions, a link with delay, cuts and odd pieces, and a clock of its own.

`World` joins a client and a node; nothing waits, time jumps to whatever happens next, and one seed makes one run.
`Talk` is one session and a script: it hears frames, it says frames, it tells events; a failure prints what was
expected and what happened as two ladders side by side.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from random import Random

from towline.base.errors import ConnectionLost, TowlineError
from towline.protocol import events as ev
from towline.protocol.codec import Decoder, Frame, Header, encode
from towline.protocol.explain import describe
from towline.protocol.records import Limits, Proof, Welcome
from towline.protocol.session import Session
from towline.protocol.stream import Stream
from towline.protocol.table import PREFACE, Class, Role, State, StreamState

SMALL = Limits(frame_header=1024, frame_body=1024, message=64 * 1024, streams=8, stream_window=8240,
               connection_window=8240)  # fmt: skip
WIDTH = 62


def session(role: Role, *, now: float = 0.0, limits: Limits | None = None, lane: str | None = None) -> Session:
    """A session with fixed nonce and names."""
    name = "home" if role is Role.NODE else None
    return Session(
        role, agent="test", nonce=bytes([len(role.value)]) * 32, now=now, name=name, limits=limits, lane=lane
    )


def frames_of(data: bytes) -> Iterator[Frame]:
    """Frames of complete bytes, a preface skipped."""
    yield from Decoder(1 << 16, 1 << 30).feed(data.removeprefix(PREFACE))


def taken(each: Session, limit: int = 1 << 30) -> bytes:
    return b"".join(bytes(buffer) for buffer in each.take(limit))


def opened_pair(
    client_limits: Limits | None = None, node_limits: Limits | None = None, now: float = 0.0
) -> tuple[Session, Session]:
    """A client and a node behind the handshake, nothing under way."""
    client = session(Role.CLIENT, now=now, limits=client_limits)
    node = session(Role.NODE, now=now, limits=node_limits)
    node.receive(taken(client), now)
    client.receive(taken(node), now + 0.01)
    client.prove(Proof("peer"))
    node.receive(taken(client), now + 0.02)
    node.welcome(Welcome("ada", "read"))
    client.receive(taken(node), now + 0.03)
    assert client.state is node.state is State.OPEN
    return client, node


def side_by_side(left: list[str], right: list[str], titles: tuple[str, str]) -> str:
    """Two ladders, line by line; `!` marks the first line where they part."""
    rows = [f"  {titles[0]:<{WIDTH}}| {titles[1]}", "  " + "-" * WIDTH + "+" + "-" * WIDTH]
    parted = False
    for a, b in zip_longest(left, right, fillvalue=""):
        mark = "! " if not parted and a != b else "  "
        parted = parted or a != b
        rows.append(f"{mark}{a[:WIDTH]:<{WIDTH}}| {b[: WIDTH * 2]}")
    return "\n".join(rows)


# --- one session and a script ---


class Talk:
    """A conversation with one session. `says` and `tells` check everything since the last check, in order."""

    def __init__(self, subject: Session, now: float = 0.0) -> None:
        self.session = subject
        self.now = now
        self.events: list[ev.Event] = []
        self._expected: list[str] = []
        self._happened: list[str] = []
        self._told: list[ev.Event] = []

    def hears(self, *frames: Frame | bytes) -> Talk:
        for each in frames:
            self._both(f"hears {describe(each) if isinstance(each, Frame) else repr(each[:40])}")
            data = encode(each) if isinstance(each, Frame) else each
            self._tell(self.session.receive(data, self.now))
        return self

    def waits(self, seconds: float) -> Talk:
        self._both(f"waits {seconds:g} s")
        self.now += seconds
        self._tell(self.session.tick(self.now))
        return self

    def does(self, act: Callable[[Session], object]) -> Talk:
        act(self.session)
        return self

    def says(self, *starts: str) -> Talk:
        """The frames that it sends, each by the beginning of its description; none when there is none."""
        lines = [str(frame) for frame in frames_of(taken(self.session))]
        self._tell(self.session.events())
        self._compare([f"says {start}" for start in starts], [f"says {line}" for line in lines])
        return self

    def tells(self, *names: str) -> Talk:
        """The names of the events, StreamDrained left out."""
        self._tell(self.session.events())
        happened = [
            f"tells {type(event).__name__}" for event in self._told if not isinstance(event, ev.StreamDrained)
        ]
        self._told = []
        self._compare([f"tells {name}" for name in names], happened)
        return self

    @property
    def stream(self) -> Stream:
        """The stream of the latest StreamOpened."""
        return next(e.stream for e in reversed(self.events) if isinstance(e, ev.StreamOpened))

    @property
    def error(self) -> TowlineError:
        """Why it closed."""
        closed = [event for event in self.events if isinstance(event, ev.Closed)]
        assert len(closed) == 1, f"{len(closed)} Closed events"
        assert self.events[-1] is closed[0], "Closed must be the last event"
        assert self.session.error is closed[0].error
        return closed[0].error

    def _tell(self, events: list[ev.Event]) -> None:
        self.events += events
        self._told += events

    def _both(self, line: str) -> None:
        self._expected.append(line)
        self._happened.append(line)

    def _compare(self, expected: list[str], happened: list[str]) -> None:
        fits = len(expected) == len(happened) and all(
            h.startswith(e) for e, h in zip(expected, happened, strict=True)
        )
        # What fits is printed alike, so that the mark stands where the two part.
        self._expected += [h if h.startswith(e) else e for e, h in zip_longest(expected, happened, fillvalue="")][
            : len(expected)
        ]
        self._happened += happened
        assert fits, "\n" + side_by_side(self._expected, self._happened, ("expected", "happened"))


# --- two sessions and a link ---


@dataclass
class Side:
    """One end: its session, and a plain driver that reads everything unless told to stop."""

    name: str
    session: Session
    reading: bool = True
    events: list[ev.Event] = field(default_factory=list)
    inbox: dict[int, list[tuple[Header | None, bytes]]] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    resets: dict[int, TowlineError] = field(default_factory=dict)
    opened: dict[int, Stream] = field(default_factory=dict)  # by the peer
    unread: list[ev.DataReceived] = field(default_factory=list)
    partial: dict[int, bytearray] = field(default_factory=dict)
    closed: TowlineError | None = None

    def take_events(self, events: list[ev.Event]) -> None:
        for event in events:
            assert self.closed is None, f"{event} after Closed"
            self.events.append(event)
            match event:
                case ev.ProofWanted():
                    self.session.prove(Proof("peer"))
                case ev.ProofOffered():
                    self.session.welcome(Welcome("ada", "read,write"))
                case ev.StreamOpened(stream, _):
                    self.opened[stream.id] = stream
                    if stream.state is not StreamState.CLOSED and self.session.state is State.OPEN:
                        self.session.accept(stream)  # unless the same bytes took it back
                case ev.DataReceived(stream):
                    self._gather(event)
                    if self.reading or event.more:
                        self.session.consume(stream, event.cost)
                    else:
                        self.unread.append(event)
                case ev.StreamEnded(stream):
                    self.ended.add(stream.id)
                case ev.StreamReset(stream, error):
                    assert stream.id not in self.resets, "reset twice"
                    self.resets[stream.id] = error
                case ev.Closed(error):
                    self.closed = error

    def read_all(self) -> None:
        """Take what was left lying."""
        for event in self.unread:
            self.session.consume(event.stream, event.cost)
        self.unread = []

    def _gather(self, event: ev.DataReceived) -> None:
        number = event.stream.id
        parts = self.partial.setdefault(number, bytearray())
        parts += event.body
        if not event.more:
            self.inbox.setdefault(number, []).append((event.header, bytes(parts)))
            del self.partial[number]


class World:
    """A client and a node on a simulated link. `capacity`: bytes under way in one direction before `take` waits."""

    def __init__(
        self,
        seed: int = 0,
        *,
        delay: float = 0.01,
        capacity: int = 64 * 1024,
        client_limits: Limits | None = None,
        node_limits: Limits | None = None,
        pieces: bool = True,
    ) -> None:
        self.now = 0.0
        self.delay = delay
        self.capacity = capacity
        self.client = Side("client", session(Role.CLIENT, limits=client_limits))
        self.node = Side("node", session(Role.NODE, limits=node_limits))
        self.is_cut = False
        self._random = Random(seed)
        self._pieces = pieces
        self._flights: list[tuple[float, int, Side, bytes]] = []
        self._count = 0
        self._under_way = {"client": 0, "node": 0}
        self._last = {"client": 0.0, "node": 0.0}
        self._rungs: list[tuple[float, str, str]] = []
        self._taps = {(name, way): _Tap() for name in ("client", "node") for way in ("out", "in")}

    def other(self, side: Side) -> Side:
        return self.node if side is self.client else self.client

    def handshake(self) -> World:
        self.settle()
        assert self.client.session.state is self.node.session.state is State.OPEN, self.ladder()
        return self

    def open(self, side: Side, scheduling: Class = Class.CHAT, header: Header | None = None) -> Stream:
        return side.session.open(header or {"service": "echo"}, scheduling)

    def settle(self, most: int = 200_000) -> World:
        """Let everything arrive that is under way or can be sent; timers do not count."""
        for _ in range(most):
            self._send_all()
            if not self._flights:
                return self
            self._arrive()
        raise AssertionError("never settles\n" + self.ladder())

    def wait(self, seconds: float) -> World:
        """Let time pass, with everything that falls into it."""
        end = self.now + seconds
        for _ in range(200_000):
            self._send_all()
            arrival = self._flights[0][0] if self._flights else end
            deadlines = [d for s in (self.client, self.node) if (d := s.session.deadline()) is not None]
            due = min([arrival, end, *deadlines])
            if due >= end:
                self.now = end
                return self
            if self._flights and arrival <= due:
                self._arrive()
            else:
                self.now = max(self.now, due)
                for side in (self.client, self.node):
                    side.take_events(side.session.tick(self.now))
        raise AssertionError("too much happens\n" + self.ladder())

    def cut(self) -> World:
        """The link breaks: what is under way is lost, and both sides hear of it."""
        self.is_cut = True
        self._flights.clear()
        for side in (self.client, self.node):
            side.take_events(side.session.connection_lost(ConnectionLost(), self.now))
        return self

    def ladder(self, last: int = 60) -> str:
        """What each side sent and received, side by side, in time's order."""
        rows = [f"{'time':>9}  {'client':<{WIDTH}}| node"]
        for at, name, text in self._rungs[-last:]:
            left, right = (text, "") if name == "client" else ("", text)
            rows.append(f"{at * 1000:7.1f}ms  {left[:WIDTH]:<{WIDTH}}| {right[:WIDTH]}")
        return "\n".join(rows)

    def _send_all(self) -> None:
        for side in (self.client, self.node):
            each = side.session
            while each.wants_to_send and self._under_way[side.name] < self.capacity:
                data = b"".join(bytes(buffer) for buffer in each.take(self._random.choice((1, 4096, 65536))))
                side.take_events(each.events())
                if data and not self.is_cut:
                    self._note(side, "out", data)
                    self._fly(self.other(side), data)
            side.take_events(each.events())

    def _fly(self, target: Side, data: bytes) -> None:
        self._under_way[self.other(target).name] += len(data)
        at = max(self.now + self.delay * self._random.uniform(0.5, 1.5), self._last[target.name])
        for piece in self._cut_up(data):
            self._count += 1
            heapq.heappush(self._flights, (at, self._count, target, piece))
            self._last[target.name] = at
            at += self._random.random() * 1e-4

    def _cut_up(self, data: bytes) -> Iterator[bytes]:
        while data:
            size = self._random.choice((1, 3, 12, 13, 100, 5000, len(data))) if self._pieces else len(data)
            yield data[:size]
            data = data[size:]

    def _arrive(self) -> None:
        at, _, target, piece = heapq.heappop(self._flights)
        self.now = max(self.now, at)
        self._under_way[self.other(target).name] -= len(piece)
        self._note(target, "in", piece)
        target.take_events(target.session.receive(piece, self.now))

    def _note(self, side: Side, way: str, data: bytes) -> None:
        arrow = "{} ->" if (side.name == "client") == (way == "out") else "<- {}"
        for line in self._taps[side.name, way].feed(data):
            self._rungs.append((self.now, side.name, arrow.format(line)))


class _Tap:
    """Reads along on one direction."""

    def __init__(self) -> None:
        self._decoder = Decoder(1 << 16, 1 << 30)
        self._preface = b""

    def feed(self, data: bytes) -> list[str]:
        if len(self._preface) < len(PREFACE):
            missing = len(PREFACE) - len(self._preface)
            self._preface, data = self._preface + data[:missing], data[missing:]
        return [str(frame) for frame in self._decoder.feed(data)]
