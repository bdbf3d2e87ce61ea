from __future__ import annotations

import os
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from towline.services.files import part
from towline.services.files.part import EXPIRY_NS, Part, Pin, part_name, sweep
from towline.services.files.sweep import sweep_now_and_then
from towline.services.files.tree import Root


def test_only_stale_partials_that_nobody_uses_are_swept(share: Path, root: Root) -> None:
    folder = root.folder("")
    stale = Part.open(folder, "stale", owner="a", pin=Pin(9, 0, ""))
    stale.write(0, b"123")
    stale.close()
    used = Part.open(folder, "used", owner="a", pin=Pin(9, 0, ""))
    used.write(0, b"123")
    used.checkpoint()
    (share / ".towline-0123456789ab.tmp").touch()
    (share / ".towline-notes").touch()
    (share / "kept").touch()
    assert sweep(folder) == []
    later = time.time_ns() + EXPIRY_NS + 10**9
    assert sorted(sweep(folder, now_ns=later)) == sorted(
        [part_name("stale", "a") + ".part", part_name("stale", "a") + ".ranges", ".towline-0123456789ab.tmp"]
    )
    assert sorted(os.listdir(share)) == sorted(
        [".towline-notes", "kept", part_name("used", "a") + ".part", part_name("used", "a") + ".ranges"]
    )
    assert used.checkpoint().covered == 3
    used.close()
    os.close(folder)


def test_a_small_file_with_its_sources_old_time_is_not_stale(share: Path, root: Root) -> None:
    fresh = share / ".towline-0123456789ab.tmp"
    fresh.touch()
    os.utime(fresh, ns=(0, 0))
    folder = root.folder("")
    assert sweep(folder) == []
    os.close(folder)


def test_a_new_part_sweeps_its_folder_but_not_each_time(
    share: Path, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "sweep_now_and_then", partial(sweep_now_and_then, older_than_ns=-(10**12)))
    monkeypatch.setattr("towline.services.files.sweep._swept", {})  # an earlier test's folder may have had this inode
    folder = root.folder("")
    stale = share / ".towline-0123456789ab.tmp"
    for number in range(2):
        stale.touch()
        with closing(Part.open(folder, f"new {number}", owner="a", pin=Pin(9, 0, ""))):
            assert stale.exists() == bool(number)
    os.close(folder)
