from __future__ import annotations

import os
from pathlib import Path

import pytest

from towline.services.files.part import Part
from towline.services.files.rangelist import RangeList
from towline.services.files.ranges import Ranges

from .parts import CONTENT, PIN, SIZE, opened, the_file


def torn(data: bytes) -> bytes:
    return data.rstrip(b"\n")[:-10]


@pytest.mark.parametrize(
    "damage",
    [torn, lambda data: data.replace(b"100", b"900"), lambda data: os.urandom(200)],
    ids=["torn", "altered", "noise"],
)
def test_a_damaged_list_begins_anew(folder: int, share: Path, damage: object) -> None:
    part = opened(folder)
    part.write(0, CONTENT[:100])
    part.close()
    listed = the_file(share, ".ranges")
    listed.write_bytes(damage(listed.read_bytes()))  # type: ignore[operator]
    again = opened(folder)
    assert not again.ranges
    assert "damaged" in (again.restarted_because or "")
    again.close()


def test_a_torn_last_line_leaves_the_one_before(folder: int, share: Path) -> None:
    part = opened(folder)
    for end in (100, 200, 300):
        part.write(end - 100, CONTENT[end - 100 : end])
        part.checkpoint()
    part.close()
    listed = the_file(share, ".ranges")
    assert len(listed.read_bytes().split()) == 2 * 3
    listed.write_bytes(torn(listed.read_bytes()))
    again = opened(folder)
    assert again.ranges == Ranges([(0, 200)])
    assert len(listed.read_bytes().split()) == 2 * 1  # the torn line is gone for good
    again.close()


def test_the_list_is_a_ring_that_survives_being_torn_anywhere(folder: int, share: Path) -> None:
    part = opened(folder)
    listed = the_file(share, ".ranges")
    length = listed.stat().st_size
    number = listed.stat().st_ino
    for end in range(1, 240):
        before = listed.read_bytes()
        part.write(end - 1, CONTENT[end - 1 : end])
        part.checkpoint()
        now = listed.read_bytes()
        changed = [at for at in range(length) if before[at] != now[at]]
        middle = changed[len(changed) // 2]
        assert last_state(part, now) == Ranges([(0, end)])
        assert last_state(part, now[:middle] + before[middle:]) == Ranges([(0, end - 1)] if end > 1 else [])
    assert (listed.stat().st_size, listed.stat().st_ino) == (length, number)
    part.close()


def last_state(part: Part, listed: bytes) -> Ranges:
    """What a list file with these bytes says."""
    name = "copy.ranges"
    fd = os.open(name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, dir_fd=part._folder)
    os.write(fd, listed)
    os.close(fd)
    listed = RangeList(part._folder, name).load(PIN)
    assert listed.durable is not None or "damaged" in listed.why
    return listed.durable or Ranges()


def test_a_list_that_claims_more_than_the_file_holds_begins_anew(folder: int, share: Path) -> None:
    part = opened(folder)
    part.write(0, CONTENT)
    part.close()
    os.truncate(the_file(share, ".part"), SIZE - 1)
    again = opened(folder)
    assert "shorter" in (again.restarted_because or "")
    again.close()


def test_a_part_without_a_list_and_a_list_without_a_part_begin_anew(folder: int, share: Path) -> None:
    part = opened(folder)
    part.write(0, CONTENT)
    part.close()
    listed = the_file(share, ".ranges").read_bytes()
    the_file(share, ".ranges").unlink()
    again = opened(folder)
    assert "no list" in (again.restarted_because or "")
    again.close()
    the_file(share, ".part").unlink()
    the_file(share, ".ranges").write_bytes(listed)
    again = opened(folder)
    assert not again.ranges
    assert not the_file(share, ".ranges").read_bytes().strip()
    again.close()


def test_a_long_list_gets_a_longer_ring(folder: int, share: Path) -> None:
    part = opened(folder)
    for offset in range(0, 90_000, 45):
        part.write(offset, CONTENT[offset : offset + 20])
        if offset % 900 == 0:
            part.checkpoint()
    part.close()
    assert the_file(share, ".ranges").stat().st_size < 10 * 40_000
    again = opened(folder)
    assert len(again.ranges) == 2000
    again.close()
    assert len(os.listdir(share)) == 2
