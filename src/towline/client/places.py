"""Streams that the jobs of one line may have open: when all are taken, the next one waits; first come, first served.

A connection has a limit of streams (`streams`, announced by the node). Following output, feeding input and short
requests have shares of their own, so that none of them waits for ever for another that waits for it; the rest is for
whatever else the line is used for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

from towline.base.limits import STREAMS


class Pool:
    """`most` places. Use as an async context manager for one of them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        return f"<Pool {self.taken} of {self.most} taken, {len(self._waiting)} waiting>"

    def take_nowait(self) -> bool:
        """A place for somebody who can do without: only while half of them are free."""
        free = not self._waiting and self.taken < self.most // 2
        self.taken += free
        return free

    async def take(self) -> None:
        """Wait for a place."""
        if self.taken < self.most and not self._waiting:
            self.taken += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn  # the place has been handed on to us
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Give a place back; the next one has it at once."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.taken -= 1

    async def __aenter__(self) -> None:
        await self.take()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()


class Places:
    """The shares of one line, of the streams that `streams` says."""

    def __init__(self, streams: int = STREAMS.value) -> None:
        self.following = Pool(max(streams // 2, 1))
        self.feeding = Pool(max(streams // 4, 1))
        self.asking = Pool(max(streams // 16, 1))
