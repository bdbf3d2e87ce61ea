from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from towline.base.errors import Conflict, IsADirectory, NotADirectory, NotFound, PathRefused, ReadOnlyShare
from towline.services.files import disk, small
from towline.services.files.small import SmallFiles, publish_small
from towline.services.files.tree import Root

from .conftest import open_descriptors


@pytest.mark.parametrize("nameless", [True, False], ids=["O_TMPFILE", "named"])
@pytest.mark.parametrize("native", [True, False], ids=["renameat2", "link"])
def test_a_batch_is_published_file_by_file(
    share: Path, root: Root, native: bool, nameless: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small, "_CAN_NAME", nameless)
    if not native:
        monkeypatch.setattr(disk, "_renameat2", lambda: None)
    (share / "old").write_bytes(b"old")
    (share / "over").write_bytes(b"old")
    (share / "folder").mkdir()
    (share / "out").symlink_to("/tmp")
    before = open_descriptors()
    results = SmallFiles(root).publish(
        [
            ("a", b"alpha", 0o640, 5 * 10**9, False),
            ("deep/er/b", bytearray(b"beta"), 0o4777, -7 * 10**9, False),
            ("empty", b"", 0o600, 0, False),
            ("old", b"new", 0o644, 0, False),
            ("over", memoryview(b"new"), 0o644, 0, True),
            ("folder", b"x", 0o644, 0, False),
            ("folder", b"x", 0o644, 0, True),
            ("out/x", b"x", 0o644, 0, False),
            ("../x", b"x", 0o644, 0, False),
            ("old/x", b"x", 0o644, 0, False),
            ("z", b"last", 0o444, 0, False),
        ]
    )
    kinds = [type(result) for result in results]
    none = type(None)
    assert kinds == [
        none,
        none,
        none,
        Conflict,
        none,
        IsADirectory,
        IsADirectory,
        PathRefused,
        PathRefused,
        NotADirectory,
        none,
    ]
    assert (share / "a").read_bytes() == b"alpha"
    assert (share / "deep/er/b").read_bytes() == b"beta"
    assert [(share / name).read_bytes() for name in ("empty", "old", "over", "z")] == [b"", b"old", b"new", b"last"]
    assert stat.S_IMODE((share / "a").stat().st_mode) == 0o640
    assert stat.S_IMODE((share / "deep/er/b").stat().st_mode) == 0o777
    assert (share / "a").stat().st_mtime_ns == 5 * 10**9
    assert (share / "deep/er/b").stat().st_mtime_ns == -7 * 10**9
    assert not list(share.rglob(".towline-*"))
    assert open_descriptors() == before


def test_many_files_in_many_folders_need_few_descriptors(share: Path, root: Root) -> None:
    batch = [(f"{i % 100}/{i}", str(i).encode(), 0o644, 0, False) for i in range(300)]
    assert not any(SmallFiles(root).publish(batch))
    assert all((share / f"{i % 100}" / str(i)).read_bytes() == str(i).encode() for i in range(300))


def test_the_plain_form_takes_tuples(share: Path, root: Root) -> None:
    folder, name = root.parent("x")
    assert publish_small([(folder, name, b"1", 0o644, 0, False), (folder, name, b"2", 0o644, 0, False)])[0] is None
    assert (share / "x").read_bytes() == b"1"
    (share / "gone").mkdir()
    gone = root.folder("gone")
    (share / "gone").rmdir()
    [error] = publish_small([(gone, "x", b"1", 0o644, 0, False)])
    assert isinstance(error, NotFound)
    os.close(gone)
    os.close(folder)
    assert publish_small([]) == []


def _die_at_the_third(_: int, calls: list[None] = []) -> None:  # noqa: B006  # of this process alone
    calls.append(None)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)


def test_whoever_is_killed_in_the_middle_leaves_no_unfinished_file(share: Path, root: Root) -> None:
    batch = [(str(i), b"x", 0o644, 0, False) for i in range(20)]
    child = os.fork()
    if not child:
        os.fsync = _die_at_the_third
        SmallFiles(root).publish(batch)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert sorted(os.listdir(share)) == ["0", "1"]


def test_a_read_only_root_takes_none(root: Root) -> None:
    with pytest.raises(ReadOnlyShare):
        SmallFiles(root.view(read_only=True))
