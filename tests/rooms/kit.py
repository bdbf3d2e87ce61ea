"""What tests of rooms share: collecting what a follower sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.kit import until

from towline.client.line import Line
from towline.client.rooms import Room
from towline.services.rooms.messages import Item, Signal


class Listener:
    """Follows a room in a task of its own, and keeps what it saw."""

    def __init__(self, room: Room, since: Any = None, **options: Any) -> None:
        self.room = room
        self.items: list[Item] = []
        self.signals: list[Signal] = []
        self.opened = 0
        self.task = asyncio.create_task(self._follow(since, options))

    async def _follow(self, since: Any, options: dict[str, Any]) -> None:
        async for item in self.room.follow(since, on_signal=self.signals.append, on_open=self._on_open, **options):
            self.items.append(item)

    def _on_open(self, _: object) -> None:
        self.opened += 1

    @property
    def texts(self) -> list[str]:
        return [item.text for item in self.items]

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        await until(lambda: condition() or self.task.done(), what)
        if self.task.done():
            await self.task

    async def ready(self) -> None:
        await self.until(lambda: self.opened, "the room is open")

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


@asynccontextmanager
async def listening(room: Room, since: Any = None, **options: Any) -> AsyncIterator[Listener]:
    listener = Listener(room, since, **options)
    try:
        await listener.ready()
        yield listener
    finally:
        await listener.stop()


async def texts_of(line: Line, room: str, **options: Any) -> list[str]:
    return [item.text async for item in line.room(room).history(**options)]
