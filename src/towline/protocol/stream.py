"""One stream: its state, its two windows, and what waits to be sent on it."""

from __future__ import annotations

from collections import deque

from towline.base.errors import StreamClosed
from towline.protocol.codec import Buffer, Header, encode_header, encode_prefix
from towline.protocol.credit import ReceiveWindow, SendWindow
from towline.protocol.table import (
    PREFIX_SIZE,
    STREAM_TRANSITIONS,
    Class,
    Flag,
    Kind,
    StreamInput,
    StreamState,
)


class Stream:
    """State of one stream. Only the session changes it; a driver may read it and keep its own object in `user`."""

    __slots__ = (
        "_end",
        "_queue",
        "id",
        "message_size",
        "opened_here",
        "queued",
        "receive_window",
        "scheduled",
        "scheduling",
        "send_window",
        "state",
        "user",
    )

    def __init__(
        self, stream_id: int, scheduling: Class, *, opened_here: bool, send: SendWindow, receive: ReceiveWindow
    ) -> None:
        self.id = stream_id
        self.scheduling = scheduling
        self.opened_here = opened_here
        self.state = StreamState.OPEN
        self.send_window = send
        self.receive_window = receive
        self.message_size = 0  # of the message that is coming in, parts so far
        self.queued = 0  # body bytes that wait for credit or their turn
        self.scheduled = False
        self.user: object = None
        self._queue: deque[tuple[bytes, memoryview]] = deque()  # (encoded header, what is left of the body)
        self._end: bytes | None = None

    def __repr__(self) -> str:
        return (
            f"<Stream {self.id} {self.scheduling.name.lower()} {self.state.name} queued={self.queued} "
            f"credit={self.send_window.available}>"
        )

    @property
    def can_send(self) -> bool:
        """Whether DATA and END may still go out."""
        return self._end is None and self.state in (StreamState.OPEN, StreamState.ENDED_THERE)

    @property
    def can_receive(self) -> bool:
        return self.state in (StreamState.OPEN, StreamState.ENDED_HERE)

    @property
    def has_output(self) -> bool:
        """Something is queued (whether or not there is credit for it)."""
        return bool(self._queue) or self._end is not None

    def move(self, what: StreamInput) -> None:
        """Look the transition up. Raises StreamClosed where there is none."""
        after = STREAM_TRANSITIONS.get((self.state, what))
        if after is None:
            raise StreamClosed(f"Stream {self.id} is {self.state.name.lower()}: no {what.name.lower()} any more.")
        self.state = after

    def queue_message(self, body: Buffer, header: Header | None) -> None:
        """Queue one whole message."""
        view = memoryview(body)
        self._queue.append((encode_header(header), view))
        self.queued += len(view)

    def queue_end(self, trailer: Header | None) -> None:
        self._end = encode_header(trailer)

    def drop_output(self) -> None:
        """Forget what was queued (after a RESET)."""
        self._queue.clear()
        self._end = None
        self.queued = 0

    def next_frame(self, chunk: int, connection_credit: int) -> tuple[bytes, Buffer, int] | None:
        """The next frame that credit permits, as (prefix and header, body, credit it costs); None when blocked.

        Takes it off the queue. `chunk` is the largest body of one frame.
        """
        if not self._queue:
            return self._take_end()
        header, body = self._queue[0]
        credit = min(self.send_window.available, connection_credit)
        room = credit - PREFIX_SIZE - len(header)
        if room < min(len(body), 1):
            return None
        part = body if len(body) <= min(chunk, room) else body[: min(chunk, room)]
        rest = body[len(part) :]
        if len(rest):
            self._queue[0] = (b"", rest)
        else:
            self._queue.popleft()
        self.queued -= len(part)
        flags = Flag.MORE if len(rest) else Flag.NONE
        cost = PREFIX_SIZE + len(header) + len(part)
        return encode_prefix(Kind.DATA, flags, self.id, len(header), len(part)) + header, part, cost

    def _take_end(self) -> tuple[bytes, Buffer, int] | None:
        if self._end is None:
            return None
        trailer, self._end = self._end, None
        self.move(StreamInput.SEND_END)
        return encode_prefix(Kind.END, 0, self.id, len(trailer), 0) + trailer, b"", 0
