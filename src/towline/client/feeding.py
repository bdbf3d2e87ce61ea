"""Input of a job: numbered by bytes, kept here until it is acknowledged, sent again from where the node has it."""

from __future__ import annotations

import asyncio
import os

from towline.base.errors import TowlineError
from towline.base.limits import KIB, MIB
from towline.client.reach import Reach
from towline.protocol.codec import Header
from towline.protocol.table import Class
from towline.runtime.channel import Channel

WINDOW = 1 * MIB  # bytes that are kept here because the command has not taken them yet
PIECE = 64 * KIB
_FRUITLESS = 3


class Feeding:
    """One writer of one job. A task keeps its stream open from the first byte on."""

    def __init__(self, line: Reach, job: str, scheduling: Class) -> None:
        self._line, self._job, self._class = line, job, scheduling
        self._writer = os.urandom(8).hex()
        self._acked = 0
        self._pending = bytearray()  # from `_acked` on
        self._size: tuple[int, int] | None = None
        self._ended = self._is_over = False
        self._task: asyncio.Task[None] | None = None
        self._bell = asyncio.Event()

    async def write(self, data: bytes) -> None:
        """Queue it; wait while too much is queued. Raises what ended the stream for good."""
        view = memoryview(data)
        while len(view):
            piece = view[: max(WINDOW - len(self._pending), 0)]
            self._pending += piece
            view = view[len(piece) :]
            self._stir()
            while len(self._pending) >= WINDOW and not self._finished():
                await self._changed()
            if self._finished():
                return  # nobody reads it any more

    async def write_eof(self) -> None:
        """Wait until everything has been taken and the end was told, or the job is over."""
        self._ended = True
        self._stir()
        while not self._finished():
            await self._changed()

    def resize(self, rows: int, columns: int) -> None:
        """Tell the size, now and after each cut."""
        self._size = (rows, columns)
        self._stir()

    def over(self) -> None:
        """The job has ended: nothing more is of use."""
        self._is_over = True
        self._ring()

    async def close(self) -> None:
        """Stop at once."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    def _finished(self) -> bool:
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()  # raises
        return self._is_over

    def _stir(self) -> None:
        if self._task is None and not self._is_over:
            self._task = asyncio.ensure_future(self._feed())
            self._task.add_done_callback(self._fed)
        self._ring()

    def _fed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # whoever writes next hears it
        self._ring()

    def _ring(self) -> None:
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()

    async def _changed(self) -> None:
        await self._bell.wait()

    async def _feed(self) -> None:
        async with self._line.places.feeding:
            await self._feed_now()

    async def _feed_now(self) -> None:
        fruitless = 0
        while not self._is_over:
            connection = await self._line.connection()
            before = self._acked
            header: Header = {"service": "jobs", "op": "input", "job": self._job, "writer": self._writer}
            channel = connection.open(header, self._class)
            try:
                await self._converse(channel)
            except TowlineError as error:
                fruitless = 0 if self._acked > before else fruitless + 1
                if not error.retryable or (connection.is_open and fruitless >= _FRUITLESS):
                    raise
            finally:
                channel.reset()

    async def _converse(self, channel: Channel) -> None:
        answer = await channel.accepted()
        at = answer.get("at")
        self._note(at)
        if answer.get("over") is True:
            self.over()
            return
        listening = asyncio.ensure_future(self._listen(channel))
        sending = asyncio.ensure_future(self._send(channel, at if isinstance(at, int) else self._acked))
        try:
            await asyncio.wait({listening, sending}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            await listening
        finally:
            listening.cancel()
            sending.cancel()

    async def _send(self, channel: Channel, expected: int) -> None:
        """`expected`: where the node takes the next bytes to begin if nothing else is said."""
        position, size = expected, None
        while True:
            bell = self._bell
            if self._size is not None and size != self._size:
                size = self._size
                await channel.send(b"", {"size": list(size)})
            # The command may have taken meanwhile what an earlier stream had brought.
            position = max(position, self._acked)
            offset = position - self._acked
            piece = bytes(self._pending[offset : offset + PIECE])
            if piece:
                header: Header | None = {"at": position} if position != expected else None
                position = expected = position + len(piece)
                await channel.send(piece, header)
            elif self._ended:
                channel.end()
                return
            else:
                await bell.wait()

    async def _listen(self, channel: Channel) -> None:
        async for message in channel.messages():
            self._note((message.header or {}).get("ack"))
        trailer = channel.trailer or {}
        self._note(trailer.get("at"))
        self.over()

    def _note(self, at: object) -> None:
        """The command has taken everything before byte `at`."""
        if isinstance(at, int) and self._acked < at <= self._acked + len(self._pending):
            del self._pending[: at - self._acked]
            self._acked = at
            self._ring()
