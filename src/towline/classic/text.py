"""`upper` and `reply`: whatever one read (or datagram) brings is answered at once. Nothing is kept between reads.

Both work on bytes, so a character that a read boundary cut passes through unharmed.
"""

from __future__ import annotations

from collections.abc import Callable

from towline.classic.codecs import text_decoder
from towline.classic.server import DatagramPeer, Peer
from towline.classic.talk import Talker, Wire

DEFAULT_TEMPLATE = "我已收到您的请求[%s],感谢您的关注!"


def upper(data: bytes) -> bytes:
    """ASCII letters in upper case, all other bytes as they are."""
    return data.upper()


def reply_with(template: str, encoding: str = "utf-8") -> Callable[[bytes], bytes]:
    """An answerer that puts the received bytes where `template` has `%s`; without one the answer is fixed."""
    pattern = template.encode(encoding, "replace")
    return lambda data: pattern.replace(b"%s", data)


class Answering:
    """A server dialect that answers each read with a function of it."""

    def __init__(self, answer: Callable[[bytes], bytes], encoding: str = "utf-8") -> None:
        self._answer = answer
        self._encoding = encoding

    async def converse(self, peer: Peer) -> None:
        """One recv, one answer, until the client's end."""
        decoder = text_decoder(self._encoding)
        while data := await peer.read():
            peer.say("request", bytes=len(data), text=decoder.decode(data))
            await peer.send(self._answer(data))

    async def datagram(self, peer: DatagramPeer, data: bytes) -> None:
        """One datagram, one answer, to where it came from."""
        peer.say("request", bytes=len(data), text=data.decode(self._encoding, "replace"))
        await peer.send(self._answer(data))

    def gone(self, peer: DatagramPeer) -> None:
        """Nothing is kept of an address."""


class UpperTalker(Talker):
    """The client of `upper`: an answer is as long as the message, whatever number of reads it takes."""

    def exchange(self, wire: Wire, message: bytes) -> bytes:
        """Send `message`, give the answer."""
        wire.send(message)
        if wire.datagrams:
            return wire.answer()
        return wire.answer(size=len(message))


class ReplyTalker(Talker):
    """The client of `reply`: nothing says how long an answer is; it ends when the line goes quiet."""

    def exchange(self, wire: Wire, message: bytes) -> bytes:
        """Send `message`, give the answer."""
        wire.send(message)
        return wire.answer()
