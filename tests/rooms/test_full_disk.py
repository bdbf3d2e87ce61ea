"""A node on a disk that is really full: refused by name, readers read on, and it goes on when there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import force_setattr
from tests.kit import joined, run, serving, until
from tests.rooms.kit import listening, texts_of

import towline
from towline.base.errors import NoSpace


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place = tmp_path / "data"
    place.mkdir(mode=0o700)
    options = "size=4m,mode=0700"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_nothing_is_acknowledged_that_is_not_kept(tiny: Path, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tiny) as node:
            home = await joined(node, tmp_path / "ann")
            async with towline.connect("home", home=home) as line, listening(line.room("lobby")) as seen:
                room = line.room("lobby")
                kept = ["before"]
                await room.say("before")
                ballast = tiny / "ballast"
                with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
                    while True:
                        file.write(bytes(4096))
                with pytest.raises(NoSpace):
                    for number in range(100):
                        text = f"{number}" + "x" * 10_000
                        await room.say(text)
                        kept.append(text)
                assert await texts_of(line, "lobby") == kept
                assert line.cuts == 0
                async with towline.connect("home", home=home) as another:  # who comes anew reads, too
                    assert await texts_of(another, "lobby") == kept
                ballast.unlink()
                await room.say("after")
                kept.append("after")
                assert await texts_of(line, "lobby") == kept
                await seen.until(lambda: seen.texts == kept)
        async with serving(tiny) as node:
            line = towline.connect("home", home=home)
            force_setattr(line.target, "addresses", (node.listening.address,))
            async with line:
                assert await texts_of(line, "lobby") == kept

    run(work())


@pytest.mark.parametrize("by_admin", [False, True])
def test_what_was_deleted_stays_so_though_the_books_could_not_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_admin: bool
) -> None:
    def full(*_: object) -> None:
        raise NoSpace

    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            home = await joined(node, tmp_path / "ann", "ann", "admin")
            async with towline.connect("home", home=home) as line:
                room = line.room("lobby")
                secret, other = await room.say("a secret"), await room.say("no secret")
                assert node._store is not None
                monkeypatch.setattr(node._store.rooms, "remove", full)
                await (room.remove(secret) if by_admin else room.delete(secret))
                assert "a secret" not in await texts_of(line, "lobby")
        async with serving(tmp_path / "data") as node:
            line = towline.connect("home", home=home)
            force_setattr(line.target, "addresses", (node.listening.address,))
            async with line:
                texts = await texts_of(line, "lobby")
                assert "a secret" not in texts
                assert texts[other - 1] == "no secret"

    run(work())


def test_what_was_read_is_noted_when_there_is_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            assert node._rooms is not None
            assert node._store is not None
            rows, refused = node._store.rooms, []

            def full(reads: object) -> None:
                refused.append(reads)
                raise NoSpace

            home = await joined(node, tmp_path / "ann")
            async with towline.connect("home", home=home) as line, listening(line.room("lobby")) as seen:
                with monkeypatch.context() as patched:
                    patched.setattr(rows, "note_reads", full)
                    await line.room("lobby").say("x")
                    await seen.until(lambda: seen.texts == ["x"])
                    seen.room.mark_read(1)
                    await until(lambda: len(refused) > 1 and refused[-1], "it was tried again")
                await until(lambda: rows.reads("lobby") == {"ann": 1}, "it is noted")

    run(work())
