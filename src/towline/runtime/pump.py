"""The driver of one session: receive, feed, handle events, send, arm the deadline. Nothing else."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Protocol

from towline.base.errors import ConnectionLost, TowlineError
from towline.protocol import events as ev
from towline.protocol.codec import Header
from towline.protocol.events import Event
from towline.protocol.session import Session
from towline.protocol.table import Class, State
from towline.runtime.channel import Channel
from towline.transports import Peer, Transport
from towline.transports.interface import WRITE_HIGH
from towline.transports.tls import TlsPipe

_TAKE = 64 * 1024
_LINGER = 5.0
_UNKNOWN = Peer("none", "none")


class House(Protocol):
    """Who owns connections and decides what a pump must not: identity, admission, services."""

    def session_for(self, connection: Connection, now: float, nonce: bytes) -> Session:
        """The session for a transport that is coming up."""

    def on_connected(self, connection: Connection) -> None:
        """TLS is up. Raise a TowlineError to end it here (a wrong pin)."""

    def on_event(self, connection: Connection, event: Event) -> None:
        """ProofWanted, ProofOffered, LaneRequested, Welcomed, GoingAway."""

    def on_stream(self, connection: Connection, channel: Channel) -> None:
        """The peer opened a stream."""

    def on_closed(self, connection: Connection, error: TowlineError | None) -> None:
        """The connection is over, or never came to be. The last call, exactly once."""


class Connection:
    """A transport and a session, tied together on one event loop."""

    __slots__ = ("_closed", "_flush_due", "_house", "_timer", "_timer_at", "grants", "loop", "person", "session",
                 "transport", "user")  # fmt: skip

    session: Session

    def __init__(self, house: House) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport: Transport | None = None
        self.person = ""
        self.grants: object = None
        self.user: object = None
        self._house = house
        self._flush_due = False
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def __repr__(self) -> str:
        return f"<Connection {self.peer.address} {self.person or '?'} {getattr(self, 'session', None)!r}>"

    @property
    def peer(self) -> Peer:
        return self.transport.peer if self.transport is not None else _UNKNOWN

    @property
    def is_open(self) -> bool:
        return not self._closed and self.transport is not None and self.session.state is State.OPEN

    # --- for the house ---

    def open(self, header: Header, scheduling: Class = Class.CHAT) -> Channel:
        """Open a stream. Raises ConnectionLost, Draining."""
        if not self.is_open:
            raise ConnectionLost
        channel = Channel(self, self.session.open(header, scheduling), header)
        self.flush_soon()
        return channel

    def close(self, error: TowlineError) -> None:
        """Say why, send what can be sent, close."""
        if self.transport is None:
            self.lost(error)
            return
        self._handle(self.session.fail(error))
        self.flush()

    def abort(self) -> None:
        """Cut it at once, without a word."""
        if self.transport is not None:
            self.transport.abort()

    def flush_soon(self) -> None:
        """Send in the loop's next round, so that messages queued together leave together."""
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self.flush)

    def release(self, channel: Channel) -> None:
        """The handler of a peer's stream has ended."""
        self.session.release(channel.stream)
        self.flush_soon()

    def detach(self) -> tuple[socket.socket, TlsPipe | None, bytes]:
        """Give the socket away (to a lane); the house hears nothing more of it."""
        assert self.transport is not None
        self.flush()
        rest = self.session.take_rest()
        self._disarm()
        self._closed = True
        sock, tls = self.transport.detach()
        return sock, tls, rest

    # --- for the transport: the five steps ---

    def opening(self, transport: Transport) -> None:
        self.transport = transport
        self.session = self._house.session_for(self, self.loop.time(), os.urandom(32))
        self._arm()

    def connected(self) -> None:
        try:
            self._house.on_connected(self)
        except TowlineError as error:
            self.lost(error)
            self.abort()
            return
        self.flush()

    def received(self, data: bytes) -> None:
        if self._closed:
            return
        self._handle(self.session.receive(data, self.loop.time()))
        if not self._closed:
            self.flush()
            self._arm()

    def writable(self) -> None:
        if not self._closed:
            self.flush()

    def eof(self) -> None:
        if not self._closed:
            self._handle(self.session.receive_eof(self.loop.time()))
            self.flush()

    def lost(self, error: TowlineError | None) -> None:
        if self._closed:
            return
        if self.transport is not None:
            cause = error or self.session.error or ConnectionLost()
            for event in self.session.connection_lost(cause, self.loop.time()):
                self._handle_one(event)
            error = self.session.error
        self._closed = True
        self._disarm()
        self._house.on_closed(self, error)

    def flush(self) -> None:
        """Give the transport what the scheduler chooses, until its backlog is high."""
        self._flush_due = False
        if self._closed or self.transport is None:
            return
        session, transport = self.session, self.transport
        while session.wants_to_send and transport.backlog < WRITE_HIGH:
            buffers = session.take(_TAKE)
            if not buffers:
                break
            transport.write(buffers)
        self._handle(session.events())
        if session.state is State.CLOSED:
            transport.close()
            self.loop.call_later(_LINGER, transport.abort)  # a peer that does not read must not hold us

    # --- inside ---

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            self._handle_one(event)

    def _handle_one(self, event: Event) -> None:
        match event:
            case ev.DataReceived():
                if isinstance(event.stream.user, Channel):
                    event.stream.user.on_data(event)
            case ev.StreamDrained():
                if isinstance(event.stream.user, Channel):
                    event.stream.user.on_drained()
            case ev.StreamOpened():
                self._house.on_stream(self, Channel(self, event.stream, event.header))
            case ev.StreamAccepted():
                if isinstance(event.stream.user, Channel):
                    event.stream.user.on_accept(event.header)
            case ev.StreamEnded():
                if isinstance(event.stream.user, Channel):
                    event.stream.user.on_end(event.trailer)
            case ev.StreamReset():
                if isinstance(event.stream.user, Channel):
                    event.stream.user.on_reset(event.error)
            case ev.Closed():
                self._disarm()  # the transport's `lost` follows and tells the house
            case _:
                self._house.on_event(self, event)

    def _arm(self) -> None:
        """A timer that is early is harmless: `tick` looks again. So a later deadline needs no new timer."""
        deadline = self.session.deadline()
        if deadline is None:
            self._disarm()
        elif self._timer is None or deadline < self._timer_at:
            self._disarm()
            self._timer_at = deadline
            self._timer = self.loop.call_at(deadline, self._on_time)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_time(self) -> None:
        self._timer = None
        if self._closed:
            return
        # uvloop's clock may be a millisecond behind the moment it woke us for.
        self._handle(self.session.tick(max(self.loop.time(), self._timer_at)))
        self.flush()
        if not self._closed:
            self._arm()
