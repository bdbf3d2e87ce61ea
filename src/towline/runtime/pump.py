"""The driver of one session: receive, feed, handle events, send, arm the deadline. Nothing else."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol

from towline.base.errors import ConnectionLost, TowlineError
from towline.protocol import events as ev
from towline.protocol.codec import Buffer, Header
from towline.protocol.events import Event
from towline.protocol.session import Session
from towline.protocol.stream import Stream
from towline.protocol.table import Class, State
from towline.runtime import watching
from towline.runtime.channel import Channel
from towline.runtime.polling import BusyPoll
from towline.transports import Peer, Transport
from towline.transports.interface import WRITE_HIGH
from towline.transports.tls import TlsPipe

log = logging.getLogger("towline.runtime")
_TAKE = 64 * 1024
_BUG = "a bug ended the connection with %s"
_UNKNOWN = Peer("none", "none")
_P = ParamSpec("_P")


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


def _step(act: Callable[Concatenate[Connection, _P], None]) -> Callable[Concatenate[Connection, _P], None]:
    """A bug in a step costs its connection, not the loop nor the others."""

    @functools.wraps(act)
    def guarded(self: Connection, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            act(self, *args, **kwargs)
        except Exception:
            log.exception(_BUG, self.peer.address)
            self.abort()

    return guarded


class Connection:
    """A transport and a session, tied together on one event loop."""

    __slots__ = ("_closed", "_flush_due", "_gone", "_house", "_poll", "_timer", "_timer_at", "grants", "loop",
                 "person", "session", "transport", "user")  # fmt: skip

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
        self._gone: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._poll = BusyPoll(self.loop)

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

    def drain(self, error: TowlineError, grace: float) -> None:
        """No new streams; close when the last one has ended, and in `grace` seconds at the latest."""
        if self.is_open:
            self.session.drain(error, self.loop.time(), grace)
            self.flush()

    def abort(self) -> None:
        """Cut it at once, without a word."""
        if self.transport is not None:
            self.transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the transport is gone; returns at once where there never was one."""
        if self.transport is None or self._closed:
            return
        if self._gone is None:
            self._gone = self.loop.create_future()
        await asyncio.shield(self._gone)

    def flush_soon(self) -> None:
        """Send in the loop's next round, so that messages queued together leave together."""
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self.flush)

    def send_at_once(self, stream: Stream, body: bytes) -> bool:
        """Give the transport a message that nothing stands before; False: it must be queued."""
        transport = self.transport
        if self._closed or transport is None or transport.backlog >= WRITE_HIGH:
            return False
        frame = self.session.at_once(stream, body)
        if frame is None:
            return False
        try:
            if watching.watcher is not None:
                watching.watcher.on_bytes(self, True, (frame,))
            transport.write((frame,))
        except Exception:
            log.exception(_BUG, self.peer.address)
            self.abort()
        return True

    def release(self, channel: Channel) -> None:
        """The handler of a peer's stream has ended."""
        channel.released()
        self.session.release(channel.stream)
        self.flush_soon()

    def detach(self) -> tuple[socket.socket, TlsPipe | None, list[Buffer], bytes]:
        """Give the socket away (to a lane); the house hears nothing more of it.

        Returns the socket, its TLS state, what is still to be sent (through that), and what came in too early.
        """
        assert self.transport is not None
        outgoing = self.session.take(_TAKE)
        rest = self.session.take_rest()
        self._disarm()
        self._closed = True
        if self._gone is not None:
            self._gone.set_result(None)
        sock, tls = self.transport.detach()
        return sock, tls, outgoing, rest

    # --- for the transport: the five steps ---

    @_step
    def opening(self, transport: Transport) -> None:
        self.transport = transport
        self.session = self._house.session_for(self, self.loop.time(), os.urandom(32))
        self._arm()

    @_step
    def connected(self) -> None:
        try:
            self._house.on_connected(self)
        except TowlineError as error:
            self._handle(self.session.connection_lost(error, self.loop.time()))
            self.abort()
            return
        self.flush()

    def received(self, data: bytes) -> None:
        if self._closed:
            return
        try:
            if watching.watcher is not None:
                watching.watcher.on_bytes(self, False, (data,))
            self._handle(self.session.receive(data, self.loop.time()))
        except Exception:
            log.exception(_BUG, self.peer.address)
            self.abort()
        self._poll.heard(len(data))
        if self.session.wants_to_send:
            self.flush()  # PONG and CREDIT wait for nobody's handler
        self.flush_soon()  # behind the tasks that this woke: what they answer leaves in the same turn of the loop

    def writable(self) -> None:
        self.flush()

    @_step
    def eof(self) -> None:
        if not self._closed:
            self._handle(self.session.receive_eof(self.loop.time()))
            self.flush()

    @_step
    def lost(self, error: TowlineError | None) -> None:
        if self._closed:
            return
        self._closed = True
        self._disarm()
        if self._gone is not None:
            self._gone.set_result(None)
        session: Session | None = getattr(self, "session", None)  # a bug may have kept it from being made
        if session is not None:
            cause = error or session.error or ConnectionLost()
            self._handle(session.connection_lost(cause, self.loop.time()))
            error = session.error
        if watching.watcher is not None:
            watching.watcher.on_over(self, error)
        self._house.on_closed(self, error)

    def flush(self) -> None:
        """Give the transport what the scheduler chooses, until its backlog is high; then look at the clock."""
        self._flush_due = False
        if self._closed or self.transport is None:
            return
        session, transport = self.session, self.transport
        try:
            over = session.state is State.CLOSED  # then only last words are left, and no `writable` will follow
            while session.wants_to_send and (over or transport.backlog < WRITE_HIGH):
                buffers = session.take(_TAKE)
                if not buffers:
                    break
                if watching.watcher is not None:
                    watching.watcher.on_bytes(self, True, buffers)
                transport.write(buffers)
                self._poll.said(buffers)
            self._handle(session.events())
            if session.state is State.CLOSED:
                transport.close()
            else:
                self._arm()
        except Exception:
            log.exception(_BUG, self.peer.address)
            self.abort()

    # --- inside ---

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            if type(event) is ev.DataReceived:  # by far the most of them
                if isinstance(event.stream.user, Channel):
                    event.stream.user.on_data(event)
            else:
                self._handle_one(event)

    def _handle_one(self, event: Event) -> None:
        match event:
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

    @_step
    def _on_time(self) -> None:
        self._timer = None
        if not self._closed:
            # uvloop's clock may be a millisecond behind the moment it woke us for.
            self._handle(self.session.tick(max(self.loop.time(), self._timer_at)))
            self.flush()
