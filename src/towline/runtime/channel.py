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

# A writer waits while this much (bytes) is queued on its stream: about one early window.
_QUEUE_HIGH = 256 * 1024


class Message(NamedTuple):
    """One message: its bytes, and its JSON header when it has one."""

    body: bytes
    header: Header | None


class Channel:
    """One stream. `header` is what it was opened with; `trailer` what the peer ended it with.

    One task reads and one task writes; more of either would only race each other. After the connection is lost, what
    had arrived can still be read; then every call raises ConnectionLost.
    """

    __slots__ = ("_accepted", "_drained", "_error", "_parts", "_queue", "_reader", "connection", "header", "stream",
                 "trailer")  # fmt: skip

    def __init__(self, connection: Connection, stream: Stream, header: Header) -> None:
        self.connection = connection
        self.header = header
        self.trailer: Header | None = None
        self.stream = stream
        self._queue: deque[tuple[Message, int]] = deque()
        self._parts: list[Buffer] = []
        self._error: TowlineError | None = None
        self._reader: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._accepted: asyncio.Future[Header] | None = None
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
        if self._accepted is None:
            self._accepted = self.connection.loop.create_future()
            if self._error is not None:
                raise self._error
        return await asyncio.shield(self._accepted)

    # --- writing ---

    def send_nowait(self, body: Buffer = b"", header: Header | None = None) -> None:
        """Queue one message whatever is queued already. Raises StreamClosed, LimitExceeded, ConnectionLost."""
        if self._error is not None:
            raise self._error
        self.connection.session.send(self.stream, body, header)
        self.connection.flush_soon()

    async def send(self, body: Buffer = b"", header: Header | None = None) -> None:
        """Queue one message, then wait while too much is queued."""
        self.send_nowait(body, header)
        while self.stream.queued > _QUEUE_HIGH:
            await self._wait_drained()

    async def flush(self) -> None:
        """Wait until everything that was queued has left this process's queue."""
        while self.stream.has_output:
            await self._wait_drained()

    def end(self, trailer: Header | None = None) -> None:
        """Half-close: this side sends no more. Harmless when it is over already."""
        if self._error is None and self.stream.can_send:
            self.connection.session.end(self.stream, trailer)
            self.connection.flush_soon()

    def reset(self, error: TowlineError | None = None) -> None:
        """End both directions at once, with the reason. Harmless when it is over already."""
        self.connection.session.reset(self.stream, error)
        self._fail(error or StreamClosed())
        self.connection.flush_soon()

    # --- reading ---

    async def receive(self) -> Message | None:
        """The next message; None when the peer has ended its side (`trailer` is set then)."""
        while not self._queue:
            if self._error is not None:
                raise self._error
            if self.trailer is not None:
                return None
            await self._wait_readable()
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
            await self._wait_readable()

    # --- for the pump ---

    def on_accept(self, header: Header) -> None:
        if self._accepted is None:
            self._accepted = self.connection.loop.create_future()
        if not self._accepted.done():
            self._accepted.set_result(header)

    def on_data(self, event: DataReceived) -> None:
        if event.more:
            # A part is bounded by the message limit; giving its credit back now lets a message exceed the window.
            self._parts.append(event.body)
            self.connection.session.consume(self.stream, event.cost)
            return
        body = event.body
        if self._parts:
            self._parts.append(body)
            body = b"".join(self._parts)
            self._parts = []
        self._queue.append((Message(bytes(body), event.header), event.cost))
        self._wake_reader()

    def on_end(self, trailer: Header) -> None:
        self.trailer = trailer
        self._wake_reader()

    def on_drained(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def on_reset(self, error: TowlineError) -> None:
        self._fail(error)

    # --- inside ---

    def _take(self) -> Message:
        message, cost = self._queue.popleft()
        session = self.connection.session
        session.consume(self.stream, cost)
        if session.wants_to_send:
            self.connection.flush_soon()
        return message

    def _fail(self, error: TowlineError) -> None:
        if self._error is None:
            self._error = error
        self._parts = []
        self._wake_reader()
        self.on_drained()
        if self._accepted is not None and not self._accepted.done():
            self._accepted.set_exception(self._error)
            self._accepted.exception()  # whoever waits still gets it; nobody waiting is no complaint

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def _wait_readable(self) -> None:
        if self._reader is None or self._reader.done():
            self._reader = self.connection.loop.create_future()
        await self._reader

    async def _wait_drained(self) -> None:
        if self._error is not None:
            raise self._error
        if self.stream.state is StreamState.CLOSED:
            raise ConnectionLost
        if self._drained is None or self._drained.done():
            self._drained = self.connection.loop.create_future()
        await self._drained
