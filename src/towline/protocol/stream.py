"""One stream: its state, its two windows, and what waits to be sent on it."""

from __future__ import annotations

from collections import deque

from towline.base.errors import StreamClosed
from towline.protocol.codec import Buffer, Header, encode_prefix
from towline.protocol.credit import ReceiveWindow, SendWindow
from towline.protocol.records import WHOLE_MESSAGE
from towline.protocol.table import (
    PREFIX,
    PREFIX_SIZE,
    STREAM_TRANSITIONS,
    Class,
    Flag,
    Kind,
    StreamInput,
    StreamState,
)

_DATA = int(Kind.DATA)
_MORE = int(Flag.MORE)
_pack_prefix = PREFIX.pack


class Stream:
    """State of one stream. Only the session changes it; a driver may read it, keep its own object in `user`, and set
    `watched` to hear (StreamDrained) when queued output next goes out."""

    __slots__ = (
        "_end",
        "_queue",
        "accepted",
        "can_receive",
        "can_send",
        "id",
        "message_header",
        "message_size",
        "opened_here",
        "partial",
        "queued",
        "receive_window",
        "released",
        "scheduled",
        "scheduling",
        "send_window",
        "state",
        "user",
        "watched",
    )

    def __init__(
        self, stream_id: int, scheduling: Class, *, opened_here: bool, send: SendWindow, receive: ReceiveWindow
    ) -> None:
        self.id = stream_id
        self.scheduling = scheduling
        self.opened_here = opened_here
        self.state = StreamState.OPEN
        # What the state permits, as plain values: every message looks at them.
        self.can_send = True  # DATA and END may still be queued
        self.can_receive = True
        self.send_window = send
        self.receive_window = receive
        self.accepted = False
        self.released = False  # nobody reads it any more
        self.partial = False  # the last part of a message that came in is still missing
        self.message_header: Header | None = None  # of the message that is coming in: its first part has it
        self.message_size = 0  # of the message that is coming in, parts so far
        self.queued = 0  # bytes (headers and bodies) that wait for credit or their turn
        self.scheduled = False
        self.user: object = None
        self.watched = False
        # What waits: a whole small frame, or (encoded header, what is left of the body).
        self._queue: deque[bytes | tuple[bytes, memoryview]] = deque()
        self._end: bytes | None = None

    def __repr__(self) -> str:
        return (
            f"<Stream {self.id} {self.scheduling.name.lower()} {self.state.name} queued={self.queued} "
            f"credit={self.send_window.available}>"
        )

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
        self.can_receive = after in (StreamState.OPEN, StreamState.ENDED_HERE)
        if after not in (StreamState.OPEN, StreamState.ENDED_THERE):
            self.can_send = False

    def queue_message(self, body: Buffer, header: bytes) -> None:
        """Queue one whole message; `header` is encoded. A body above WHOLE_MESSAGE is kept by reference."""
        size = len(body)
        if size <= WHOLE_MESSAGE:
            self._queue.append(_pack_prefix(_DATA, 0, len(header), size, self.id) + header + body)
        else:
            self._queue.append((header, memoryview(body)))
        self.queued += len(header) + size

    def whole_frame(self, body: bytes) -> bytes:
        """One message without a header as a frame that is not queued."""
        return _pack_prefix(_DATA, 0, 0, len(body), self.id) + body

    def queue_end(self, trailer: bytes) -> None:
        """Queue the END; `trailer` is encoded."""
        self._end = trailer
        self.can_send = False

    def drop_output(self) -> None:
        """Forget what was queued (after a RESET)."""
        self._queue.clear()
        self._end = None
        self.queued = 0

    def take_turn(self, out: list[Buffer], quantum: int, connection_credit: int) -> int:
        """Move frames from the queue to `out`: about `quantum` bytes, within the credit. Returns what they cost.

        Small frames are joined into one buffer. No frame's body is larger than `quantum`. The END follows the data
        and costs nothing.
        """
        queue, window = self._queue, self.send_window
        credit = min(window.available, connection_credit)
        spent = prefixes = 0
        small: list[bytes] = []
        while queue and spent < quantum:
            entry = queue[0]
            if isinstance(entry, bytes):
                after = spent + len(entry)
                if after > credit:
                    break
                small.append(entry)
                queue.popleft()
                spent = after
            else:
                if small:
                    out.append(b"".join(small))
                    small.clear()
                header, body = entry
                cost = self._take_part(out, header, body, quantum, credit - spent)
                if not cost:
                    break
                spent += cost
            prefixes += PREFIX_SIZE
        if small:
            out.append(small[0] if len(small) == 1 else b"".join(small))
        self.queued -= spent - prefixes
        window.available -= spent
        if not queue and self._end is not None:
            out.append(encode_prefix(Kind.END, 0, self.id, len(self._end), 0) + self._end)
            self._end = None
            self.move(StreamInput.SEND_END)
        return spent

    def _take_part(self, out: list[Buffer], header: bytes, body: memoryview, largest: int, credit: int) -> int:
        """One frame of a message that may be cut; returns its cost, 0 when the credit is not worth a frame."""
        room = credit - PREFIX_SIZE - len(header)
        if room < min(len(body), WHOLE_MESSAGE):
            return 0
        size = min(len(body), largest, room)
        more = size < len(body)
        if more:
            self._queue[0] = (b"", body[size:])
        else:
            self._queue.popleft()
        out.append(_pack_prefix(_DATA, _MORE if more else 0, len(header), size, self.id) + header)
        out.append(body[:size] if more else body)
        return PREFIX_SIZE + len(header) + size
