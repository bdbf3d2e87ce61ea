"""Many who write to one command: nothing of theirs is lost or taken twice, and they are counted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.kit import joined, open_for_writing, run, serving, until

from towline.base.errors import LimitExceeded
from towline.base.limits import Limit
from towline.client.connect import connect
from towline.journal.spool import SpoolWriter
from towline.protocol.codec import Header
from towline.services.jobs import held as holding
from towline.services.jobs.held import Held


class House:
    """Of one job, with room for everything."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.ending: Header | None = None

    def room(self, asking: Held) -> int:
        return 1 << 30

    def grown(self, held: Held) -> None:
        pass

    def input_moved(self, held: Held, writer: str) -> None:
        pass

    def ended(self, held: Held, ending: Header) -> None:
        self.ending = ending


@asynccontextmanager
async def holding_cat(folder: Path) -> AsyncIterator[tuple[Held, int]]:
    """A `cat` that begins to read when something is written to the descriptor; it has ended at the end."""
    house, go = House(), folder / "go"
    os.mkfifo(go)
    spec = {
        "job": "one", "argv": ["sh", "-c", f"read go < {go}; exec cat"], "cwd": "/", "env": dict(os.environ),
        "stdin": True,
    }  # fmt: skip
    held = Held(house, SpoolWriter(str(folder / "spool"), 1 << 20, drop=False), spec)
    descriptor = await open_for_writing(go)
    try:
        yield held, descriptor
    finally:
        os.close(descriptor)
        held.signal(9, None)
        await until(lambda: house.ending)


def test_whoever_has_bytes_on_their_way_is_not_forgotten_for_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with holding_cat(tmp_path) as (held, go):
            held.input("first", 0, b"x" * 200_000, end=False)
            for number in range(100):
                held.input(f"other {number}", 0, b"y", end=False)
            held.input("first", 200_000, b"x" * 1000, end=False)
            os.write(go, b"go\n")
            await until(lambda: held.bytes[1] == 201_100, "all of it has come through")
            assert held.written["first"] == 201_000
            assert {held.written[f"other {number}"] for number in range(100)} == {1}

    run(scenario())


def test_one_writer_too_many_is_refused_and_who_was_silent_for_long_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "WRITERS", Limit("job_writers", 3, "writers", "a test"))

    async def scenario() -> None:
        async with holding_cat(tmp_path) as (held, go):
            os.write(go, b"go\n")
            assert [held.position(name) for name in "abc"] == [0, 0, 0]
            held.input("a", 0, b"12345", end=False)
            await until(lambda: held.position("a") == 5)
            with pytest.raises(LimitExceeded, match="Limit job_writers is 3 writers; 4 was asked for"):
                held.position("d")
            monkeypatch.setattr(holding, "WRITER_SECONDS", -1.0)
            assert held.position("d") == 0
            held.input("a", 5, b"67", end=False)  # its stream was open all the time
            await until(lambda: held.bytes[1] == 7)
            assert held.position("a") == 7

    run(scenario())


def test_a_node_forgets_writers_whose_streams_have_ended(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "node") as node:
            home = await joined(node, tmp_path / "ann", can="run")
            async with connect("home", home=home) as line:
                job = await line.start(["cat"], stdin=True)
                live = node._services._handlers["jobs"]._roster.live[job.id]  # type: ignore[attr-defined]
                for number in range(5):
                    other = line.job(job.id)
                    await other.write(b"%d" % number)
                    await until(lambda: sum(each.at for each in live.inputs.values()) == 1, "it is taken")
                    await other.close()
                    await until(lambda: not live.inputs, "it is forgotten")
                await job.write_eof()
                got = [item.data async for item in job.output()]  # type: ignore[union-attr]
                assert b"".join(got) == b"01234"

    run(scenario())
