from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towline.base.errors import BadMessage, LimitExceeded, NotFound, PathRefused, TowlineError
from towline.services.files import sources
from towline.services.files.digests import DigestCache
from towline.services.files.disk import FARTHEST_NS
from towline.services.files.plan import (
    BATCH_ENTRIES,
    Entry,
    Skipped,
    decode_batch,
    decode_skipped,
    encode_batch,
    encode_skipped,
    row_bytes,
    walk,
)
from towline.services.files.sources import TreeSource
from towline.services.files.tree import Root

from .conftest import dig, open_descriptors, unprivileged


def paths(root: Root, path: str = "", *, links: str = "skip", after: str | None = None) -> list[str]:
    return [one.path for one in walk(root, path, links=links, after=after)]


@pytest.fixture
def grown(share: Path, root: Root) -> Root:
    for path in ("b/c/1", "b/c/2", "b!/x", "b.d/y", "a", "z/empty/", "b/é", "b/z"):
        file = share / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.mkdir() if path.endswith("/") else file.write_bytes(path.encode())
    return root


ORDER = ["a", "b", "b/c", "b/c/1", "b/c/2", "b/z", "b/é", "b!", "b!/x", "b.d", "b.d/y", "z", "z/empty"]


def test_the_order_is_depth_first_and_a_folder_comes_before_its_content(grown: Root) -> None:
    assert paths(grown) == ORDER
    assert paths(grown, "b") == ["c", "c/1", "c/2", "z", "é"]


def test_entries_carry_what_is_needed(grown: Root, share: Path) -> None:
    os.utime(share / "a", ns=(0, -5))
    (share / "a").chmod(0o4755)
    assert next(iter(walk(grown, "", links="skip"))) == Entry("a", "file", 1, -5, 0o755)
    assert list(walk(grown, "b/c/1", links="skip")) == [
        Entry("1", "file", 5, (share / "b/c/1").stat().st_mtime_ns, (share / "b/c/1").stat().st_mode & 0o777)
    ]
    assert list(walk(grown, "b/c/1", links="skip", after="1")) == []


@pytest.mark.parametrize("position", range(len(ORDER)))
def test_a_walk_goes_on_behind_any_position(grown: Root, position: int) -> None:
    assert paths(grown, after=ORDER[position]) == ORDER[position + 1 :]


def test_finished_folders_are_not_entered_again(grown: Root, share: Path) -> None:
    (share / "b").chmod(0)
    with unprivileged():
        share_only = paths(grown, after="b!")
    assert share_only == ORDER[ORDER.index("b!/x") :]
    (share / "b").chmod(0o700)


@pytest.mark.parametrize(
    ("after", "first"),
    [("b/c/1x", "b/c/2"), ("b/d/e/f", "b/z"), ("0", "a"), ("zz", None), ("a/below", "b"), ("b/c/2/x", "b/z")],
)
def test_a_position_that_is_gone_still_has_a_place(grown: Root, after: str, first: str | None) -> None:
    assert paths(grown, after=after)[:1] == ([first] if first else [])


def test_a_senseless_position_or_start_is_refused(grown: Root) -> None:
    for after in ("../x", "/etc", "b//c"):
        with pytest.raises(PathRefused):
            paths(grown, after=after)
    with pytest.raises(NotFound):
        paths(grown, "nothing")


def test_what_cannot_come_along_is_named(share: Path, root: Root) -> None:
    (share / "link").symlink_to("/etc")
    os.mkfifo(share / "fifo")
    here = os.open(share, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"/proc/self/fd/{here}/sock")
    os.close(here)
    (share / "bad:name").touch()
    (share / "new\nline").mkdir()
    (share / "new\nline" / "inside").touch()
    (share / ".towline-notes").touch()
    (share / ".towline-aaaaaaaa.part").touch()
    (share / "good").touch()
    found = list(walk(root, "", links="skip"))
    assert {one.path: one.reason.split(";")[0] for one in found if isinstance(one, Skipped)} == {
        "link": "it is a symlink",
        "fifo": "it is a fifo",
        "sock": "it is a socket",
        "bad:name": 'The name "bad:name" is refused: it contains :',
        "new\nline": 'The name "new\\nline" is refused: it contains a control character',
        ".towline-notes": 'The name ".towline-notes" is refused: names that start with .towline- are Towline\'s own '
        "unfinished files.",
    }
    assert [one.path for one in found if isinstance(one, Entry)] == ["good"]
    free = list(walk(root.view(portable=False), "", links="keep"))
    assert [one.path for one in free if isinstance(one, Entry)] == [
        "bad:name",
        "good",
        "link",
        "new\nline",
        "new\nline/inside",
    ]
    assert next(one for one in free if isinstance(one, Entry) and one.kind == "link").target == "/etc"
    assert [type(one) for one in walk(root, "link", links="skip")] == [Skipped]
    assert [one.path for one in walk(root, "link", links="keep")] == ["link"]


def test_folders_that_may_not_be_read_are_named(grown: Root, share: Path) -> None:
    share.chmod(0o755)
    for folder, bits in (
        ("b", 0o755),
        ("b/c", 0o000),
        ("z", 0o311),
        ("b!", 0o755),
        ("b.d", 0o755),
        ("z/empty", 0o755),
    ):
        (share / folder).chmod(bits)
    with unprivileged():
        skipped = [one for one in walk(grown, "", links="skip") if isinstance(one, Skipped)]
    assert [one.path for one in skipped] == ["b/c", "z"]
    assert all("does not permit" in one.reason for one in skipped)
    for folder in ("b/c", "z"):
        (share / folder).chmod(0o755)


def test_a_tree_of_a_thousand_levels_needs_few_descriptors(root: Root) -> None:
    dig(root, "d", 1000, furnish=True)
    try:
        most = len(open_descriptors()) + 40
        found = []
        for index, one in enumerate(walk(root, "", links="keep")):
            found.append(one.path)
            assert index % 100 or len(open_descriptors()) < most
        assert len(found) == 3000
        assert found[-1] == "f"
        assert paths(root, after="d/" * 999 + "d", links="keep")[:2] == ["d/" * 999 + "f", "d/" * 998 + "f"]
    finally:
        root.remove("d", recursive=True)  # pytest's own cleaning recurses too deep


def test_paths_that_grow_too_long_are_named(root: Root) -> None:
    dig(root, "d" * 250, 140)
    found = list(walk(root, "", links="skip"))
    root.remove("d" * 250, recursive=True)
    assert [type(one) for one in found[-2:]] == [Entry, Skipped]
    assert len(found) == 131


def test_a_tree_that_changes_under_the_walk_is_survived(share: Path, root: Root) -> None:
    for folder in "abcde":
        (share / folder / "sub").mkdir(parents=True)
        for file in "123":
            (share / folder / "sub" / file).touch()
    steps = walk(root, "", links="skip")
    assert next(steps).path == "a"
    (share / "a" / "sub").rename(share / "moved")
    (share / "b" / "sub" / "1").unlink()
    (share / "c").rename(share / "c-old")
    (share / "c").symlink_to("/etc")
    rest = list(steps)
    entries = [one.path for one in rest if isinstance(one, Entry)]
    assert entries[:4] == ["b", "b/sub", "b/sub/2", "b/sub/3"]
    assert not any(path.startswith("c") for path in entries)
    assert {one.path for one in rest if isinstance(one, Skipped)} == {"a/sub", "c"}


@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_moved_away_from_above_is_named_and_the_rest_goes_on(
    share: Path, root: Root, replaced: bool
) -> None:
    deep = share / "a" / "/".join("d" * 40)
    deep.mkdir(parents=True)
    (deep / "f").touch()
    (share / "a" / "z").touch()
    (share / "b").touch()
    steps = walk(root, "", links="skip")
    for one in steps:
        if one.path.endswith("/f"):
            break
    (share / "a" / "d").rename(share / "elsewhere")
    if replaced:
        deep.mkdir(parents=True)
    rest = list(steps)
    assert [one.path for one in rest if isinstance(one, Entry)] == ["a/z", "b"]
    assert all("moved" in one.reason for one in rest if isinstance(one, Skipped))
    assert any(isinstance(one, Skipped) for one in rest)


def test_a_walk_that_is_left_early_closes_its_folders(grown: Root) -> None:
    before = open_descriptors()
    steps = walk(grown, "", links="skip")
    for _ in range(4):
        next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert open_descriptors() == before


component = st.text(st.characters(exclude_categories=(), exclude_characters="/\0"), min_size=1, max_size=20)
raw_name = st.binary(min_size=1, max_size=40).map(
    lambda raw: os.fsdecode(raw.replace(b"/", b"_").replace(b"\0", b"_"))
)
entries = st.builds(
    lambda parts, kind, size, mtime, mode, target: Entry(
        "/".join(parts), kind, size if kind == "file" else 0, mtime, mode, target if kind == "link" else ""
    ),
    st.lists(raw_name.filter(lambda name: name not in (".", "..")), min_size=1, max_size=4),
    st.sampled_from(["file", "dir", "link"]),
    st.integers(0, 2**63 - 1),
    st.integers(-FARTHEST_NS, FARTHEST_NS),
    st.integers(0, 0o777),
    raw_name,
)


@given(st.lists(entries, max_size=8))
def test_batches_round_trip_with_undecodable_bytes(batch: list[Entry]) -> None:
    data = encode_batch(batch)
    assert data.isascii()
    assert decode_batch(data, portable=False) == batch
    assert len(data) <= sum(row_bytes(entry) for entry in batch) + 2


GOOD = ["a/b", "f", 1, 2, 0o644]


@pytest.mark.parametrize(
    "row",
    [
        [],
        GOOD[:4],
        [*GOOD, "t", "u"],
        ["", "f", 1, 2, 3],
        ["/a", "f", 1, 2, 3],
        ["a/", "f", 1, 2, 3],
        ["a//b", "f", 1, 2, 3],
        ["../a", "f", 1, 2, 3],
        ["a/../b", "f", 1, 2, 3],
        [".", "f", 1, 2, 3],
        ["a\0", "f", 1, 2, 3],
        [".towline-x", "f", 1, 2, 3],
        ["a:b", "f", 1, 2, 3],
        ["\ud83d", "f", 1, 2, 3],
        [1, "f", 1, 2, 3],
        ["a", "x", 1, 2, 3],
        ["a", ["f"], 1, 2, 3],
        ["a", "f", -2, 2, 3],
        ["a", "f", 2**63, 2, 3],
        ["a", "f", 1.0, 2, 3],
        ["a", "f", True, 2, 3],
        ["a", "f", 1, FARTHEST_NS + 1, 3],
        ["a", "f", 1, -FARTHEST_NS - 1, 3],
        ["a", "f", 1, 2, 0o1000],
        ["a", "f", 1, 2, -1],
        ["a", "f", 1, None, 3],
        ["a", "d", 1, 2, 3],
        ["a", "d", -1, 2, 3],
        ["a", "l", 0, 2, 3],
        ["a", "l", 0, 2, 3, ""],
        ["a", "l", 0, 2, 3, 7],
        ["a", "l", 0, 2, 3, "x\0"],
        ["a", "l", 0, 2, 3, "x" * 5000],
        ["a", "l", 0, 2, 3, "\ud83d"],
        ["a", "f", 1, 2, 3, "t"],
        "row",
        None,
        {"path": "a"},
        ["a/" * 30_000 + "b", "f", 1, 2, 3],
        ["你/" * 12_000 + "b", "f", 1, 2, 3],
    ],
)
def test_a_batch_with_anything_wrong_is_refused(row: object) -> None:
    assert decode_batch(json.dumps([GOOD]).encode()) == [Entry("a/b", "file", 1, 2, 0o644)]
    with pytest.raises(BadMessage):
        decode_batch(json.dumps([GOOD, row]).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"null",
        b"[",
        b"\xff",
        b"[" * 100_000,
        b'[["a","f",1' + b"0" * 6000 + b",2,3]]",
        b"[" + b" " * (1 << 20) + b"]",
    ],
    ids=range(8),
)
def test_bytes_that_are_no_batch_are_refused(data: bytes) -> None:
    with pytest.raises(BadMessage):
        decode_batch(data)
    with pytest.raises(BadMessage):
        decode_skipped(data)


@given(
    st.binary(max_size=200) | st.lists(st.lists(st.none() | st.integers() | st.text(), max_size=7)).map(json.dumps)
)
def test_whatever_comes_in_only_documented_errors_come_out(data: bytes | str) -> None:
    for decode in (decode_batch, decode_skipped):
        try:
            decode(data if isinstance(data, bytes) else data.encode())
        except TowlineError:
            pass


def test_batches_are_bounded() -> None:
    one = Entry("a", "file", 1, 2, 3)
    assert len(decode_batch(encode_batch([one] * BATCH_ENTRIES.value))) == BATCH_ENTRIES.value
    with pytest.raises(LimitExceeded):
        encode_batch([one] * (BATCH_ENTRIES.value + 1))
    with pytest.raises(LimitExceeded):
        encode_batch([Entry("你" * 30_000, "file", 1, 2, 3)] * 10)
    with pytest.raises(BadMessage):
        decode_batch(json.dumps([GOOD] * (BATCH_ENTRIES.value + 1)).encode())


def test_skipped_entries_travel_with_any_name() -> None:
    skipped = [Skipped("a\n/\udce9", "it is a fifo"), Skipped("", "x", 320)]
    assert decode_skipped(encode_skipped(skipped)) == skipped
    with pytest.raises(BadMessage):
        decode_skipped(b'[["a"]]')


@settings(max_examples=30, deadline=None)
@given(
    st.sets(st.text("ab.!é\udce9", min_size=1, max_size=3).filter(lambda t: t not in (".", "..")), max_size=8),
    st.data(),
)
def test_any_tree_is_walked_on_from_anywhere(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("share")
    for name in names:
        at = folder / name
        if data.draw(st.booleans()):
            at.mkdir()
            for below in data.draw(st.sets(st.sampled_from(["x", "y", ".z", "é"]))):
                (at / below).touch()
        else:
            at.touch()
    with Root.open(str(folder), portable=False) as root:
        everything = paths(root)
        for index, after in enumerate(everything):
            assert paths(root, after=after) == everything[index + 1 :]


@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_what_was_walked_to_count_is_not_walked_again(
    grown: Root, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_AHEAD", ahead)
    everything = list(walk(grown, "", links="keep"))
    source = TreeSource(grown.view(), "", links="keep", digests=DigestCache())
    files = [one for one in everything if isinstance(one, Entry) and one.kind != "dir"]
    assert source.totals() == (len(files), sum(one.size for one in files))
    assert list(source.entries(None)) == everything
    source = TreeSource(grown.view(), "", links="keep", digests=DigestCache())
    assert list(source.entries(None)) == everything
