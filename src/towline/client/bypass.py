"""Output that flows comes over a lane of its own, read on a thread, while the stream that ordered it is silent."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import NamedTuple

from towline.base.errors import ConnectionLost, TowlineError, UnexpectedFrame
from towline.base.limits import FRAME_BODY
from towline.client.reach import Reach, lane_dialler
from towline.protocol.table import Kind
from towline.runtime.channel import Channel, Message
from towline.runtime.lanes import SocketLane
from towline.runtime.pump import Connection

_FRUITLESS = 3
QUEUED = 8  # messages of at most 256 KiB that wait to be taken; then the thread waits


class _Over(NamedTuple):
    """The last that comes: an error, or None for the end that was meant."""

    error: TowlineError | None


class Bypass:
    """One lane, from the offer of a ticket on. `dial` blocks."""

    def __init__(self, dial: Callable[[], SocketLane]) -> None:
        self._dial = dial
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[Message | _Over] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._room = threading.Semaphore(QUEUED)
        self._guard = threading.Lock()
        self._lane: SocketLane | None = None
        self._closed = False
        self.used = False  # something has come over it
        threading.Thread(target=self._run, name="towline-output", daemon=True).start()

    def __repr__(self) -> str:
        return f"<Bypass {len(self._arrived)} waiting{' closed' if self._closed else ''}>"

    async def messages(self) -> AsyncIterator[Message]:
        """What comes, up to the node's END. Raises ConnectionLost, and what dialling raises."""
        while True:
            while not self._arrived:
                self._waiting = self._loop.create_future()
                if not self._arrived:  # the thread may not have seen that somebody waits
                    await self._waiting
                self._waiting = None
            item = self._arrived.popleft()
            if isinstance(item, _Over):
                if item.error is not None:
                    raise item.error
                return
            self._room.release()
            self.used = True
            yield item

    def close(self) -> None:
        """Be done with it, wherever it is; whoever waits hears of a lost connection."""
        with self._guard:
            self._closed = True
            if self._lane is not None:
                self._lane.shutdown()
        self._room.release()

    def stop_when_failed(self, stream: asyncio.Future[Message | None]) -> None:
        """For the stream that ordered it: nobody takes the rest when that is lost."""
        if not stream.cancelled() and stream.exception() is not None:
            self.close()

    # --- the thread ---

    def _run(self) -> None:
        error: TowlineError | None = None
        try:
            lane = self._dial()
            try:
                with self._guard:
                    self._lane = lane
                self._receive(lane)
            finally:
                lane.close()
        except TowlineError as problem:
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
            self._room.acquire()
            self._put(Message(bytes(body), frame.header))
        raise ConnectionLost

    def _put(self, item: Message | _Over) -> None:
        self._arrived.append(item)
        if self._waiting is not None:
            try:
                self._loop.call_soon_threadsafe(self._wake)
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Bypasses:
    """Of one job: whether lanes are worth while, and what the stream and they bring."""

    def __init__(self, line: Reach) -> None:
        self._line = line
        self._fruitless = 0

    def __repr__(self) -> str:
        return f"<Bypasses fruitless={self._fruitless}>"

    def wanted(self, connection: Connection) -> bool:
        """Whether the node may offer any: not where they break before they bring anything."""
        return self._fruitless < _FRUITLESS and connection.peer.kind != "memory"

    async def through(self, channel: Channel) -> AsyncGenerator[Message, None]:
        """All messages of a stream of output in order, those included that come beside it. Raises what `receive`
        raises; ConnectionLost when a lane was lost."""
        bypass: Bypass | None = None
        try:
            message = await channel.receive()
            while message is not None:
                match message.header:
                    case {"lane": str(ticket)} if bypass is None:
                        bypass = Bypass(lane_dialler(self._line, channel.connection, ticket))
                    case {"over": int()} if bypass is not None:
                        after = asyncio.ensure_future(channel.receive())
                        after.add_done_callback(bypass.stop_when_failed)
                        try:
                            async for beside in bypass.messages():
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
