"""The skeleton under every dialect's client: one connection, driven from one blocking place.

`Wire` gives exact reads, silence and early ends as typed errors. While it sends it also takes in what arrives, so a
server that answers before it has read everything cannot lock both sides up.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar, Protocol, TypeVar

from towline.base.errors import ClosedEarly, DialectError, NotLegitimate, TimedOut, TowlineError, Unreachable
from towline.base.limits import Limit
from towline.classic.address import Address
from towline.classic.codecs import End, Header, HeaderedDecoder, HeaderedEvent
from towline.classic.dialects import Endian
from towline.classic.gate import CHALLENGE_SIZE, Gate
from towline.classic.limits import ANSWER, READ
from towline.classic.server import OnEvent

_T = TypeVar("_T")

RETRY_SECONDS = 1.0
QUIET_SECONDS = 0.2  # after this much silence an answer without a length is taken for whole
_DATAGRAM_SIZE = 65535


class Talker(Protocol):
    """The client side of one dialect."""

    empty_allowed: ClassVar[bool] = False  # can an empty message be sent at all?

    def exchange(self, wire: Wire, message: bytes) -> bytes:
        """Send one message and give its answer. Raises TowlineErrors for every defect of the server."""
        ...


class Wire:
    """One connection. `timeout` is how many seconds of silence are borne wherever something is owed."""

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        sock.setblocking(False)
        self.datagrams = sock.type == socket.SOCK_DGRAM
        self.timeout = timeout
        self._sock = sock
        self._held = bytearray()
        self._ended = False
        self._unproven = False  # we answered a legitimacy check and nothing has come since
        self._selector = selectors.DefaultSelector()
        self._selector.register(sock, selectors.EVENT_READ)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        self._sock.close()

    def fileno(self) -> int:
        """For select(); readable data may also be held here already, see `pending`."""
        return self._sock.fileno()

    @property
    def pending(self) -> bool:
        """Bytes have come that nobody has asked for yet."""
        self._take_in()
        return bool(self._held)

    def send(self, data: bytes | memoryview) -> None:
        """All of `data`. Raises TimedOut when the server takes nothing for `timeout` seconds."""
        if self.datagrams:
            self._checked(partial(self._sock.send, data))
            return
        view = memoryview(data)
        until = time.monotonic() + self.timeout
        while view:
            try:
                view = view[self._checked(partial(self._sock.send, view)) :]
                until = time.monotonic() + self.timeout
            except BlockingIOError:
                # Whatever it says meanwhile, be it the end of its half, is no sign that it reads.
                heard = not self._ended and time.monotonic() < until
                events = selectors.EVENT_WRITE | (selectors.EVENT_READ if heard else 0)
                self._wait(events, "The server does not take what we send", until=until)
                self._take_in()

    def read(self, limit: int = READ.value, *, within: float | None = None) -> bytes:
        """What one recv() brings; empty at the end. Raises TimedOut after `within` (or `timeout`) seconds."""
        while not self._held:
            if self._ended:
                return b""
            self._wait(selectors.EVENT_READ, "No answer", within)
            if self.datagrams:
                try:
                    return self._checked(partial(self._sock.recv, _DATAGRAM_SIZE))
                except BlockingIOError:  # the kernel threw a damaged one away
                    continue
            self._take_in()
        data = bytes(self._held[:limit])
        del self._held[: len(data)]
        return data

    def unread(self, data: bytes) -> None:
        """Put `data` back: the next read begins with it."""
        self._held[:0] = data

    def exactly(self, count: int) -> bytes:
        """`count` bytes. Raises ClosedEarly, naming how far it came."""
        data = bytearray()
        while len(data) < count:
            piece = self.read(count - len(data))
            if not piece:
                raise self.closed_early(f"after {len(data)} of {count} bytes")
            data += piece
        return bytes(data)

    def answer(self, *, size: int | None = None) -> bytes:
        """An answer without a length: the first read, then more until `size` bytes or silence."""
        answer = self.read()
        if self.datagrams:
            return answer
        if not answer:
            raise self.closed_early("without an answer")
        patience = QUIET_SECONDS if size is None else min(1.0, self.timeout)
        while size is None or len(answer) < size:
            try:
                piece = self.read(within=patience)
            except TimedOut:
                break
            if not piece:
                break
            answer += piece
            ANSWER.check(len(answer))
        return answer

    def headered(self, size_key: str | None, endian: Endian, limit: Limit) -> Iterator[HeaderedEvent]:
        """One `[int32][JSON][payload]` answer, piece by piece."""
        decoder = HeaderedDecoder(size_key, endian, limit)
        done = False
        while not done:
            data = self.read()
            if not data:
                try:
                    decoder.finish()
                except ClosedEarly as error:
                    raise self.closed_early("", instead=error) from None
                raise self.closed_early("without an answer")
            events, rest = decoder.feed_one(data)
            self.unread(rest)
            done = bool(events) and isinstance(events[-1], End)
            yield from events

    def header(self, endian: Endian) -> Header:
        """One `[int32][JSON]` answer without payload."""
        for event in self.headered(None, endian, ANSWER):
            if isinstance(event, Header):
                return event
        raise DialectError

    def end_input(self) -> bytes:
        """Half-close, then what is still coming until the server closes too or is quiet for a second.

        A server that goes on and on is heard for `timeout` seconds: it knows that we have ended.
        """
        rest = bytearray()
        if self.datagrams:
            return b""
        until = time.monotonic() + self.timeout
        try:
            self._sock.shutdown(socket.SHUT_WR)
            while (
                len(rest) < ANSWER.value
                and time.monotonic() < until
                and (piece := self.read(within=min(1.0, self.timeout)))
            ):
                rest += piece
        except (OSError, TowlineError):
            pass  # all answers are in; how the server leaves is its own affair
        return bytes(rest)

    def prove(self, gate: Gate) -> None:
        """Answer the server's legitimacy check; whether it was right shows in what comes next."""
        try:
            challenge = self.exactly(CHALLENGE_SIZE)
        except TimedOut:
            raise DialectError("The server sent no legitimacy check; leave out --secret-file.") from None
        self.send(gate.answer(challenge))
        self._unproven = True

    def closed_early(self, detail: str, *, instead: TowlineError | None = None) -> TowlineError:
        """The error for an end of the stream where something was owed."""
        if self._unproven:
            return NotLegitimate(
                "The server closed right after the legitimacy check: it has another secret or another --hmac."
            )
        return instead or ClosedEarly(f"The server closed the connection {detail}.")

    def _take_in(self) -> None:
        """Move what has arrived into memory, without waiting."""
        if self.datagrams or self._ended:
            return
        try:
            data = self._sock.recv(READ.value)
        except BlockingIOError:
            return
        except OSError as error:
            if not self._held:
                raise self._broken(error) from None
            data = b""  # what came before the reset is still good
        if data:
            self._unproven = False
            self._held += data
            ANSWER.check(len(self._held), what="bytes that came while we were sending")
        else:
            self._ended = True

    def _wait(self, events: int, complaint: str, within: float | None = None, until: float | None = None) -> None:
        """Until the socket is ready. Raises TimedOut after `within` seconds (or at the moment `until`)."""
        seconds = self.timeout if within is None else within
        left = seconds if until is None else max(0.0, until - time.monotonic())
        self._selector.modify(self._sock, events)
        if not self._selector.select(left):
            loss = "; UDP may lose a datagram either way" if self.datagrams else ""
            raise TimedOut(f"{complaint} within {seconds:g} s{loss}.")

    def _checked(self, call: Callable[[], _T]) -> _T:
        try:
            return call()
        except BlockingIOError:
            raise
        except OSError as error:
            raise self._broken(error) from None

    def _broken(self, error: OSError) -> TowlineError:
        if isinstance(error, ConnectionRefusedError):
            return Unreachable("Nobody listens there: connection refused.")
        if self._unproven:
            return self.closed_early("")
        return ClosedEarly(f"The connection broke: {error.strerror or error}.")


def dial(
    address: Address,
    *,
    timeout: float,
    retry: int = 0,
    on_event: OnEvent,
    pause: Callable[[float], None] = time.sleep,
) -> Wire:
    """Connect; after a failure try `retry` times more, once a second. Raises Unreachable."""
    for attempt in range(retry + 1):
        try:
            sock = _connected(address, timeout)
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
        except Unreachable as error:
            reason = error.sentence
        else:
            on_event("connected", address=str(address))
            return Wire(sock, timeout)
        if attempt < retry:
            on_event("retry", attempt=attempt + 1, of=retry, reason=reason)
            pause(RETRY_SECONDS)
    tries = f" after {retry + 1} attempts" if retry else ""
    raise Unreachable(f"{address} cannot be reached{tries}: {reason}")


def _connected(address: Address, timeout: float) -> socket.socket:
    family, where = address.resolved()
    sock = socket.socket(family, address.kind)
    try:
        sock.settimeout(timeout)
        sock.connect(where)
        if address.over != "unix" and sock.getsockname() == sock.getpeername():
            # The kernel may choose the very port that we dial as ours, and TCP then connects to itself.
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        if address.over == "tcp":
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock
