"""A line to a node: a connection that comes back. What was under way goes on from its position."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from towline.base.errors import ConnectionLost, NotTowline, TowlineError, Unreachable, WrongPin
from towline.client.attempt import Attempt, Credentials
from towline.client.files import FileVerbs
from towline.client.jobs import JobVerbs
from towline.client.places import Places
from towline.client.reach import Target
from towline.client.rooms import RoomVerbs
from towline.protocol.codec import Header
from towline.protocol.records import Welcome
from towline.protocol.table import Class
from towline.runtime.channel import Channel
from towline.runtime.dialer import Backoff, uniform
from towline.runtime.pump import Connection
from towline.trust.home import client_home
from towline.trust.tls import check_pin, client_context

GIVE_UP_SECONDS = 600.0  # once a line has been up
FIRST_GIVE_UP_SECONDS = 3.0  # a node that was never reached is more likely absent than cut off
ATTEMPT_SECONDS = 10.0  # for one address, handshake included
LEAST_ATTEMPT_SECONDS = 1.0
# A connection that lasted so long was one, also where nobody had anything to say: a quiet room over a line that is
# cut each few seconds is followed for as long as it takes.
LASTING_SECONDS = 2.0
GOODBYE_SECONDS = 0.5


class Reconnecting(Struct, frozen=True):
    """The line is down; the next attempt comes after `wait` seconds."""

    attempt: int
    wait: float
    error: TowlineError


class Connected(Struct, frozen=True):
    """The line is up (again)."""

    welcome: Welcome
    address: str
    again: bool


LineEvent: TypeAlias = Reconnecting | Connected


class Line(FileVerbs, RoomVerbs, JobVerbs):
    """One node, reached through whatever connection is up at the moment.

    `home` is the client's state folder. `give_up` (seconds) bounds how long a cut is borne; None means 3 s before the
    first connection and 10 min after a cut. `on_event` hears of cuts and returns. Without `outbox`, what is said in
    rooms and not acknowledged yet is in memory alone. Use as an async context manager.
    """

    def __init__(
        self,
        target: Target,
        credentials: Credentials,
        *,
        home: str = "",
        give_up: float | None = None,
        on_event: Callable[[LineEvent], None] | None = None,
        outbox: bool = True,
    ) -> None:
        self.target = target
        self.home = home or client_home()
        self.outbox = outbox
        self.credentials = credentials
        self.welcome: Welcome | None = None
        self.address = ""
        self.cuts = 0
        self.places = Places()
        self.on_event: Callable[[LineEvent], None] = on_event or (lambda _: None)
        self._give_up = give_up
        self._connection: Connection | None = None
        self._connections: set[Connection] = set()  # with those that drain
        self._dialling: asyncio.Task[Connection] | None = None
        self._waiting = 0  # for that task
        self._backoff: Backoff | None = None  # goes on where a connection was of no use
        self._up_since = 0.0
        self._closed = False
        self._context: ssl.SSLContext | None = None

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
        if self._closed:
            raise ConnectionLost("The line was closed.")
        current = self._connection
        if current is not None and current.is_open and not current.session.going_away:
            return current
        # One that is done counts for nothing: its connection may be lost again before its callback has run, and
        # whoever tries again and again would be given the lost one without ever letting the loop run.
        if self._dialling is None or self._dialling.done():
            self._dialling = asyncio.ensure_future(self._redial(current))
            self._dialling.add_done_callback(self._dialled)
        return await self._share(self._dialling)

    async def channel(self, header: Header, scheduling: Class = Class.CHAT) -> Channel:
        """A stream on the connection that is up."""
        while True:
            connection = await self.connection()
            if connection.is_open and not connection.session.going_away:
                return connection.open(header, scheduling)

    async def close(self) -> None:
        """Say goodbye and close. Nothing can be done with the line afterwards."""
        try:
            await self.close_rooms()
        finally:  # whoever is cancelled closes, too, but has no time for a goodbye
            self._closed = True
            if self._dialling is not None:
                self._dialling.cancel()
            for connection in list(self._connections):
                connection.close(ConnectionLost("The client is done."))
            try:
                await self._all_gone()
            finally:
                for connection in list(self._connections):
                    connection.abort()  # the node does not answer it
                await self._all_gone()

    def tls_context(self) -> ssl.SSLContext:
        """The context for this line's connections and lanes."""
        if self._context is None:
            self._context = client_context()
        return self._context

    def check_certificate(self, der: bytes | None) -> None:
        """Raise WrongPin unless it is the pinned one."""
        check_pin(der, self.target.fingerprint, self.target.alias)

    # --- inside ---

    async def _share(self, dialling: asyncio.Task[Connection]) -> Connection:
        """Wait for an attempt that others may wait for, too; the last one to leave ends it."""
        self._waiting += 1
        try:
            return await asyncio.shield(dialling)
        except asyncio.CancelledError:
            if self._closed and dialling.cancelled():
                raise ConnectionLost("The line was closed.") from None
            raise
        finally:
            self._waiting -= 1
            if not self._waiting and not dialling.done():
                self._dialling = None
                dialling.cancel()

    def _dialled(self, dialling: asyncio.Task[Connection]) -> None:
        if self._dialling is dialling:
            self._dialling = None
        if not dialling.cancelled():
            dialling.exception()  # whoever waits has heard it

    async def _redial(self, current: Connection | None) -> Connection:
        clock = asyncio.get_running_loop().time
        again = current is not None
        if current is not None:
            self.cuts += 1
        backoff, self._backoff = self._backoff, None
        # A node, or something on the way to it, that lets us in and cuts us off is no better than one that is not
        # there: nobody may come back to it again and again without a pause, nor for ever.
        was_of_use = current is None or current.session.heard_data or clock() - self._up_since > LASTING_SECONDS
        if backoff is None or was_of_use:
            backoff = Backoff(self._patience(again), clock(), uniform)
        self._connection = await self._dial(backoff, _cause(current))
        self._up_since = clock()
        self._backoff = backoff if again else None
        assert self.welcome is not None
        self.on_event(Connected(self.welcome, self.address, again))
        return self._connection

    def _patience(self, again: bool) -> float:
        if self._give_up is not None:
            return self._give_up
        return GIVE_UP_SECONDS if again else FIRST_GIVE_UP_SECONDS

    async def _dial(self, backoff: Backoff, error: TowlineError | None) -> Connection:
        """Until it is up or it is time to give up; `error` is why it is down, if it ever was up."""
        clock = asyncio.get_running_loop().time
        while True:
            if error is not None:
                wait = backoff.next_wait(clock(), error.retry_after)
                if wait is None:
                    raise Unreachable(f"{self.target.alias}: {error.sentence}") from error
                self.on_event(Reconnecting(backoff.attempt, wait, error))
                await asyncio.sleep(wait)
            try:
                return await self._attempt(backoff.left(clock()))
            except TowlineError as problem:
                if not problem.retryable:
                    raise
                error = problem

    async def _attempt(self, left: float) -> Connection:
        """Try each address once, the one that worked last before the others."""
        addresses = sorted(self.target.addresses, key=lambda each: each != self.address)
        timeout = min(ATTEMPT_SECONDS, max(left / max(len(addresses), 1), LEAST_ATTEMPT_SECONDS))
        problems: list[TowlineError] = []
        for address in addresses:
            attempt = Attempt(self, self.credentials, self._connections.discard)
            self._connections.add(attempt.connection)
            try:
                self.welcome = await attempt.run(address, timeout)
            except (WrongPin, NotTowline) as problem:
                # Somebody else lives there. With several addresses that may be a neighbour (an address of ours that
                # another network uses, too), and the node is still to be found at another one.
                problems.append(problem)
            except TowlineError as problem:
                if not problem.retryable:
                    raise
                problems.append(problem)
            else:
                self.address = address
                return attempt.connection
            finally:
                if attempt.connection.transport is None:
                    self._connections.discard(attempt.connection)
        raise _worst(problems) or Unreachable(f"No address is known for {self.target.alias}.")

    async def _all_gone(self) -> None:
        """Last words need a moment to be heard."""
        goodbyes = [asyncio.ensure_future(connection.wait_closed()) for connection in self._connections]
        if goodbyes:
            await asyncio.wait(goodbyes, timeout=GOODBYE_SECONDS)
        for goodbye in goodbyes:
            goodbye.cancel()


def _worst(problems: list[TowlineError]) -> TowlineError | None:
    """What to do about several failures: try again if that may help, and say all of it."""
    if len(problems) < 2:
        return problems[0] if problems else None
    hopeful = [problem for problem in problems if problem.retryable]
    if not hopeful or len({problem.sentence for problem in problems}) == 1:
        return problems[0]
    wait = max((problem.retry_after or 0.0 for problem in hopeful), default=0.0)
    return Unreachable(" ".join(problem.sentence for problem in problems), retry_after=wait or None)


def _cause(connection: Connection | None) -> TowlineError | None:
    return None if connection is None else connection.session.error or ConnectionLost()
