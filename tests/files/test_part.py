from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from blake3 import blake3

from towline.base.errors import (
    BadMessage,
    Conflict,
    IsADirectory,
    LimitExceeded,
    StreamClosed,
    TowlineError,
    VerificationFailed,
)
from towline.services.files import disk
from towline.services.files.part import Pin, part_name
from towline.services.files.ranges import Ranges

from .conftest import open_descriptors
from .parts import CONTENT, PIN, SIZE, opened, opened_and_closed, the_file


def test_a_file_is_written_in_any_order_and_published_whole(folder: int, share: Path) -> None:
    part = opened(folder)
    assert part.restarted_because is None
    part.write(50_000, CONTENT[50_000:])
    assert part.ranges.to_list() == [[50_000, SIZE]]
    assert stat.S_IMODE(the_file(share, ".part").stat().st_mode) == 0o600
    with pytest.raises(VerificationFailed):
        part.publish(final_size=SIZE, replace=False)
    assert not (share / "big").exists()
    part.write(0, memoryview(CONTENT)[:50_000])
    part.publish(final_size=SIZE, replace=False, mode=0o4754, mtime_ns=PIN.mtime_ns)
    info = (share / "big").stat()
    assert (share / "big").read_bytes() == CONTENT
    assert (stat.S_IMODE(info.st_mode), info.st_mtime_ns) == (0o754, PIN.mtime_ns)
    assert os.listdir(share) == ["big"]
    with pytest.raises(StreamClosed):
        part.write(0, b"x")


def test_an_empty_file_is_published(folder: int, share: Path) -> None:
    opened(folder, Pin(0, 0, "")).publish(final_size=0, replace=False)
    assert (share / "big").read_bytes() == b""


def test_what_was_checkpointed_is_there_again(folder: int) -> None:
    part = opened(folder)
    part.write(10, CONTENT[10:20])
    assert part.durable == Ranges()
    assert part.checkpoint() == Ranges([(10, 20)])
    part.write(30, CONTENT[30:40])
    part.checkpoint()
    part.write(50, CONTENT[50:60])
    part.close()
    again = opened(folder)
    assert again.restarted_because is None
    assert again.ranges == again.durable == Ranges([(10, 20), (30, 40), (50, 60)])
    assert os.pread(again.fd, 10, 30) == CONTENT[30:40]
    again.close()
    again.close()


def test_owners_and_names_do_not_share_a_part(folder: int) -> None:
    parts = [
        opened(folder),
        opened(folder, owner="ben"),
        opened(folder, name="other"),
        opened(folder, name="o\udce9"),
    ]
    for part in parts:
        part.close()
    assert part_name("a\0b", "c") != part_name("b", "c\0a")


@pytest.mark.parametrize(
    ("pin", "why"),
    [
        (PIN._replace(size=SIZE + 1), "it had 100000 bytes and has 100001"),
        (PIN._replace(mtime_ns=1), "modified"),
        (PIN._replace(ident="2"), "another file"),
    ],
)
def test_a_changed_source_begins_anew_and_says_why(folder: int, share: Path, pin: Pin, why: str) -> None:
    part = opened(folder)
    part.write(0, CONTENT)
    part.close()
    changed = opened(folder, pin)
    assert why in (changed.restarted_because or "")
    assert not changed.ranges
    assert the_file(share, ".part").stat().st_size == 0
    changed.write(0, b"new")
    changed.close()
    # And what the new one wrote is never taken for the old one's bytes.
    assert not opened_and_closed(folder).ranges


def test_invalid_ranges_are_forgotten_durably(folder: int) -> None:
    part = opened(folder)
    part.write(0, CONTENT[:1000])
    part.checkpoint()
    part.write(1000, CONTENT[1000:2000])
    part.invalidate([(100, 200), (1500, 1600)])
    assert part.ranges == Ranges([(0, 100), (200, 1500), (1600, 2000)])
    assert part.durable == Ranges([(0, 100), (200, 1000)])
    os.close(os.dup(part.fd))
    part.close()
    again = opened(folder)
    assert again.ranges == Ranges([(0, 100), (200, 1500), (1600, 2000)])
    again.close()


@pytest.mark.parametrize(("offset", "length"), [(-1, 5), (SIZE, 1), (SIZE - 1, 2), (2**63, 1)])
def test_a_write_outside_the_announced_size_is_refused(folder: int, offset: int, length: int) -> None:
    part = opened(folder)
    with pytest.raises(BadMessage):
        part.write(offset, b"x" * length)
    with pytest.raises(BadMessage):
        part.write_zeros(offset, length)
    part.close()


def test_a_file_in_too_many_pieces_is_refused_before_its_list_grows_too_long(folder: int) -> None:
    part = opened(folder)
    for offset in range(0, 2 * 4096, 2):
        part.write(offset, b"x")
    with pytest.raises(LimitExceeded, match="pieces"):
        part.write(SIZE - 1, b"x")
    part.write(1, b"x")  # what joins pieces is welcome
    part.close()
    again = opened(folder)
    assert len(again.ranges) == 4095
    again.close()


def test_a_source_of_unknown_size_grows(folder: int, share: Path) -> None:
    part = opened(folder, Pin(-1, 0, "pipe"))
    part.write(0, CONTENT)
    part.close()
    part = opened(folder, Pin(-1, 0, "pipe"))
    assert part.ranges.contiguous() == SIZE
    part.check_room()
    part.publish(final_size=SIZE, replace=False)
    assert (share / "big").read_bytes() == CONTENT


def test_zeros_stay_holes_unless_something_else_was_there(folder: int, share: Path) -> None:
    hole = 64 << 20
    part = opened(folder, Pin(hole + 10, 0, ""))
    part.write(hole, b"0123456789")
    part.write_zeros(0, hole)
    assert os.fstat(part.fd).st_blocks * 512 < 1 << 20
    part.write(4096, b"wrong")
    part.invalidate([(4096, 8192)])
    part.write_zeros(4096, 4096)
    part.write_zeros(0, 0)
    part.publish(final_size=hole + 10, replace=False)
    assert blake3((share / "big").read_bytes()).digest() == blake3(bytes(hole) + b"0123456789").digest()


def test_a_published_file_never_clobbers_without_leave(folder: int, share: Path) -> None:
    (share / "big").write_bytes(b"old")
    part = opened(folder, Pin(3, 0, ""))
    part.write(0, b"new")
    with pytest.raises(Conflict) as caught:
        part.publish(final_size=3, replace=False)
    assert type(caught.value) is Conflict
    assert (share / "big").read_bytes() == b"old"
    assert stat.S_IMODE(the_file(share, ".part").stat().st_mode) == 0o600
    part.publish(final_size=3, replace=True)
    assert (share / "big").read_bytes() == b"new"


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("replace", [True, False])
def test_a_file_never_replaces_a_folder(
    folder: int, share: Path, replace: bool, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native:
        monkeypatch.setattr(disk, "_renameat2", lambda: None)
    (share / "big").mkdir()
    part = opened(folder, Pin(3, 0, ""))
    part.write(0, b"new")
    with pytest.raises(IsADirectory):
        part.publish(final_size=3, replace=replace)
    part.close()
    (share / "big").rmdir()
    again = opened(folder, Pin(3, 0, ""))
    again.publish(final_size=3, replace=replace)
    assert (share / "big").read_bytes() == b"new"
    assert os.listdir(share) == ["big"]


def test_a_symlink_under_the_final_name_is_replaced_not_followed(folder: int, share: Path) -> None:
    (share.parent / "victim").write_bytes(b"precious")
    (share / "big").symlink_to(share.parent / "victim")
    part = opened(folder, Pin(3, 0, ""))
    part.write(0, b"new")
    with pytest.raises(Conflict):
        part.publish(final_size=3, replace=False)
    part.publish(final_size=3, replace=True)
    assert not (share / "big").is_symlink()
    assert (share.parent / "victim").read_bytes() == b"precious"


@pytest.mark.parametrize("trap", ["symlink", "hard link", "fifo"])
def test_a_trap_under_the_parts_name_is_taken_away_not_written_to(folder: int, share: Path, trap: str) -> None:
    victim = share.parent / "victim"
    victim.write_bytes(b"precious")
    place = the_file(share, ".part")
    if trap == "symlink":
        place.symlink_to(victim)
    elif trap == "hard link":
        os.link(victim, place)
    else:
        os.mkfifo(place)
    part = opened(folder)
    assert "not one of ours" in str(part.restarted_because) or "not ours alone" in str(part.restarted_because)
    part.write(0, CONTENT)
    part.publish(final_size=SIZE, replace=False)
    assert victim.read_bytes() == b"precious"


def test_traps_under_the_lists_name_are_not_followed(folder: int, share: Path) -> None:
    victim = share.parent / "victim"
    victim.write_bytes(b"precious")
    part = opened(folder)
    part.write(0, CONTENT)
    part.close()
    the_file(share, ".ranges").unlink()
    the_file(share, ".ranges").symlink_to(victim)
    the_file(share, ".tmp").symlink_to(victim)
    again = opened(folder)
    assert again.restarted_because
    again.write(0, CONTENT)
    again.checkpoint()
    again.close()
    assert victim.read_bytes() == b"precious"


def test_a_part_left_with_its_final_bits_is_taken_up_again(folder: int, share: Path) -> None:
    part = opened(folder)
    part.write(0, CONTENT)
    part.close()
    the_file(share, ".part").chmod(0o444)  # a crash between fchmod and rename
    again = opened(folder)
    assert again.ranges.covered == SIZE
    assert stat.S_IMODE(the_file(share, ".part").stat().st_mode) == 0o600
    again.close()


def test_abandoning_deletes_both_files(folder: int, share: Path) -> None:
    part = opened(folder)
    part.write(0, CONTENT)
    part.checkpoint()
    part.abandon()
    assert os.listdir(share) == []
    with pytest.raises(StreamClosed):
        part.checkpoint()


def test_no_descriptor_outlives_its_part(folder: int) -> None:
    before = open_descriptors()
    for turn in range(20):
        part = opened(folder)
        part.write(0, CONTENT)
        part.checkpoint()
        if turn % 2:
            part.fence()
        else:
            part.abandon()
        with pytest.raises(TowlineError):
            _ = part.fd
    assert open_descriptors() == before
