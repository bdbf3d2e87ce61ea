from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from towline.base.errors import (
    InUse,
    NoSpace,
    Superseded,
    TowlineError,
)
from towline.services.files import part as part_module
from towline.services.files.part import Part, Pin
from towline.services.files.ranges import Ranges

from .parts import CONTENT, PIN, SIZE, opened, opened_and_closed, the_file

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
        old.check_room,
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
        part.check_room()
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
