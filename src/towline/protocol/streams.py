"""All streams of one connection: numbers, budget, credit, and what arrives on them.

In: calls of the session (open, send, consume …) and stream frames. Out: frames into the scheduler, events into the
session's list. Nothing here knows about the handshake or timers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import ClassVar

from towline.base.errors import (
    BadMessage,
    Cancelled,
    Draining,
    LimitExceeded,
    MalformedFrame,
    StreamClosed,
    TooManyResets,
    TowlineError,
    UnexpectedFrame,
)
from towline.base.limits import CONNECTION_WINDOW_MAX, FRAME_BODY, FRAME_HEADER, RESETS, STREAM_WINDOW_MAX
from towline.protocol import events as ev
from towline.protocol.codec import Buffer, Frame, Header, encode, encode_header, encode_prefix
from towline.protocol.credit import ReceiveWindow, SendWindow
from towline.protocol.records import Limits, fault_from_header, fault_header
from towline.protocol.scheduler import Scheduler
from towline.protocol.stream import Stream
from towline.protocol.table import Class, Flag, Kind, Role, StreamInput, StreamState
from towline.protocol.timers import Pace

_RESET_WINDOW = 60.0
_MAX_STREAM_ID = 0xFFFF_FFFF
_MORE = int(Flag.MORE)
_CLASSES = frozenset({int(Class.INTERACTIVE), int(Class.CHAT), int(Class.BULK)})
_tuple = tuple.__new__


class Streams:
    """The streams of one connection. `by_id` holds those that count: open ones, and the peer's until released."""

    __slots__ = (
        "_count_here",
        "_count_there",
        "_events",
        "_limits",
        "_next_here",
        "_next_there",
        "_pace",
        "_peer_limits",
        "_resets",
        "_scheduler",
        "_window",
        "accepting",
        "by_id",
    )

    def __init__(self, role: Role, limits: Limits, scheduler: Scheduler, events: list[ev.Event], pace: Pace) -> None:
        self.by_id: dict[int, Stream] = {}
        self.accepting = True  # False once either side said GOAWAY
        self._pace = pace
        self._limits = limits
        self._peer_limits = Limits()
        self._scheduler = scheduler
        self._events = events
        self._window = ReceiveWindow(limits.connection_window, CONNECTION_WINDOW_MAX.value)
        self._next_here, self._next_there = (1, 2) if role is Role.CLIENT else (2, 1)
        self._count_here = self._count_there = 0
        self._resets: deque[float] = deque()

    def start(self, peer_limits: Limits) -> None:
        """The handshake is done."""
        self._peer_limits = peer_limits
        self._scheduler.start(peer_limits.connection_window, min(peer_limits.frame_body, FRAME_BODY.value))

    @property
    def heard_data(self) -> bool:
        """Whether the peer has ever sent DATA."""
        return not self._window.untouched

    # --- calls ---

    def open(self, header: Header, scheduling: Class) -> Stream:
        """Open a stream. Raises Draining, LimitExceeded, BadMessage."""
        if not self.accepting:
            raise Draining
        if self._next_here > _MAX_STREAM_ID:
            raise Draining("This connection has used up its stream numbers; connect anew.")
        if int(scheduling) not in _CLASSES:
            raise BadMessage("A stream is interactive, chat or bulk.")
        if self._count_here >= self._peer_limits.streams:
            raise LimitExceeded(
                f"Limit streams is {self._peer_limits.streams} streams at the other side, and as many are open."
            )
        encoded = self._encoded({**header, "class": int(scheduling)})
        stream = self._add(self._next_here, scheduling, opened_here=True)
        self._next_here += 2
        self._push(stream, Kind.OPEN, encoded)
        return stream

    def accept(self, stream: Stream, header: Header | None) -> None:
        """Take a stream that the peer opened. Raises StreamClosed, ControlFlood, LimitExceeded."""
        self._require_open(stream)
        if stream.opened_here or stream.accepted:
            raise StreamClosed(f"Stream {stream.id} cannot be accepted (again) by this side.")
        encoded = self._encoded(header or {})
        stream.accepted = True
        self._push(stream, Kind.ACCEPT, encoded)

    def send(self, stream: Stream, body: Buffer, header: Header | None) -> None:
        """Queue one message. Raises StreamClosed, LimitExceeded, BadMessage."""
        if not stream.can_send:
            self._refuse_output(stream)
        if type(body) is memoryview:
            body = body.cast("B")  # whatever its items are, its length is in bytes from here on
        if len(body) > self._peer_limits.message:
            raise LimitExceeded(
                f"Limit message is {self._peer_limits.message} bytes at the other side; {len(body)} were to be sent."
            )
        stream.queue_message(body, b"" if header is None else self._encoded(header))
        if not stream.scheduled:
            self._scheduler.ready(stream)

    def end(self, stream: Stream, trailer: Header | None) -> None:
        """Half-close behind what is queued. Raises StreamClosed, LimitExceeded, BadMessage."""
        if not stream.can_send:
            self._refuse_output(stream)
        stream.queue_end(b"" if trailer is None else self._encoded(trailer))
        self._scheduler.ready(stream)

    def reset(self, stream: Stream, error: TowlineError | None) -> None:
        """End both directions; what was queued is dropped. Raises ControlFlood."""
        if stream.state is StreamState.CLOSED:
            return
        stream.move(StreamInput.RESET)
        stream.drop_output()
        self.forget_if_done(stream)
        if stream.opened_here:
            self._refund(stream)
        self._push(stream, Kind.RESET, encode_header(fault_header(error or Cancelled())))

    def consume(self, stream: Stream, cost: int) -> bool:
        """The reader has taken DATA that cost this much; whether credit goes back now (enough has come together)."""
        window, whole = stream.receive_window, self._window
        unread = window.outstanding - window.consumed
        if cost > unread:
            cost = unread  # the rest was refunded already
        window.consumed += cost
        whole.consumed += cost
        returned = False
        # Written out, not called: this runs for every message (see ReceiveWindow.due).
        if whole.consumed * 2 >= whole.size:
            self._push_credit(0, whole.give_back(self._pace))
            returned = True
        if window.consumed * 2 >= window.size:
            credit = window.give_back(self._pace)
            if stream.can_receive:
                self._push_credit(stream.id, credit)
                returned = True
        return returned

    def release(self, stream: Stream) -> None:
        """Nobody reads or writes the stream any more. Raises ControlFlood.

        What was queued before an `end` still goes out; without one the stream is cancelled.
        """
        if stream.released:
            return
        stream.released = True
        self._refund(stream)
        if stream.can_send:
            self.reset(stream, Cancelled() if stream.opened_here else StreamClosed("The service ended early."))
        self.forget_if_done(stream)

    # --- from the hub ---

    def drained(self, told: Iterable[Stream]) -> None:
        """Some queued output of these streams went out, and their driver is to hear of it."""
        for stream in told:
            stream.watched = False
            self._events.append(ev.StreamDrained(stream))
            self.forget_if_done(stream)

    def forget_if_done(self, stream: Stream) -> None:
        """A peer's stream counts until its handler has ended (`release`), whatever was cancelled (CVE-2023-44487)."""
        done = stream.state is StreamState.CLOSED and (stream.opened_here or stream.released)
        if done and self.by_id.pop(stream.id, None) is not None:
            self._scheduler.forget(stream)
            if stream.opened_here:
                self._count_here -= 1
            else:
                self._count_there -= 1

    def abort(self, error: TowlineError) -> None:
        """The connection is over, and with it every stream."""
        for stream in self.by_id.values():
            stream.drop_output()
            if stream.state is not StreamState.CLOSED:
                stream.move(StreamInput.RESET)
                self._events.append(ev.StreamReset(stream, error))
        self.by_id.clear()

    # --- frames ---

    def on_open(self, frame: Frame) -> None:
        number, expected = frame.stream, self._next_there
        if number < expected or (number ^ expected) & 1:
            raise UnexpectedFrame(f"OPEN of stream {number}, where {expected} would be next.")
        header = frame.header or {}
        scheduling = header.get("class", int(Class.CHAT))
        if scheduling not in _CLASSES:
            raise MalformedFrame("OPEN has an unknown class.")
        self._next_there = number + 2
        if not self.accepting:
            self._refuse(number, Draining())
        elif self._count_there >= self._limits.streams:
            text = f"Limit streams is {self._limits.streams} streams; this would be number {self._count_there + 1}."
            self._refuse(number, LimitExceeded(text))
        else:
            assert isinstance(scheduling, int)
            stream = self._add(number, Class(scheduling), opened_here=False)
            self._events.append(ev.StreamOpened(stream, header))

    def on_accept(self, frame: Frame) -> None:
        stream = self._known(frame)
        if stream is None or stream.state is StreamState.CLOSED:
            return
        if not stream.opened_here or stream.accepted:
            raise UnexpectedFrame(f"ACCEPT of stream {stream.id}, which was opened by its sender or accepted before.")
        stream.accepted = True
        self._events.append(ev.StreamAccepted(stream, frame.header or {}))

    def on_data(self, frame: Frame, cost: int) -> None:
        """DATA, which took `cost` bytes of wire and credit."""
        _, flags, number, header, body = frame
        whole = self._window
        whole.outstanding += cost
        if whole.outstanding > whole.size:
            raise whole.exceeded()
        stream = self.by_id.get(number)
        if stream is None or not stream.can_receive or stream.released:
            self._unread_data(self._known(frame), cost)
            return
        window = stream.receive_window
        window.outstanding += cost
        if window.outstanding > window.size:
            raise window.exceeded()
        if flags or stream.partial:
            if not self._part_fits(stream, frame):
                self.consume(stream, cost)
                return
            header = stream.message_header
        elif len(body) > self._limits.message:
            self._too_long(stream)
            self.consume(stream, cost)
            return
        self._events.append(_tuple(ev.DataReceived, (stream, header, body, flags != 0, cost)))

    def _unread_data(self, stream: Stream | None, cost: int) -> None:
        """DATA for a stream that nobody reads."""
        if stream is not None and stream.state is StreamState.ENDED_THERE:
            raise UnexpectedFrame(f"DATA on stream {stream.id} after its END.")
        # Sent before the peer heard of our RESET, perhaps. Its credit goes back, or the connection would run dry.
        self._window.consumed += cost
        if self._window.due:
            self._push_credit(0, self._window.give_back(self._pace))
        if stream is not None and stream.state is not StreamState.CLOSED:
            self.reset(stream, StreamClosed("Nobody reads this stream any more."))

    def _part_fits(self, stream: Stream, frame: Frame) -> bool:
        """Account for a part of a message; False when the message is too long (the stream is reset then)."""
        if stream.partial and frame.header is not None:
            raise MalformedFrame(f"A later part of a message on stream {stream.id} has a header.")
        if frame.flags and not frame.body:
            raise MalformedFrame(f"An empty part of a message on stream {stream.id}.")
        if not stream.partial:
            stream.message_header = frame.header
            stream.message_size = 0
        stream.message_size += len(frame.body)
        if stream.message_size > self._limits.message:
            self._too_long(stream)
            return False
        stream.partial = bool(frame.flags & _MORE)
        return True

    def _too_long(self, stream: Stream) -> None:
        error = BadMessage(f"Limit message is {self._limits.message} bytes; stream {stream.id} sent a longer one.")
        self._events.append(ev.StreamReset(stream, error))
        self.reset(stream, error)

    def on_credit(self, frame: Frame) -> None:
        credit = int.from_bytes(frame.body)
        if frame.stream == 0:
            self._scheduler.grow_window(credit)
            return
        stream = self._known(frame)
        if stream is not None:
            stream.send_window.grow(credit)
            self._scheduler.ready(stream)

    def on_end(self, frame: Frame) -> None:
        stream = self._known(frame)
        if stream is None or stream.state is StreamState.CLOSED:
            return
        if not stream.can_receive:
            raise UnexpectedFrame(f"A second END on stream {stream.id}.")
        if stream.partial:
            raise UnexpectedFrame(f"END on stream {stream.id} in the middle of a message.")
        stream.move(StreamInput.RECEIVE_END)
        self._events.append(ev.StreamEnded(stream, frame.header or {}))
        self.forget_if_done(stream)

    def on_reset(self, frame: Frame) -> None:
        assert frame.header is not None
        stream = self._known(frame)
        if stream is None or stream.state is StreamState.CLOSED:
            return
        stream.move(StreamInput.RESET)
        stream.drop_output()
        self._events.append(ev.StreamReset(stream, fault_from_header(frame.header)))
        self.forget_if_done(stream)
        if stream.opened_here:
            self._refund(stream)
        else:
            self._count_reset()

    HANDLERS: ClassVar[dict[int, Callable[[Streams, Frame], None]]] = {
        int(Kind.OPEN): on_open,
        int(Kind.ACCEPT): on_accept,
        int(Kind.CREDIT): on_credit,
        int(Kind.END): on_end,
        int(Kind.RESET): on_reset,
    }

    # --- inside ---

    def _add(self, number: int, scheduling: Class, *, opened_here: bool) -> Stream:
        stream = Stream(
            number,
            scheduling,
            opened_here=opened_here,
            send=SendWindow(self._peer_limits.stream_window),
            receive=ReceiveWindow(self._limits.stream_window, STREAM_WINDOW_MAX.value),
        )
        self.by_id[number] = stream
        if opened_here:
            self._count_here += 1
        else:
            self._count_there += 1
        return stream

    def _known(self, frame: Frame) -> Stream | None:
        """The stream of a frame; None for one that is over. Raises UnexpectedFrame when it was never opened."""
        number = frame.stream
        stream = self.by_id.get(number)
        if stream is None:
            opened_here = (number ^ self._next_here) & 1 == 0
            if number == 0 or number >= (self._next_here if opened_here else self._next_there):
                raise UnexpectedFrame(f"{Kind(frame.kind).name} on stream {number}, which was never opened.")
        return stream

    def _require_open(self, stream: Stream) -> None:
        if stream.state is StreamState.CLOSED:
            raise StreamClosed(f"Stream {stream.id} is closed.")

    def _refuse_output(self, stream: Stream) -> None:
        self._require_open(stream)
        raise StreamClosed(f"Stream {stream.id} was ended on this side.")

    def _encoded(self, header: Header) -> bytes:
        return encode_header(header, min(self._peer_limits.frame_header, FRAME_HEADER.value))

    def _count_reset(self) -> None:
        self._resets.append(self._pace.now)
        while self._resets[0] <= self._pace.now - _RESET_WINDOW:
            self._resets.popleft()
        if len(self._resets) > RESETS.value:
            raise TooManyResets(f"Limit resets is {RESETS.value} in a minute.")

    def _refund(self, stream: Stream) -> None:
        """Return the connection's credit for what nobody will read, or the connection would run dry."""
        self.consume(stream, stream.receive_window.unread)

    def _refuse(self, number: int, error: TowlineError) -> None:
        self._scheduler.push_reply(encode(Frame(Kind.RESET, 0, number, fault_header(error))))

    def _push(self, stream: Stream, kind: Kind, header: bytes) -> None:
        """A control frame of a stream; on the peer's streams it is the peer who makes us send it."""
        frame = encode_prefix(kind, 0, stream.id, len(header), 0) + header
        if stream.opened_here:
            self._scheduler.push_control(frame)
        else:
            self._scheduler.push_reply(frame)

    def _push_credit(self, number: int, credit: int) -> None:
        # Not counted as a reply: there is at most one for every half window, and a new half window needs a CREDIT.
        self._scheduler.push_control(encode(Frame(Kind.CREDIT, 0, number, None, credit.to_bytes(8))))
