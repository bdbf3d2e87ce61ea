"""Whoever cancels waits for the threads that worked for it, and nothing stays open."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.kit import until
from tests.transfers.kit import Town, write

from towline.base.errors import ConnectionLost, NotFound
from towline.base.limits import STREAMS
from towline.client.line import Line
from towline.client.put import Put
from towline.client.transfer import Options
from towline.node import NodeConfig
from towline.protocol.table import Class
from towline.services.files.digests import DigestCache
from towline.services.files.shares import Shares
from towline.services.files.sources import TreeSource
from towline.services.files.tree import Root


class Slow(TreeSource):
    """Counting takes until it is interrupted."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Root.open(str(folder)), "", links="skip", digests=DigestCache())
        self.counting = threading.Event()
        self.over = threading.Event()
        self.course: list[str] = []

    def totals(self) -> tuple[int, int]:
        self.counting.set()
        self.over.wait(20)
        self.course.append("counted")
        return super().totals()

    def interrupt(self) -> None:
        super().interrupt()
        self.over.set()

    def close(self) -> None:
        self.course.append("closed")
        super().close()


def test_a_put_that_is_cancelled_while_it_counts(town: Town, tmp_path: Path) -> None:
    write(tmp_path / "t" / "file", b"content")
    source = Slow(tmp_path / "t")

    async def work(line: Line) -> None:
        put = asyncio.ensure_future(Put(line, "files", "t", lambda: source, Options(), lambda _: None).run())
        await until(source.counting.is_set)
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put

    try:
        town.with_line(work)
        assert source.course == ["counted", "closed"]
    finally:
        source.over.set()


def test_counting_ends_when_it_is_interrupted(tmp_path: Path) -> None:
    write(tmp_path / "file", b"content")
    with Root.open(str(tmp_path)) as root:
        source = TreeSource(root, "", links="skip", digests=DigestCache())
        source.interrupt()
        with pytest.raises(ConnectionLost):
            source.totals()


class SlowShares(Shares):
    """Opening takes until it may."""

    def __init__(self, shares: Shares) -> None:
        self.__dict__.update(shares.__dict__)
        self.opening = threading.Event()
        self.may = threading.Event()

    def open(self, *args: Any, **options: Any) -> Root:
        self.opening.set()
        self.may.wait(20)
        return super().open(*args, **options)


def test_gets_that_fail_on_this_side_leave_no_stream_open(town: Town, tmp_path: Path) -> None:
    """Of its streams, and of a person's tickets, one was lost with each."""
    write(town.share / "file", b"content")

    async def work(line: Line) -> None:
        for _ in range(STREAMS.value + 2):
            with pytest.raises(NotFound):
                await line.get("files/file", str(tmp_path / "none" / "file"))
        await line.get("files/file", str(tmp_path / "file"))

    town.with_line(work)
    assert (tmp_path / "file").read_bytes() == b"content"


@pytest.mark.parametrize("op", ["get", "put", "list"])
def test_a_request_that_is_taken_back_while_the_share_is_opened_leaves_nothing_open(town: Town, op: str) -> None:
    write(town.share / "t" / "file", b"content")
    request = {"service": "files", "op": op, "share": "files", "path": "t", "kind": "dir", "transfer": "t"}
    town.node.config = NodeConfig(town.node.config.data, orphan=0.0)
    service: Any = town.node._services.find("files")
    service._shares = slow = SlowShares(service._shares)

    async def work(line: Line) -> None:
        connection = await line.connection()
        before = len(os.listdir("/proc/self/fd"))
        channel = connection.open(request, Class.CHAT)
        await until(slow.opening.is_set)
        channel.reset()
        assert await line.shares()  # asked behind it, answered after it was cancelled
        slow.may.set()
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before, "all is closed")

    try:
        town.with_line(work)
    finally:
        slow.may.set()
