"""A spool that writes over its released segments: what they held before is never taken for output of now."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from towline.journal import Gap, Record, record
from towline.journal.record import record_prefix
from towline.journal.spool import SPARE, SpoolReader, SpoolWriter, last_record, spool_size

KIB = 1024
SPOOL = 64 * KIB  # eight segments


def payload(seq: int, size: int = 700) -> bytes:
    return b"%08d" % seq * (size // 8)


def read_all(folder: Path, seq: int = 1) -> tuple[list[int], SpoolReader]:
    """The seqs from there on, each with the payload that it was given; and the reader."""
    reader, seqs = SpoolReader(str(folder), seq), []
    while items := reader.read():
        for item in items:
            if isinstance(item, Record):
                assert item.payload in (payload(item.seq, len(item.payload)), b"new"), item.seq
                seqs.append(item.seq)
            else:
                assert item.reason == "retention"
    reader.close()
    return seqs, reader


def newest(folder: Path) -> Path:
    return max(folder.glob("*.log"))


def reused(folder: Path, size: int = 700) -> SpoolWriter:
    """A spool that stands in the middle of a file which was used before."""
    writer = SpoolWriter(str(folder), SPOOL, drop=True, clock=lambda: 1)
    while writer.next_seq < 3 * SPOOL // size or newest(folder).stat().st_size < 5 * KIB:
        writer.append(1, payload(writer.next_seq, size))
    while not (end := writer._at) or writer._length - end < 2 * KIB:
        writer.append(1, payload(writer.next_seq, size))
    return writer


@pytest.mark.parametrize("size", [40, 700, 5 * KIB])  # the last is read apart from its header
@pytest.mark.parametrize("drop", [False, True])
def test_files_are_used_again_and_everything_is_read_once_in_order(tmp_path: Path, size: int, drop: bool) -> None:
    folder, files, seen = tmp_path / "s", set(), 0
    writer = SpoolWriter(str(folder), SPOOL, drop=drop, clock=lambda: 1)
    reader = SpoolReader(str(folder))
    for seq in range(1, min(400_000 // size, 4000)):
        writer.append(1, payload(seq, size))
        files.add(newest(folder).stat().st_ino)
        if seq % 5 == 0:
            while items := reader.read():
                for item in items:
                    assert isinstance(item, Record)
                    assert (item.seq, item.payload) == (seen + 1, payload(seen + 1, size))
                    seen = item.seq
            writer.release(seen)
        assert writer.size <= SPOOL
        assert spool_size(str(folder)) == writer.size
    assert len(files) <= 13  # all that fit at once
    writer.close()
    assert spool_size(str(folder)) == writer.size
    assert not (folder / SPARE).exists()
    seqs, reader = read_all(folder)
    assert seqs == list(range(seqs[0], writer.next_seq))
    assert not reader.behind


def test_a_record_torn_at_any_byte_is_not_there_and_what_was_there_before_is_neither(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    writer = reused(folder)
    path, at, end = newest(folder), writer._at, writer.next_seq
    before = path.read_bytes()
    writer.append(1, b"new")
    after = path.read_bytes()
    assert len(before) == len(after)
    last = next(number for number in range(len(after), 0, -1) if before[number - 1] != after[number - 1])
    whole = writer._at
    for cut in range(at, last + 1):
        path.write_bytes(after[:cut] + before[cut:])
        seqs, reader = read_all(folder)
        assert seqs[-1] == (end if cut >= whole else end - 1)
        assert seqs == list(range(seqs[0], seqs[-1] + 1))
        kept = last_record(str(folder))
        assert kept is not None
        assert kept.seq == seqs[-1]
        if cut in (at, last):
            assert not reader.behind
        elif at + 4 <= cut < whole:  # its checksum is there
            assert reader.behind
    writer.close()


def test_what_looks_like_the_next_record_but_is_of_an_earlier_use_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    writer = reused(folder)
    seq, fake = writer.next_seq, b'{"exit": {"status": 0}}'
    with open(newest(folder), "r+b") as file:
        file.seek(writer._at)
        file.write(
            record_prefix(seq, 3, 1, b"", fake, 0xFFFF) + fake
        )  # right, in a file that is used for the first time
    assert read_all(folder)[0][-1] == seq - 1
    writer.append(1, b"new")
    assert read_all(folder, seq)[0] == [seq]
    writer.close()


@pytest.mark.parametrize("moment", ["before the header", "before its name"])
def test_a_writer_killed_between_two_uses_of_a_file_leaves_what_was_kept(tmp_path: Path, moment: str) -> None:
    folder = tmp_path / "s"
    writer = reused(folder)
    oldest = min(folder.glob("*.log"))
    shutil.copy(oldest, folder / SPARE)
    if moment == "before its name":
        shutil.copy(newest(folder), folder / SPARE)
    oldest.unlink()
    seqs, _ = read_all(folder)
    assert seqs == list(range(seqs[0], writer.next_seq))
    kept = last_record(str(folder))
    assert kept is not None
    assert kept.seq == writer.next_seq - 1
    writer.close()


@pytest.mark.parametrize("size", [700, 5 * KIB])
def test_a_reader_whose_file_is_written_over_hears_of_the_gap(tmp_path: Path, size: int) -> None:
    folder = tmp_path / "s"
    writer = SpoolWriter(str(folder), SPOOL, drop=True, clock=lambda: 1)
    for rounds in range(1, 60):  # how much is written between two of its reads
        reader, next_seq = SpoolReader(str(folder), max(writer.next_seq - 1, 1)), max(writer.next_seq - 1, 1)
        reader.read(1)
        next_seq = reader.seq
        for _ in range(rounds * 2):
            writer.append(1, payload(writer.next_seq, size))
        while items := reader.read():
            for item in items:
                if isinstance(item, Gap):
                    assert (item.from_.seq, item.reason) == (next_seq, "retention")
                    next_seq = item.to.seq
                else:
                    assert (item.seq, item.payload) == (next_seq, payload(next_seq, size))
                    next_seq += 1
        assert next_seq == writer.next_seq
        reader.close()
    writer.close()


@pytest.mark.parametrize("size", [0, 1, 28, 1000, 262_144])
def test_the_checksum_is_the_same_whatever_library_there_is(size: int) -> None:
    data = os.urandom(size)
    for start in (0, 1, 0xFFFFFFFF):
        assert record.crc32(data, start) == zlib.crc32(data, start)


def test_a_reader_knows_what_is_in_memory(tmp_path: Path) -> None:
    writer = SpoolWriter(str(tmp_path / "s"), 1 << 30, drop=False)
    for seq in range(1, 9):
        writer.append(1, payload(seq, 64 * KIB))
    reader = SpoolReader(str(tmp_path / "s"))
    assert not reader.at_hand()  # it has not looked yet
    reader.read(1)
    assert reader.at_hand() or not hasattr(os, "RWF_NOWAIT")
    file = os.open(newest(tmp_path / "s"), os.O_RDWR)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        os.preadv(file, [bytearray(1)], 300 * KIB, os.RWF_NOWAIT)
    except BlockingIOError:
        assert not reader.at_hand()
    except OSError:
        pass  # this file system cannot tell
    os.close(file)
    reader.close()
    writer.close()


_WRITER = """
import sys
from towline.journal.spool import SpoolWriter
writer = SpoolWriter(sys.argv[1], 65536, drop=True)
while True:
    writer.append(1, b"%08d" % writer.next_seq * (writer.next_seq % 97 + 1))
"""


def test_a_killed_writer_leaves_records_that_are_all_right(tmp_path: Path) -> None:
    for number in range(3):
        folder = tmp_path / str(number)
        with subprocess.Popen([sys.executable, "-c", _WRITER, str(folder)]) as process:
            try:
                while (kept := last_of(folder)) is None or kept < 1000 + number * 333:
                    pass
            finally:
                os.kill(process.pid, signal.SIGKILL)
        kept = last_of(folder)
        seqs, _ = read_all(folder)
        assert kept == seqs[-1]
        assert seqs == list(range(seqs[0], seqs[-1] + 1))


def last_of(folder: Path) -> int | None:
    kept = last_record(str(folder))
    return None if kept is None else kept.seq
