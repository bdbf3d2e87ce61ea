"""One connection, without the connection: bytes and calls in, events and bytes out.

The hub of this room. It holds the connection's state and its timers, passes frames to its spokes (`opening`,
`streams`, `scheduler`), and never waits: a driver feeds it (`receive`, `tick`), acts on the events, and sends what
`take` gives. Whatever bytes come in, only documented errors come out, and those as a `Closed` event; a call that
makes no sense (sending on an ended stream) raises to its caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, ParamSpec

from towline.base.errors import (
    ConnectionLost,
    ControlFlood,
    Draining,
    HandshakeTimeout,
    TowlineError,
    UnexpectedFrame,
)
from towline.base.limits import HANDSHAKE_FRAME, HANDSHAKE_SECONDS
from towline.protocol import events as ev
from towline.protocol.codec import Buffer, Decoder, Frame, Header, encode
from towline.protocol.liveness import PONG_TIMEOUT, Liveness
from towline.protocol.opening import Opening
from towline.protocol.records import Hello, Limits, Proof, Welcome, fault_from_header, fault_header
from towline.protocol.scheduler import Scheduler
from towline.protocol.stream import Stream
from towline.protocol.streams import Streams
from towline.protocol.table import ALLOWED, PREFIX_SIZE, TRANSITIONS, Class, Kind, Role, State
from towline.protocol.timers import Pace, Timer, Timers

_DATA = int(Kind.DATA)
_P = ParamSpec("_P")


class Session:
    """The protocol state of one connection.

    `nonce`: 32 fresh random bytes. `fingerprint`: of the node's certificate as this side knows it (hexadecimal),
    bound into the proof. `lane`: a client's ticket when this connection is to be a lane. `patience`: seconds that the
    handshake may take. Times: seconds, monotonic.
    """

    __slots__ = ("_decoder", "_draining", "_events", "_farewell", "_gate", "_liveness", "_opening", "_pace",
                 "_patience", "_scheduler", "_streams", "_timers", "error", "fingerprint", "going_away", "limits",
                 "our_hello", "peer_hello", "role", "state", "streams")  # fmt: skip

    def __init__(
        self, role: Role, *, agent: str, nonce: bytes, now: float, fingerprint: str = "", name: str | None = None,
        lane: str | None = None, limits: Limits | None = None, patience: float = HANDSHAKE_SECONDS.value
    ) -> None:  # fmt: skip
        self.role = role
        self.limits = limits or Limits()
        self.limits.check()
        self.fingerprint = fingerprint
        self.our_hello = Hello(agent, nonce, self.limits, lane=lane, name=name)
        self.peer_hello: Hello | None = None
        self.error: TowlineError | None = None
        self.going_away = False  # either side said GOAWAY: no new streams
        self._decoder = Decoder(max_total=HANDSHAKE_FRAME.value)
        self._draining = False  # we said GOAWAY
        self._farewell: TowlineError | None = None  # the reason in the peer's GOAWAY
        self._events: list[ev.Event] = []
        self._pace = Pace(now)
        self._patience = patience
        self._scheduler = Scheduler()
        self._streams = Streams(role, self.limits, self._scheduler, self._events, self._pace)
        self.streams = self._streams.by_id  # open ones, and the peer's that are not released yet
        self._opening = Opening(role, self.our_hello, fingerprint)
        self._timers = Timers()
        self._liveness = Liveness(self._scheduler, self._timers, self._pace)
        self._timers.arm(Timer.HANDSHAKE, now + patience)
        self._enter(State.VERDICT if self._opening.lane else State.PREFACE)
        if role is Role.CLIENT:
            self._say_hello()

    def __repr__(self) -> str:
        rtt = "?" if self.rtt is None else f"{self.rtt * 1000:.1f} ms"
        return f"<Session {self.role.value} {self.state.value} streams={len(self.streams)} rtt={rtt}>"

    # --- for the driver: bytes and time ---

    def receive(self, data: bytes, now: float) -> list[ev.Event]:
        """Take bytes from the peer; returns what happened, in order."""
        pace = self._pace
        pace.now = pace.heard = now
        if self.state is State.LANE:
            self._decoder.hold(data)
        elif self.state is not State.CLOSED:
            try:
                self._receive(data)
            except TowlineError as error:
                self._close(error)
            if self._draining:
                self._close_if_drained()
        return self.events()

    def receive_eof(self, now: float) -> list[ev.Event]:
        """The peer closed its side of the transport, which ends everything: streams half-close by END."""
        return self.connection_lost(self._farewell or ConnectionLost("The other side closed the connection."), now)

    def connection_lost(self, error: TowlineError, now: float) -> list[ev.Event]:
        """The transport failed."""
        self._pace.now = now
        self._finish(error)
        return self.events()

    def take(self, limit: int) -> list[Buffer]:
        """About `limit` bytes to send now, as buffers in order; an empty list when there is nothing."""
        out, told = self._scheduler.take(limit)
        if told:
            self._streams.drained(told)
        if self._draining:
            self._close_if_drained()
        return out

    @property
    def wants_to_send(self) -> bool:
        return self._scheduler.pending

    def events(self) -> list[ev.Event]:
        """Events that calls (not bytes) caused, such as StreamDrained."""
        taken = self._events[:]
        self._events.clear()  # the same list: `streams` appends to it too
        return taken

    def deadline(self) -> float | None:
        """When `tick` wants to be called, or None."""
        return self._timers.next

    def tick(self, now: float) -> list[ev.Event]:
        """Time passed."""
        self._pace.now = now
        for timer in self._timers.expired(now):
            if self.state is not State.CLOSED:
                self._ON_TIMER[timer](self)
        return self.events()

    # --- for the driver: the handshake (a call that comes too late, after the end, is harmless) ---

    def prove(self, proof: Proof) -> None:
        """Client: answer ProofWanted."""
        self._answer(Kind.PROVE, proof.to_header())

    def welcome(self, welcome: Welcome) -> None:
        """Node: let the client in; or the connection be a lane, and whoever drives it takes the rest of the bytes."""
        self._answer(Kind.WELCOME, welcome.to_header())

    def take_rest(self) -> bytes:
        """Bytes that came in behind the handshake of a lane."""
        return self._decoder.take_rest()

    def fail(self, error: TowlineError) -> list[ev.Event]:
        """Say GOAWAY with `error` and close."""
        self._close(error)
        return self.events()

    def drain(self, error: TowlineError, now: float, grace: float) -> None:
        """Say GOAWAY (`error` should be a Draining), take no new streams; close when the last stream has ended, and
        in `grace` seconds at the latest."""
        self._pace.now = now
        if self.state is State.OPEN and not self._draining:
            self._draining = self.going_away = True
            self._streams.accepting = False
            self._control(Kind.GOAWAY, fault_header(error))
            self._timers.arm(Timer.GOODBYE, now + grace)

    # --- for the driver: streams ---

    def open(self, header: Header, scheduling: Class = Class.CHAT) -> Stream:
        """Open a stream; DATA may follow at once, within the credit that the peer's HELLO gave.

        Raises ConnectionLost, Draining, LimitExceeded (the peer takes no more streams, or no header so large).
        """
        self._require_open()
        return self._streams.open(header, scheduling)

    def accept(self, stream: Stream, header: Header | None = None) -> None:
        """Take a stream that the peer opened. Raises StreamClosed, ConnectionLost, LimitExceeded."""
        self._require_open()
        self._unless_flooded(self._streams.accept, stream, header)

    def send(self, stream: Stream, body: Buffer, header: Header | None = None) -> None:
        """Queue one message; `body` must not change until it is out.

        Raises StreamClosed, ConnectionLost, LimitExceeded (the peer takes no message or header so large), BadMessage
        (the header is no JSON).
        """
        if self.state is not State.OPEN:
            self._require_open()
        self._streams.send(stream, body, header)

    def at_once(self, stream: Stream, body: bytes) -> bytes | None:
        """The frame of one message that need not wait for anything, as `send` would write it; None: `send` it."""
        if self.state is not State.OPEN or not stream.can_send or len(body) > self.peer_limits.message:
            return None
        if not self._scheduler.may_overtake_none(stream, PREFIX_SIZE + len(body)):
            return None
        return stream.whole_frame(body)

    def end(self, stream: Stream, trailer: Header | None = None) -> None:
        """Half-close: no more messages from here once the queued ones are out. Raises as `send`."""
        self._require_open()
        self._streams.end(stream, trailer)

    def reset(self, stream: Stream, error: TowlineError | None = None) -> None:
        """End the stream both ways at once; what was queued is dropped. Harmless on a stream that is over."""
        if self.state is State.OPEN:
            self._unless_flooded(self._streams.reset, stream, error)

    def consume(self, stream: Stream, cost: int) -> bool:
        """The reader has taken DATA that cost this much; whether there is credit to send back now."""
        return self.state is State.OPEN and self._streams.consume(stream, cost)

    def release(self, stream: Stream) -> None:
        """The handler of a peer's stream has ended (or nobody reads our own any more); harmless when repeated.

        Only now does the stream leave the peer's budget. What was queued before an `end` still goes out; without an
        `end` the stream is reset.
        """
        if self.state is State.OPEN:
            self._unless_flooded(self._streams.release, stream)
            self._close_if_drained()

    def ping(self, now: float) -> None:
        """Ask for a sign of life now, and measure the round trip."""
        self._pace.now = now
        if self.state is State.OPEN:
            self._liveness.ping()

    @property
    def heard_data(self) -> bool:
        """Whether the peer has ever sent DATA: then it was worth while to connect."""
        return self._streams.heard_data

    @property
    def rtt(self) -> float | None:
        """Seconds of the last round trip that was measured, or None."""
        return self._pace.rtt

    @property
    def peer_limits(self) -> Limits:
        return self.peer_hello.limits if self.peer_hello else Limits()

    # --- frames ---

    def _receive(self, data: bytes) -> None:
        if self.state is not State.OPEN:
            data = self._opening.receive(data)
            if self.state is State.PREFACE and self._opening.preface_seen:
                self._enter(State.HELLO)
        decoder, streams = self._decoder, self._streams
        frames = decoder.feed(data)
        for frame in frames:
            kind = frame[0]
            if kind not in self._gate:
                raise UnexpectedFrame(f"{Kind(kind).name} is not allowed in state {self.state.value}.")
            if kind == _DATA:
                streams.on_data(frame, decoder.span)
            elif kind in streams.HANDLERS:
                streams.HANDLERS[kind](streams, frame)
            elif kind in self._liveness.HANDLERS:
                self._liveness.HANDLERS[kind](self._liveness, frame)
            else:
                self._ON_FRAME[kind](self, frame)
                if self.state is State.CLOSED or self.state is State.LANE:
                    frames.close()  # the decoder keeps the rest
                    break

    def _on_hello(self, frame: Frame) -> None:
        opening = self._opening
        self.peer_hello = opening.hear_hello(frame, self._decoder.span)
        self._move(Kind.HELLO)
        if opening.lane:
            self._events.append(ev.LaneRequested(self.peer_hello.lane or ""))
        elif self.role is Role.NODE:
            self._say_hello()
        else:
            self._liveness.answered()
            self._events.append(ev.ProofWanted(self.peer_hello, opening.transcript()))

    def _on_prove(self, frame: Frame) -> None:
        assert frame.header is not None
        assert self.peer_hello is not None
        proof = Proof.from_header(frame.header)
        self._liveness.answered()
        self._move(Kind.PROVE)
        self._events.append(ev.ProofOffered(self.peer_hello, proof, self._opening.transcript()))

    def _on_welcome(self, frame: Frame) -> None:
        assert frame.header is not None
        welcome = Welcome.from_header(frame.header)
        self._move(Kind.WELCOME)
        self._events.append(ev.Welcomed(welcome))

    def _on_goaway(self, frame: Frame) -> None:
        assert frame.header is not None
        error = fault_from_header(frame.header)
        if self.state is not State.OPEN or not isinstance(error, Draining):
            self._finish(error)
        elif self._farewell is None:
            self._farewell = error
            self.going_away = True
            self._streams.accepting = False
            self._events.append(ev.GoingAway(error))

    def _pong_due(self) -> None:
        if self._liveness.pong_due():
            self._finish(ConnectionLost(f"The other side has not answered for {PONG_TIMEOUT:.0f} s."))

    def _handshake_due(self) -> None:
        self._close(HandshakeTimeout(f"Limit handshake_seconds is {self._patience:g} s."))

    _ON_FRAME: ClassVar[dict[int, Callable[[Session, Frame], None]]] = {
        int(Kind.HELLO): _on_hello,
        int(Kind.PROVE): _on_prove,
        int(Kind.WELCOME): _on_welcome,
        int(Kind.GOAWAY): _on_goaway,
    }
    _ON_TIMER: ClassVar[dict[Timer, Callable[[Session], None]]] = {
        Timer.HANDSHAKE: _handshake_due,
        Timer.PING: lambda self: self._liveness.ping_due(),
        Timer.PONG: _pong_due,
        Timer.GOODBYE: lambda self: self._close(Draining()),
    }

    # --- the state ---

    def _enter(self, state: State) -> None:
        self.state = state
        self._gate = ALLOWED[self.role, state]

    def _move(self, kind: Kind) -> None:
        """Go where the table says that this frame, received or about to be sent, leads."""
        after = TRANSITIONS.get((self.role, self.state, int(kind), self._opening.lane))
        assert after is not None, f"{kind.name} in state {self.state.value}: the gate or the driver is wrong"
        self._enter(after)
        if after is State.OPEN:
            self._start()
        elif after is State.LANE:
            self._timers.disarm(Timer.HANDSHAKE)

    def _start(self) -> None:
        self._decoder.max_total = None
        self._decoder.max_header = self.limits.frame_header
        self._decoder.max_body = self.limits.frame_body
        self._streams.start(self.peer_limits)
        self._liveness.start()
        self._timers.disarm(Timer.HANDSHAKE)

    def _require_open(self) -> None:
        if self.state is not State.OPEN:
            raise ConnectionLost(self.error.sentence if self.error else "The connection is not open.")

    def _say_hello(self) -> None:
        self._scheduler.push_control(self._opening.say_hello())
        self._liveness.asked()

    def _unless_flooded(self, act: Callable[_P, None], *args: _P.args, **kwargs: _P.kwargs) -> None:
        """A call may be the one too many on a connection whose peer does not read; its caller is not to blame."""
        try:
            act(*args, **kwargs)
        except ControlFlood as error:
            self._close(error)

    def _answer(self, kind: Kind, header: Header) -> None:
        if self.state is not State.CLOSED:
            self._move(kind)
            self._control(kind, header)

    def _control(self, kind: Kind, header: Header) -> None:
        self._scheduler.push_control(encode(Frame(kind, header=header)))

    def _close(self, error: TowlineError) -> None:
        """We end the connection, and say why when the peer can understand it."""
        if self.state is State.CLOSED:
            return
        if self.state in (State.OPEN, State.LANE):
            said = self._draining and isinstance(error, Draining)
            farewell = b"" if said else encode(Frame(Kind.GOAWAY, header=fault_header(error)))
        else:
            farewell = self._opening.farewell(error)
        if isinstance(error, ControlFlood):
            self._scheduler.clear()  # it does not read; one last frame is all it gets
        if farewell:
            self._scheduler.push_control(farewell)
        self._finish(error)

    def _close_if_drained(self) -> None:
        if self._draining and not self.streams and not self._scheduler.pending:
            self._close(Draining())

    def _finish(self, error: TowlineError) -> None:
        if self.state is State.CLOSED:
            return
        self._enter(State.CLOSED)
        self.error = error
        self._timers.clear()
        self._streams.abort(error)
        self._events.append(ev.Closed(error))
