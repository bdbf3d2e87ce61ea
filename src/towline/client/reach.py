"""What the verbs need of a line: a way to the node that comes back after a cut."""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from dataclasses import dataclass

from towline.protocol.codec import Header
from towline.protocol.table import Class
from towline.runtime.channel import Channel
from towline.runtime.pump import Connection


@dataclass(frozen=True, slots=True)
class Target:
    """A node to reach. `addresses` in order of preference; `fingerprint` is the pin."""

    alias: str
    addresses: tuple[str, ...]
    fingerprint: str


class Reach(ABC):
    """A node, and the client's state folder `home`. `address` is the one that the last connection went to."""

    target: Target
    home: str
    address: str

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
