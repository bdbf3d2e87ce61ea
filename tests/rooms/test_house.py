"""The house: one room is open once, whoever comes when."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.kit import finished, run

from towline.base.limits import Limit
from towline.services.rooms import house as house_module
from towline.services.rooms.house import House
from towline.services.rooms.limits import ROOM_OPEN
from towline.store import Store
from towline.trust.grants import Grants

CHAT = Grants.parse("chat")


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[House]:
    folder.chmod(0o700)
    with Store.open(str(folder)) as store:
        house = House(store, str(folder))
        await house.start()
        try:
            yield house
        finally:
            await house.close()


def test_a_room_that_was_opened_while_somebody_looked_for_it_is_not_opened_again(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path) as house:
            go_on, original, slow = threading.Event(), house._row, []

            def row(*arguments: Any) -> Any:
                found = original(*arguments)
                if not slow:
                    slow.append(True)
                    assert go_on.wait(10)
                return found

            house._row = row  # type: ignore[method-assign]
            late = asyncio.create_task(house.find("lobby", "ann", CHAT))
            await asyncio.sleep(0)
            while not slow:
                await asyncio.sleep(0)
            room = await house.find("lobby", "bob", CHAT)
            go_on.set()
            assert await finished(late) is room

    run(work())


def test_idle_rooms_are_closed_when_many_are_open_and_open_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house_module, "ROOM_OPEN", Limit("room_open", 4, ROOM_OPEN.unit, ROOM_OPEN.reason))

    async def work() -> None:
        async with opened(tmp_path) as house:
            for number in range(12):
                room = await house.find(f"room{number}", "ann", CHAT, create=True)
                assert await room.append(b'{"id":"","kind":"notice","from":"ann","text":"x"}') == 1
                room.used_at -= 10
            assert len(house._rooms) <= 5
            found = await asyncio.gather(*(house.find("room0", "ann", CHAT) for _ in range(10)))
            assert len(set(map(id, found))) == 1
            assert await found[0].append(b'{"id":"","kind":"notice","from":"ann","text":"y"}') == 2

    run(work())
