"""A stream socket driven by a blocking thread, plain or inside TLS: what lanes run on."""

from __future__ import annotations

import math
import os
import socket
import ssl
import struct
import time
from collections.abc import Sequence

from towline.base.errors import ConnectionLost, Unreachable
from towline.transports.interface import Buffer
from towline.transports.streams import tune
from towline.transports.tcp import split_address
from towline.transports.tls import MOST_HELD, TlsPipe
from towline.transports.unix import short_path

_READ_SIZE = 256 * 1024
_WORTH_WAITING = 32 * 1024  # below, what comes next is better taken along as far as it is there
_TIMEVAL = struct.Struct("@ll")  # timeval(3type)


class BlockingPipe:
    """Bytes over a socket. One thread reads or writes; `shutdown` may come from any thread and ends both.

    A timeout (seconds) bounds each wait for the kernel, so that a dead peer is noticed. The kernel keeps it itself
    (SO_RCVTIMEO, socket(7)): then there is no poll(2) before each call, and one call can wait for many bytes.
    """

    def __init__(self, sock: socket.socket, tls: TlsPipe | None, *, timeout: float) -> None:
        self._sock = sock
        self._tls = tls
        self._buffer = memoryview(b"")  # until something is read inside TLS: many lanes only wait, or write
        sock.setblocking(True)
        self.wait_at_most(timeout)

    def wait_at_most(self, timeout: float) -> None:
        """From now on that is the timeout."""
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._sock.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(int(timeout), int(timeout % 1 * 1e6)))

    def read_exactly(self, target: memoryview, *, deadline: float = math.inf) -> int:
        """Fill `target`; returns how much of it was filled before the peer closed or the connection was lost.

        `deadline` (monotonic seconds): whoever trickles is not waited for any more. A wait that has begun before it
        has its timeout.
        """
        filled = 0
        while filled < len(target) and (deadline == math.inf or time.monotonic() < deadline):
            try:
                count = self._read(target[filled:])
            except ConnectionLost:
                count = 0
            if not count:
                break
            filled += count
        return filled

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Send all of it. Raises ConnectionLost."""
        data = self._tls.encrypt(buffers) if self._tls is not None else b"".join(buffers)
        try:
            self._sock.sendall(data)  # the timeout is for each wait for progress, not for the whole
        except OSError as error:
            raise ConnectionLost(f"The connection was lost: {_words(error)}.") from error

    def shutdown(self) -> None:
        """Wake whoever reads or writes; the connection is over."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is over already

    def close(self) -> None:
        self._sock.close()

    def _read(self, target: memoryview) -> int:
        """Some of what is to fill `target`; 0 at the peer's close. Raises ConnectionLost."""
        if self._tls is None:
            return self._receive(target, len(target))
        while True:
            count = self._tls.read_into(target)
            if count or self._tls.closed:
                return count
            if not len(self._buffer):
                self._buffer = memoryview(bytearray(_READ_SIZE))
            arrived = self._receive(self._buffer, len(target) - MOST_HELD)
            if not arrived:
                return 0
            self._tls.feed(self._buffer[:arrived])

    def _receive(self, target: memoryview, certain: int) -> int:
        """What is there; where much is certain to come still, all of that: one call, and one change of threads."""
        try:
            if certain > _WORTH_WAITING:
                return self._sock.recv_into(target[:certain], 0, socket.MSG_WAITALL)
            return self._sock.recv_into(target)
        except OSError as error:
            raise ConnectionLost(f"The connection was lost: {_words(error)}.") from error


def dial(address: str, context: ssl.SSLContext | None, *, deadline: float) -> tuple[BlockingPipe, bytes | None]:
    """Connect to `HOST:PORT` (TLS) or `unix:PATH`; returns the pipe and the peer's certificate (DER).

    `deadline` (monotonic seconds) is for all of it, however the bytes trickle in. Until then is also what the pipe
    waits for the kernel at first. Raises Unreachable, ConnectionLost, NotTowline.
    """
    sock = _connect(address, _left(deadline))
    try:
        if context is None:
            return BlockingPipe(sock, None, timeout=_left(deadline)), None
        tls = TlsPipe(context, server_side=False)
        data = b""
        while not tls.handshake(data):
            sock.settimeout(_left(deadline))
            sock.sendall(tls.outgoing)
            data = sock.recv(_READ_SIZE)
            if not data:
                raise ConnectionLost("The other side closed the connection during the handshake.")
        sock.sendall(tls.outgoing)
        return BlockingPipe(sock, tls, timeout=_left(deadline)), tls.certificate
    except OSError as error:
        sock.close()
        raise ConnectionLost(f"The connection was lost: {_words(error)}.") from error
    except BaseException:
        sock.close()
        raise


def _left(deadline: float) -> float:
    """Seconds to wait; a moment at least, because none at all would mean for ever."""
    return max(deadline - time.monotonic(), 0.001)


def _connect(address: str, timeout: float) -> socket.socket:
    try:
        if address.startswith("unix:"):
            return _connect_unix(address[5:], timeout)
        host, port = split_address(address)
        sock = socket.create_connection((host or "localhost", port), timeout)
    except OSError as error:
        raise Unreachable(f"{address} cannot be reached: {_words(error)}.") from error
    tune(sock)
    return sock


def _connect_unix(path: str, timeout: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        with short_path(path) as short:
            sock.connect(short)
    except BaseException:
        sock.close()
        raise
    return sock


def _words(error: OSError) -> str:
    if isinstance(error, TimeoutError | BlockingIOError):
        return "no sign of life in time"
    return error.strerror or (os.strerror(error.errno) if error.errno else str(error))
