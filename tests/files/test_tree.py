from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from towline.base.errors import (
    Conflict,
    DiskError,
    IsADirectory,
    LimitExceeded,
    NoSpace,
    NotADirectory,
    NotFound,
    PathRefused,
    PermissionDenied,
    ReadOnlyShare,
    TowlineError,
)
from towline.base.oserrors import oserrors
from towline.services.files import disk
from towline.services.files.folders import Folders
from towline.services.files.tree import Root, Stat

from .conftest import dig, open_descriptors, unprivileged


@pytest.fixture
def furnished(share: Path, root: Root) -> Root:
    (share / "b").mkdir()
    (share / "b" / "deep").mkdir()
    (share / "b" / "deep" / "leaf").write_bytes(b"leaf")
    (share / "a").write_bytes(b"12345")
    (share / "a").chmod(0o640)
    os.utime(share / "a", ns=(1, 1_700_000_000_123_456_789))
    (share / "out").symlink_to(share.parent)
    (share / "out-file").symlink_to("/etc/hostname")
    (share / ".towline-aaaaaaaa.part").write_bytes(b"part")
    os.mkfifo(share / "fifo")
    return root


def test_stat_says_what_an_entry_is_itself(furnished: Root) -> None:
    assert furnished.stat("a") == Stat("a", "file", 5, 1_700_000_000_123_456_789, 0o640)
    assert furnished.stat("b/deep/").kind == "dir"
    assert furnished.stat("out").kind == "link"
    assert furnished.stat("fifo").kind == "other"
    assert furnished.stat("").kind == furnished.stat(".").kind == "dir"


def test_a_listing_is_sorted_and_hides_unfinished_files(furnished: Root) -> None:
    assert [one.name for one in furnished.list("")] == ["a", "b", "fifo", "out", "out-file"]
    assert [(one.name, one.kind) for one in furnished.list("b")] == [("deep", "dir")]


def test_a_listing_that_is_left_early_closes_its_folder(furnished: Root) -> None:
    before = open_descriptors()
    listing = furnished.list("")
    next(listing)
    del listing
    with pytest.raises(NotADirectory):
        furnished.list("a")
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("missing", NotFound),
        ("b/missing/x", NotFound),
        ("a/x", NotADirectory),
        ("out/x", PathRefused),
        ("../x", PathRefused),
        ("/etc/passwd", PathRefused),
        (".towline-aaaaaaaa.part", PathRefused),
        ("a\nb", PathRefused),
        ("x" * 300, PathRefused),
    ],
)
def test_paths_that_lead_nowhere_are_refused_by_name(furnished: Root, path: str, error: type[TowlineError]) -> None:
    before = open_descriptors()
    for act in (furnished.stat, furnished.open_file, furnished.remove, lambda p: furnished.move(p, "new")):
        with pytest.raises(error):
            act(path)
    assert open_descriptors() == before


def test_a_file_is_opened_for_reading(furnished: Root) -> None:
    fd, info = furnished.open_file("b/deep/leaf")
    assert os.read(fd, 10) == b"leaf"
    assert info.st_size == 4
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.parametrize(
    ("path", "error"),
    [("fifo", PathRefused), ("sock", PathRefused), ("out-file", PathRefused), ("b", IsADirectory), ("", PathRefused)],
)
def test_only_regular_files_are_opened_and_nothing_blocks(
    furnished: Root, share: Path, path: str, error: type[TowlineError]
) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        here = os.open(share, os.O_RDONLY)
        sock.bind(f"/proc/self/fd/{here}/sock")  # the path itself may be too long for an address
        os.close(here)
        with pytest.raises(error):
            furnished.open_file(path)


def test_folders_are_made_with_their_parents_on_demand(root: Root, share: Path) -> None:
    with pytest.raises(NotFound):
        root.mkdir("x/y/z")
    assert root.mkdir("x/y/z", parents=True)
    assert (share / "x" / "y" / "z").is_dir()
    with pytest.raises(Conflict):
        root.mkdir("x/y/z")
    assert not root.mkdir("x/y/z", exist_ok=True)
    assert not root.mkdir("", exist_ok=True)
    (share / "file").touch()
    with pytest.raises(NotADirectory):
        root.mkdir("file", exist_ok=True)
    with pytest.raises(NotADirectory):
        root.mkdir("file/below", parents=True)


def test_parents_are_handed_out_by_descriptor(root: Root, share: Path) -> None:
    folder, name = root.parent("new/below/file", create=True)
    assert name == "file"
    assert os.path.samestat(os.fstat(folder), os.stat(share / "new" / "below"))
    os.fsync(folder)
    os.close(folder)
    folder, name = root.parent("top")
    assert os.path.samestat(os.fstat(folder), os.stat(share))
    os.close(folder)
    with pytest.raises(PathRefused):
        root.parent("")


def test_a_move_never_clobbers(furnished: Root, share: Path) -> None:
    furnished.move("a", "b/a")
    assert (share / "b" / "a").read_bytes() == b"12345"
    (share / "other").write_bytes(b"other")
    with pytest.raises(Conflict):
        furnished.move("other", "b/a")
    assert (share / "b" / "a").read_bytes() == b"12345"
    furnished.move("other", "b/a", replace=True)
    assert (share / "b" / "a").read_bytes() == b"other"
    with pytest.raises(Conflict):
        furnished.move("b/a", "b/deep")
    with pytest.raises(IsADirectory):
        furnished.move("b/a", "b/deep", replace=True)
    with pytest.raises(PathRefused, match="into itself"):
        furnished.move("b", "b/deep/b")
    furnished.move("b", "c")
    assert (share / "c" / "deep" / "leaf").read_bytes() == b"leaf"
    with pytest.raises(NotFound, match="nothing"):
        furnished.move("nothing", "x")


def test_a_move_never_clobbers_where_the_kernel_lacks_renameat2(
    furnished: Root, share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_renameat2", lambda: None)
    test_a_move_never_clobbers(furnished, share)
    (share / "empty").mkdir()
    with pytest.raises(Conflict):
        furnished.move("c", "empty")
    assert sorted(os.listdir(share)) == [".towline-aaaaaaaa.part", "c", "empty", "fifo", "out", "out-file"]


def test_files_are_removed_and_folders_only_on_purpose(furnished: Root, share: Path) -> None:
    furnished.remove("a")
    furnished.remove("out")
    with pytest.raises(IsADirectory):
        furnished.remove("b")
    with pytest.raises(PathRefused):
        furnished.remove("", recursive=True)
    (share / "b" / "link").symlink_to(share.parent)
    (share / "b" / ".towline-bbbbbbbb.part").touch()
    (share.parent / "precious").touch()
    furnished.remove("b", recursive=True)
    assert sorted(os.listdir(share)) == [".towline-aaaaaaaa.part", "fifo", "out-file"]
    assert (share.parent / "precious").exists()


def test_a_very_deep_tree_is_removed_with_few_descriptors(root: Root) -> None:
    dig(root, "d", 1000)
    root.remove("d", recursive=True)
    assert not list(root.list(""))


def test_a_read_only_root_changes_nothing(furnished: Root, share: Path) -> None:
    before = sorted(os.listdir(share))
    shut = furnished.view(read_only=True)
    for act in (
        lambda: shut.mkdir("x"),
        lambda: shut.move("a", "x"),
        lambda: shut.remove("a"),
        lambda: shut.parent("x/y", create=True),
        lambda: shut.symlink("x", "y"),
        lambda: shut.stamp("b", mode=0o700),
    ):
        with pytest.raises(ReadOnlyShare):
            act()
    assert sorted(os.listdir(share)) == before
    shut.close()
    assert furnished.stat("a").size == 5


def test_any_names_are_a_view_of_the_same_folder(root: Root, share: Path) -> None:
    (share / "a:b\n").touch()
    (share / os.fsdecode(b"caf\xe9")).touch()
    with pytest.raises(PathRefused):
        root.stat("a:b\n")
    free = root.view(portable=False)
    assert [free.stat(one.name).kind for one in root.list("")] == ["file", "file"]


def test_symlinks_are_made_but_not_used(root: Root, share: Path) -> None:
    root.symlink("link", "../..", mtime_ns=5 * 10**9)
    assert os.readlink(share / "link") == "../.."
    assert root.stat("link").mtime_ns == 5 * 10**9
    with pytest.raises(Conflict):
        root.symlink("link", "elsewhere")
    root.symlink("link", "elsewhere", replace=True)
    assert os.readlink(share / "link") == "elsewhere"
    assert os.listdir(share) == ["link"]


def test_a_folder_gets_its_final_bits_and_time_but_no_special_ones(root: Root, share: Path) -> None:
    root.mkdir("d")
    root.stamp("d", mode=0o6750, mtime_ns=7 * 10**9)
    assert (share / "d").stat().st_mode & 0o7777 == 0o750
    assert root.stat("d").mtime_ns == 7 * 10**9


def test_the_parents_of_many_files_are_walked_to_once(root: Root) -> None:
    with Folders(root, create=True, kept=2) as folders:
        first = folders.parent("a/1")[0]
        assert folders.parent("a/2") == (first, "2")
        folders.parent("b/1")
        assert folders.parent("a/3")[0] == first
        folders.parent("c/1")  # b was used least lately
        assert folders.parent("a/4")[0] == first
        for bad in ("a/..", "a/", "a/.towline-x", "../x", "a//x"):
            with pytest.raises(PathRefused):
                folders.parent(bad if bad != "a/" else "/")


def test_what_the_system_does_not_permit_is_said(root: Root, share: Path) -> None:
    (share / "shut").mkdir()
    (share / "shut" / "x").touch()
    (share / "shut").chmod(0o000)
    share.chmod(0o755)
    with unprivileged():
        for act in (lambda: root.list("shut"), lambda: root.open_file("shut/x"), lambda: root.mkdir("shut/y")):
            with pytest.raises(PermissionDenied):
                act()
    (share / "shut").chmod(0o700)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOENT, NotFound),
        (errno.EACCES, PermissionDenied),
        (errno.EPERM, PermissionDenied),
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.ENOTDIR, NotADirectory),
        (errno.EISDIR, IsADirectory),
        (errno.EEXIST, Conflict),
        (errno.ENAMETOOLONG, PathRefused),
        (errno.ELOOP, PathRefused),
        (errno.EROFS, ReadOnlyShare),
        (errno.EMFILE, LimitExceeded),
        (errno.EIO, DiskError),
        (errno.EXDEV, DiskError),
    ],
)
def test_every_error_of_the_system_has_a_documented_one(number: int, error: type[TowlineError]) -> None:
    with pytest.raises(TowlineError) as caught, oserrors("some\x1bpath"):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is error
    assert '"some\\x1bpath"' in caught.value.sentence


def test_errors_name_how_far_a_path_was_good(furnished: Root) -> None:
    fd = furnished.folder("b")
    os.symlink("/", "link", dir_fd=fd)
    os.close(fd)
    with pytest.raises(PathRefused, match='"b/link"'):
        furnished.stat("b/link/etc/passwd")
