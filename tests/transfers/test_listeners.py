"""A program that listens to a transfer and fails: the transfer ends with its error, and the line goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.kit import until
from tests.transfers.kit import KIB, Town, rubbish, write

from towline.client.events import Done, FileDone, FileFailed, Progress, Resumed, Started, Warned
from towline.client.line import Line
from towline.client.transfer import Options


class Bug(Exception):
    """Of the program that listens."""


def failing_at(kind: type[object]) -> Callable[[object], None]:
    def hear(event: object) -> None:
        if isinstance(event, kind):
            raise Bug(kind.__name__)

    return hear


def a_tree(folder: Path) -> Path:
    """Something of everything: small, large, a symlink."""
    for number in range(30):
        write(folder / f"{number}", b"%d" % number)
    write(folder / "large", rubbish(300 * KIB))
    (folder / "link").symlink_to("large")
    return folder


@pytest.mark.parametrize("kind", [Started, FileDone, Warned, Done])
@pytest.mark.parametrize("verb", ["put", "get"])
def test_an_error_of_the_listener_is_the_callers(town: Town, tmp_path: Path, verb: str, kind: type[object]) -> None:
    here, there = a_tree(tmp_path / "here"), a_tree(town.share / "there")

    async def work(line: Line) -> None:
        hear = failing_at(kind)
        with pytest.raises(Bug, match=kind.__name__):
            if verb == "put":
                await line.put(str(here), "files/new", on_event=hear)
            else:
                await line.get("files/there", str(tmp_path / "new"), on_event=hear)
        connection = await line.connection()
        await until(lambda: not connection.session.streams, "no stream is left open")
        assert (await line.put(str(here), "files/new")).files == 31

    town.with_line(work)
    assert there.exists()


def test_also_while_files_fail(town: Town, tmp_path: Path) -> None:
    a_tree(town.share / "t")
    for number in range(30):
        write(tmp_path / "t" / f"{number}", b"other")

    async def work(line: Line) -> None:
        with pytest.raises(Bug):
            await line.get("files/t", str(tmp_path), on_event=failing_at(FileFailed))

    town.with_line(work)


@pytest.mark.parametrize("verb", ["put", "get"])
def test_also_between_two_files(town: Town, tmp_path: Path, verb: str) -> None:
    """It is told while a file is under way, and that is when the transfer ends."""
    write(tmp_path / "large", rubbish(3000 * KIB))
    write(town.share / "there", rubbish(3000 * KIB))
    slow = Options(rate=1000 * KIB)

    async def work(line: Line) -> None:
        hear = failing_at(Progress)
        with pytest.raises(Bug):
            if verb == "put":
                await line.put(str(tmp_path / "large"), "files/new", options=slow, on_event=hear)
            else:
                await line.get("files/there", str(tmp_path / "new"), options=slow, on_event=hear)

    town.with_line(work)
    assert not (town.share / "new").exists()
    assert not (tmp_path / "new").exists()


def test_also_when_it_goes_on_after_a_cut(town: Town, tmp_path: Path) -> None:
    write(town.share / "large", rubbish(3000 * KIB))
    under_way = asyncio.Event()

    def hear(event: object) -> None:
        if isinstance(event, Resumed):
            raise Bug
        if isinstance(event, Progress) and event.bytes:
            under_way.set()

    async def work(line: Line) -> None:
        options = Options(rate=1000 * KIB)
        getting = asyncio.ensure_future(
            line.get("files/large", str(tmp_path / "large"), options=options, on_event=hear)
        )
        await under_way.wait()
        (await line.connection()).abort()
        with pytest.raises(Bug):
            await getting

    town.with_line(work)
