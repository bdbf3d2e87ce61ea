"""Trees up and down: odd names, odd files, times and bits, what is left out, and what is there already."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.transfers.kit import KIB, MIB, Heard, Town, partials, rubbish, seen, write

from towline.base.errors import (
    Conflict,
    InternalError,
    IsADirectory,
    NotFound,
    PathRefused,
    PermissionDenied,
    SourceChanged,
)
from towline.client.line import Line

ODD = ("two words", "café", "中文 文件.txt", "🚢 tow.bin", "-rf", "--", "a'b", "$(x)", "~", "#", ".hidden", "%s")
UNPORTABLE = ("new\nline", "a:b", "NUL", "dot.", 'quo"te', "back\\slash", "tab\t")


def odd_tree(top: Path) -> Path:
    for number, name in enumerate(ODD):
        write(top / name / name, rubbish(number * 7, number), mode=0o600 + number % 8)
    write(top / "empty", b"")
    (top / "no files").mkdir()
    write(top / "big", rubbish(3 * MIB, 1), mode=0o755)
    write(top / "edge", rubbish(64 * KIB), mode=0o444)
    write(top / "beyond", rubbish(64 * KIB + 1), mode=0o400)
    os.utime(top / "no files", ns=(1, 1_500_000_000_000_000_001))
    os.utime(top / "~", ns=(1, 1_600_000_000_000_000_001))
    os.chmod(top / "no files", 0o711)
    os.chmod(top, 0o750)
    os.utime(top, ns=(1, 1_400_000_000_000_000_001))
    return top


@pytest.mark.parametrize("lanes", [0, 1, 3])
def test_a_tree_up_and_down_is_the_same_tree(town: Town, tmp_path: Path, lanes: int) -> None:
    top = odd_tree(tmp_path / "tree")
    heard = Heard()
    up = town.put(top, "files/there", heard=heard, lanes=lanes)
    down = town.get("files/there", tmp_path / "back", lanes=lanes)
    assert seen(top) == seen(town.share / "there") == seen(tmp_path / "back")
    assert not heard.failed
    assert up.files == down.files == len(ODD) + 4
    assert up.bytes == down.bytes == up.sent_bytes == sum(f.stat().st_size for f in top.rglob("*") if f.is_file())
    assert up.resent_bytes == up.cuts == 0


def test_names_that_some_system_cannot_keep_are_refused_by_name_and_the_others_go_on(
    town: Town, tmp_path: Path
) -> None:
    for name in (*UNPORTABLE, os.fsdecode(b"\xff\xfe"), "good"):
        write(tmp_path / "tree" / name, name.encode(errors="surrogateescape"))
    heard, back = Heard(), Heard()
    up = town.put(tmp_path / "tree", "files/t", heard=heard)
    assert set(seen(town.share / "t")) == {b".", b"good"}
    assert set(heard.failed) == {*UNPORTABLE, os.fsdecode(b"\xff\xfe")}
    assert all(isinstance(error, PathRefused) for error in up.failures)
    assert len(up.failures) == len(UNPORTABLE) + 1
    write(town.share / "t" / "a:b", b"x")
    down = town.get("files/t", tmp_path / "back", heard=back)
    assert set(back.failed) == {"a:b"}
    assert [type(error) for error in down.failures] == [PathRefused]
    assert set(seen(tmp_path / "back")) == {b".", b"good"}


def test_any_names_survive_when_asked_for(town: Town, tmp_path: Path) -> None:
    for name in (*UNPORTABLE, os.fsdecode(b"\xff\xfe")):
        write(tmp_path / "tree" / name / name, rubbish(100))
        write(tmp_path / "tree" / name / (name + "2"), rubbish(100 * KIB))
    assert not town.put(tmp_path / "tree", "files/t", any_names=True).failures
    assert not town.get("files/t", tmp_path / "back", any_names=True).failures
    assert seen(tmp_path / "tree") == seen(town.share / "t") == seen(tmp_path / "back")
    one = tmp_path / "tree" / os.fsdecode(b"\xff\xfe") / os.fsdecode(b"\xff\xfe2")
    assert not town.put(one, "files/", any_names=True).failures
    assert not town.get("files/" + one.name, tmp_path / "one", any_names=True).failures


def test_sparse_files_stay_sparse(town: Town, tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.seek(5 * MIB)
        file.write(rubbish(100 * KIB))
        file.truncate(64 * MIB)
    up = town.put(tmp_path / "sparse", "files/")
    down = town.get("files/sparse", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "sparse").read_bytes()
    for path in (town.share / "sparse", tmp_path / "back"):
        assert path.stat().st_blocks * 512 < 2 * MIB
    assert 0 < up.sent_bytes < 2 * MIB
    assert 0 < down.sent_bytes < 2 * MIB


def test_a_file_of_holes_and_data_by_turns(town: Town, tmp_path: Path) -> None:
    with open(tmp_path / "comb", "wb") as file:
        for tooth in range(3000):
            file.seek(tooth * 8192)
            file.write(b"x" * 4096)
    for lanes in (1, 3):
        town.put(tmp_path / "comb", f"files/comb{lanes}", lanes=lanes)
        assert (town.share / f"comb{lanes}").read_bytes() == (tmp_path / "comb").read_bytes()


def test_symlinks_are_left_out_by_name_or_kept_and_never_followed(town: Town, tmp_path: Path) -> None:
    write(tmp_path / "secret", b"secret")
    top = tmp_path / "tree"
    write(top / "file", b"x")
    (top / "in").symlink_to("file")
    (top / "out").symlink_to(tmp_path / "secret")
    (top / "dangling").symlink_to("nowhere")
    (top / "up").symlink_to("..")
    heard = Heard()
    up = town.put(top, "files/skip", heard=heard)
    assert set(heard.warned) == {"in", "out", "dangling", "up"}
    assert not up.failures
    assert set(seen(town.share / "skip")) == {b".", b"file"}
    assert not town.put(top, "files/keep", links="keep").failures
    assert seen(town.share / "keep") == seen(top)
    heard = Heard()
    assert not town.get("files/keep", tmp_path / "skipped", heard=heard).failures
    assert set(heard.warned) == {"in", "out", "dangling", "up"}
    assert not town.get("files/keep", tmp_path / "kept", links="keep").failures
    assert seen(tmp_path / "kept") == seen(top)
    again = town.get("files/keep", tmp_path / "kept", links="keep")
    assert not again.failures
    os.unlink(tmp_path / "kept" / "in")
    (tmp_path / "kept" / "in").symlink_to("elsewhere")
    other = town.get("files/keep", tmp_path / "kept", links="keep")
    assert [type(error) for error in other.failures] == [Conflict]
    assert not town.get("files/keep", tmp_path / "kept", links="keep", overwrite="always").failures
    assert os.readlink(tmp_path / "kept" / "in") == "file"


def test_a_symlink_itself_is_got_only_when_asked_for(town: Town, tmp_path: Path) -> None:
    write(tmp_path / "secret", b"secret")
    (town.share / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(PathRefused, match="symlink"):
        town.get("files/link", tmp_path / "got")
    assert not os.path.lexists(tmp_path / "got")
    town.get("files/link", tmp_path / "got", links="keep")
    assert os.readlink(tmp_path / "got") == str(tmp_path / "secret")


def test_fifos_and_sockets_are_left_out_by_name(town: Town, tmp_path: Path) -> None:
    write(tmp_path / "tree" / "file", b"x")
    os.mkfifo(tmp_path / "tree" / "fifo")
    heard = Heard()
    assert not town.put(tmp_path / "tree", "files/t", heard=heard).failures
    assert set(heard.warned) == {"fifo"}
    os.mkfifo(town.share / "fifo")
    with pytest.raises(PathRefused):
        town.get("files/fifo", tmp_path / "got")
    with pytest.raises(PathRefused):
        town.put(tmp_path / "tree" / "fifo", "files/x")


def test_three_thousand_small_files(town: Town, tmp_path: Path) -> None:
    for number in range(3000):
        write(tmp_path / "many" / f"{number % 37:02}" / str(number), b"%d" % number)
    up = town.put(tmp_path / "many", "files/many")
    down = town.get("files/many", tmp_path / "back")
    assert up.files == down.files == 3000
    assert seen(tmp_path / "many") == seen(town.share / "many") == seen(tmp_path / "back")


def test_the_same_again_sends_nothing(town: Town, tmp_path: Path) -> None:
    top = odd_tree(tmp_path / "tree")
    town.put(top, "files/t")
    for overwrite in ("never", "older", "always"):
        heard = Heard()
        again = town.put(top, "files/t", heard=heard, overwrite=overwrite)
        assert (again.sent_bytes, again.failures) == (0, ())
        assert set(heard.notes.values()) == {"same"}
        assert again.files == len(ODD) + 4
    town.get("files/t", tmp_path / "back")
    again = town.get("files/t", tmp_path / "back")
    assert (again.sent_bytes, again.failures) == (0, ())
    assert seen(town.share / "t") == seen(top)


def test_overwrite_never_older_always(town: Town, tmp_path: Path) -> None:
    for size in (10, 100 * KIB):
        mine, there = tmp_path / "mine", town.share / "mine"
        write(mine, rubbish(size, 1), mtime=2_000)
        write(there, rubbish(size, 2), mtime=1_000)
        done = town.put(mine, "files/mine")
        assert [type(error) for error in done.failures] == [Conflict]
        assert done.failures[0].exit_status == 5
        assert there.read_bytes() == rubbish(size, 2)
        assert not town.put(mine, "files/mine", overwrite="older").failures
        assert there.read_bytes() == rubbish(size, 1)
        write(there, rubbish(size, 3), mtime=3_000)
        heard = Heard()
        assert not town.put(mine, "files/mine", overwrite="older", heard=heard).failures
        assert there.read_bytes() == rubbish(size, 3)
        assert set(heard.notes.values()) == {"kept"}
        assert not town.put(mine, "files/mine", overwrite="always").failures
        assert there.read_bytes() == rubbish(size, 1)
        write(there, rubbish(size + 1, 4), mtime=1)
        assert [type(e) for e in town.get("files/mine", mine).failures] == [Conflict]
        assert not town.get("files/mine", mine, overwrite="always").failures
        assert mine.read_bytes() == there.read_bytes() == rubbish(size + 1, 4)
        os.unlink(there)


def test_a_file_over_a_folder_and_a_folder_over_a_file(town: Town, tmp_path: Path) -> None:
    write(tmp_path / "tree" / "x", b"file")
    (town.share / "t" / "x").mkdir(parents=True)
    done = town.put(tmp_path / "tree", "files/t/", overwrite="always")
    assert not done.failures  # it went inside, as tree
    heard = Heard()
    write(tmp_path / "more" / "t" / "x", b"file")
    done = town.put(tmp_path / "more" / "t", "files/", overwrite="always", heard=heard)
    assert [type(error) for error in done.failures] == [IsADirectory]
    write(tmp_path / "deep" / "x" / "y", b"1")
    write(town.share / "deep" / "x", b"a file")
    done = town.put(tmp_path / "deep", "files/", overwrite="always")
    assert done.failures
    assert (town.share / "deep" / "x").read_bytes() == b"a file"


def test_where_things_go(town: Town, tmp_path: Path) -> None:
    write(tmp_path / "dir" / "f", b"1")
    town.put(tmp_path / "dir", "files")
    assert (town.share / "dir" / "f").exists()
    town.put(tmp_path / "dir" / "f", "files/a/b/c")
    assert (town.share / "a" / "b" / "c").read_bytes() == b"1"
    town.put(tmp_path / "dir" / "f", "files/a/b")
    assert (town.share / "a" / "b" / "f").exists()
    town.put(tmp_path / "dir" / "f", "files/new/")
    assert (town.share / "new" / "f").exists()
    (tmp_path / "here").mkdir()
    town.get("files/a/b/c", tmp_path / "here")
    town.get("files/a", tmp_path / "here")
    assert (tmp_path / "here" / "c").exists()
    assert (tmp_path / "here" / "a" / "b" / "c").exists()
    town.get("files/a", str(tmp_path / "fresh") + "/")
    assert (tmp_path / "fresh" / "a" / "b" / "c").exists()
    town.get("files/a/", tmp_path / "slash")
    town.get("files/a/b/", str(tmp_path / "fresh") + "/")
    assert (tmp_path / "slash" / "b" / "c").exists()
    assert (tmp_path / "fresh" / "b" / "c").exists()
    town.get("files", tmp_path / "all")
    assert (tmp_path / "all" / "dir" / "f").exists()
    with pytest.raises(NotFound):
        town.get("files/a/b/c", tmp_path / "no" / "folder")


@pytest.mark.parametrize("overwrite", ["never", "older", "always"])
def test_what_is_neither_file_nor_folder_is_never_replaced(town: Town, tmp_path: Path, overwrite: str) -> None:
    """Something else lives by a fifo or a device; /dev/null is one."""
    source = tmp_path / "tree"
    for name, content in (("small", b"1"), ("large", rubbish(200 * KIB))):
        write(source / name, content)
    (source / "link").symlink_to("small")
    there, back = town.share / "tree", tmp_path / "back" / "tree"
    for folder in (there, back):
        folder.mkdir(parents=True)
        for name in ("small", "large", "link"):
            os.mkfifo(folder / name)
    done = town.put(source, "files/", overwrite=overwrite, links="keep")
    assert [type(error) for error in done.failures] == [Conflict] * 3
    shutil.copytree(source, town.share / "source" / "tree", symlinks=True)
    done = town.get("files/source/tree", back.parent, overwrite=overwrite, links="keep")
    assert [type(error) for error in done.failures] == [Conflict] * 3
    assert all("nothing replaces it" in str(error) for error in done.failures)
    assert all((folder / name).is_fifo() for folder in (there, back) for name in ("small", "large", "link"))


@pytest.mark.parametrize("year", [1700, 2300])
def test_times_that_no_clock_of_ours_shows_are_kept(town: Town, tmp_path: Path, year: int) -> None:
    """Nanoseconds in 64 bits end in 2262, file systems do not; a clock that was wrong once leaves such a file."""
    moment = (year - 1970) * 365 * 86_400 * 10**9 + 123_456_789
    write(tmp_path / "tree" / "small", b"1", mtime=moment)
    write(tmp_path / "tree" / "large", rubbish(200 * KIB), mtime=moment)
    os.utime(tmp_path / "tree", ns=(moment, moment))
    if os.stat(tmp_path / "tree").st_mtime_ns != moment:
        pytest.skip("this file system does not keep such times")
    assert not town.put(tmp_path / "tree", "files/t").failures
    assert not town.get("files/t", tmp_path / "back").failures
    assert seen(tmp_path / "back") == seen(town.share / "t") == seen(tmp_path / "tree")

    async def listed(line: Line) -> list[int]:
        return [entry.mtime_ns async for entry in line.list("files/t")]

    assert town.with_line(listed) == [moment, moment]


def test_times_and_bits_of_folders_survive_a_second_run_that_changes_something(town: Town, tmp_path: Path) -> None:
    top = odd_tree(tmp_path / "tree")
    town.put(top, "files/t")
    write(top / "no files" / "new", b"new", mode=0o640)
    os.utime(top / "no files", ns=(1, 1_500_000_000_000_000_777))
    os.utime(top, ns=(1, 1_400_000_000_000_000_777))
    assert not town.put(top, "files/t").failures
    assert seen(top) == seen(town.share / "t")


def test_a_folder_that_must_not_be_written_to_is_filled_all_the_same(town: Town, tmp_path: Path) -> None:
    write(tmp_path / "tree" / "locked" / "file", b"1", mode=0o400)
    os.chmod(tmp_path / "tree" / "locked", 0o555)
    assert not town.put(tmp_path / "tree", "files/t").failures
    assert seen(tmp_path / "tree") == seen(town.share / "t")
    os.chmod(tmp_path / "tree" / "locked", 0o755)
    write(tmp_path / "tree" / "locked" / "second", b"2")
    os.chmod(tmp_path / "tree" / "locked", 0o555)
    assert not town.put(tmp_path / "tree", "files/t").failures
    assert seen(tmp_path / "tree") == seen(town.share / "t")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_a_failure(town: Town, tmp_path: Path) -> None:
    write(tmp_path / "tree" / "file", b"x")
    write(tmp_path / "tree" / "locked", b"x", mode=0)
    write(tmp_path / "tree" / "folder" / "x", b"x")
    os.chmod(tmp_path / "tree" / "folder", 0)
    heard = Heard()
    done = town.put(tmp_path / "tree", "files/t", heard=heard)
    os.chmod(tmp_path / "tree" / "folder", 0o700)
    assert set(heard.failed) == {"locked", "folder"}
    assert [type(error) for error in done.failures] == [PermissionDenied] * 2


@pytest.mark.parametrize("where", ["sources._FileReading.finish", "sinks._PartWriting.digest"])
def test_a_bug_on_a_thread_beside_costs_one_file(
    town: Town, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("a bug")

    monkeypatch.setattr(f"towline.services.files.{where}", broken)
    write(tmp_path / "tree" / "big", rubbish(4 * MIB))
    write(tmp_path / "tree" / "other", b"x")
    done = town.put(tmp_path / "tree", "files/t")
    assert [type(error) for error in done.failures] == [InternalError]
    assert done.files == 1


def test_a_source_that_changes_under_way_is_named_and_not_published(town: Town, tmp_path: Path) -> None:
    write(tmp_path / "tree" / "big", rubbish(4 * MIB))
    write(tmp_path / "tree" / "other", b"x")
    heard = Heard()

    def change(event: object) -> None:
        heard(event)
        if type(event).__name__ == "Started":  # after it was measured, before it is read
            pass

    with town.faults() as proxy:
        from towline.services.files import sources

        real = sources._FileReading.finish

        def changed(self: sources._FileReading, stopped: Callable[[], bool]) -> tuple[str, int]:
            with open(tmp_path / "tree" / "big", "r+b") as file:
                file.write(b"changed")
            return real(self, stopped)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sources._FileReading, "finish", changed)
            done = town.put(tmp_path / "tree", "files/t", heard=heard, address=proxy.address)
    assert set(heard.failed) == {"big"}
    assert [type(error) for error in done.failures] == [SourceChanged]
    assert "big" in done.failures[0].sentence
    assert not (town.share / "t" / "big").exists()
    assert (town.share / "t" / "other").exists()
    assert not town.put(tmp_path / "tree", "files/t").failures
    assert seen(tmp_path / "tree") == seen(town.share / "t")
    assert not partials(town.share)
