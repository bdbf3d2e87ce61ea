"""Output that flows comes over a lane of its own, read on a thread, while the stream that ordered it is silent."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple, TypeAlias

from towline.base.errors import ConnectionLost, UnexpectedFrame
from towline.base.limits import FRAME_BODY
from towline.client.reach import Reach, lane_dialler
from towline.protocol.codec import Header
from towline.protocol.table import Class, Kind
from towline.runtime.channel import Channel, Message
from towline.runtime.lanes import SocketLane
from towline.runtime.pump import Connection

_FRUITLESS = 3
QUEUED = 8  # messages of at most 256 KiB that wait to be taken; then the thread waits
TELL_SECONDS = 0.005  # between two looks at how far a sink has got
# Takes output on the thread that brings it, and may block there: the stream's number, and bytes that are its own only
# for the time of the call.
Sink: TypeAlias = Callable[[int, memoryview], None]


class _Moved(NamedTuple):
    """A sink has got so far."""

    position: Message


class _Over(NamedTuple):
    """The last that comes: an error, or None for the end that was meant."""

    error: Exception | None


class Bypass:
    """One lane, from the offer of a ticket on. `dial` blocks. What a `sink` has taken comes without its body."""

    def __init__(self, dial: Callable[[], SocketLane], sink: Sink | None) -> None:
        self._dial, self._sink = dial, sink
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[Message | _Moved | _Over] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._room = threading.Semaphore(QUEUED)
        self._guard = threading.Lock()
        self._lane: SocketLane | None = None
        self._begun = threading.Event()
        self._closed = False
        self.used = False  # something has come over it
        threading.Thread(target=self._run, name="towline-output", daemon=True).start()

    def __repr__(self) -> str:
        return f"<Bypass {len(self._arrived)} waiting{' closed' if self._closed else ''}>"

    def begin(self) -> None:
        """What came before it is where it belongs: from now on a sink may take what comes."""
        self._begun.set()

    async def next(self) -> Message | None:
        """What comes next; None at the node's END. Raises ConnectionLost, and what dialling and the sink raise."""
        item = await self._next()
        if isinstance(item, _Over):
            if item.error is not None:
                raise item.error
            return None
        self.used = True
        if isinstance(item, _Moved):
            return item.position
        self._room.release()
        return item

    def close(self) -> None:
        """Be done with it, wherever it is; whoever waits hears of a lost connection."""
        with self._guard:
            if self._lane is not None:
                self._lane.shutdown()
            elif not self._closed:
                self._arrived.append(_Over(ConnectionLost()))  # nobody waits until dialling has an end
            self._closed = True
        self._wake()
        self._begun.set()
        self._room.release()

    def stop_when_failed(self, stream: asyncio.Future[Message | None]) -> None:
        """For the stream that ordered it: nobody takes the rest when that is lost."""
        if not stream.cancelled() and stream.exception() is not None:
            self.close()

    async def _next(self) -> Message | _Moved | _Over:
        while True:
            with self._guard:
                if self._arrived:
                    return self._arrived.popleft()
                waiting = self._waiting = self._loop.create_future()
            # Nobody wakes us for what a sink has taken: that is looked for, which costs less than a wake for each.
            timer = self._loop.call_later(TELL_SECONDS, self._wake) if self._sink is not None else None
            try:
                await waiting
            finally:
                if timer is not None:
                    timer.cancel()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    # --- the thread ---

    def _run(self) -> None:
        error: Exception | None = None
        try:
            lane = self._dial()
            try:
                with self._guard:
                    self._lane = lane
                self._receive(lane)
            finally:
                lane.close()
        except Exception as problem:  # noqa: BLE001  # a sink's own are for whoever gave it
            error = problem
        self._put(_Over(error))

    def _receive(self, lane: SocketLane) -> None:
        buffer = memoryview(bytearray(FRAME_BODY.value))
        while not self._closed:
            frame = lane.receive()
            if frame is None:
                break
            if frame.kind is Kind.END:
                return
            if frame.kind is not Kind.DATA:
                raise UnexpectedFrame("A lane for output carries output and nothing else.")
            body = buffer[: frame.size]
            if lane.read_body(body) < frame.size:
                break
            self._take(frame.header, body)
        raise ConnectionLost

    def _take(self, header: Header, body: memoryview) -> None:
        match header:
            case {"s": int(1 | 2 as stream), "q": int()} if self._sink is not None:
                self._begun.wait()
                if not self._closed:
                    self._sink(stream, body)
                    self._moved(Message(b"", header))
            case _:
                self._room.acquire()
                self._put(Message(bytes(body), header))

    def _moved(self, position: Message) -> None:
        """The sink has got so far; where it was before is of no interest any more."""
        with self._guard:
            if self._arrived and isinstance(self._arrived[-1], _Moved):
                self._arrived.pop()
            self._arrived.append(_Moved(position))

    def _put(self, item: Message | _Over) -> None:
        with self._guard:
            self._arrived.append(item)
            if self._waiting is None:
                return
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._wake)


def can_bypass(connection: Connection, scheduling: Class) -> bool:
    """Whether there can be a second connection beside this one, and it is bulk that would go over it."""
    return scheduling is Class.BULK and connection.peer.kind != "memory"


class Bypasses:
    """Of one job: whether lanes are worth while, and what the stream and they bring."""

    def __init__(self, line: Reach) -> None:
        self._line = line
        self._fruitless = 0

    def __repr__(self) -> str:
        return f"<Bypasses fruitless={self._fruitless}>"

    def wanted(self, connection: Connection, scheduling: Class) -> bool:
        """Whether the node may offer any: not where they break before they bring anything."""
        return self._fruitless < _FRUITLESS and can_bypass(connection, scheduling)

    async def through(self, channel: Channel, sink: Sink | None) -> AsyncGenerator[Message, None]:
        """All messages of a stream of output in order, those included that come beside it. Raises what `receive`
        raises; ConnectionLost when a lane was lost."""
        bypass: Bypass | None = None
        try:
            message = await channel.receive()
            while message is not None:
                match message.header:
                    case {"lane": str(ticket)} if bypass is None:
                        bypass = Bypass(lane_dialler(self._line, channel.connection, ticket), sink)
                    case {"over": int()} if bypass is not None:
                        after = asyncio.ensure_future(channel.receive())
                        after.add_done_callback(bypass.stop_when_failed)
                        bypass.begin()
                        try:
                            while (beside := await bypass.next()) is not None:
                                yield beside
                            message = await after
                        finally:
                            after.cancel()
                            self._judge(bypass)
                        bypass = None
                        continue
                    case _:
                        yield message
                message = await channel.receive()
        finally:
            if bypass is not None:
                bypass.close()

    def _judge(self, bypass: Bypass) -> None:
        bypass.close()
        self._fruitless = 0 if bypass.used else self._fruitless + 1
