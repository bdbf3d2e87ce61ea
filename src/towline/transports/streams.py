"""The transport over a stream socket, plain (Unix) or inside TLS (TCP), on any asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import Sequence
from typing import cast

from towline.base.errors import ConnectionLost, NotTowline, TowlineError
from towline.protocol.handshake import readable_line, stranger
from towline.protocol.table import MAGIC
from towline.transports.interface import WRITE_HIGH, WRITE_LOW, Buffer, Peer, Receiver
from towline.transports.tls import TlsPipe

# How long (seconds) a closed connection may take to say its last words and hear the peer's close.
LINGER = 3.0
# First bytes of TLS records (RFC 8446, section 5.1).
_TLS_ALERT = 0x15
_TLS_HANDSHAKE = 0x16
_FIRST_BYTES = 8
_UCRED = struct.Struct("3i")  # pid, uid, gid (unix(7))
# Bytes that the kernel may hold unsent (tcp(7)): what is under way is for TCP to decide, but what merely waits
# would keep an urgent frame waiting too.
_NOTSENT_LOWAT = 128 * 1024
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_NOTSENT_LOWAT": _NOTSENT_LOWAT}


class StreamTransport(asyncio.Protocol):
    """A `Transport` over an asyncio stream transport. With a TLS context the bytes travel encrypted.

    A node looks at the first bytes before it spends memory on TLS: a peer that speaks something else gets one
    readable line and a close.
    """

    __slots__ = ("_closing", "_context", "_detached", "_error", "_fresh", "_linger", "_raw", "_receiver",
                 "_server_side", "_tls", "peer")  # fmt: skip

    def __init__(self, receiver: Receiver, context: ssl.SSLContext | None, *, server_side: bool) -> None:
        self._receiver = receiver
        self._context = context  # until TLS is up
        self._server_side = server_side
        self._raw: asyncio.Transport | None = None
        self._tls: TlsPipe | None = None
        self._error: TowlineError | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._closing = False  # by either side: nothing is pushed any more but `lost`
        self._detached = False
        self._fresh = True  # nothing has come in yet
        self.peer = Peer("none", "none")

    def __repr__(self) -> str:
        return f"<StreamTransport {self.peer.kind} {self.peer.address} backlog={self.backlog}>"

    # --- for the owner ---

    @property
    def backlog(self) -> int:
        return self._raw.get_write_buffer_size() if self._raw is not None else 0

    def write(self, buffers: Sequence[Buffer]) -> None:
        if self._raw is None or self._closing or self._context is not None or self._raw.is_closing():
            return  # nothing of ours goes out before TLS is up
        if self._tls is None:
            self._raw.writelines(buffers)
            return
        try:
            self._raw.write(self._tls.encrypt(buffers))
        except TowlineError as error:
            self._fail(error)

    def close(self) -> None:
        if self._raw is None or self._closing or self._raw.is_closing():
            return
        self._closing = True
        if self._tls is not None and self._context is None:
            self._raw.write(self._tls.close_notify())
        # Closing a socket with unread bytes in it makes the kernel send a reset, which may overtake our last words
        # (RFC 9112, 9.6). So: no more from us, read on for nothing until the peer closes, and not for ever.
        self._linger = asyncio.get_running_loop().call_later(LINGER, self._raw.abort)
        try:
            self._raw.write_eof()
        except (OSError, RuntimeError):
            self._raw.abort()  # the connection broke a moment ago

    def abort(self) -> None:
        if self._raw is not None:
            self._raw.abort()

    def detach(self) -> tuple[socket.socket, TlsPipe | None]:
        assert self._raw is not None
        self._raw.pause_reading()
        self._detached = True
        original = self._raw.get_extra_info("socket")
        duplicate = socket.socket(fileno=os.dup(original.fileno()))
        self._raw.abort()  # closes only the loop's descriptor; the connection lives on in the duplicate
        return duplicate, self._tls

    # --- for asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast("asyncio.Transport", transport)  # uvloop's is one by shape, not by class
        # One less, because asyncio calls a backlog high when it is above this, and our owner when it is at it.
        self._raw.set_write_buffer_limits(high=WRITE_HIGH - 1, low=WRITE_LOW)
        sock = transport.get_extra_info("socket")
        tune(sock)
        self.peer = _peer_of(sock)
        self._receiver.opening(self)
        if self._context is None:
            self._receiver.connected()
        elif not self._server_side:
            self._start_tls(b"")

    def data_received(self, data: bytes) -> None:
        if self._closing or self._detached:
            return
        try:
            if self._context is not None:
                self._shake_hands(data)
            elif self._tls is None:
                self._receiver.received(data)
            else:
                self._tls.feed(data)
                self._deliver(self._tls)
        except TowlineError as error:
            self._fail(error)

    def eof_received(self) -> bool:
        self._end()
        return False

    def pause_writing(self) -> None:
        """asyncio says that the backlog is high; the owner asks `backlog` before it writes."""

    def resume_writing(self) -> None:
        if not self._detached and not self._closing:
            self._receiver.writable()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._linger is not None:
            self._linger.cancel()
        self._raw = self._tls = None
        if self._detached:
            return
        error = self._error
        if error is None and exc is not None and not self._closing:
            error = ConnectionLost(f"The connection was lost: {_words(exc)}.")
        self._receiver.lost(error)

    # --- inside ---

    def _shake_hands(self, data: bytes) -> None:
        if self._fresh and not self._looks_like_tls(data):
            return
        self._fresh = False
        self._start_tls(data)

    def _looks_like_tls(self, data: bytes) -> bool:
        if data[0] == _TLS_HANDSHAKE or (data[0] == _TLS_ALERT and not self._server_side):
            return True
        assert self._raw is not None
        if data.startswith(MAGIC[: len(data)]):
            self._error = NotTowline("The other side speaks Towline without TLS; over TCP it must use TLS.")
        else:
            self._error = stranger(data[:_FIRST_BYTES])
        if self._server_side:
            self._raw.write(readable_line(self._error))
        self.close()
        return False

    def _start_tls(self, data: bytes) -> None:
        """Begin or continue the handshake; `_context` stays set until it is done."""
        assert self._context is not None
        assert self._raw is not None
        if self._tls is None:
            self._tls = TlsPipe(self._context, server_side=self._server_side)
        try:
            done = self._tls.handshake(data)
        finally:
            self._raw.write(self._tls.outgoing)
        if done:
            self._context = None
            self.peer = Peer("tcp", self.peer.address, self.peer.host, certificate=self._tls.certificate)
            self._receiver.connected()
            self._deliver(self._tls)

    def _deliver(self, tls: TlsPipe) -> None:
        pieces = tls.decrypt()
        if pieces and not self._closing:
            self._receiver.received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._detached or self._closing or self._raw is None:
            return  # the receiver has heard enough
        if answer := tls.outgoing:
            self._raw.write(answer)
        if tls.error is not None:
            raise tls.error
        if tls.closed:
            self._end()

    def _end(self) -> None:
        if self._detached or self._closing:
            return
        if self._context is not None:
            self._error = self._error or ConnectionLost("The other side closed the connection during the handshake.")
        else:
            self._receiver.eof()
        self.close()

    def _fail(self, error: TowlineError) -> None:
        self._error = self._error or error
        self.close()


def tune(sock: socket.socket) -> None:
    """Options that every TCP connection of ours has (tcp(7)); Unix sockets need none."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):  # the peer may be gone already; that shows soon enough
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _peer_of(sock: socket.socket) -> Peer:
    if sock.family == socket.AF_UNIX:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        _, uid, _ = _UCRED.unpack(raw)
        return Peer("unix", "unix", uid=uid)
    try:
        name = sock.getpeername()
    except OSError:
        return Peer("tcp", "gone")
    host, port = name[0], name[1]
    return Peer("tcp", f"[{host}]:{port}" if ":" in host else f"{host}:{port}", host)


def _words(exc: BaseException) -> str:
    return (exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)) or type(exc).__name__
