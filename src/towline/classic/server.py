"""The skeleton under every dialect's server: many clients at once on raw sockets, one task each.

Raw sockets (`loop.sock_recv`) rather than asyncio's streams: a stream buffers, and in these dialects *one recv() is
one message*. What a dialect adds is one object with `converse(peer)` (streams) or `datagram(peer, data)` (UDP).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Protocol

from towline.base.errors import (
    Busy,
    ClosedEarly,
    ConnectionLost,
    InternalError,
    InUse,
    PermissionDenied,
    TowlineError,
    UsageError,
)
from towline.classic.address import Address, endpoint_text
from towline.classic.limits import CLIENTS, DATAGRAM_PEERS, READ

_BACKLOG = 512
_LINGER_SECONDS = 0.5
_LINGER_BYTES = 4 * 1024 * 1024
_ACCEPT_PAUSE = 0.1  # when the process is out of descriptors, somebody has to leave first
_DATAGRAM_SIZE = 65535


class OnEvent(Protocol):
    """Where a server or a client reports: an event's name and its fields (JSON values)."""

    def __call__(self, event: str, /, **fields: object) -> None: ...


class Guard(Protocol):
    """What stands before the dialect on each new connection; raises to refuse."""

    async def admit(self, peer: Peer) -> None: ...


class StreamDialect(Protocol):
    """A dialect over TCP and Unix streams."""

    async def converse(self, peer: Peer) -> None:
        """Serve one client until it ends (return) or breaks the dialect (raise a TowlineError)."""


class DatagramDialect(Protocol):
    """A dialect over UDP."""

    async def datagram(self, peer: DatagramPeer, data: bytes) -> None:
        """Serve one datagram; an empty one is a message too."""

    def gone(self, peer: DatagramPeer) -> None:
        """This address was forgotten: its conversation is over."""


class Peer:
    """One connected client. Its socket is non-blocking and belongs to the server, which closes it."""

    def __init__(self, sock: socket.socket, number: int, label: str, on_event: OnEvent) -> None:
        self.number = number
        self.label = label
        self._sock = sock
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<Peer {self.number} {self.label}>"

    async def read(self, limit: int = READ.value) -> bytes:
        """What one recv() of at most `limit` bytes brings; empty at the end of the stream."""
        return await self._loop.sock_recv(self._sock, limit)

    async def read_within(self, seconds: float) -> bytes | None:
        """Like `read`, or None when the line stays quiet for `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                return await self.read()
        except TimeoutError:
            return None

    async def exactly(self, count: int) -> bytes:
        """`count` bytes and not one more; raises ConnectionLost when the stream ends before."""
        data = bytearray()
        while len(data) < count:
            piece = await self.read(count - len(data))
            if not piece:
                raise ConnectionLost(f"The client left after {len(data)} of {count} bytes.")
            data += piece
        return bytes(data)

    async def send(self, data: bytes | memoryview) -> None:
        """All of `data`; waits for a client that reads slowly."""
        await self._loop.sock_sendall(self._sock, data)

    def say(self, event: str, **fields: object) -> None:
        """Report something about this client."""
        self._on_event(event, client=self.number, **fields)

    async def close_gently(self) -> None:
        """End our half and take in a little of what is still coming: a close over unread bytes is a reset, and a
        reset may destroy the answer on its way."""
        with contextlib.suppress(OSError, TimeoutError):
            self._sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(_LINGER_SECONDS):
                taken = 0
                while taken < _LINGER_BYTES and (piece := await self.read()):
                    taken += len(piece)


class DatagramPeer:
    """One UDP address that has spoken to us."""

    def __init__(self, server: Server, sock: socket.socket, number: int, where: Any) -> None:
        self.number = number
        self.label = endpoint_text(where)
        self._server = server
        self._sock = sock
        self._where = where

    async def send(self, data: bytes) -> None:
        """One datagram to this address."""
        await asyncio.get_running_loop().sock_sendto(self._sock, data, self._where)

    def say(self, event: str, **fields: object) -> None:
        """Report something about this address."""
        self._server.on_event(event, client=self.number, **fields)

    def forget(self, reason: str) -> None:
        """End this conversation; the next datagram from there begins another."""
        self._server.forget(self._where, reason)


class Server:
    """One dialect on one address. `async with server.running() as address:`."""

    def __init__(
        self,
        address: Address,
        dialect: StreamDialect | DatagramDialect,
        *,
        on_event: OnEvent,
        guard: Guard | None = None,
    ) -> None:
        self.on_event = on_event
        self._address = address
        self._dialect: Any = dialect
        self._guard = guard
        self._clients = 0  # ever
        self._tasks: set[asyncio.Task[None]] = set()
        self._peers: OrderedDict[Any, DatagramPeer] = OrderedDict()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Serve inside the block; gives the address as text, with the port that the kernel chose."""
        sock = listening_socket(self._address)
        try:
            where = self._address.path or endpoint_text(sock.getsockname())
            identity = _identity(self._address.path)
            self.on_event("listening", address=where)
            loop = self._datagrams(sock) if self._address.over == "udp" else self._accept(sock)
            self._start(loop)
            yield where
        finally:
            await self._stop()
            sock.close()
            if self._address.over == "unix" and identity is not None and _identity(self._address.path) == identity:
                os.unlink(self._address.path)
            self.on_event("stopped")

    def forget(self, where: object, reason: str) -> None:
        """Drop one UDP address; used by `DatagramPeer.forget`."""
        peer = self._peers.pop(where, None)
        if peer is not None:
            self._dialect.gone(peer)
            self.on_event("left", client=peer.number, peer=peer.label, reason=reason)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        bug = task.exception()
        if bug is not None:  # one client's task; all the others live on
            error = InternalError(f"A bug in Towline: {type(bug).__name__}: {bug}.")
            self.on_event("error", code=error.code, name=error.name, message=error.sentence)

    async def _stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, where = await loop.sock_accept(listener)
            except OSError as error:  # ECONNABORTED is one client's matter; EMFILE passes when one leaves
                self.on_event("error", name="accept", message=f"A client could not be accepted: {error.strerror}.")
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            self._take(sock, where)

    def _take(self, sock: socket.socket, where: Any) -> None:
        self._clients += 1
        number = self._clients
        label = endpoint_text(where) or f"unix#{number}"
        if len(self._tasks) > CLIENTS.value:
            busy = Busy(f"Limit {CLIENTS.name} is {CLIENTS.value} {CLIENTS.unit}.")
            self.on_event("refused", client=number, peer=label, name=busy.name, message=busy.sentence)
            sock.close()
            return
        task = self._start(self._serve_client(sock, number, label))
        task.add_done_callback(lambda _: sock.close())  # also of one that was ended before its first turn

    async def _serve_client(self, sock: socket.socket, number: int, label: str) -> None:
        _watch_for_half_open(sock)
        peer = Peer(sock, number, label, self.on_event)
        reason = "stopped"
        self.on_event("joined", client=number, peer=label)
        try:
            reason = await self._serve_peer(peer)
        finally:
            self.on_event("left", client=number, peer=label, reason=reason)

    async def _serve_peer(self, peer: Peer) -> str:
        """Why the conversation ended, in one word or two."""
        try:
            if self._guard is not None:
                await self._guard.admit(peer)
            await self._dialect.converse(peer)
            await peer.close_gently()
        except (ConnectionLost, ClosedEarly) as error:
            return error.sentence
        except TowlineError as error:
            peer.say("refused", code=error.code, name=error.name, message=error.sentence)
            await peer.close_gently()
            return "refused"
        except OSError as error:  # reset, broken pipe, keepalive's time-out: a client that vanished
            return "vanished: " + (error.strerror or type(error).__name__)
        return "closed"

    async def _datagrams(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                data, where = await loop.sock_recvfrom(sock, _DATAGRAM_SIZE)
                await self._dialect.datagram(self._peer_at(sock, where), data)
            except TowlineError as error:
                self.on_event("error", code=error.code, name=error.name, message=error.sentence)
            except OSError as error:  # an answer too long for a datagram, a peer's ICMP error
                self.on_event("error", name="datagram", message=f"A datagram was not sent: {error.strerror}.")

    def _peer_at(self, sock: socket.socket, where: Any) -> DatagramPeer:
        peer = self._peers.get(where)
        if peer is None:
            while len(self._peers) >= DATAGRAM_PEERS.value:
                self.forget(next(iter(self._peers)), "forgotten")
            self._clients += 1
            peer = self._peers[where] = DatagramPeer(self, sock, self._clients, where)
            self.on_event("joined", client=peer.number, peer=peer.label)
        self._peers.move_to_end(where)
        return peer


def listening_socket(address: Address) -> socket.socket:
    """A bound (and for streams listening) non-blocking socket. Raises InUse, PermissionDenied, UsageError."""
    family, where = address.resolved(UsageError)
    sock = socket.socket(family, address.kind)
    try:
        if address.over == "tcp":
            # Without it a restart within a minute or two meets the old connections' TIME_WAIT: address in use.
            # Not for UDP: there it would let a second server take the first one's datagrams.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.over == "unix":
            _clear_stale(address.path)
        sock.bind(where)
        if address.over == "unix":
            os.chmod(address.path, 0o600)
        if address.over != "udp":
            sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise _bind_failure(address, error) from None
    except TowlineError:
        sock.close()
        raise
    return sock


def _bind_failure(address: Address, error: OSError) -> TowlineError:
    if error.errno == errno.EADDRINUSE:
        return InUse(f"{address} is in use by another process; choose another address.")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return PermissionDenied(f"{address} may not be served by this user: {error.strerror}.")
    return UsageError(f"{address} cannot be served: {error.strerror or error}.")


def _clear_stale(path: str) -> None:
    """Remove the socket file of a server that died; one that answers, or another kind of file, is left alone."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise InUse(f"{path} exists and is not a socket; it was left alone.")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass  # it lives but is busy, or speaks datagrams
    raise InUse(f"{path} is in use by another process; choose another path.")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except (FileNotFoundError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _watch_for_half_open(sock: socket.socket) -> None:
    """Let the kernel ask a silent TCP peer after a minute whether it is still there; its absence ends the read."""
    sock.setblocking(False)
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
