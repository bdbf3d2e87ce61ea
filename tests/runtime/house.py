"""Two connections face to face: a client, and a node that lets everybody in and runs one handler for each stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from tests import kit

from towline.base.errors import TowlineError
from towline.protocol import events as ev
from towline.protocol.records import Limits, Proof, Welcome
from towline.protocol.session import Session
from towline.protocol.table import Role
from towline.runtime.channel import Channel
from towline.runtime.pump import Connection
from towline.transports import memory

Handler: TypeAlias = Callable[[Channel], Awaitable[None]]


class House:
    """Decides what a pump must not: here, to say yes to everything."""

    def __init__(self, role: Role, handler: Handler | None = None, limits: Limits | None = None) -> None:
        self.role = role
        self.handler = handler
        self.limits = limits
        self.events: list[ev.Event] = []
        self.channels: list[Channel] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.closed: list[TowlineError | None] = []
        self.refuse: TowlineError | None = None
        self.bug: Exception | None = None
        self.patience = 10.0
        self.connection = Connection(self)

    def session_for(self, connection: Connection, now: float, nonce: bytes) -> Session:
        name = "home" if self.role is Role.NODE else None
        return Session(
            self.role, agent="test", nonce=nonce, now=now, name=name, limits=self.limits, patience=self.patience
        )

    def on_connected(self, connection: Connection) -> None:
        if self.refuse is not None:
            raise self.refuse

    def on_event(self, connection: Connection, event: ev.Event) -> None:
        self.events.append(event)
        if self.bug is not None:
            raise self.bug
        match event:
            case ev.ProofWanted():
                connection.session.prove(Proof("peer"))
            case ev.ProofOffered():
                connection.person = "ann"
                connection.session.welcome(Welcome("ann", "read"))

    def on_stream(self, connection: Connection, channel: Channel) -> None:
        self.channels.append(channel)
        if self.handler is not None:
            self.tasks.append(asyncio.ensure_future(self._serve(channel)))

    async def _serve(self, channel: Channel) -> None:
        assert self.handler is not None
        try:
            await self.handler(channel)
            channel.end()
        except TowlineError as error:
            channel.reset(error)
        finally:
            channel.connection.release(channel)

    def on_closed(self, connection: Connection, error: TowlineError | None) -> None:
        self.closed.append(error)

    async def stream(self, number: int = 0) -> Channel:
        """The peer's stream of that number, when it has come."""
        await kit.until(lambda: len(self.channels) > number, f"stream {number}")
        return self.channels[number]


@asynccontextmanager
async def face_to_face(
    handler: Handler | None = None, *, client_limits: Limits | None = None, node_limits: Limits | None = None
) -> AsyncIterator[tuple[Connection, House]]:
    """The client's connection, welcomed, and the node's house."""
    client, node = House(Role.CLIENT, limits=client_limits), House(Role.NODE, handler, node_limits)
    memory.connect_pair(client.connection, node.connection)
    await kit.until(lambda: client.connection.is_open and node.connection.is_open, "a welcome")
    try:
        yield client.connection, node
    finally:
        client.connection.abort()
        await kit.until(lambda: client.closed and node.closed, "the end")
        assert len(client.closed) == len(node.closed) == 1, "told exactly once"
        await asyncio.gather(*node.tasks, return_exceptions=True)
