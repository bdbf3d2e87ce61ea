"""A disk that is really full: a small file system in memory, where mounting one is permitted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from towline.base.errors import NoSpace
from towline.services.files.part import Part, Pin, SmallFiles
from towline.services.files.tree import Root


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "share"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=200", "none", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)  # lazily: a failed test may still have it open


def test_a_part_on_a_full_disk_stays_and_goes_on_when_there_is_room(tiny: Path) -> None:
    content = os.urandom(700_000)
    (tiny / "ballast").write_bytes(bytes(600_000))
    with Root.open(str(tiny)) as root:
        folder, name = root.parent("big")
        part = Part.open(folder, name, owner="me", pin=Pin(len(content), 0, ""))
        with pytest.raises(NoSpace, match="free"):
            part.check_room()
        with pytest.raises(NoSpace):
            part.write(0, content)
        got = part.ranges.contiguous()
        assert 300_000 < got < 500_000
        part.close()
        (tiny / "ballast").unlink()
        part = Part.open(folder, name, owner="me", pin=Pin(len(content), 0, ""))
        assert part.ranges.contiguous() == got  # the room for the list was taken before
        for a, b in part.ranges.missing(len(content)):
            part.write(a, content[a:b])
        part.publish(final_size=len(content), replace=False)
        os.close(folder)
    assert (tiny / "big").read_bytes() == content
    assert os.listdir(tiny) == ["big"]


def test_what_was_durable_before_the_disk_was_full_is_kept(tiny: Path) -> None:
    content = os.urandom(700_000)
    with Root.open(str(tiny)) as root:
        folder, name = root.parent("big")
        part = Part.open(folder, name, owner="me", pin=Pin(len(content), 0, ""))
        part.write(0, content[:300_000])
        part.checkpoint()
        (tiny / "ballast").write_bytes(bytes(600_000))
        with pytest.raises(NoSpace):
            part.write(300_000, content[300_000:])
        part.close()
        part = Part.open(folder, name, owner="me", pin=Pin(len(content), 0, ""))
        assert part.restarted_because is None
        assert part.ranges.contiguous() >= 300_000
        part.close()
        os.close(folder)


def test_small_files_fail_one_by_one_and_leave_nothing_half(tiny: Path) -> None:
    with Root.open(str(tiny)) as root:
        results = SmallFiles(root).publish([(f"{i}", bytes(10_000), 0o644, 0, False) for i in range(128)])
    failed = [i for i, result in enumerate(results) if result]
    assert failed
    assert all(isinstance(results[i], NoSpace) for i in failed)
    assert sorted(map(int, os.listdir(tiny))) == [i for i in range(128) if i not in failed]
    assert all((tiny / name).stat().st_size == 10_000 for name in os.listdir(tiny))
