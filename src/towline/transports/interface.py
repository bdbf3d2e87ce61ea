"""What every transport is, and what it expects of whoever it pushes into."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from msgspec import Struct

from towline.base.errors import TowlineError

if TYPE_CHECKING:
    from towline.transports.tls import TlsPipe

Buffer: TypeAlias = bytes | bytearray | memoryview


class Peer(Struct, frozen=True):
    """Who is at the other end, as far as the kernel and TLS can tell.

    `address` is for logs (`127.0.0.1:50412`, `unix`, `memory`); `host` groups connections for admission limits;
    `certificate` is DER (only at the client of a TLS connection); `uid` comes from SO_PEERCRED (unix(7)).
    """

    kind: str
    address: str
    host: str = ""
    certificate: bytes | None = None
    uid: int | None = None


class Receiver(Protocol):
    """Where a transport pushes. All calls come from the event loop's thread."""

    def opening(self, transport: Transport) -> None:
        """The connection exists, TLS is not up yet: the time to start a deadline. The first call, exactly once."""

    def connected(self) -> None:
        """Bytes may flow (TLS is up). At most once."""

    def received(self, data: bytes) -> None:
        """Some bytes, never empty."""

    def writable(self) -> None:
        """The backlog has gone down; write more if there is more."""

    def eof(self) -> None:
        """The peer will send nothing more. What is written during this call still goes out; then we close too."""

    def lost(self, error: TowlineError | None) -> None:
        """The connection is gone; the last call, exactly once. None after our own close or the peer's."""


class Transport(Protocol):
    """A connection. Writes never block; `backlog` tells how much waits for the kernel."""

    @property
    def peer(self) -> Peer: ...

    @property
    def backlog(self) -> int:
        """Bytes taken and not yet handed to the kernel."""

    def write(self, buffers: Sequence[Buffer]) -> None: ...

    def close(self) -> None:
        """Send what was written, then close; a peer that does not let us is cut off after a few seconds."""

    def abort(self) -> None:
        """Close at once."""

    def detach(self) -> tuple[socket.socket, TlsPipe | None]:
        """Hand socket and TLS state to a blocking driver (a lane). Nothing is pushed afterwards."""


ReceiverFactory: TypeAlias = Callable[[], Receiver]

# The backlog above which a writer should wait for `writable`: enough to keep the kernel busy, small enough that an
# urgent frame is not stuck behind it.
WRITE_HIGH = 128 * 1024
WRITE_LOW = 32 * 1024
