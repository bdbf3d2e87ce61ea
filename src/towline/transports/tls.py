"""TLS 1.3 as a pipe between bytes and bytes: no socket in here, so that a loop and a thread can both drive it.

The standard library's `SSLObject` over two memory BIOs. Against asyncio's own TLS it saves 256 KiB a connection, lets
a connection become a lane after its handshake, and reads many records with one system call.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from towline.base.errors import ConnectionLost, NotTowline, TowlineError
from towline.protocol.table import ALPN
from towline.transports.interface import Buffer

_RECORD = 16 * 1024  # RFC 8446, section 5.1: the most that one record carries
MOST_HELD = _RECORD + 256 + 5  # bytes from the wire that may be inside: a record that is not whole yet (5.2)
_LARGE = 4 * _RECORD  # from here on a copy of a body costs more than a record of its own for the frame's prefix


class TlsPipe:
    """One end of a TLS connection. Not thread-safe: one reader and one writer at a time, never both at once."""

    __slots__ = ("_in", "_out", "_tls", "closed", "error")

    def __init__(self, context: ssl.SSLContext, *, server_side: bool) -> None:
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=server_side)
        self.closed = False  # the peer said close_notify
        self.error: TowlineError | None = None  # what ended it in the middle

    def handshake(self, data: Buffer = b"") -> bool:
        """Take bytes of the handshake; True when it is done. `outgoing` has what to send either way."""
        if data:
            self._in.write(data)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise tls_error(error) from error
        if self._tls.selected_alpn_protocol() != ALPN:
            raise NotTowline("The other side speaks TLS but not Towline; check the address and port.")
        return True

    @property
    def certificate(self) -> bytes | None:
        """The peer's certificate (DER)."""
        return self._tls.getpeercert(binary_form=True)

    @property
    def outgoing(self) -> bytes:
        """Bytes for the wire; taken once."""
        return self._out.read()

    def encrypt(self, buffers: Sequence[Buffer]) -> bytes:
        """Plain buffers to bytes for the wire."""
        try:
            for data in _joined(buffers):
                self._tls.write(data)
        except ssl.SSLError as error:
            raise tls_error(error) from error
        return self._out.read()

    def feed(self, data: Buffer) -> None:
        """Take bytes from the wire, to be read by `read_into` or `decrypt`."""
        self._in.write(data)

    def decrypt(self) -> list[bytes]:
        """All plain bytes that are complete now, a piece for each record; those before a bad record too (`error`)."""
        pieces: list[bytes] = []
        tls, incoming = self._tls, self._in
        try:
            while incoming.pending:  # OpenSSL itself holds nothing back: each read takes all of a record
                piece = tls.read(_RECORD)
                if not piece:
                    self.closed = True
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass  # the rest of a record is still to come
        except ssl.SSLZeroReturnError:
            self.closed = True
        except ssl.SSLError as error:
            self.error = tls_error(error)
        return pieces

    def read_into(self, target: memoryview) -> int:
        """Plain bytes into `target`, of all records that are there: their count, 0 when more must be fed (or the peer
        closed: see `closed`). Those before a bad record count, and the error comes with the next call."""
        if self.error is not None:
            raise self.error
        read, incoming = self._tls.read, self._in
        size, filled = len(target), 0
        try:
            while filled < size:
                count = int(read(size - filled, target[filled:]))
                if not count:
                    self.closed = True
                    break
                filled += count
                if not incoming.pending:  # nor does an exception have to say so
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.closed = True
        except ssl.SSLError as error:
            self.error = tls_error(error)
            if not filled:
                raise self.error from error
        return filled

    def close_notify(self) -> bytes:
        """The bytes that say goodbye."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # we do not wait for the peer's goodbye
        return self._out.read()


def _joined(buffers: Sequence[Buffer]) -> Sequence[Buffer]:
    """Small buffers that stand together as one, so that they share records; large ones as they are."""
    if len(buffers) == 1:
        return buffers
    joined: list[Buffer] = []
    small: list[Buffer] = []
    for buffer in buffers:
        if len(buffer) < _LARGE:
            small.append(buffer)
        else:
            joined += b"".join(small), buffer
            small = []
    joined.append(b"".join(small))
    return [buffer for buffer in joined if len(buffer)]


def tls_error(error: ssl.SSLError) -> TowlineError:
    """OpenSSL's words in ours."""
    reason = (error.reason or "").upper()
    if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"}:
        return NotTowline("The other side does not speak TLS, so it is no Towline node; check the address and port.")
    if reason in {"NO_APPLICATION_PROTOCOL", "TLSV1_ALERT_NO_APPLICATION_PROTOCOL"}:
        return NotTowline("The other side speaks TLS but not Towline; check the address and port.")
    if reason in {"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE"}:
        return NotTowline(
            "The other side does not speak TLS 1.3, so it is no Towline node; check the address and port."
        )
    if isinstance(error, ssl.SSLEOFError):
        return ConnectionLost("The connection was cut in the middle of a TLS record.")
    return ConnectionLost(f"TLS failed: {error.reason or error}.")
