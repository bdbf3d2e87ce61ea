"""Who may do what, where paths may lead, and who wins when two write one file."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.kit import DEADLINE
from tests.transfers.kit import KIB, MIB, Heard, Town, partials, rubbish, seen, write

from towline.base.errors import (
    Conflict,
    IsADirectory,
    NoGrant,
    NotADirectory,
    NotFound,
    PathRefused,
    ReadOnlyShare,
    Superseded,
    TowlineError,
    UnknownShare,
    UsageError,
)
from towline.base.limits import STREAMS
from towline.client.events import Progress
from towline.client.line import Line
from towline.node import Share


@pytest.fixture
def shares(tmp_path: Path) -> Iterator[Town]:
    """Two shares: `files`, and `papers` that is read-only."""
    (tmp_path / "papers").mkdir()
    write(tmp_path / "papers" / "one", b"1")
    (tmp_path / "share").mkdir()
    town = Town(tmp_path, Share("files", str(tmp_path / "share")), Share("papers", str(tmp_path / "papers"), True))
    try:
        yield town
    finally:
        town.close()


def refused(kind: type[TowlineError], do: Callable[[], object]) -> TowlineError:
    with pytest.raises(kind) as caught:
        do()
    return caught.value


def test_a_read_only_share(shares: Town, tmp_path: Path) -> None:
    write(tmp_path / "mine", b"x")
    before = seen(tmp_path / "papers")
    error = refused(ReadOnlyShare, lambda: shares.put(tmp_path / "mine", "papers/new"))
    assert error.exit_status == 3
    refused(ReadOnlyShare, lambda: shares.put(tmp_path / "papers", "papers/"))
    refused(ReadOnlyShare, lambda: shares.with_line(lambda line: line.mkdir("papers/new")))
    refused(ReadOnlyShare, lambda: shares.with_line(lambda line: line.remove("papers/one")))
    refused(ReadOnlyShare, lambda: shares.with_line(lambda line: line.move("papers/one", "papers/two")))
    assert seen(tmp_path / "papers") == before
    shares.get("papers/one", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"1"
    assert shares.with_line(lambda line: line.shares()) == [("files", False), ("papers", True)]


def test_without_a_grant(shares: Town, tmp_path: Path) -> None:
    write(tmp_path / "mine", b"x")
    write(shares.share / "there", b"x")
    reader, writer = shares.home("reader", "read"), shares.home("writer", "write")
    nobody, one = shares.home("nobody", "chat"), shares.home("one", "read=papers")
    error = refused(NoGrant, lambda: shares.put(tmp_path / "mine", "files/new", home=reader))
    assert error.exit_status == 3
    refused(NoGrant, lambda: shares.get("files/there", tmp_path / "got", home=writer))
    assert not shares.put(tmp_path / "mine", "files/new", home=writer).failures
    assert not shares.get("files/there", tmp_path / "got", home=reader).failures
    refused(UnknownShare, lambda: shares.get("files/there", tmp_path / "got2", home=nobody))
    refused(UnknownShare, lambda: shares.get("files/there", tmp_path / "got2", home=one))
    assert not shares.get("papers/one", tmp_path / "got3", home=one).failures
    assert shares.with_line(lambda line: line.shares(), home=one) == [("papers", True)]
    assert shares.with_line(lambda line: line.shares(), home=nobody) == []


def test_unknown_shares_and_paths(shares: Town, tmp_path: Path) -> None:
    write(tmp_path / "mine", b"x")
    assert refused(UnknownShare, lambda: shares.put(tmp_path / "mine", "nowhere/x")).exit_status == 4
    refused(UnknownShare, lambda: shares.get("nowhere/x", tmp_path / "got"))
    refused(NotFound, lambda: shares.get("files/nothing", tmp_path / "got"))
    refused(NotFound, lambda: shares.put(tmp_path / "nothing", "files/x"))
    refused(NotFound, lambda: shares.with_line(lambda line: line.stat("files/nothing")))
    refused(NotFound, lambda: shares.with_line(lambda line: line.remove("files/nothing")))
    write(shares.share / "file", b"x")
    refused(NotADirectory, lambda: shares.get("files/file/below", tmp_path / "got"))
    refused(NotADirectory, lambda: shares.put(tmp_path / "mine", "files/file/below"))
    refused(UsageError, lambda: shares.with_line(lambda line: line.move("files/file", "papers/file")))
    assert not os.path.lexists(tmp_path / "got")


@pytest.mark.parametrize("path", ["../out", "a/../../out", "/etc/passwd", "..", "./x", "a//b", "a/./b", "x\0y"])
def test_paths_that_climb_out(town: Town, tmp_path: Path, path: str) -> None:
    write(tmp_path / "mine", b"mine")
    write(tmp_path / "out", b"out")
    (town.share / "a").mkdir()
    before = seen(tmp_path / "share")
    for do in (
        lambda: town.put(tmp_path / "mine", f"files/{path}", overwrite="always").failures[0],
        lambda: town.get(f"files/{path}", tmp_path / "got"),
        lambda: town.with_line(lambda line: line.stat(f"files/{path}")),
        lambda: town.with_line(lambda line: line.remove(f"files/{path}", recursive=True)),
        lambda: town.with_line(lambda line: line.mkdir(f"files/{path}", parents=True)),
        lambda: town.with_line(lambda line: line.move("files/a", f"files/{path}")),
        lambda: town.with_line(lambda line: _listing(line, f"files/{path}")),
    ):
        try:
            result = do()
        except TowlineError as error:
            result = error
        assert isinstance(result, PathRefused), (result, path)
    assert seen(tmp_path / "share") == before
    assert (tmp_path / "out").read_bytes() == b"out"


async def _listing(line: Line, path: str) -> list[str]:
    return [entry.name async for entry in line.list(path)]


def test_symlinks_on_the_way_are_not_followed_on_the_node(town: Town, tmp_path: Path) -> None:
    write(tmp_path / "outside" / "secret", b"secret")
    write(tmp_path / "mine", b"mine")
    (town.share / "link").symlink_to(tmp_path / "outside")
    (town.share / "inner").symlink_to(".")
    for way in ("link", "inner"):
        refused(PathRefused, lambda way=way: town.get(f"files/{way}/secret", tmp_path / "got"))  # type: ignore[misc]
        refused(PathRefused, lambda way=way: town.put(tmp_path / "mine", f"files/{way}/new"))  # type: ignore[misc]
        write(tmp_path / "tree" / "new", b"x")
        refused(PathRefused, lambda way=way: town.put(tmp_path / "tree", f"files/{way}/t"))  # type: ignore[misc]
    assert set(seen(tmp_path / "outside")) == {b".", b"secret"}
    assert not (tmp_path / "got").exists()


def test_symlinks_on_the_way_are_not_followed_at_the_client(town: Town, tmp_path: Path) -> None:
    """A tree that is got does not go through symlinks that are in its place; the user's own path may."""
    write(town.share / "t" / "sub" / "file", b"new")
    write(tmp_path / "outside" / "file", b"old")
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "sub").symlink_to(tmp_path / "outside")
    heard = Heard()
    done = town.get("files/t", str(tmp_path / "back") + "/../back", overwrite="always", heard=heard)
    assert (tmp_path / "back" / "t" / "sub" / "file").read_bytes() == b"new"
    os.rename(tmp_path / "back" / "t", tmp_path / "gone")
    (tmp_path / "back" / "t").mkdir()
    (tmp_path / "back" / "t" / "sub").symlink_to(tmp_path / "outside")
    done = town.get("files/t", tmp_path / "back", overwrite="always", heard=heard)
    assert done.failures
    assert (tmp_path / "outside" / "file").read_bytes() == b"old"
    (tmp_path / "door").symlink_to(tmp_path / "back")
    assert not town.get("files/t/sub/file", tmp_path / "door" / "f").failures
    assert (tmp_path / "back" / "f").read_bytes() == b"new"


def test_the_file_verbs(town: Town, tmp_path: Path) -> None:
    write(town.share / "a" / "b" / "c", b"1")
    refused(IsADirectory, lambda: town.with_line(lambda line: line.remove("files/a")))
    refused(Conflict, lambda: town.with_line(lambda line: line.mkdir("files/a")))
    town.with_line(lambda line: line.mkdir("files/a", parents=True))
    town.with_line(lambda line: line.move("files/a/b/c", "files/a"))
    assert (town.share / "a" / "c").exists()
    write(town.share / "d", b"2")
    refused(Conflict, lambda: town.with_line(lambda line: line.move("files/d", "files/a/c")))
    town.with_line(lambda line: line.move("files/d", "files/a/c", replace=True))
    assert (town.share / "a" / "c").read_bytes() == b"2"
    refused(PathRefused, lambda: town.with_line(lambda line: line.move("files/a", "files/a/b/a")))
    refused(PathRefused, lambda: town.with_line(lambda line: line.remove("files/", recursive=True)))
    (town.share / "a" / "out").symlink_to(tmp_path)
    town.with_line(lambda line: line.remove("files/a", recursive=True))
    assert not (town.share / "a").exists()
    assert tmp_path.exists()
    for number in range(1200):
        write(town.share / "many" / f"{number:04}", b"")
    names = town.with_line(lambda line: _listing(line, "files/many"))
    assert names == [f"{number:04}" for number in range(1200)]


def test_a_name_that_is_not_portable_can_be_changed_and_is_given_only_on_purpose(town: Town) -> None:
    write(town.share / "a:b", b"1")
    town.with_line(lambda line: line.move("files/a:b", "files/ab"))
    assert (town.share / "ab").read_bytes() == b"1"
    refused(PathRefused, lambda: town.with_line(lambda line: line.move("files/ab", "files/a:c")))
    refused(PathRefused, lambda: town.with_line(lambda line: line.mkdir("files/d:e")))
    town.with_line(lambda line: line.move("files/ab", "files/a:c", any_names=True))
    town.with_line(lambda line: line.mkdir("files/d:e", any_names=True))
    assert sorted(os.listdir(town.share)) == ["a:c", "d:e"]


def test_many_listings_on_one_line(town: Town) -> None:
    """More than a connection may have streams: a listing's ends with it, also when it is left in the middle."""
    write(town.share / "many" / "one", b"1")
    write(town.share / "many" / "two", b"2")

    async def work(line: Line) -> None:
        for _ in range(STREAMS.value + 10):
            assert await _listing(line, "files/many") == ["one", "two"]
        for _ in range(STREAMS.value + 10):
            entries = line.list("files/many")
            assert (await anext(entries)).name == "one"
            await entries.aclose()

    town.with_line(work)


def slowly(town: Town, local: Path, remote: str, home: str, under_way: threading.Event) -> Callable[[], object]:
    """A put through a slow link; `under_way` is set once some of it arrived."""

    def hear(event: object) -> None:
        if isinstance(event, Progress) and event.bytes > 256 * KIB:
            under_way.set()

    def work() -> object:
        with town.faults(throttle=3 * MIB) as proxy:
            try:
                return town.put(local, remote, home=home, address=proxy.address, heard=hear)  # type: ignore[arg-type]
            except TowlineError as error:
                return error
            finally:
                under_way.set()

    return work


def in_background(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    result: list[object] = []
    thread = threading.Thread(target=lambda: result.append(work()))
    thread.start()
    return thread, result


def test_the_same_person_from_two_machines_the_newcomer_wins_at_once(town: Town, tmp_path: Path) -> None:
    content = rubbish(6 * MIB)
    write(tmp_path / "big", content)
    laptop, under_way = town.home("ann"), threading.Event()
    import shutil

    desktop = str(tmp_path / "home-desktop")
    shutil.copytree(laptop, desktop)
    thread, result = in_background(slowly(town, tmp_path / "big", "files/big", laptop, under_way))
    assert under_way.wait(20)
    heard = Heard()
    done = town.put(tmp_path / "big", "files/big", home=desktop, heard=heard)
    thread.join(20)
    assert done.failures == ()
    assert done.sent_bytes < len(content)  # it went on from what the older one had brought
    assert isinstance(result[0], Superseded), result
    assert result[0].exit_status == 5
    assert (town.share / "big").read_bytes() == content
    assert not partials(town.share)


def test_two_people_and_one_target(town: Town, tmp_path: Path) -> None:
    write(tmp_path / "one", rubbish(6 * MIB, 1))
    write(tmp_path / "two", rubbish(6 * MIB, 2))
    ann, bob, under_way = town.home("ann"), town.home("bob"), threading.Event()
    thread, result = in_background(slowly(town, tmp_path / "one", "files/x", ann, under_way))
    assert under_way.wait(20)
    done = town.put(tmp_path / "two", "files/x", home=bob)
    assert done.failures == ()
    assert (town.share / "x").read_bytes() == rubbish(6 * MIB, 2)
    thread.join(20)
    (late,) = result
    assert [type(error) for error in late.failures] == [Conflict]  # type: ignore[attr-defined]
    assert (town.share / "x").read_bytes() == rubbish(6 * MIB, 2)


def test_two_hundred_transfers_leave_no_descriptor_and_no_thread(town: Town, tmp_path: Path) -> None:
    write(tmp_path / "tree" / "small", b"x")
    write(tmp_path / "tree" / "big", rubbish(2 * MIB))
    home = town.home()

    async def work(line: Line, numbers: range) -> None:
        for number in numbers:
            await line.put(str(tmp_path / "tree"), f"files/t{number % 2}/x{number}")
            await line.get(f"files/t{number % 2}/x{number}/tree", str(tmp_path / f"b{number}"))
            await line.put(str(tmp_path / "tree" / "small"), f"files/s{number}")
            for missing in (line.get("files/nothing", "/tmp/x"), line.put(str(tmp_path / "tree"), "files/s0/t")):
                with pytest.raises(TowlineError):
                    await missing

    def counts() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    for number in range(50):
        (town.share / f"t{number % 2}" / f"x{number}").mkdir(parents=True)
    town.put(tmp_path / "tree", "files/warm", home=home)
    settled(counts, counts())
    before = counts()
    for start in range(0, 50, 10):  # each line has a deadline
        town.with_line(lambda line, numbers=range(start, start + 10): work(line, numbers), home=home)
    settled(counts, before)


def settled(counts: Callable[[], tuple[int, int]], at_most: tuple[int, int]) -> None:
    """What ends, ends soon: wait until no more is open than before (with room for the shared pool's threads)."""
    fds, threads = at_most
    ended = threading.Event()
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        now = counts()
        if now[0] <= fds and now[1] <= threads + 8:
            return
        ended.wait(0.02)
    raise AssertionError(f"{counts()} are open; {at_most} were before")
