"""`int32` (a C int before each message) and `ask` (the length as text, a wait for any ok, then the payload).

Either answers each message in upper case, the same way it came; with a sink messages are collected and nothing is
answered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import ClassVar

from towline.base.errors import DialectError, TimedOut
from towline.classic.codecs import INT32_SIZE, AskDecoder, Int32Decoder, decode_length, encode_int32
from towline.classic.dialects import Endian
from towline.classic.limits import ANSWER, MEMORY
from towline.classic.server import Peer
from towline.classic.talk import Talker, Wire

DEFAULT_ACK = "ok"
# Digits that follow within this time belong to the same length: a network may cut even four bytes in two.
SETTLE_SECONDS = 0.02

Sink = Callable[[Peer, bytes], None]


class _Memory:
    """What the unfinished messages of all clients of one server hold together."""

    def __init__(self) -> None:
        self._held = 0

    @contextlib.contextmanager
    def share(self, decoder: Int32Decoder | AskDecoder) -> Iterator[Callable[[], None]]:
        """One client's share; call what it gives after each read. Raises LimitExceeded."""
        counted = 0

        def count() -> None:
            nonlocal counted
            self._held += decoder.held - counted
            counted = decoder.held
            MEMORY.check(self._held, what="unfinished messages")

        try:
            yield count
        finally:
            self._held -= counted


class Int32:
    """The server of `int32`."""

    def __init__(self, endian: Endian = "little", sink: Sink | None = None) -> None:
        self._endian = endian
        self._sink = sink
        self._memory = _Memory()

    async def converse(self, peer: Peer) -> None:
        """Answer or collect messages until the client's end."""
        decoder = Int32Decoder(self._endian)
        with self._memory.share(decoder) as count:
            while data := await peer.read():
                for message in decoder.feed(data):
                    await self._take(peer, message)
                count()
        decoder.finish()

    async def _take(self, peer: Peer, message: bytes) -> None:
        if self._sink is not None:
            self._sink(peer, message)
            return
        peer.say("request", bytes=len(message), text=_excerpt(message))
        await peer.send(encode_int32(message.upper(), self._endian))


class Ask:
    """The server of `ask`."""

    def __init__(self, ack: str = DEFAULT_ACK, sink: Sink | None = None) -> None:
        self._ack = ack.encode("utf-8", "surrogateescape")  # bytes of a command line that are no UTF-8 are meant
        self._sink = sink
        self._memory = _Memory()

    async def converse(self, peer: Peer) -> None:
        """Take each message after acknowledging its length; answer it in upper case the same way."""
        decoder = AskDecoder()
        with self._memory.share(decoder) as count:
            while data := await self._read(peer, decoder):
                for message in decoder.feed(data):
                    await self._take(peer, message)
                count()
        decoder.finish()

    async def _read(self, peer: Peer, decoder: AskDecoder) -> bytes:
        """One read; where digits are pending and silence follows, the acknowledgement comes first."""
        if decoder.undecided:
            data = await peer.read_within(SETTLE_SECONDS)
            if data is not None:
                return data
            decoder.settle()
            await peer.send(self._ack)
            for empty in decoder.feed(b""):
                # nothing comes between our two sends, so only time keeps them from sticking together
                await asyncio.sleep(SETTLE_SECONDS)
                await self._take(peer, empty)
        return await peer.read()

    async def _take(self, peer: Peer, message: bytes) -> None:
        if self._sink is not None:
            self._sink(peer, message)
            return
        peer.say("request", bytes=len(message), text=_excerpt(message))
        await peer.send(str(len(message)).encode())
        if not await peer.read():  # any one read is an acknowledgement
            raise DialectError("The client ended instead of acknowledging the answer's length.")
        await peer.send(message.upper())


class Int32Talker(Talker):
    """The client of `int32`."""

    empty_allowed: ClassVar[bool] = True

    def __init__(self, endian: Endian = "little", *, answered: bool = True) -> None:
        self._endian = endian
        self._answered = answered

    def exchange(self, wire: Wire, message: bytes) -> bytes:
        """Send `message` behind its length, give the answer without its length."""
        wire.send(encode_int32(message, self._endian))
        return self.answer(wire) if self._answered else b""

    def answer(self, wire: Wire) -> bytes:
        """One message from the server."""
        return wire.exactly(decode_length(wire.exactly(INT32_SIZE), self._endian, ANSWER))


class AskTalker(Talker):
    """The client of `ask`."""

    empty_allowed: ClassVar[bool] = True

    def __init__(self, ack: str = DEFAULT_ACK, *, answered: bool = True) -> None:
        self._ack = ack.encode("utf-8", "surrogateescape")  # bytes of a command line that are no UTF-8 are meant
        self._answered = answered

    def exchange(self, wire: Wire, message: bytes) -> bytes:
        """Announce, wait for any acknowledgement, send; then take the answer the same way."""
        wire.send(str(len(message)).encode())
        ack = wire.read()
        if not ack:
            raise wire.closed_early("instead of acknowledging the length")
        if not message and ack.startswith(self._ack):
            wire.unread(ack[len(self._ack) :])  # the answer to no bytes may stick to the acknowledgement
        wire.send(message)
        return self._answer(wire) if self._answered else b""

    def _answer(self, wire: Wire) -> bytes:
        decoder = AskDecoder(ANSWER)
        data = wire.read()
        if not data:
            raise wire.closed_early("without an answer")
        list(decoder.feed(data))  # a length only: nothing is complete yet
        while decoder.undecided:
            try:
                piece = wire.read(within=SETTLE_SECONDS)
            except TimedOut:
                break
            if not piece:
                break
            list(decoder.feed(piece))
        announced = decoder.settle()
        wire.send(self._ack)
        return wire.exactly(announced.length)


def _excerpt(message: bytes) -> str:
    return message[:1024].decode(errors="replace")
