"""Lanes: extra connections that carry nothing but bulk (ranges of files, output that flows), driven by threads.

A lane speaks the same frames: OPEN names a range and its position, DATA carries it, END closes it; output needs no
OPEN, as each DATA says where it belongs. Where a second connection cannot be had, a `StreamLane` carries ranges over
an ordinary stream; whoever drives it cannot tell.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import CancelledError
from typing import NamedTuple, Protocol, TypeVar

from msgspec import Struct

from towline.base.errors import (
    BadTicket,
    ConnectionLost,
    MalformedFrame,
    NotTowline,
    StreamClosed,
    TowlineError,
    UnexpectedFrame,
)
from towline.base.limits import FRAME_BODY, FRAME_HEADER, HANDSHAKE_FRAME, Limit
from towline.protocol.codec import Buffer, Header, check_prefix, encode, encode_header, encode_prefix, parse_header
from towline.protocol.codec import Frame as WireFrame
from towline.protocol.records import Hello, Limits, fault_from_header
from towline.protocol.table import ALLOWED, FRAMES, PREFACE, PREFIX, PREFIX_SIZE, Kind, Role, State
from towline.runtime import watching
from towline.runtime.channel import Channel
from towline.transports.blocking import BlockingPipe, dial

LANE_CHUNK = FRAME_BODY.value
LANE_TIMEOUT = Limit("lane_silence_seconds", 60, "seconds", "a lane without progress for so long is taken for dead")
TICKET_SECONDS = Limit("ticket_seconds", 30, "seconds", "a ticket is for dialling at once")
TICKETS = Limit("tickets", 64, "tickets", "unused tickets of one person; each is a promise to start a thread")
LANES_OF_PERSON = Limit(
    "lanes_of_person", 1024, "lanes", "each is a thread of the node; room for a hundred transfers"
)

_LOOK_SECONDS = 1.0  # between two looks at whether there still is a loop
_RANGE_KINDS = frozenset({Kind.OPEN, Kind.DATA, Kind.END, Kind.RESET, Kind.GOAWAY})
_T = TypeVar("_T")
log = logging.getLogger("towline.runtime")


class LaneFrame(NamedTuple):
    """What comes next on a lane. `size` bytes of body wait to be read when it is DATA."""

    kind: Kind
    header: Header
    size: int


class Lane(Protocol):
    """A one-way road for bulk. All calls block; errors are ConnectionLost or a ProtocolError."""

    def send(self, kind: Kind, header: Header | None = None, body: Buffer = b"") -> None: ...

    def receive(self) -> LaneFrame | None:
        """The next frame; None when the other side is done."""

    def read_body(self, target: memoryview) -> int:
        """The body of the DATA frame into `target`, as far as it came before the lane was lost."""

    def shutdown(self) -> None:
        """End it from any thread; whoever is blocked in it wakes up."""

    def close(self) -> None: ...


class SocketLane:
    """A lane over a connection of its own. `close` is for the thread that drives it, `shutdown` for anybody."""

    def __init__(self, pipe: BlockingPipe) -> None:
        self._pipe = pipe
        self._prefix = memoryview(bytearray(PREFIX_SIZE))

    def send(self, kind: Kind, header: Header | None = None, body: Buffer = b"") -> None:
        encoded = encode_header(header)
        head = encode_prefix(kind, 0, 1, len(encoded), len(body)) + encoded
        if watching.watcher is not None:
            watching.watcher.on_lane_frame(self, True, kind, header, len(body))
        self._pipe.write((head, body) if len(body) else (head,))

    def say(self, buffers: Sequence[Buffer]) -> None:
        """Frames that are encoded already."""
        if buffers:
            self._pipe.write(buffers)

    def receive(self) -> LaneFrame | None:
        got = self._pipe.read_exactly(self._prefix)
        if got < PREFIX_SIZE:
            return None
        kind, flags, header_len, body_len, stream = PREFIX.unpack(self._prefix)
        check_prefix(kind, flags, stream, body_len)
        if kind not in _RANGE_KINDS or header_len > FRAME_HEADER.value or body_len > FRAME_BODY.value:
            raise UnexpectedFrame("A lane carries bulk and nothing else.")
        header: Header = {}
        if header_len:
            encoded = memoryview(bytearray(header_len))
            if self._pipe.read_exactly(encoded) < header_len:
                return None
            header = parse_header(bytes(encoded), kind)
        elif FRAMES[kind].needs_header:
            raise MalformedFrame(f"{Kind(kind).name} needs a header.")
        if watching.watcher is not None:
            watching.watcher.on_lane_frame(self, False, Kind(kind), header, body_len)
        if kind in (Kind.RESET, Kind.GOAWAY):
            raise fault_from_header(header)
        return LaneFrame(Kind(kind), header, body_len)

    def read_body(self, target: memoryview) -> int:
        return self._pipe.read_exactly(target)

    def shutdown(self) -> None:
        self._pipe.shutdown()

    def close(self) -> None:
        self._pipe.close()


class StreamLane:
    """A lane over a stream of the control connection, for a thread beside the event loop."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._loop = channel.connection.loop
        self._body = b""

    def send(self, kind: Kind, header: Header | None = None, body: Buffer = b"") -> None:
        wrapped = None if kind is Kind.DATA else {"kind": int(kind), "range": header or {}}
        # The queue keeps what it is given, and the caller uses its buffer again.
        self._wait(self._channel.send(bytes(body), wrapped))

    def receive(self) -> LaneFrame | None:
        message = self._wait(self._channel.receive())
        if message is None:
            return None
        if message.header is None:
            self._body = message.body
            return LaneFrame(Kind.DATA, {}, len(message.body))
        kind, header = message.header.get("kind"), message.header.get("range")
        if not isinstance(kind, int) or kind not in (Kind.OPEN, Kind.END) or not isinstance(header, dict):
            raise UnexpectedFrame("A lane carries bulk and nothing else.")
        return LaneFrame(Kind(kind), header, 0)

    def read_body(self, target: memoryview) -> int:
        count = min(len(self._body), len(target))
        target[:count] = self._body[:count]
        return count

    def shutdown(self) -> None:
        self._soon(self._channel.reset)

    def close(self) -> None:
        self._soon(self._channel.end)

    def _soon(self, act: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(act)
        except RuntimeError:
            pass  # the loop is closed, and the stream with it

    def _wait(self, work: Coroutine[object, None, _T]) -> _T:
        try:
            waiting = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # the loop is closed
            work.close()
            raise ConnectionLost("The program ends.") from None
        try:
            while True:
                try:
                    return waiting.result(_LOOK_SECONDS)
                except TimeoutError:
                    # A loop that was closed before it came to this says nothing to whoever waits for it.
                    if self._loop.is_closed() and not waiting.done():
                        work.close()
                        raise ConnectionLost("The program ends.") from None
        except CancelledError:
            raise ConnectionLost("The program ends.") from None
        except StreamClosed as error:  # what a closed socket is to the other kind of lane
            raise ConnectionLost(error.sentence) from None


def dial_lane(
    address: str, context: ssl.SSLContext | None, ticket: str, check_certificate: Callable[[bytes], None]
) -> SocketLane:
    """Client: connect to `HOST:PORT` or `unix:PATH` and be admitted by `ticket`. Blocks, as long as a ticket is good.

    Raises Unreachable, ConnectionLost, WrongPin (from `check_certificate`), BadTicket.
    """
    deadline = time.monotonic() + TICKET_SECONDS.value
    pipe, certificate = dial(address, context, deadline=deadline)
    try:
        if certificate is not None:
            check_certificate(certificate)
        hello = Hello("towline", os.urandom(32), Limits(), lane=ticket)
        pipe.write((PREFACE + encode(WireFrame(Kind.HELLO, header=hello.to_header())),))
        _read_welcome(pipe, deadline)
        pipe.wait_at_most(LANE_TIMEOUT.value)
        return SocketLane(pipe)
    except BaseException:
        pipe.close()
        raise


def _read_welcome(pipe: BlockingPipe, deadline: float) -> None:
    prefix = memoryview(bytearray(PREFIX_SIZE))
    if pipe.read_exactly(prefix, deadline=deadline) < PREFIX_SIZE:
        raise ConnectionLost("The connection was lost while a lane was being opened.")
    kind, _, header_len, body_len, _ = PREFIX.unpack(prefix)
    if kind not in (Kind.WELCOME, Kind.GOAWAY) or body_len or header_len > HANDSHAKE_FRAME.value:
        raise NotTowline("The other side does not speak Towline; check the address and port.")
    encoded = memoryview(bytearray(header_len))
    if pipe.read_exactly(encoded, deadline=deadline) < header_len:
        raise ConnectionLost("The connection was lost while a lane was being opened.")
    header = parse_header(bytes(encoded), kind)
    if kind == Kind.GOAWAY:
        raise fault_from_header(header)


class _Promise(Struct, frozen=True):
    person: str
    expires: float
    drive: Callable[[Lane], None]


class TicketOffice:
    """Node: one-time tickets for lanes, and the threads that drive admitted ones. `clock`: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._promises: dict[str, _Promise] = {}
        self._running: dict[threading.Thread, SocketLane] = {}
        self._of_person: Counter[str] = Counter()  # of those
        self._lock = threading.Lock()
        self._shut = False

    def issue(self, person: str, drive: Callable[[Lane], None]) -> str:
        """A ticket: whoever shows it within 30 s gets a lane that `drive` runs on a thread of its own.

        Raises LimitExceeded when the person has too many lanes, or tickets that are unused.
        """
        now = self._clock()
        with self._lock:
            self._promises = {t: p for t, p in self._promises.items() if p.expires > now}
            unused = sum(p.person == person for p in self._promises.values())
            TICKETS.check(1 + unused)
            LANES_OF_PERSON.check(1 + unused + self._of_person[person])
            ticket = os.urandom(16).hex()
            self._promises[ticket] = _Promise(person, now + TICKET_SECONDS.value, drive)
        return ticket

    def withdraw(self, tickets: Iterable[str]) -> None:
        """Those that were not used will not be: what they were for is over."""
        with self._lock:
            for ticket in tickets:
                self._promises.pop(ticket, None)

    def redeem(self, ticket: str) -> tuple[str, Callable[[Lane], None]]:
        """The person and the driver behind a ticket, once. Raises BadTicket."""
        with self._lock:
            promise = self._promises.pop(ticket, None)
        if promise is None or promise.expires <= self._clock():
            raise BadTicket
        return promise.person, functools.partial(self._counted, promise)

    def run(self, pipe: BlockingPipe, first: Sequence[Buffer], drive: Callable[[Lane], None]) -> None:
        """Drive an admitted lane on a new thread until it ends; `first` is what is still to be said (the WELCOME)."""
        lane = SocketLane(pipe)
        thread = threading.Thread(target=self._drive, args=(lane, first, drive), name="towline-lane", daemon=True)
        with self._lock:
            if self._shut:
                lane.close()
                return
            try:
                thread.start()
            except RuntimeError:  # the system has no thread to give
                lane.close()
                return
            self._running[thread] = lane

    def shutdown(self) -> None:
        """End all lanes and admit no more."""
        with self._lock:
            self._shut = True
            lanes = list(self._running.values())
            self._promises.clear()
        for lane in lanes:
            lane.shutdown()

    def join(self, timeout: float) -> None:
        """Wait until the threads of all lanes have ended, at most `timeout` seconds. Blocks."""
        deadline = time.monotonic() + timeout
        with self._lock:
            threads = list(self._running)
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))

    def _counted(self, promise: _Promise, lane: Lane) -> None:
        with self._lock:
            self._of_person[promise.person] += 1
        try:
            promise.drive(lane)
        finally:
            with self._lock:
                self._of_person[promise.person] -= 1
                if not self._of_person[promise.person]:
                    del self._of_person[promise.person]

    def _drive(self, lane: SocketLane, first: Sequence[Buffer], drive: Callable[[Lane], None]) -> None:
        try:
            lane.say(first)
            drive(lane)
        except TowlineError:
            pass  # the transfer that owns the lane has heard of it already
        except Exception:
            log.exception("a bug ended a lane")
        finally:
            with self._lock:
                self._running.pop(threading.current_thread(), None)
            lane.shutdown()
            lane.close()


# The frame gate of a lane is the same table as everywhere.
assert ALLOWED[Role.NODE, State.LANE] >= {int(kind) for kind in _RANGE_KINDS}
