"""Work on a disk that takes long keeps nobody else waiting, not even at the door."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests import kit

import towline
from towline.client.transfer import Options
from towline.services.files.sinks import TreeSink
from towline.services.files.tree import Root


async def _put(line: towline.Line, here: Path) -> None:
    (here / "big").write_bytes(b"two")
    await line.put(str(here / "big"), "files/big", options=Options(overwrite="always"))


async def _remove(line: towline.Line, here: Path) -> None:
    await line.remove("files/big")


@pytest.mark.parametrize(
    ("slow", "name", "act"),
    [(TreeSink, "existing_digest", _put), (Root, "remove", _remove)],
    ids=["a digest", "a removal"],
)
def test_others_are_let_in_and_served_meanwhile(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    slow: type,
    name: str,
    act: Callable[[towline.Line, Path], Coroutine[Any, Any, None]],
) -> None:
    begun, may_end = threading.Event(), threading.Event()
    quick = getattr(slow, name)

    def slowly(*args: Any, **kwargs: Any) -> Any:
        begun.set()
        may_end.wait(kit.DEADLINE)
        return quick(*args, **kwargs)

    async def talk() -> None:
        # One thread for all: one that stays away is as bad as many are for a real node.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        async with kit.serving(tmp_path / "n") as node:
            (tmp_path / "n" / "files" / "big").write_bytes(b"one")
            ann = await kit.joined(node, tmp_path / "ann")
            bob = await kit.joined(node, tmp_path / "bob", "bob")
            async with towline.connect("home", home=ann) as line:
                acting = asyncio.ensure_future(act(line, tmp_path))
                await kit.until(begun.is_set, "the work on the disk")
                try:
                    async with asyncio.timeout(kit.DEADLINE / 2), towline.connect("home", home=bob) as other:
                        assert (await other.stat("files/big")).size == 3
                    assert not acting.done()
                finally:
                    may_end.set()
                await acting

    monkeypatch.setattr(slow, name, slowly)
    kit.run(talk())
