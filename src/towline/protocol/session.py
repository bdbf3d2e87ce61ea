"""One connection, without the connection: bytes and calls in, events and bytes out.

The hub of this room. It owns the handshake, the streams, the credit and the timers, and it never waits: a driver
feeds it (`receive`, `tick`), acts on the events, and sends what `take` gives. Whatever bytes come in, only
documented errors come out, and those as a `Closed` event; a call that makes no sense (sending on an ended stream)
raises to its caller.
"""

from __future__ import annotations

from collections.abc import Callable

from towline.base.errors import (
    BadMessage,
    Cancelled,
    ConnectionLost,
    ControlFlood,
    Draining,
    HandshakeTimeout,
    LimitExceeded,
    MalformedFrame,
    ProtocolError,
    StreamClosed,
    TooManyResets,
    TowlineError,
    UnexpectedFrame,
)
from towline.base.limits import (
    CONNECTION_WINDOW_MAX,
    FRAME_BODY,
    HANDSHAKE_FRAME,
    HANDSHAKE_FRAMES,
    HANDSHAKE_SECONDS,
    RESETS,
    STREAM_WINDOW_MAX,
)
from towline.protocol import events as ev
from towline.protocol.codec import Buffer, Decoder, Frame, Header, encode
from towline.protocol.credit import ReceiveWindow, SendWindow
from towline.protocol.handshake import could_be_preface, padding, readable_line, stranger, transcript
from towline.protocol.records import Hello, Limits, Proof, Welcome, fault_from_header, fault_header
from towline.protocol.scheduler import Scheduler
from towline.protocol.stream import Stream
from towline.protocol.table import ALLOWED, PREFACE, Class, Flag, Kind, Role, State, StreamInput, StreamState
from towline.protocol.timers import Timer, Timers

PING_INTERVAL = 15.0
PONG_TIMEOUT = 15.0
_RESET_WINDOW = 60.0
_MAX_STREAM_ID = 0xFFFF_FFFF


class Session:
    """The protocol state of one connection.

    `nonce`: 32 fresh random bytes. `fingerprint`: of the node's certificate as this side knows it (hexadecimal),
    bound into the proof. `lane`: a client's ticket when this connection is to be a lane. Times are seconds, monotonic.
    """

    __slots__ = (
        "_decoder",
        "_early",
        "_events",
        "_handshake_frames",
        "_heard",
        "_hello_in",
        "_hello_out",
        "_next_id",
        "_now",
        "_peer_next_id",
        "_pinged",
        "_receive_window",
        "_resets",
        "_scheduler",
        "_timers",
        "_unproved_balance",
        "error",
        "fingerprint",
        "going_away",
        "limits",
        "our_hello",
        "peer_hello",
        "role",
        "rtt",
        "state",
        "streams",
    )

    def __init__(
        self,
        role: Role,
        *,
        agent: str,
        nonce: bytes,
        now: float,
        fingerprint: str = "",
        name: str | None = None,
        lane: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.role = role
        self.state = State.PREFACE
        self.limits = limits or Limits()
        self.fingerprint = fingerprint
        self.our_hello = Hello(agent, nonce, self.limits, lane=lane, name=name)
        self.peer_hello: Hello | None = None
        self.error: TowlineError | None = None
        self.going_away = False
        self.rtt: float | None = None
        self.streams: dict[int, Stream] = {}
        self._decoder = Decoder(max_total=HANDSHAKE_FRAME.value)
        self._early = b""  # bytes of the peer's preface and HELLO, for the transcript
        self._hello_in = self._hello_out = b""
        self._handshake_frames = 0
        self._unproved_balance = 0  # node: bytes in minus bytes out before the client proved itself
        self._scheduler = Scheduler()
        self._timers = Timers()
        self._receive_window = ReceiveWindow(self.limits.connection_window, CONNECTION_WINDOW_MAX.value)
        self._next_id = 1 if role is Role.CLIENT else 2
        self._peer_next_id = 2 if role is Role.CLIENT else 1
        self._events: list[ev.Event] = []
        self._resets: list[float] = []
        self._now = self._heard = now
        self._pinged: float | None = None
        self._timers.arm(Timer.HANDSHAKE, now + HANDSHAKE_SECONDS.value)
        if role is Role.CLIENT:
            self._send_hello()

    def __repr__(self) -> str:
        return f"<Session {self.role.value} {self.state.value} streams={len(self.streams)} rtt={self.rtt}>"

    # --- for the driver: bytes and time ---

    def receive(self, data: bytes, now: float) -> list[ev.Event]:
        """Take bytes from the peer; returns what happened, in order."""
        self._now = self._heard = now
        if self.state in (State.CLOSED, State.LANE):
            return []
        try:
            self._receive(data)
        except TowlineError as error:
            self._close(error)
        return self._take_events()

    def receive_eof(self, now: float) -> list[ev.Event]:
        """The peer closed its side of the transport, which ends everything: streams half-close by END."""
        self._now = now
        if self.state is not State.CLOSED:
            self.state = State.CLOSED
            self._finish(ConnectionLost("The other side closed the connection."))
        return self._take_events()

    def connection_lost(self, error: TowlineError, now: float) -> list[ev.Event]:
        """The transport failed."""
        self._now = now
        if self.state is not State.CLOSED:
            self.state = State.CLOSED
            self._finish(error)
        return self._take_events()

    def take(self, limit: int) -> list[Buffer]:
        """About `limit` bytes to send now, as buffers in order; an empty list when there is nothing."""
        out, moved = self._scheduler.take(limit)
        for stream in dict.fromkeys(moved):
            self._events.append(ev.StreamDrained(stream))
            self._forget_if_done(stream)
        return out

    @property
    def wants_to_send(self) -> bool:
        return self._scheduler.pending

    def events(self) -> list[ev.Event]:
        """Events that calls (not bytes) caused, such as StreamDrained."""
        return self._take_events()

    def deadline(self) -> float | None:
        """When `tick` wants to be called, or None."""
        return self._timers.next()

    def tick(self, now: float) -> list[ev.Event]:
        """Time passed."""
        self._now = now
        for timer in self._timers.expired(now):
            if self.state is State.CLOSED:
                break
            _ON_TIMER[timer](self)
        return self._take_events()

    # --- for the driver: the handshake ---

    def prove(self, proof: Proof) -> None:
        """Client: answer ProofWanted."""
        self._control(Kind.PROVE, header=proof.to_header())

    def welcome(self, welcome: Welcome) -> None:
        """Node: let the client in."""
        assert self.state is State.VERDICT
        self._control(Kind.WELCOME, header=welcome.to_header())
        self._opened()

    def welcome_lane(self, welcome: Welcome) -> None:
        """Node: let the connection be a lane; whoever drives it from now on takes the rest of the bytes."""
        assert self.state is State.HELLO
        self._control(Kind.WELCOME, header=welcome.to_header())
        self.state = State.LANE
        self._timers.disarm(Timer.HANDSHAKE)

    def take_rest(self) -> bytes:
        """Bytes that came in behind the handshake of a lane."""
        return self._decoder.take_rest()

    def fail(self, error: TowlineError) -> list[ev.Event]:
        """Say GOAWAY with `error` and close."""
        if self.state is not State.CLOSED:
            self._close(error)
        return self._take_events()

    def drain(self, error: TowlineError, now: float, grace: float) -> None:
        """Say GOAWAY, take no new streams, and close in `grace` seconds at the latest."""
        self._now = now
        if self.state is State.OPEN and not self.going_away:
            self.going_away = True
            self._control(Kind.GOAWAY, header=fault_header(error))
            self._timers.arm(Timer.GOODBYE, now + grace)

    # --- for the driver: streams ---

    def open(self, header: Header, scheduling: Class = Class.CHAT) -> Stream:
        """Open a stream; DATA may follow at once, within the credit that the peer's HELLO gave."""
        if self.state is not State.OPEN:
            raise ConnectionLost("The connection is not open.")
        if self.going_away:
            raise Draining
        if self._next_id > _MAX_STREAM_ID:
            raise Draining("This connection has used up its stream numbers; connect anew.")
        stream = self._add_stream(self._next_id, scheduling, opened_here=True)
        self._next_id += 2
        self._control(Kind.OPEN, stream.id, {**header, "class": int(scheduling)})
        return stream

    def accept(self, stream: Stream, header: Header | None = None) -> None:
        """Take a stream that the peer opened."""
        self._require(stream)
        self._control(Kind.ACCEPT, stream.id, header or {})

    def send(self, stream: Stream, body: Buffer, header: Header | None = None) -> None:
        """Queue one message. Raises StreamClosed, or LimitExceeded when the peer does not take messages so large."""
        self._require(stream)
        if not stream.can_send:
            raise StreamClosed(f"Stream {stream.id} was ended on this side.")
        limit = self.peer_limits.message
        if len(body) > limit:
            raise LimitExceeded(f"Limit message is {limit} bytes at the other side; {len(body)} were to be sent.")
        stream.queue_message(body, header)
        self._scheduler.ready(stream)

    def end(self, stream: Stream, trailer: Header | None = None) -> None:
        """Half-close: no more messages from here once the queued ones are out."""
        self._require(stream)
        if not stream.can_send:
            raise StreamClosed(f"Stream {stream.id} was ended on this side.")
        stream.queue_end(trailer)
        self._scheduler.ready(stream)

    def reset(self, stream: Stream, error: TowlineError | None = None) -> None:
        """End the stream both ways at once; what was queued is dropped. Harmless on a stream that is over."""
        if stream.state is StreamState.CLOSED or self.state is not State.OPEN:
            return
        stream.move(StreamInput.RESET)
        stream.drop_output()
        self._control(Kind.RESET, stream.id, fault_header(error or Cancelled()))
        self._forget_if_done(stream)

    def consume(self, stream: Stream, cost: int) -> None:
        """The reader has taken DATA that cost this much; returns credit when enough has come together."""
        if self.state is not State.OPEN:
            return
        credit = self._receive_window.consume(cost, self._now, self.rtt)
        if credit:
            self._control(Kind.CREDIT, 0, body=credit.to_bytes(8))
        if stream.can_receive:
            credit = stream.receive_window.consume(cost, self._now, self.rtt)
            if credit:
                self._control(Kind.CREDIT, stream.id, body=credit.to_bytes(8))

    def release(self, stream: Stream) -> None:
        """The handler of a peer's stream has ended: only now does the stream leave the peer's budget."""
        if stream.state is not StreamState.CLOSED:
            self.reset(stream, StreamClosed("The service ended without closing the stream."))
        self.streams.pop(stream.id, None)

    @property
    def peer_limits(self) -> Limits:
        return self.peer_hello.limits if self.peer_hello else Limits()

    # --- inside ---

    def _receive(self, data: bytes) -> None:
        if self.state is State.PREFACE:
            self._early += data
            if not could_be_preface(self._early):
                raise stranger(self._early[: len(PREFACE) + 8])
            if len(self._early) < len(PREFACE):
                return
            self.state = State.HELLO
            data = self._early[len(PREFACE) :]
            self._unproved_balance += len(PREFACE)
        elif self.state is State.HELLO:
            self._early += data
        if self.state is not State.OPEN:
            self._unproved_balance += len(data)
        for frame in self._decoder.feed(data):
            self._on_frame(frame)
            if self.state in (State.CLOSED, State.LANE):
                break

    def _on_frame(self, frame: Frame) -> None:
        if frame.kind not in ALLOWED[self.role, self.state]:
            raise UnexpectedFrame(f"{Kind(frame.kind).name} is not allowed in state {self.state.value}.")
        if self.state is not State.OPEN:
            self._handshake_frames += 1
            if self._handshake_frames > HANDSHAKE_FRAMES.value:
                raise UnexpectedFrame(f"Limit handshake_frames is {HANDSHAKE_FRAMES.value} frames.")
        _ON_FRAME[frame.kind](self, frame)

    def _on_hello(self, frame: Frame) -> None:
        assert frame.header is not None
        self.peer_hello = Hello.from_header(frame.header)
        self._hello_in = self._early[: len(PREFACE) + self._decoder.span]
        self._early = b""
        if self.role is Role.NODE:
            if self.peer_hello.lane is not None:
                self._events.append(ev.LaneRequested(self.peer_hello.lane))
                return
            self.state = State.PROVE
            self._send_hello()
        else:
            self.state = State.VERDICT
            self._events.append(ev.ProofWanted(self.peer_hello, self._transcript()))

    def _on_prove(self, frame: Frame) -> None:
        assert frame.header is not None
        assert self.peer_hello is not None
        self.state = State.VERDICT
        self._events.append(ev.ProofOffered(self.peer_hello, Proof.from_header(frame.header), self._transcript()))

    def _on_welcome(self, frame: Frame) -> None:
        assert frame.header is not None
        self._opened()
        self._events.append(ev.Welcomed(Welcome.from_header(frame.header)))

    def _transcript(self) -> bytes:
        ours, theirs = self._hello_out, self._hello_in
        client, node = (ours, theirs) if self.role is Role.CLIENT else (theirs, ours)
        return transcript(client, node, self.fingerprint)

    def _send_hello(self) -> None:
        header = self.our_hello.to_header()
        if self.role is Role.CLIENT:
            header = padding(header, len(encode(Frame(Kind.HELLO, header=header))))
        self._hello_out = PREFACE + encode(Frame(Kind.HELLO, header=header))
        self._push(self._hello_out)

    def _opened(self) -> None:
        self.state = State.OPEN
        self._hello_in = self._hello_out = b""
        self._decoder.max_total = None
        self._decoder.max_header = self.limits.frame_header
        self._decoder.max_body = self.limits.frame_body
        self._scheduler.window.grow(self.peer_limits.connection_window)
        self._scheduler.max_body = min(self.peer_limits.frame_body, FRAME_BODY.value)
        self._timers.disarm(Timer.HANDSHAKE)
        self._timers.arm(Timer.PING, self._now + PING_INTERVAL)

    def _on_open(self, frame: Frame) -> None:
        if frame.stream < self._peer_next_id or (frame.stream ^ self._peer_next_id) & 1:
            raise UnexpectedFrame(f"OPEN of stream {frame.stream}, which is not the peer's next number.")
        header = frame.header or {}
        scheduling = header.get("class", Class.CHAT)
        if not isinstance(scheduling, int) or scheduling not in (Class.INTERACTIVE, Class.CHAT, Class.BULK):
            raise MalformedFrame("OPEN has an unknown class.")
        self._peer_next_id = frame.stream + 2
        stream = self._add_stream(frame.stream, Class(scheduling), opened_here=False)
        theirs = sum(not each.opened_here for each in self.streams.values())
        if self.going_away or theirs > self.limits.streams:
            refusal = Draining() if self.going_away else self._too_many(theirs)
            self.reset(stream, refusal)
            self.streams.pop(stream.id, None)
            return
        self._events.append(ev.StreamOpened(stream, header))

    def _too_many(self, count: int) -> TowlineError:
        return LimitExceeded(f"Limit streams is {self.limits.streams} streams; this would be number {count}.")

    def _on_accept(self, frame: Frame) -> None:
        stream = self._known(frame)
        if stream is None:
            return
        if not stream.opened_here:
            raise UnexpectedFrame(f"ACCEPT of stream {frame.stream}, which the peer opened itself.")
        self._events.append(ev.StreamAccepted(stream, frame.header or {}))

    def _on_data(self, frame: Frame) -> None:
        cost = self._decoder.span
        self._receive_window.receive(cost, "the connection")
        stream = self._known(frame)
        if stream is None or stream.state is StreamState.CLOSED:
            # Sent before the peer heard of our RESET. Its credit goes back, or the connection would run dry.
            credit = self._receive_window.consume(cost, self._now, self.rtt)
            if credit:
                self._control(Kind.CREDIT, 0, body=credit.to_bytes(8))
            return
        if not stream.can_receive:
            raise UnexpectedFrame(f"DATA on stream {stream.id} after its END.")
        stream.receive_window.receive(cost, f"stream {stream.id}")
        stream.message_size += len(frame.body)
        if stream.message_size > self.limits.message:
            self.reset(stream, self._too_long(stream))
            self._events.append(ev.StreamReset(stream, self._too_long(stream)))
            self.consume(stream, cost)
            return
        more = bool(frame.flags & Flag.MORE)
        if not more:
            stream.message_size = 0
        self._events.append(ev.DataReceived(stream, frame.header, frame.body, more, cost))

    def _too_long(self, stream: Stream) -> TowlineError:
        return BadMessage(
            f"Limit message is {self.limits.message} bytes; stream {stream.id} sent more without an end."
        )

    def _on_credit(self, frame: Frame) -> None:
        credit = int.from_bytes(frame.body)
        if credit > 1 << 40:
            raise ProtocolError("CREDIT of more than a TiB makes no sense.")
        if frame.stream == 0:
            self._scheduler.window.grow(credit)
            for each in self.streams.values():
                self._scheduler.ready(each)
            return
        stream = self._known(frame)
        if stream is not None:
            stream.send_window.grow(credit)
            self._scheduler.ready(stream)

    def _on_end(self, frame: Frame) -> None:
        stream = self._known(frame)
        if stream is None or stream.state is StreamState.CLOSED:
            return
        if not stream.can_receive:
            raise UnexpectedFrame(f"A second END on stream {stream.id}.")
        if stream.message_size:
            raise UnexpectedFrame(f"END on stream {stream.id} in the middle of a message.")
        stream.move(StreamInput.RECEIVE_END)
        self._events.append(ev.StreamEnded(stream, frame.header or {}))
        self._forget_if_done(stream)

    def _on_reset(self, frame: Frame) -> None:
        assert frame.header is not None
        stream = self._known(frame)
        if stream is None or stream.state is StreamState.CLOSED:
            return
        if not stream.opened_here:
            self._count_reset()
        stream.move(StreamInput.RESET)
        stream.drop_output()
        self._events.append(ev.StreamReset(stream, fault_from_header(frame.header)))
        self._forget_if_done(stream)

    def _count_reset(self) -> None:
        horizon = self._now - _RESET_WINDOW
        self._resets = [at for at in self._resets if at > horizon]
        self._resets.append(self._now)
        if len(self._resets) > RESETS.value:
            raise TooManyResets(f"Limit resets is {RESETS.value} in a minute.")

    def _on_ping(self, frame: Frame) -> None:
        self._control(Kind.PONG, body=bytes(frame.body))

    def _on_pong(self, frame: Frame) -> None:
        if self._pinged is None:
            return
        self.rtt = max(self._now - self._pinged, 1e-6)
        self._pinged = None
        self._timers.disarm(Timer.PONG)
        self._timers.arm(Timer.PING, self._now + PING_INTERVAL)

    def _on_goaway(self, frame: Frame) -> None:
        assert frame.header is not None
        error = fault_from_header(frame.header)
        if self.state is State.OPEN and isinstance(error, Draining):
            self.going_away = True
            self._events.append(ev.GoingAway(error))
            return
        self.state = State.CLOSED
        self._finish(error)

    def ping(self, now: float) -> None:
        """Ask for a sign of life now, and measure the round trip."""
        self._now = now
        if self.state is State.OPEN and self._pinged is None:
            self._pinged = now
            self._control(Kind.PING, body=bytes(8))
            self._timers.disarm(Timer.PING)
            self._timers.arm(Timer.PONG, now + PONG_TIMEOUT)

    def _ping_due(self) -> None:
        if self._now - self._heard < PING_INTERVAL:
            self._timers.arm(Timer.PING, self._heard + PING_INTERVAL)
        else:
            self.ping(self._now)

    def _pong_due(self) -> None:
        if self._pinged is not None and self._heard > self._pinged:
            self._timers.arm(Timer.PONG, self._heard + PONG_TIMEOUT)  # other bytes are a sign of life too
            return
        self.state = State.CLOSED
        self._finish(ConnectionLost(f"The other side has not answered for {PONG_TIMEOUT:.0f} s."))

    def _handshake_due(self) -> None:
        self._close(HandshakeTimeout(f"Limit handshake_seconds is {HANDSHAKE_SECONDS.value} s."))

    def _goodbye_due(self) -> None:
        self._close(Draining())

    def _add_stream(self, stream_id: int, scheduling: Class, *, opened_here: bool) -> Stream:
        stream = Stream(
            stream_id,
            scheduling,
            opened_here=opened_here,
            send=SendWindow(self.peer_limits.stream_window),
            receive=ReceiveWindow(self.limits.stream_window, STREAM_WINDOW_MAX.value),
        )
        self.streams[stream_id] = stream
        return stream

    def _known(self, frame: Frame) -> Stream | None:
        """The stream of a frame; None for one that is over. Raises when it was never opened."""
        stream = self.streams.get(frame.stream)
        if stream is None:
            ours = (frame.stream ^ self._next_id) & 1 == 0
            if frame.stream == 0 or frame.stream >= (self._next_id if ours else self._peer_next_id):
                raise UnexpectedFrame(f"{Kind(frame.kind).name} on stream {frame.stream}, which is not open.")
        return stream

    def _require(self, stream: Stream) -> None:
        if self.state is not State.OPEN:
            raise ConnectionLost
        if stream.state is StreamState.CLOSED:
            raise StreamClosed(f"Stream {stream.id} is closed.")

    def _forget_if_done(self, stream: Stream) -> None:
        # A peer's stream stays until its handler has ended (`release`), whatever was cancelled (CVE-2023-44487).
        if stream.state is StreamState.CLOSED and stream.opened_here:
            self.streams.pop(stream.id, None)

    def _control(self, kind: Kind, stream: int = 0, header: Header | None = None, body: bytes = b"") -> None:
        self._push(encode(Frame(kind, 0, stream, header, body)))

    def _push(self, frame: bytes) -> None:
        if self.role is Role.NODE and self.state in (State.HELLO, State.PROVE):
            self._unproved_balance -= len(frame)
            if self._unproved_balance < 0:
                raise ProtocolError("The HELLO is too short for an answer of at most its size.")
        self._scheduler.push_control(frame)

    def _close(self, error: TowlineError) -> None:
        """We end the connection, and say why when the peer can understand it."""
        before = self.state
        self.state = State.CLOSED
        if before is State.PREFACE:
            if self.role is Role.NODE:
                self._scheduler.push_control(readable_line(error))
        elif not isinstance(error, ControlFlood):
            farewell = encode(Frame(Kind.GOAWAY, header=fault_header(error)))
            if before is State.OPEN or self.role is Role.CLIENT or len(farewell) <= self._unproved_balance:
                self._scheduler.push_control(farewell)
        self._finish(error)

    def _finish(self, error: TowlineError) -> None:
        self.error = error
        for timer in Timer:
            self._timers.disarm(timer)
        for stream in list(self.streams.values()):
            stream.drop_output()
            if stream.state is not StreamState.CLOSED:
                stream.move(StreamInput.RESET)
                self._events.append(ev.StreamReset(stream, error))
        self.streams.clear()
        self._events.append(ev.Closed(error))

    def _take_events(self) -> list[ev.Event]:
        taken, self._events = self._events, []
        return taken


_ON_FRAME: dict[int, Callable[[Session, Frame], None]] = {
    int(Kind.HELLO): Session._on_hello,
    int(Kind.PROVE): Session._on_prove,
    int(Kind.WELCOME): Session._on_welcome,
    int(Kind.OPEN): Session._on_open,
    int(Kind.ACCEPT): Session._on_accept,
    int(Kind.DATA): Session._on_data,
    int(Kind.CREDIT): Session._on_credit,
    int(Kind.END): Session._on_end,
    int(Kind.RESET): Session._on_reset,
    int(Kind.PING): Session._on_ping,
    int(Kind.PONG): Session._on_pong,
    int(Kind.GOAWAY): Session._on_goaway,
}

_ON_TIMER: dict[Timer, Callable[[Session], None]] = {
    Timer.HANDSHAKE: Session._handshake_due,
    Timer.PING: Session._ping_due,
    Timer.PONG: Session._pong_due,
    Timer.GOODBYE: Session._goodbye_due,
}
