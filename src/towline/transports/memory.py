"""An in-memory pair, for embedding and for tests: the same interface, no kernel in between."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from towline.base.errors import ConnectionLost, StreamClosed
from towline.transports.interface import WRITE_HIGH, Buffer, Peer, Receiver
from towline.transports.tls import TlsPipe


class MemoryTransport:
    """One end of a pair; bytes reach the other end in the loop's next round."""

    def __init__(self, receiver: Receiver) -> None:
        self.peer = Peer("memory", "memory")
        self.receiver = receiver
        self.far_end: MemoryTransport | None = None
        self.gone = False
        self._loop = asyncio.get_running_loop()
        self._in_flight = 0
        self._closing = False

    @property
    def backlog(self) -> int:
        return self._in_flight

    def write(self, buffers: Sequence[Buffer]) -> None:
        data = b"".join(buffers)
        if self._closing or not data:
            return
        self._in_flight += len(data)
        self._loop.call_soon(self._arrive, data)

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._hang_up)

    def abort(self) -> None:
        if not self.gone:
            self._closing = True
            self._loop.call_soon(self._lose, self, None)
            if self.far_end is not None:
                self._loop.call_soon(self._lose, self.far_end, ConnectionLost("The connection was cut."))

    def detach(self) -> tuple[socket.socket, TlsPipe | None]:
        raise StreamClosed("A memory transport has no socket for a lane.")

    def _arrive(self, data: bytes) -> None:
        was = self._in_flight
        self._in_flight -= len(data)
        if self.far_end is not None and not self.far_end.gone:
            self.far_end.receiver.received(data)
        if was >= WRITE_HIGH > self._in_flight and not self.gone:
            self.receiver.writable()

    def _hang_up(self) -> None:
        far_end = self.far_end
        if far_end is not None and not far_end.gone:
            far_end.receiver.eof()
        self._lose(self, None)
        if far_end is not None:
            self._lose(far_end, None)

    @staticmethod
    def _lose(end: MemoryTransport, error: ConnectionLost | None) -> None:
        if not end.gone:
            end.gone = end._closing = True
            end.receiver.lost(error)


def connect_pair(one: Receiver, other: Receiver) -> tuple[MemoryTransport, MemoryTransport]:
    """Two connected ends; both receivers hear `connected` in the loop's next round."""
    left, right = MemoryTransport(one), MemoryTransport(other)
    left.far_end, right.far_end = right, left
    loop = asyncio.get_running_loop()
    one.opening(left)
    other.opening(right)
    loop.call_soon(one.connected)
    loop.call_soon(other.connected)
    return left, right
