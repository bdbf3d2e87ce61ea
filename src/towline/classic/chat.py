"""`chat`: raw text both ways, one read a message; `q` or `Q` on a line ends that conversation and no other.

The server's person (the operator) answers whom they like: `@2 text` speaks to client 2, a plain line to whoever spoke
last, or in a room to all.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable

from towline.base.errors import LimitExceeded
from towline.classic.codecs import text_decoder
from towline.classic.limits import CHAT_MESSAGES, CHAT_QUEUE
from towline.classic.server import DatagramPeer, OnEvent, Peer


def says_quit(text: str) -> bool:
    """Whether a line of `text` is `q` or `Q`."""
    return any(line.strip() in {"q", "Q"} for line in text.splitlines())


class Chat:
    """The server. `operator(line)` is what its person types; call it on the server's event loop."""

    def __init__(self, on_event: OnEvent, *, room: bool = False, encoding: str = "utf-8") -> None:
        self._on_event = on_event
        self._room = room
        self._encoding = encoding
        self._conversations: dict[int, _Conversation] = {}
        self._latest: int | None = None
        self._sends: set[asyncio.Task[None]] = set()

    async def converse(self, peer: Peer) -> None:
        """One client on a stream, until either side says q, the client leaves, or it does not read."""
        conversation = _Conversation(peer, self._encoding)
        self._enter(conversation)
        reading = asyncio.ensure_future(self._listen(peer, conversation))
        writing = asyncio.ensure_future(conversation.write(peer))
        try:
            done, _ = await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._leave(conversation)
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)

    async def datagram(self, peer: DatagramPeer, data: bytes) -> None:
        """One datagram; a new address begins a conversation."""
        conversation = self._conversations.get(peer.number)
        if conversation is None:
            conversation = _Conversation(peer, self._encoding)
            self._enter(conversation)
        text = data.decode(self._encoding, "replace")
        self._heard(conversation, text)
        if says_quit(text):
            peer.forget("said q")

    def gone(self, peer: DatagramPeer) -> None:
        """An address was forgotten; so is its conversation."""
        conversation = self._conversations.get(peer.number)
        if conversation is not None:
            self._leave(conversation)

    def operator(self, line: str) -> None:
        """Send the operator's line to whom it is meant for."""
        text = line.rstrip("\r\n")
        if not text:
            return
        number, text = self._addressed(text)
        if not text:
            self._on_event("notice", message="Nothing was sent: there is no text behind the number.")
            return
        quitting = says_quit(text)
        everybody = number is None and self._room and not quitting
        if number is None:
            number = self._latest
        chosen = list(self._conversations.values()) if everybody else []
        if not everybody and number in self._conversations:
            chosen = [self._conversations[number]]
        if not chosen:
            whom = "Nobody is there to answer." if number is None else f"Client {number} is not there."
            self._on_event("notice", message=whom)
            return
        self._on_event("sent", clients=[one.peer.number for one in chosen], text=text)
        for one in chosen:
            self._post(one, text, last=quitting)

    def _addressed(self, text: str) -> tuple[int | None, str]:
        head, _, rest = text.partition(" ")
        if head.startswith("@") and head[1:].isascii() and head[1:].isdigit() and len(head) < 20:
            return int(head[1:]), rest
        return None, text

    async def _listen(self, peer: Peer, conversation: _Conversation) -> None:
        decoder = text_decoder(self._encoding)
        while data := await peer.read():
            text = decoder.decode(data)
            if not text:  # a character was cut by the read's end; its rest is on the way
                continue
            self._heard(conversation, text)
            if says_quit(text):
                return

    def _heard(self, conversation: _Conversation, text: str) -> None:
        number = self._latest = conversation.peer.number
        conversation.peer.say("message", text=text.rstrip("\r\n"))
        if self._room and not says_quit(text):
            for other in list(self._conversations.values()):
                if other is not conversation:
                    self._post(other, f"[{number}] {text}")

    def _post(self, conversation: _Conversation, text: str, *, last: bool = False) -> None:
        data = text.encode(self._encoding, "replace")
        if isinstance(conversation.peer, Peer):
            conversation.post(data, last=last)
            return
        task = asyncio.ensure_future(_send_datagram(conversation.peer, data))
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)
        if last:
            conversation.peer.forget("the operator said q")

    def _enter(self, conversation: _Conversation) -> None:
        self._conversations[conversation.peer.number] = conversation
        if self._latest not in self._conversations:
            self._latest = conversation.peer.number

    def _leave(self, conversation: _Conversation) -> None:
        self._conversations.pop(conversation.peer.number, None)
        if self._latest == conversation.peer.number:
            self._latest = next(reversed(self._conversations), None)


class _Conversation:
    """One client and what waits to be sent to it."""

    def __init__(self, peer: Peer | DatagramPeer, encoding: str) -> None:
        self.peer = peer
        self._queue: asyncio.Queue[tuple[bytes, bool]] = asyncio.Queue()
        self._waiting = 0  # bytes
        self._overrun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def post(self, data: bytes, *, last: bool) -> None:
        """Queue a message; a client that lets too many wait is dropped by `write`."""
        self._waiting += len(data)
        try:
            CHAT_QUEUE.check(self._waiting, what="the client does not read")
            CHAT_MESSAGES.check(self._queue.qsize() + 1, what="the client does not read")
        except LimitExceeded as error:
            if not self._overrun.done():
                self._overrun.set_exception(error)
        else:
            self._queue.put_nowait((data, last))

    async def write(self, peer: Peer) -> None:
        """Send what is queued, up to the last one. Raises LimitExceeded after an overrun."""
        sending = asyncio.ensure_future(self._send_all(peer))
        try:
            done, _ = await asyncio.wait({sending, self._overrun}, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            sending.cancel()
            self._overrun.cancel()
            await asyncio.gather(sending, self._overrun, return_exceptions=True)

    async def _send_all(self, peer: Peer) -> None:
        last = False
        while not last:
            data, last = await self._queue.get()
            await peer.send(data)
            self._waiting -= len(data)


async def _send_datagram(peer: DatagramPeer, data: bytes) -> None:
    try:
        await peer.send(data)
    except OSError as error:
        peer.say("error", name="datagram", message=f"A datagram was not sent: {error.strerror}.")


def listen_to_operator(descriptor: int, on_line: Callable[[str], None]) -> None:
    """Call `on_line` on the running loop for each line of `descriptor`, until its end; the server goes on after it.

    A thread reads, because epoll takes no regular files; os.read, because a thread that dies inside Python's own
    stdin at exit takes the whole process with it.
    """
    if _would_stop(descriptor):
        return
    loop = asyncio.get_running_loop()

    def pump() -> None:
        decoder, held = text_decoder("utf-8"), ""
        while data := _read(descriptor):
            *lines, held = (held + decoder.decode(data)).split("\n")
            for line in lines:
                _call(loop, on_line, line)
        if held:
            _call(loop, on_line, held)

    threading.Thread(target=pump, name="operator", daemon=True).start()


def _would_stop(descriptor: int) -> bool:
    """Whether a read would stop us: by SIGTTIN, as it does to those who are in the background of their terminal."""
    try:
        return os.isatty(descriptor) and os.tcgetpgrp(descriptor) != os.getpgrp()
    except OSError:  # a terminal that is not the one we belong to: it has no background for us
        return False


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


def _call(loop: asyncio.AbstractEventLoop, on_line: Callable[[str], None], line: str) -> None:
    try:
        loop.call_soon_threadsafe(on_line, line)
    except RuntimeError:  # the server has ended
        return
