from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from towline.base.errors import (
    BadMessage,
    Conflict,
    InUse,
    IsADirectory,
    LimitExceeded,
    NoSpace,
    StreamClosed,
    Superseded,
    TowlineError,
    VerificationFailed,
)
from towline.services.files import disk
from towline.services.files import part as part_module
from towline.services.files.part import Part, Pin, part_name
from towline.services.files.rangelist import RangeList
from towline.services.files.ranges import Ranges

from .conftest import open_descriptors

SIZE = 100_000
CONTENT = bytes(i * 7 % 251 for i in range(SIZE))
PIN = Pin(SIZE, 1_700_000_000_000_000_000, "1f")


@pytest.fixture
def folder(share: Path) -> Iterator[int]:
    fd = os.open(share, os.O_RDONLY)
    yield fd
    os.close(fd)


def opened(folder: int, pin: Pin = PIN, *, owner: str = "anna", name: str = "big") -> Part:
    return Part.open(folder, name, owner=owner, pin=pin)


def the_file(share: Path, suffix: str, name: str = "big") -> Path:
    return share / (part_name(name, "anna") + suffix)


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


def opened_and_closed(folder: int) -> Part:
    part = opened(folder)
    part.close()
    return part


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
    ranges, why = RangeList(part._folder, name).load(PIN)
    assert ranges is not None or "damaged" in why
    return ranges or Ranges()


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
    part.preallocate()
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
        monkeypatch.setattr(disk, "_renameat2", None)
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


# --- one writer at a time ---


def test_another_process_is_told_that_it_is_in_use(folder: int, share: Path) -> None:
    part = opened(folder)
    script = (
        "import os, sys\n"
        "from towline.base.errors import InUse\n"
        "from towline.services.files.part import Part, Pin\n"
        "try:\n"
        f"    Part.open(os.open(sys.argv[1], os.O_RDONLY), 'big', owner='anna', pin=Pin(*{tuple(PIN)!r}))\n"
        "except InUse as error:\n"
        "    print(error.sentence)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, str(share)], capture_output=True, text=True, check=True, timeout=30
    )
    assert "another process" in said.stdout
    part.write(0, CONTENT)
    part.publish(final_size=SIZE, replace=False)


def test_a_newer_writer_gets_all_that_the_fenced_one_had(folder: int) -> None:
    old = opened(folder)
    old.write(0, CONTENT[:500])
    with pytest.raises(InUse):
        opened(folder)
    old.fence()
    new = opened(folder)
    assert new.ranges == Ranges([(0, 500)])
    for late in (
        lambda: old.write(500, b"late"),
        lambda: old.write_zeros(500, 5),
        old.checkpoint,
        lambda: old.invalidate([(0, 1)]),
        lambda: old.publish(final_size=SIZE, replace=True),
        old.abandon,
        old.preallocate,
    ):
        with pytest.raises(Superseded):
            late()
    old.fence()
    old.close()
    assert os.pread(new.fd, 1000, 0) == CONTENT[:500]
    new.close()


def test_fencing_while_lanes_write_never_lets_a_late_byte_through(folder: int, share: Path) -> None:
    size = 8 << 20
    for _ in range(10):
        old = opened(folder, Pin(size, 0, ""))
        refused: list[TowlineError] = []
        begun = threading.Barrier(4)

        def lane(
            part: Part, which: int, begun: threading.Barrier = begun, refused: list[TowlineError] = refused
        ) -> None:
            begun.wait()
            try:
                for offset in range(which * 4096, size, 3 * 4096):
                    part.write(offset, bytes([which + 1]) * min(4096, size - offset))
            except Superseded as error:
                refused.append(error)

        lanes = [threading.Thread(target=lane, args=(old, which)) for which in range(3)]
        for thread in lanes:
            thread.start()
        begun.wait()
        old.fence()
        new = opened(folder, Pin(size, 0, ""))
        there = new.ranges
        # Descriptors that are taken now have the fenced ones' numbers; a late write would land in them.
        catchers = [os.open(share, os.O_TMPFILE | os.O_RDWR) for _ in range(4)]
        for thread in lanes:
            thread.join()
        assert [os.fstat(fd).st_size for fd in catchers] == [0] * 4
        for fd in catchers:
            os.close(fd)
        for a, b in there:
            data = os.pread(new.fd, b - a, a)
            assert all(data[at - a] == at // 4096 % 3 + 1 for at in range(a, b, 4096))
        new.abandon()


def test_lanes_write_and_checkpoint_at_once(folder: int, share: Path) -> None:
    size = 4 << 20
    content = os.urandom(size)
    part = opened(folder, Pin(size, 0, ""))

    def lane(which: int) -> None:
        for offset in range(which * 8192, size, 4 * 8192):
            part.write(offset, memoryview(content)[offset : offset + 8192])
            if offset % 65_536 == 0:
                assert part.checkpoint().has(offset, offset + 8192)

    lanes = [threading.Thread(target=lane, args=(which,)) for which in range(4)]
    for thread in lanes:
        thread.start()
    for thread in lanes:
        thread.join()
    part.publish(final_size=size, replace=False)
    assert (share / "big").read_bytes() == content


def test_an_end_waits_for_the_reader(folder: int) -> None:
    part = opened(folder)
    part.write(0, CONTENT)
    inside, leave = threading.Event(), threading.Event()

    def read() -> None:
        with part.reading() as fd:
            inside.set()
            assert leave.wait(30)
            assert os.pread(fd, SIZE, 0) == CONTENT

    reader = threading.Thread(target=read)
    reader.start()
    assert inside.wait(30)
    fencer = threading.Thread(target=part.fence)
    fencer.start()
    fencer.join(0.05)
    assert fencer.is_alive()
    leave.set()
    fencer.join(30)
    reader.join(30)
    assert not fencer.is_alive()


# --- a disk that fails ---


def test_a_full_disk_keeps_what_is_there(folder: int) -> None:
    part = opened(folder)
    part.write(0, CONTENT[:500])
    with open("/dev/full", "wb", buffering=0) as full:
        kept = os.dup(part.fd)
        os.dup2(full.fileno(), part.fd)
        with pytest.raises(NoSpace, match="goes on where it stopped"):
            part.write(500, CONTENT[500:])
        os.dup2(kept, part.fd)
        os.close(kept)
    assert part.ranges == Ranges([(0, 500)])
    part.write(500, CONTENT[500:])
    part.publish(final_size=SIZE, replace=False)


def test_a_file_that_cannot_fit_is_refused_at_once(folder: int) -> None:
    part = opened(folder, Pin(1 << 60, 0, ""))
    with pytest.raises(NoSpace, match="free"):
        part.preallocate()
    part.abandon()


def test_after_a_failed_sync_only_what_was_durable_counts(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    part = opened(folder)
    part.write(0, CONTENT[:500])
    part.checkpoint()
    part.write(500, CONTENT[500:1000])

    def fails(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(part_module.os, "fdatasync", fails)
        with pytest.raises(TowlineError, match="disk reported"):
            part.checkpoint()
    assert part.ranges == Ranges([(0, 500)])
    part.close()
    again = opened(folder)
    assert again.ranges == Ranges([(0, 500)])
    again.close()


def test_a_part_locked_by_a_stranger_is_in_use(folder: int, share: Path) -> None:
    opened_and_closed(folder)
    with the_file(share, ".part").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InUse):
            opened(folder)
