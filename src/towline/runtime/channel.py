"""A stream as a service or a client sees it: whole messages, back-pressure, half-close."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, NamedTuple

from towline.base.errors import ConnectionLost, StreamClosed, TowlineError
from towline.protocol.codec import Buffer, Header
from towline.protocol.events import DataReceived
from towline.protocol.stream import Stream
from towline.protocol.table import StreamState

if TYPE_CHECKING:
    from towline.runtime.pump import Connection

_tuple = tuple.__new__  # half the price of Message(...)
# A writer waits while this much (bytes) is queued on its stream: about one early window.
_QUEUE_HIGH = 256 * 1024
_LARGE_PART = 4 * 1024


class Message(NamedTuple):
    """One message: its bytes, and its JSON header when it has one."""

    body: bytes
    header: Header | None


class _Bell:
    """Wakes everybody who waits. A waiter that is cancelled takes nobody with it, and what it waited for stays."""

    __slots__ = ("_loop", "_waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiters: list[asyncio.Future[None]] = []

    def ring(self) -> None:
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def wait(self) -> asyncio.Future[None]:
        """To be awaited once."""
        if self._waiters:  # of those that were cancelled none is kept for more than one turn
            self._waiters = [waiter for waiter in self._waiters if not waiter.done()]
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        return waiter


class Channel:
    """One stream. `header` is what it was opened with; `trailer` what the peer ended it with.

    One task reads and one task writes; more of either would only race each other. After the connection is lost, what
    had arrived can still be read; then every call raises ConnectionLost.
    """

    __slots__ = ("_accepted", "_doomed", "_doomed_after", "_drained", "_error", "_held", "_parts", "_queue",
                 "_readable", "connection", "header", "stream", "trailer")  # fmt: skip

    def __init__(self, connection: Connection, stream: Stream, header: Header) -> None:
        self.connection = connection
        self.header = header
        self.trailer: Header | None = None
        self.stream = stream
        self._queue: deque[tuple[Message, int]] = deque()
        self._parts: list[Buffer] | None = None  # of the message that is coming in
        self._held = 0  # credit of those parts that is not returned yet
        self._error: TowlineError | None = None
        self._readable = _Bell(connection.loop)
        self._drained = _Bell(connection.loop)
        self._accepted: Header | None = None
        self._doomed: asyncio.Task[object] | asyncio.TimerHandle | None = None
        self._doomed_after = 0.0
        stream.user = self

    def __repr__(self) -> str:
        return f"<Channel {self.service} {self.stream!r} unread={len(self._queue)}>"

    @property
    def service(self) -> str:
        return str(self.header.get("service", ""))

    @property
    def person(self) -> str:
        """Who is at the other end (at a node), by the node's own name for them."""
        return self.connection.person

    # --- opening ---

    def accept(self, header: Header | None = None) -> None:
        """Node: take the stream."""
        self.connection.session.accept(self.stream, header)
        self.connection.flush_soon()

    async def accepted(self) -> Header:
        """Client: wait until the service takes the stream; what it answered."""
        while self._accepted is None:
            if self._error is not None:
                raise self._error
            if self.trailer is not None:
                raise StreamClosed("The service ended the stream without taking it.")
            await self._readable.wait()
        return self._accepted

    def cancel_when_lost(self, task: asyncio.Task[object], after: float) -> None:
        """Cancel `task` when it is not done `after` seconds after the stream was reset or lost.

        Its next call to this channel raises the reason; this is for a task that waits for something else meanwhile.
        """
        self._doomed, self._doomed_after = task, after
        if self._error is not None:
            self._doom()

    def released(self) -> None:
        """The task is done with the stream."""
        if isinstance(self._doomed, asyncio.TimerHandle):
            self._doomed.cancel()
        self._doomed = None

    # --- writing ---

    def send_nowait(self, body: Buffer = b"", header: Header | None = None) -> None:
        """Queue one message whatever is queued already. Raises StreamClosed, LimitExceeded, ConnectionLost."""
        if self._error is not None:
            raise self._error
        self.connection.session.send(self.stream, body, header)
        self.connection.flush_soon()

    def send_at_once(self, body: bytes) -> None:
        """`send_nowait`, without the turn of the loop that lets messages leave together: for one that thousands get,
        each over a connection of their own."""
        if self._error is not None:
            raise self._error
        if not self.connection.send_at_once(self.stream, body):
            self.send_nowait(body)

    async def send(self, body: Buffer = b"", header: Header | None = None) -> None:
        """Queue one message, then wait while too much is queued. Raises as `send_nowait`; the peer's RESET too."""
        self.send_nowait(body, header)
        while self.stream.queued > _QUEUE_HIGH:
            await self._wait_drained()

    async def flush(self) -> None:
        """Wait until everything that was queued has left this process's queue. Raises when it was dropped."""
        while self.stream.has_output:
            await self._wait_drained()
        if self._error is not None:
            raise self._error

    def end(self, trailer: Header | None = None) -> None:
        """Half-close: this side sends no more. Harmless when it is over already."""
        if self._error is None and self.stream.can_send:
            self.connection.session.end(self.stream, trailer)
            self.connection.flush_soon()

    def reset(self, error: TowlineError | None = None) -> None:
        """End both directions at once, with the reason. Harmless when it is over already."""
        if self.closed:
            return
        self.connection.session.reset(self.stream, error)
        self._fail(error or StreamClosed())
        self.connection.flush_soon()

    # --- reading ---

    async def receive(self) -> Message | None:
        """The next message; None when the peer has ended its side (`trailer` is set then)."""
        while not self._queue:
            if self.trailer is not None:
                return None
            if self._error is not None:
                raise self._error
            await self._readable.wait()
        return self._take()

    def receive_nowait(self) -> Message | None:
        """The next message if it is here already."""
        return self._take() if self._queue else None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The bodies of the messages until the peer ends its side."""
        while (message := await self.receive()) is not None:
            yield message.body

    async def messages(self) -> AsyncIterator[Message]:
        """The messages with their headers until the peer ends its side."""
        while (message := await self.receive()) is not None:
            yield message

    @property
    def ended(self) -> bool:
        """Nothing more will come: END, RESET or a lost connection (what is unread can still be read)."""
        return self._error is not None or self.trailer is not None

    @property
    def closed(self) -> bool:
        """Both directions are over."""
        return self._error is not None or self.stream.state is StreamState.CLOSED

    async def wait_ended(self) -> None:
        """Wait until nothing more will come, without reading what does."""
        while not self.ended:
            await self._readable.wait()

    # --- for the pump ---

    def on_accept(self, header: Header) -> None:
        self._accepted = header
        self._readable.ring()

    def on_data(self, event: DataReceived) -> None:
        body, cost = event.body, event.cost
        if event.more or self._parts is not None:
            self._add_part(body)
            if event.more:
                self._hold(cost)
                return
            body, self._parts = b"".join(self._parts or ()), None
            cost, self._held = cost + self._held, 0
        self._queue.append((_tuple(Message, (bytes(body), event.header)), cost))
        self._readable.ring()

    def on_end(self, trailer: Header) -> None:
        self.trailer = trailer
        self._readable.ring()

    def on_drained(self) -> None:
        self._drained.ring()

    def on_reset(self, error: TowlineError) -> None:
        self._fail(error)

    # --- inside ---

    def _add_part(self, body: Buffer) -> None:
        """Large parts are joined once, at the end; small ones at once, because a part may be a single byte."""
        if self._parts is None:
            self._parts = []
        parts = self._parts
        if len(body) >= _LARGE_PART:
            parts.append(body)
        elif parts and isinstance(parts[-1], bytearray):
            parts[-1] += body
        else:
            parts.append(bytearray(body))

    def _hold(self, cost: int) -> None:
        """A message may be larger than the window, so the credit of a part goes back at once. But not while whole
        messages lie unread: then a reader that has stopped would make us hold any number of them."""
        self._held += cost
        if not self._queue:
            self._return_held()

    def _return_held(self) -> None:
        held, self._held = self._held, 0
        if self.connection.session.consume(self.stream, held):
            self.connection.flush_soon()

    def _take(self) -> Message:
        message, cost = self._queue.popleft()
        if self.connection.session.consume(self.stream, cost):
            self.connection.flush_soon()
        if self._held and not self._queue:
            self._return_held()
        return message

    def _fail(self, error: TowlineError) -> None:
        if self._error is None:
            self._error = error
            self._doom()
        self._parts = None
        self._readable.ring()
        self._drained.ring()

    def _doom(self) -> None:
        if isinstance(self._doomed, asyncio.Task):
            self._doomed = self.connection.loop.call_later(self._doomed_after, self._doomed.cancel)

    async def _wait_drained(self) -> None:
        if self._error is None:
            if self.stream.state is StreamState.CLOSED:
                raise ConnectionLost
            self.stream.watched = True
            await self._drained.wait()
        if self._error is not None:
            raise self._error
