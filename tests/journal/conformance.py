"""What every journal back-end must do. A back-end's test module subclasses `Conformance` and says how to open one.

    class TestMine(Conformance):
        def open(self, folder, *, keep_records=None) -> contextlib.AbstractAsyncContextManager[Log]: ...

`folder` names one log: opening it again after closing finds what was kept. Each test runs in a loop of its own.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path

import pytest

from towline.base.errors import CursorFromFuture, IdReused, LimitExceeded
from towline.journal import START, Cursor, Gap, Log, Record

DEADLINE = 20.0


def payloads(items: Sequence[object]) -> list[bytes]:
    assert all(isinstance(item, Record) for item in items), items
    return [item.payload for item in items if isinstance(item, Record)]


async def read_all(log: Log, from_: Cursor = START, **limits: int) -> list[Record | Gap]:
    items: list[Record | Gap] = []
    while got := await log.read(from_, **limits):
        items += got
        from_ = got[-1].next
    return items


async def take(stream: AsyncIterator[Record | Gap], count: int) -> list[Record | Gap]:
    items: list[Record | Gap] = []
    async with asyncio.timeout(DEADLINE):
        while len(items) < count:
            items.append(await anext(stream))
    return items


class Conformance:
    """Inherit, and define `open`."""

    def open(self, folder: Path, *, keep_records: int | None = None) -> AbstractAsyncContextManager[Log]:
        """Open the log named by `folder`; with `keep_records` it keeps at least that many, and soon not many more."""
        raise NotImplementedError

    def run(self, folder: Path, use: Callable[[Log], Awaitable[None]], *, keep_records: int | None = None) -> None:
        async def opened() -> None:
            async with asyncio.timeout(DEADLINE), self.open(folder, keep_records=keep_records) as log:
                await use(log)

        asyncio.run(opened())

    def test_a_new_log_is_empty_and_begins_at_one(self, tmp_path: Path) -> None:
        async def use(log: Log) -> None:
            assert log.epoch > 0
            assert log.end == log.floor == Cursor(log.epoch, 1)
            assert list(await log.read(START)) == []
            assert list(await log.read(log.end)) == []

        self.run(tmp_path / "log", use)

    def test_what_was_appended_is_read_in_order_with_dense_seqs(self, tmp_path: Path) -> None:
        async def use(log: Log) -> None:
            assert [await log.append(i, b"%d" % i, id=b"id%d" % i) for i in range(20)] == list(range(1, 21))
            items = await read_all(log)
            assert [(r.seq, r.kind, r.id, r.payload) for r in items if isinstance(r, Record)] == [
                (i + 1, i, b"id%d" % i, b"%d" % i) for i in range(20)
            ]
            assert {item.epoch for item in items if isinstance(item, Record)} == {log.epoch}
            times = [item.time_ns for item in items if isinstance(item, Record)]
            assert times == sorted(times)
            assert times[0] > 1_500_000_000 * 10**9
            assert log.end == items[-1].next == Cursor(log.epoch, 21)

        self.run(tmp_path / "log", use)

    @pytest.mark.parametrize("payload", [b"", b"\0" * 1000, bytes(range(256)) * 300])
    def test_payloads_are_opaque(self, tmp_path: Path, payload: bytes) -> None:
        async def use(log: Log) -> None:
            await log.append(255, payload)
            assert payloads(await log.read(START)) == [payload]

        self.run(tmp_path / "log", use)

    def test_it_is_all_there_after_opening_again(self, tmp_path: Path) -> None:
        epochs = []

        async def first(log: Log) -> None:
            epochs.append(log.epoch)
            await asyncio.gather(*(log.append(1, b"%d" % i) for i in range(50)))

        async def second(log: Log) -> None:
            assert log.epoch == epochs[0]
            assert await log.append(1, b"50") == 51
            assert payloads(await read_all(log)) == [b"%d" % i for i in range(51)]

        self.run(tmp_path / "log", first)
        self.run(tmp_path / "log", second)

    def test_concurrent_appends_each_get_their_own_seq(self, tmp_path: Path) -> None:
        async def use(log: Log) -> None:
            seqs = await asyncio.gather(*(log.append(1, b"%d" % i) for i in range(300)))
            assert sorted(seqs) == list(range(1, 301))
            items = await read_all(log)
            assert all(isinstance(r, Record) and seqs[int(r.payload)] == r.seq for r in items)

        self.run(tmp_path / "log", use)

    def test_the_same_id_and_payload_is_one_record(self, tmp_path: Path) -> None:
        async def use(log: Log) -> None:
            seqs = await asyncio.gather(*(log.append(1, b"once", id=b"me") for _ in range(10)))
            assert set(seqs) == {1}
            assert await log.append(1, b"other", id=b"you") == 2
            assert await log.append(1, b"once", id=b"me") == 1
            assert len(await read_all(log)) == 2

        async def again(log: Log) -> None:
            assert await log.append(1, b"once", id=b"me") == 1
            with pytest.raises(IdReused):
                await log.append(1, b"twice", id=b"me")
            assert await log.append(1, b"third") == 3

        self.run(tmp_path / "log", use)
        self.run(tmp_path / "log", again)

    def test_many_at_once_each_get_their_seq_or_are_refused_by_themselves(self, tmp_path: Path) -> None:
        large = bytes((1 << 20) + 1)

        async def use(log: Log) -> None:
            assert await log.append_many(1, []) == []
            assert await log.append_many(1, [(b"a", b"1"), (b"", b"2"), (b"c", b"3")]) == [1, 2, 3]
            mixed = [(b"d", b"4"), (b"a", b"1"), (b"a", b"other"), (b"e", large), (bytes(65), b""), (b"d", b"4"),
                     (b"d", b"other"), (b"", b"2"), (b"f", b"6")]  # fmt: skip
            first, known, reused, too_large, long_id, twice, other, plain, last = await log.append_many(1, mixed)
            assert (first, known, twice, plain, last) == (4, 1, 4, 5, 6)
            assert isinstance(reused, IdReused)
            assert isinstance(other, IdReused)
            assert isinstance(too_large, LimitExceeded)
            assert isinstance(long_id, LimitExceeded)
            assert await log.append_many(1, [(b"a", b"1"), (b"f", b"6")]) == [1, 6]  # nothing new among them
            assert payloads(await read_all(log)) == [b"1", b"2", b"3", b"4", b"2", b"6"]

        async def again(log: Log) -> None:  # sent again in part, with some that are new
            entries = [(b"f", b"6"), (b"g", b"7"), (b"d", b"4"), (b"h", b"8")]
            assert await log.append_many(1, entries) == [6, 7, 4, 8]
            assert await log.append_many(1, entries) == [6, 7, 4, 8]
            assert payloads(await read_all(log))[6:] == [b"7", b"8"]

        self.run(tmp_path / "log", use)
        self.run(tmp_path / "log", again)

    def test_batches_of_several_writers_are_each_in_their_order(self, tmp_path: Path) -> None:
        async def use(log: Log) -> None:
            batches = [[(b"%d/%d" % (w, i), b"%d/%d" % (w, i)) for i in range(20)] for w in range(10)]
            seqs = await asyncio.gather(*(log.append_many(1, batch) for batch in batches))
            assert all(each == sorted(each) for each in seqs)  # type: ignore[type-var]
            assert sorted(seq for each in seqs for seq in each) == list(range(1, 201))  # type: ignore[type-var]
            assert await asyncio.gather(*(log.append_many(1, batch) for batch in batches)) == seqs
            assert len(await read_all(log)) == 200

        self.run(tmp_path / "log", use)

    def test_an_id_with_another_payload_is_refused_and_nothing_is_kept(self, tmp_path: Path) -> None:
        async def use(log: Log) -> None:
            await log.append(1, b"a", id=b"x")
            with pytest.raises(IdReused):
                await log.append(1, b"b", id=b"x")
            assert payloads(await read_all(log)) == [b"a"]

        self.run(tmp_path / "log", use)

    def test_records_without_id_may_repeat(self, tmp_path: Path) -> None:
        async def use(log: Log) -> None:
            assert [await log.append(1, b"same") for _ in range(3)] == [1, 2, 3]

        self.run(tmp_path / "log", use)

    def test_too_large_is_refused_by_name(self, tmp_path: Path) -> None:
        async def use(log: Log) -> None:
            with pytest.raises(LimitExceeded, match="journal_record"):
                await log.append(1, bytes((1 << 20) + 1))
            with pytest.raises(LimitExceeded, match="journal_id"):
                await log.append(1, b"", id=bytes(65))
            assert log.end.seq == 1

        self.run(tmp_path / "log", use)

    def test_reading_respects_limits_and_gives_at_least_one(self, tmp_path: Path) -> None:
        async def use(log: Log) -> None:
            for i in range(10):
                await log.append(1, b"%d" % i * 1000)
            assert len(await log.read(START, limit_records=3)) == 3
            assert len(await log.read(START, limit_bytes=2500)) == 2
            assert len(await log.read(START, limit_bytes=1)) == 1
            assert len(await read_all(log, limit_bytes=1)) == 10
            assert [r.seq for r in await log.read(Cursor(log.epoch, 9)) if isinstance(r, Record)] == [9, 10]

        self.run(tmp_path / "log", use)

    def test_a_position_in_the_future_is_refused(self, tmp_path: Path) -> None:
        async def use(log: Log) -> None:
            await log.append(1, b"a")
            assert list(await log.read(Cursor(log.epoch, 2))) == []
            with pytest.raises(CursorFromFuture):
                await log.read(Cursor(log.epoch, 3))

        self.run(tmp_path / "log", use)

    def test_a_position_of_another_log_gets_one_gap(self, tmp_path: Path) -> None:
        async def use(log: Log) -> None:
            await log.append(1, b"a")
            foreign = Cursor(log.epoch ^ 1, 77)
            items = await read_all(log, foreign)
            assert items[0] == Gap(foreign, Cursor(log.epoch, 1), "unknown-epoch")
            assert payloads(items[1:]) == [b"a"]

        self.run(tmp_path / "log", use)

    def test_follow_gives_history_then_what_comes(self, tmp_path: Path) -> None:
        async def use(log: Log) -> None:
            await log.append(1, b"old")
            async with aclosing(log.follow(START)) as stream:  # type: ignore[type-var]
                assert payloads(await take(stream, 1)) == [b"old"]
                waiting = asyncio.ensure_future(take(stream, 2))
                await log.append(1, b"new")
                await log.append(1, b"newer")
                assert payloads(await waiting) == [b"new", b"newer"]

        self.run(tmp_path / "log", use)

    def test_every_follower_gets_everything_whenever_it_joins(self, tmp_path: Path) -> None:
        async def follower(log: Log, from_: Cursor, count: int) -> list[bytes]:
            async with aclosing(log.follow(from_)) as stream:  # type: ignore[type-var]
                return payloads(await take(stream, count))

        async def use(log: Log) -> None:
            choice = random.Random(1)
            tasks = []
            for i in range(200):
                if i % 10 == 0:
                    seq = choice.randrange(1, i + 2)
                    tasks.append((seq, asyncio.ensure_future(follower(log, Cursor(log.epoch, seq), 201 - seq))))
                await log.append(1, b"%d" % i)
            for seq, task in tasks:
                assert await task == [b"%d" % i for i in range(seq - 1, 200)]

        self.run(tmp_path / "log", use)

    def test_a_follower_that_reads_nothing_holds_up_nobody(self, tmp_path: Path) -> None:
        async def use(log: Log) -> None:
            async with aclosing(log.follow(START)) as slow:  # type: ignore[type-var]
                await log.append(1, b"first")
                await take(slow, 1)
                async with aclosing(log.follow(START)) as quick:  # type: ignore[type-var]
                    for i in range(100):
                        await log.append(1, bytes(20_000) + b"%d" % i)
                        await take(quick, 1)
                rest = payloads(await take(slow, 100))
                assert [int(payload[20_000:]) for payload in rest] == list(range(100))

        self.run(tmp_path / "log", use)

    def test_closing_ends_followers(self, tmp_path: Path) -> None:
        async def use(log: Log) -> None:
            async def all_of_it() -> list[Record | Gap]:
                return [item async for item in log.follow(START)]

            following = asyncio.ensure_future(all_of_it())
            await log.append(1, b"a")
            await log.close()
            assert payloads(await following) == [b"a"]

        self.run(tmp_path / "log", use)

    def test_what_retention_dropped_is_a_named_gap(self, tmp_path: Path) -> None:
        async def use(log: Log) -> None:
            for i in range(100):
                await log.append(1, b"%d" % i)
            floor = log.floor.seq
            assert 100 - 40 <= floor <= 81  # at least 20 are kept, and not twice as many
            items = await read_all(log)
            assert items[0] == Gap(Cursor(log.epoch, 1), Cursor(log.epoch, floor), "retention")
            assert payloads(items[1:]) == [b"%d" % i for i in range(floor - 1, 100)]
            assert payloads(await read_all(log, log.floor)) == payloads(items[1:])
            late = Cursor(log.epoch, floor - 5)
            assert (await log.read(late))[0] == Gap(late, log.floor, "retention")

        self.run(tmp_path / "log", use, keep_records=20)

    def test_an_id_is_known_for_the_life_of_the_log(self, tmp_path: Path) -> None:
        async def use(log: Log) -> None:
            for i in range(100):
                await log.append(1, b"%d" % i, id=b"id-%d" % i)
            assert log.floor.seq > 3
            assert await log.append(1, b"2", id=b"id-2") == 3
            with pytest.raises(IdReused):
                await log.append(1, b"changed", id=b"id-2")

        async def again(log: Log) -> None:
            assert await log.append(1, b"2", id=b"id-2") == 3
            assert await log.append(1, b"99", id=b"id-99") == 100
            with pytest.raises(IdReused):
                await log.append(1, b"changed", id=b"id-2")
            assert log.end.seq == 101

        self.run(tmp_path / "log", use, keep_records=20)
        self.run(tmp_path / "log", again, keep_records=20)

    def test_release_never_takes_what_was_not_released(self, tmp_path: Path) -> None:
        async def use(log: Log) -> None:
            for i in range(50):
                await log.append(1, b"%d" % i)
            await log.release(30)
            assert log.floor.seq <= 31
            assert payloads(await read_all(log, Cursor(log.epoch, 31))) == [b"%d" % i for i in range(30, 50)]

        self.run(tmp_path / "log", use)
