"""Somebody swaps a folder for a symlink while we work in it: nothing outside is read, written or removed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from towline.base.errors import TowlineError
from towline.services.files.part import Part, Pin
from towline.services.files.plan import Entry, walk
from towline.services.files.small import SmallFiles
from towline.services.files.tree import Root

ROUNDS = 120


@contextmanager
def swapping(share: Path) -> Iterator[Callable[[], int]]:
    """`share/d` is in turns a folder and a symlink to outside; yields how often it changed."""
    stop = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        while not stop.is_set():
            for old, new in (("d", "folder"), ("link", "d"), ("d", "link"), ("folder", "d")):
                with suppress(OSError):
                    os.rename(share / old, share / new)
            swaps += 1

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield lambda: swaps
    finally:
        stop.set()
        thread.join()


def test_nothing_outside_is_touched_while_a_folder_is_swapped_for_a_symlink(share: Path) -> None:
    outside = share.parent / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "secret").write_text("secret")
    (outside / "sub" / "secret").write_text("secret")
    (share / "d").mkdir()
    (share / "link").symlink_to(outside)
    before = sorted(str(path) for path in outside.rglob("*"))
    done = 0
    with Root.open(str(share)) as root, swapping(share) as swaps:
        small = SmallFiles(root)

        def write_part() -> None:
            folder, name = root.parent("d/big", create=True)
            try:
                part = Part.open(folder, name, owner="me", pin=Pin(4, 0, ""))
                part.write(0, b"mine")
                part.publish(final_size=4, replace=True)
            finally:
                os.close(folder)

        def read() -> None:
            fd, _ = root.open_file("d/secret")
            os.close(fd)
            raise AssertionError("read from outside")

        def publish() -> None:
            for error in small.publish([("d/sub/x", b"mine", 0o644, 0, True)]):
                if error:
                    raise error

        def look() -> None:
            for one in walk(root, "", links="skip"):
                assert not isinstance(one, Entry) or "secret" not in one.path

        acts: list[Callable[[], object]] = [
            write_part,
            read,
            publish,
            look,
            lambda: root.mkdir("d/sub/made", parents=True, exist_ok=True),
            lambda: [one.name for one in root.list("d")].index("secret"),
            lambda: root.move("d/secret", "stolen"),
            lambda: root.remove("d/secret"),
            lambda: root.remove("d/sub", recursive=True),
            lambda: root.stamp("d/sub", mode=0o700),
        ]
        while done < ROUNDS or swaps() < ROUNDS:
            for act in acts:
                with suppress(TowlineError, ValueError):
                    act()
            done += 1
    assert sorted(str(path) for path in outside.rglob("*")) == before
    assert (outside / "secret").read_text() == "secret"
    assert not (share / "stolen").exists()


def test_a_tree_is_removed_while_its_inside_is_swapped_for_a_symlink(share: Path) -> None:
    outside = share.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    with Root.open(str(share)) as root:
        for _ in range(40):
            inner = share / "tree" / "inner"
            (inner / "d" / "x").mkdir(parents=True)
            (inner / "link").symlink_to(outside)
            with swapping(inner), suppress(TowlineError):
                root.remove("tree", recursive=True)
            with suppress(TowlineError):
                root.remove("tree", recursive=True)
            assert (outside / "secret").read_text() == "secret"
