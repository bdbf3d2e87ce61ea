"""The file back-end passes the conformance suite, durable and lazy; and what concerns its event-loop face alone."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path

import pytest

from towline.base.errors import StreamClosed
from towline.journal import START, Cursor, Log, Record, Retention
from towline.journal.aio import FileLog
from towline.journal.batch import Options

from .conformance import DEADLINE, Conformance, payloads, take


@asynccontextmanager
async def opened(folder: Path, options: Options) -> AsyncIterator[FileLog]:
    log = await FileLog.open(str(folder), options)
    try:
        yield log
    finally:
        await log.close()


class TestDurable(Conformance):
    """Group commit."""

    def open(self, folder: Path, *, keep_records: int | None = None) -> AbstractAsyncContextManager[Log]:
        return opened(folder, Options(retention=Retention(max_records=keep_records)))


class TestLazy(Conformance):
    """Written at once, fsync later."""

    def open(self, folder: Path, *, keep_records: int | None = None) -> AbstractAsyncContextManager[Log]:
        return opened(folder, Options(durable=False, retention=Retention(max_records=keep_records)))


class TestSmallSegmentsAndNoMemory(Conformance):
    """Everything comes from the files, and from many of them."""

    def open(self, folder: Path, *, keep_records: int | None = None) -> AbstractAsyncContextManager[Log]:
        options = Options(segment_bytes=300, cache_bytes=0, retention=Retention(max_records=keep_records))
        return opened(folder, options)


def test_two_thousand_followers_all_get_a_record_and_share_one_copy(tmp_path: Path) -> None:
    async def use() -> None:
        async with opened(tmp_path / "log", Options()) as log, asyncio.timeout(DEADLINE):

            async def one() -> Record:
                async with aclosing(log.follow(log.end)) as stream:  # type: ignore[type-var]
                    (item,) = await take(stream, 1)
                assert isinstance(item, Record)
                return item

            followers = [asyncio.ensure_future(one()) for _ in range(2000)]
            await asyncio.sleep(0)
            await log.append(1, b"to all")
            records = await asyncio.gather(*followers)
            assert {record.payload for record in records} == {b"to all"}
            assert len({id(record) for record in records}) == 1

    asyncio.run(use())


def test_appends_of_many_logs_share_the_committers_threads(tmp_path: Path) -> None:
    async def use() -> None:
        logs = [await FileLog.open(str(tmp_path / str(i))) for i in range(200)]
        try:
            async with asyncio.timeout(DEADLINE):
                assert set(await asyncio.gather(*(log.append(1, b"x") for log in logs))) == {1}
            assert sum(thread.name.startswith("committer") for thread in threading.enumerate()) <= 2
        finally:
            for log in logs:
                await log.close()

    asyncio.run(use())


def test_a_cancelled_append_hurts_nobody(tmp_path: Path) -> None:
    async def use() -> None:
        async with opened(tmp_path / "log", Options()) as log, asyncio.timeout(DEADLINE):
            first = asyncio.ensure_future(log.append(1, b"a"))
            await asyncio.sleep(0)
            first.cancel()
            assert await log.append(1, b"b") == 2  # the first was on its way already
            assert payloads(await log.read(START)) == [b"a", b"b"]

    asyncio.run(use())


def test_appending_more_than_may_be_pending_waits_and_keeps_the_order(tmp_path: Path) -> None:
    async def use() -> None:
        async with opened(tmp_path / "log", Options(pending_bytes=1000)) as log, asyncio.timeout(DEADLINE):
            seqs = await asyncio.gather(*(log.append(1, b"%03d" % i * 100) for i in range(100)))
            assert sorted(seqs) == list(range(1, 101))

    asyncio.run(use())


def test_a_closed_log_refuses(tmp_path: Path) -> None:
    async def use() -> None:
        log = await FileLog.open(str(tmp_path / "log"))
        await log.close()
        await log.close()
        with pytest.raises(StreamClosed):
            await log.append(1, b"late")

    asyncio.run(use())


def test_a_slow_follower_costs_a_position_and_not_its_backlog(tmp_path: Path) -> None:
    async def use() -> None:
        async with (
            opened(tmp_path / "log", Options(cache_bytes=64 << 10)) as log,
            asyncio.timeout(DEADLINE),
            aclosing(log.follow(START)) as slow,  # type: ignore[type-var]
        ):
            await log.append(1, b"begin")
            await take(slow, 1)
            for i in range(40):
                await asyncio.gather(*(log.append(1, b"%09d" % i + bytes(50_000)) for _ in range(4)))
            gc.collect()
            held = sum(len(o.payload) for o in gc.get_objects() if isinstance(o, Record))
            assert held < 1 << 20  # of 8 MB
            assert len(await take(slow, 160)) == 160

    asyncio.run(use())


def test_following_from_a_position_across_a_restart(tmp_path: Path) -> None:
    async def use() -> None:
        cursor = START
        for round_ in range(3):
            async with opened(tmp_path / "log", Options()) as log, asyncio.timeout(DEADLINE):
                await log.append(1, b"%d" % round_)
                async with aclosing(log.follow(cursor)) as stream:  # type: ignore[type-var]
                    (item,) = await take(stream, 1)
                assert payloads([item]) == [b"%d" % round_]
                cursor = item.next
        assert cursor == Cursor(cursor.epoch, 4)

    asyncio.run(use())
