from __future__ import annotations

import os
from pathlib import Path

import pytest

from towline.base.errors import NotADirectory, NotFound, PathRefused, ReadOnlyShare
from towline.services.files.local import Local, local_source, local_target


@pytest.fixture(autouse=True)
def _here(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (share / "dir").mkdir()
    (share / "dir" / "inner").write_bytes(b"inner")
    (share / "file").write_bytes(b"content")
    (share / "to-file").symlink_to("dir/inner")
    (share / "to-dir").symlink_to("dir")
    (share / "a:b").write_bytes(b"odd")
    (share / "to-odd").symlink_to("a:b")
    monkeypatch.chdir(share)


def closed(local: Local) -> tuple[str, str, str]:
    local.root.close()
    return local[1:]


@pytest.mark.parametrize(
    ("given", "path", "name", "kind"),
    [
        ("file", "file", "file", "file"),
        ("./file", "file", "file", "file"),
        ("dir/../file", "file", "file", "file"),
        ("to-file", "inner", "to-file", "file"),
        ("to-odd", "a:b", "to-odd", "file"),
        ("dir", "", "dir", "dir"),
        ("dir/", "", "dir", "dir"),
        ("to-dir", "", "to-dir", "dir"),
        (".", "", "share", "dir"),
        ("dir/..", "", "share", "dir"),
        ("./dir//", "", "dir", "dir"),
    ],
)
def test_what_is_sent_and_what_it_is_called(given: str, path: str, name: str, kind: str, share: Path) -> None:
    assert closed(local_source(given)) == (path, name, kind)
    assert closed(local_source(f"{share}/{given}")) == (path, name, kind)


def test_a_source_can_be_read_and_not_changed() -> None:
    with local_source("to-file").root as root:
        fd, _ = root.open_file("inner")
        assert os.read(fd, 9) == b"inner"
        os.close(fd)
        with pytest.raises(ReadOnlyShare):
            root.remove("inner")


def test_sources_that_are_none_are_refused() -> None:
    os.mkfifo("fifo")
    for given, error in (
        ("missing", NotFound),
        ("fifo", PathRefused),
        ("/dev/null", PathRefused),
        ("", PathRefused),
        ("a\0b", PathRefused),
        ("a:b", PathRefused),
        ("file/", NotADirectory),
    ):
        with pytest.raises(error):
            local_source(given)
    assert closed(local_source("a:b", portable=False)) == ("a:b", "a:b", "file")


@pytest.mark.parametrize(
    ("given", "path", "kind"),
    [
        ("dir", "remote", ""),
        ("dir/", "remote", ""),
        ("to-dir", "remote", ""),
        (".", "remote", ""),
        ("..", "remote", ""),
        ("new", "new", ""),
        ("new/", "new/remote", ""),
        ("file", "file", "file"),
        ("dir/new", "new", ""),
        ("to-file", "to-file", "link"),
    ],
)
def test_where_what_is_fetched_goes(given: str, path: str, kind: str, share: Path) -> None:
    for text in (given, f"{share}/{given}"):
        local = local_target(text, "remote")
        assert (local.path, local.kind, local.name) == (path, kind, path.rpartition("/")[2])
        local.root.close()
    assert not (share / "new").exists()


def test_targets_that_are_none_are_refused() -> None:
    for given, name, error in (
        ("missing/new", "x", NotFound),
        ("file/new", "x", NotADirectory),
        ("file/", "x", NotADirectory),
        ("dir", "../x", PathRefused),
        ("dir", "..", PathRefused),
        ("dir", "a/b", PathRefused),
        ("new/", "..", PathRefused),
        ("a:b", "x", PathRefused),
        ("", "x", PathRefused),
        ("dir", "CON", PathRefused),
    ):
        with pytest.raises(error):
            local_target(given, name)
    assert closed(local_target("a:b", "x", portable=False)) == ("a:b", "a:b", "file")


def test_the_peer_is_confined_in_the_target(share: Path) -> None:
    with local_target("dir", "x").root as root:
        for path in ("../file", "/etc/passwd", "..", "a/../../file"):
            with pytest.raises(PathRefused):
                root.parent(path, create=True)
