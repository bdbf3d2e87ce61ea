"""What the verbs need of a line: a way to the node that comes back after a cut."""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable

from msgspec import Struct

from towline.base.errors import PeerError, TowlineError
from towline.client.places import Places
from towline.protocol.codec import Header
from towline.protocol.table import Class
from towline.runtime.channel import Channel
from towline.runtime.lanes import SocketLane, dial_lane
from towline.runtime.pump import Connection


class Target(Struct, frozen=True):
    """A node to reach. `addresses` in order of preference; `fingerprint` is the pin."""

    alias: str
    addresses: tuple[str, ...]
    fingerprint: str


class Reach(ABC):
    """A node, and the client's state folder `home`. `address` is the one that the last connection went to."""

    target: Target
    home: str
    address: str
    places: Places

    @abstractmethod
    async def connection(self) -> Connection:
        """An open connection, dialled anew when the last one was lost."""

    @abstractmethod
    async def channel(self, header: Header, scheduling: Class = Class.CHAT) -> Channel:
        """A stream on the connection that is up."""

    @abstractmethod
    def tls_context(self) -> ssl.SSLContext:
        """The context for connections and lanes."""

    @abstractmethod
    def check_certificate(self, der: bytes | None) -> None:
        """Raise WrongPin unless it is the pinned one."""


def lane_dialler(line: Reach, connection: Connection, ticket: str) -> Callable[[], SocketLane]:
    """What opens a lane to the node of `connection`. It blocks, and raises what `dial_lane` raises."""
    if connection.peer.kind == "unix":
        address, context = line.address, None
    else:
        address, context = connection.peer.address, line.tls_context()
    return lambda: dial_lane(address, context, ticket, line.check_certificate)


async def ask(line: Reach, header: Header, *, tries: int) -> bytes:
    """One request, one answer in the body of one message. `tries` above 1 asks again after a cut: only for what is
    harmless to ask twice."""
    for left in range(tries, 0, -1):
        channel = await line.channel(header, Class.INTERACTIVE)
        try:
            message = await channel.receive()
        except TowlineError as error:
            if not error.retryable or left == 1:
                raise
            continue
        if message is None:
            break
        channel.end()
        return message.body
    raise PeerError("The node gave no answer.")
