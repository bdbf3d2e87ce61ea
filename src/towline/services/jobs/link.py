"""Frames between a node and its keeper, over a Unix socket of their own: a JSON header with `t`, and bytes.

The frames are those of the wire (kind DATA); nothing is negotiated, because both ends are one installation. A keeper
of another version says so in its first frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import cast

from towline.base.errors import ProtocolError
from towline.base.limits import KIB, MIB
from towline.protocol.codec import Decoder, Header, encode_header
from towline.protocol.table import PREFIX, Kind

VERSION = 4
SOCKET_NAME = "keeper.sock"
_MAX_HEADER = 60 * KIB
_MAX_BODY = 8 * MIB
_CREDENTIALS = struct.Struct("3i")

Hear = Callable[["Link", Header, bytes], None]
Gone = Callable[["Link"], None]


class Link(asyncio.Protocol):
    """One end. `hear(link, header, body)` gets each message, `gone(link)` the end, exactly once."""

    def __init__(self, hear: Hear, gone: Gone) -> None:
        self._hear, self._gone = hear, gone
        self._decoder = Decoder(_MAX_HEADER, _MAX_BODY)
        self._transport: asyncio.Transport | None = None
        self.peer_uid = -1

    def __repr__(self) -> str:
        return f"<Link {'open' if self.is_open else 'closed'}>"

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def say(self, header: Header, body: bytes = b"") -> None:
        """Send one message; lost when the other end is gone."""
        if self._transport is not None:
            self._transport.write(_encoded(header, body))

    def close(self) -> None:
        """End it."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None:
            raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            self.peer_uid = _CREDENTIALS.unpack(raw)[1]

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._decoder.feed(data):
                self._hear(self, frame.header or {}, bytes(frame.body))
        except ProtocolError:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._gone(self)


class Orders:
    """A node's second way to its keeper, for commands to start: from the thread that writes them down.

    `token` is what the keeper gave the node that it belongs to. Blocking, for one thread; any may close it.
    """

    def __init__(self, sock: socket.socket, token: str) -> None:
        self._sock = sock
        self._lock = threading.Lock()  # a descriptor is closed while nobody uses it: its number is soon another's
        self.say([({"t": "orders", "token": token}, b"")])

    def __repr__(self) -> str:
        return f"<Orders {self._sock!r}>"

    def say(self, messages: list[tuple[Header, bytes]]) -> bool:
        """Send them in one piece; False when the keeper will not obey the last one, because it is gone."""
        data = b"".join(_encoded(header, body) for header, body in messages)
        try:
            with self._lock:
                self._sock.sendall(data)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """End it, also for who is just sending."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._sock.close()


def _encoded(header: Header, body: bytes) -> bytes:
    encoded = encode_header(header)
    return PREFIX.pack(Kind.DATA, 0, len(encoded), len(body), 1) + encoded + body
