"""A line to a node: a connection that comes back. What was under way goes on from its position."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from towline import __version__
from towline.base.errors import ConnectionLost, TowlineError, UnknownService, Unreachable
from towline.client.files import FileVerbs
from towline.client.reach import Target
from towline.protocol import events as ev
from towline.protocol.codec import Header
from towline.protocol.records import Proof, Welcome
from towline.protocol.session import Session
from towline.protocol.table import Class, Role
from towline.runtime.channel import Channel
from towline.runtime.dialer import Backoff
from towline.runtime.pump import Connection
from towline.transports import tcp, unix
from towline.trust.home import client_home
from towline.trust.keys import Identity
from towline.trust.tls import check_pin, client_context

GIVE_UP_SECONDS = 600.0  # once a line has been up
FIRST_GIVE_UP_SECONDS = 3.0  # a node that was never reached is more likely absent than cut off


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """The line is down; the next attempt comes after `wait` seconds."""

    attempt: int
    wait: float
    error: TowlineError


@dataclass(frozen=True, slots=True)
class Connected:
    """The line is up (again)."""

    welcome: Welcome
    address: str
    again: bool


LineEvent: TypeAlias = Reconnecting | Connected


class Credentials:
    """How this client proves itself: its key, a key with an invite, or (Unix socket) the kernel's word."""

    def __init__(self, identity: Identity | None, secret: bytes | None = None) -> None:
        self._identity = identity
        self._secret = secret

    def proof(self, transcript: bytes) -> Proof:
        if self._identity is None:
            return Proof("peer")
        signature = self._identity.sign(transcript)
        if self._secret is None:
            return Proof("key", self._identity.public, signature)
        return Proof("invite", self._identity.public, signature, self._secret)


class Line(FileVerbs):
    """One node, reached through whatever connection is up at the moment.

    `home` is the client's state folder. `give_up` (seconds) bounds how long a cut is borne; None means 3 s before the
    first connection and 10 min after a cut. `on_event` hears of cuts and returns. Use as an async context manager.
    """

    def __init__(
        self,
        target: Target,
        credentials: Credentials,
        *,
        home: str = "",
        give_up: float | None = None,
        on_event: Callable[[LineEvent], None] | None = None,
    ) -> None:
        self.target = target
        self.home = home or client_home()
        self.credentials = credentials
        self.welcome: Welcome | None = None
        self.address = ""
        self.cuts = 0
        self.on_event: Callable[[LineEvent], None] = on_event or (lambda _: None)
        self._give_up = give_up
        self._connection: Connection | None = None
        self._dialling = asyncio.Lock()
        self._closed = False
        self._context: ssl.SSLContext | None = None
        self._rng = random.SystemRandom()

    def __repr__(self) -> str:
        return f"<Line {self.target.alias} {self._connection!r}>"

    async def __aenter__(self) -> Line:
        await self.connection()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def connection(self) -> Connection:
        """An open connection, dialled anew when the last one was lost.

        Raises Unreachable when given up, or at once what trying again cannot mend (WrongPin, NotJoined, Revoked, …).
        """
        async with self._dialling:
            if self._closed:
                raise ConnectionLost("The line was closed.")
            current = self._connection
            if current is not None and current.is_open and not current.session.going_away:
                return current
            if current is not None:
                self.cuts += 1
            self._connection = await self._dial(again=current is not None, cause=_cause(current))
            return self._connection

    async def channel(self, header: Header, scheduling: Class = Class.CHAT) -> Channel:
        """A stream on the connection that is up."""
        return (await self.connection()).open(header, scheduling)

    async def close(self) -> None:
        """Say goodbye and close."""
        self._closed = True
        if self._connection is not None and self._connection.is_open:
            self._connection.close(ConnectionLost("The client is done."))
        self._connection = None

    def tls_context(self) -> ssl.SSLContext:
        """The context for this line's connections and lanes."""
        if self._context is None:
            self._context = client_context()
        return self._context

    def check_certificate(self, der: bytes | None) -> None:
        """Raise WrongPin unless it is the pinned one."""
        check_pin(der, self.target.fingerprint, self.target.alias)

    # --- inside ---

    async def _dial(self, *, again: bool, cause: TowlineError | None) -> Connection:
        loop = asyncio.get_running_loop()
        patience = self._give_up
        if patience is None:
            patience = GIVE_UP_SECONDS if again else FIRST_GIVE_UP_SECONDS
        backoff = Backoff(patience, loop.time(), self._rng)
        error = cause
        while True:
            if error is not None or backoff.attempt:
                wait = backoff.next_wait(loop.time(), error.retry_after if error else None)
                if wait is None:
                    raise Unreachable(f"{self.target.alias}: {error.sentence if error else 'given up'}") from error
                if error is not None:
                    self.on_event(Reconnecting(backoff.attempt, wait, error))
                await asyncio.sleep(wait)
            try:
                connection = await self._attempt()
            except TowlineError as problem:
                if not problem.retryable:
                    raise
                error = problem
                continue
            assert self.welcome is not None
            self.on_event(Connected(self.welcome, self.address, again))
            return connection

    async def _attempt(self) -> Connection:
        error: TowlineError = Unreachable(f"No address is known for {self.target.alias}.")
        for address in self.target.addresses:
            attempt = _Attempt(self)
            try:
                self.welcome = await attempt.run(address)
            except TowlineError as problem:
                error = problem
                if not problem.retryable:
                    raise
                continue
            self.address = address
            return attempt.connection
        raise error


class _Attempt:
    """The house of one connection: dials it, answers the handshake, then has nothing more to decide."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._done: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()
        self.connection = Connection(self)

    async def run(self, address: str) -> Welcome:
        if address.startswith("unix:"):
            await unix.connect(address[5:], self.connection)
        else:
            host, port = tcp.split_address(address)
            await tcp.connect(host, port, self._line.tls_context(), self.connection)
        try:
            return await self._done
        except asyncio.CancelledError:
            self.connection.abort()
            raise

    def session_for(self, connection: Connection, now: float, nonce: bytes) -> Session:
        return Session(
            Role.CLIENT,
            agent=f"towline {__version__}",
            nonce=nonce,
            now=now,
            fingerprint=self._line.target.fingerprint,
        )

    def on_connected(self, connection: Connection) -> None:
        if connection.peer.kind == "tcp":
            self._line.check_certificate(connection.peer.certificate)

    def on_event(self, connection: Connection, event: ev.Event) -> None:
        match event:
            case ev.ProofWanted(transcript=transcript):
                connection.session.prove(self._line.credentials.proof(transcript))
            case ev.Welcomed(welcome):
                connection.session.ping(connection.loop.time())  # the first measure of the round trip
                if not self._done.done():
                    self._done.set_result(welcome)
            case _:
                pass  # GoingAway: the line looks at `going_away` before it opens the next stream

    def on_stream(self, connection: Connection, channel: Channel) -> None:
        channel.reset(UnknownService("This client offers no services."))
        connection.release(channel)

    def on_closed(self, connection: Connection, error: TowlineError | None) -> None:
        if not self._done.done():
            self._done.set_exception(error or ConnectionLost("The node closed the connection."))


def _cause(connection: Connection | None) -> TowlineError | None:
    return None if connection is None else connection.session.error or ConnectionLost()
