"""A log that one process writes and another reads: what a command prints while the node may come and go.

The bytes are those of `record.py` in segment files named by their first seq; no ids, no epochs, no fsync (whoever is
killed loses nothing; a power cut ends the command, too, and may cost what it printed last). A reader needs the folder
alone: a record counts when its checksum is right, a segment is over when the next one is there.

When room is short, the oldest segment is not deleted but written over: a page that is there costs a third of one that
the kernel has to find and clear. What the file held before is never taken for a record of now. The `epoch` in its
header is a random number for each use, and the checksum of each record begins from it; behind the last record stand
zeros. The file has its new header before it has its new name; who still reads it under the old one goes on as long as
the checksums of then hold.
"""

from __future__ import annotations

import contextlib
import os
import time
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

from towline.base.errors import JournalFull
from towline.base.limits import KIB, MIB
from towline.journal import record as format_
from towline.journal.interface import RECORD, Cursor, Gap, Item, Record
from towline.journal.record import FLAG_LAZY, RECORD_HEADER, SEGMENT_HEADER
from towline.journal.segment import SUFFIX

EPOCH = 1  # of all items; and of a segment whose file was not used before
SEGMENT_BYTES = 8 * MIB
SMALLEST_SEGMENT = 4 * KIB
READ_BYTES = 256 * KIB
SPARE = "spare"  # a file between two uses
_HEAD = 4 * KIB  # what is looked at first: a record of no more is read with its neighbours
_MOST_BYTES = RECORD.value + RECORD_HEADER
# RWF_NOWAIT (preadv(2)) reads what is in the page cache and nothing else. Another system than Linux has no such flag.
_NOWAIT: int = getattr(os, "RWF_NOWAIT", -1)
_PROBE = 64 * KIB  # between two bytes that are looked for: what the kernel reads ahead, and drops, is about so large
_byte = bytearray(1)
_devices: dict[int, bool] = {}
_NOTHING = bytes(RECORD_HEADER)  # stands behind the last record of a file that was used before


class _Part(NamedTuple):
    first_seq: int
    size: int


class SpoolWriter:
    """The one writer of a folder, which is made. Blocking, for one thread.

    `max_bytes` on disk; when they are used up, `append` drops what was released and then, with `drop`, the oldest
    segment; without it raises JournalFull. One record more is taken when all before it were released: whoever reads
    gets on, also where others have used up what all may hold together.
    """

    def __init__(self, folder: str, max_bytes: int, *, drop: bool, clock: Callable[[], int] = time.time_ns) -> None:
        os.mkdir(folder, 0o700)
        self.folder, self.max_bytes, self.drop = folder, max_bytes, drop
        self.next_seq = 1
        self.size = 0
        self.released = 0
        self._clock = clock
        self._segment_bytes = max(min(SEGMENT_BYTES, max_bytes // 8), SMALLEST_SEGMENT)
        self._sealed: list[_Part] = []
        self._fd = -1  # until there is something to write
        self._first = self._at = self._salt = 0
        self._length = 0  # of the file: more than `_at` when it was used before
        self._spare = 0  # bytes of the file that is not in use, which count, too

    def __repr__(self) -> str:
        return f"<SpoolWriter {self.folder} next={self.next_seq} {self.size} bytes>"

    def append(
        self, kind: int, payload: bytes | memoryview, *, limit: int | None = None, always: bool = False
    ) -> int:
        """Keep a record and return its seq. Raises JournalFull, OSError.

        `limit` may be less than `max_bytes` for once; `always`: the record is small and must be kept.
        """
        size = RECORD_HEADER + len(payload)
        if self._fd < 0:
            self._begin(size)
        if not always:
            self._make_room(size, self.max_bytes if limit is None else min(limit, self.max_bytes))
        if not self._fits(size):
            self._seal()
            self._begin(size)
        seq = self.next_seq
        prefix = format_.record_prefix(seq, kind, self._clock(), b"", payload, format_.UNKNOWN_BEHIND, self._salt)
        end = self._at + size
        _write_all(self._fd, [prefix, payload, _NOTHING[: max(self._length - end, 0)]], self._at)
        self._at = end
        self._grow(end)
        self.next_seq = seq + 1
        return seq

    def release(self, upto: int) -> None:
        """Nobody needs the records up to and including `upto`: they go when their room is needed."""
        self.released = max(self.released, upto)

    def drop_released(self) -> None:
        """Others need the room: whole segments that were released go, without a use for their files."""
        self._drop_spare()
        while self._sealed and self.released >= self._last_of_first():
            self._unlink_first()

    def close(self) -> None:
        """Let go of the files, and of the room that none of them needs any more."""
        if self._fd >= 0:
            self._let_go()
        self._drop_spare()

    def _fits(self, size: int) -> bool:
        return self._at + size <= self._segment_bytes or self._at == SEGMENT_HEADER

    def _make_room(self, size: int, limit: int) -> None:
        if not self._fits(size) and self._sealed and not self._spare and self.size + self._segment_bytes > limit:
            self._drop_first(size)  # it would have to go before the new one is full; now its file is of use
        while self.size + self._growth(size) > limit and self._drop_first(size):
            pass
        unread = self.released < self.next_seq - 1
        if (needed := self.size + self._growth(size)) > limit and unread and not self.drop:
            raise JournalFull(f"The spool may hold {limit} bytes; {needed} were needed.")

    def _growth(self, size: int) -> int:
        """Bytes on disk that a record of `size` adds."""
        if self._fits(size):
            return max(self._at + size - self._length, 0)
        return max(SEGMENT_HEADER + size - self._spare, 0)

    def _drop_first(self, size: int) -> bool:
        """Drop the oldest segment, if it may go; its file is kept when a record of `size` needs a new one."""
        if not self._sealed:
            if self._at == SEGMENT_HEADER or not (self.drop or self.released >= self.next_seq - 1):
                return False
            self._seal()
            self._begin(size)
        first, length = self._sealed[0]
        if not (self.drop or self.released >= self._last_of_first()):
            return False
        if not self._spare and not self._fits(size) and length >= SEGMENT_HEADER + size:
            os.rename(_path(self.folder, first), os.path.join(self.folder, SPARE))
            self._spare = length
            del self._sealed[0]
        else:
            self._unlink_first()
        return True

    def _last_of_first(self) -> int:
        """The seq of the last record in the oldest segment that is over."""
        return (self._sealed[1].first_seq if len(self._sealed) > 1 else self._first) - 1

    def _unlink_first(self) -> None:
        first, length = self._sealed.pop(0)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_path(self.folder, first))
        self.size -= length

    def _drop_spare(self) -> None:
        if self._spare:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.folder, SPARE))
            self.size, self._spare = self.size - self._spare, 0

    def _seal(self) -> None:
        self._let_go()
        self._sealed.append(_Part(self._first, self._at))

    def _let_go(self) -> None:
        """Close the file, without what an earlier use may have left behind the last record."""
        if self._length > self._at:
            os.ftruncate(self._fd, self._at)
            self.size, self._length = self.size - (self._length - self._at), self._at
        os.close(self._fd)
        self._fd = -1

    def _grow(self, length: int) -> None:
        if length > self._length:
            self.size, self._length = self.size + length - self._length, length

    def _begin(self, size: int) -> None:
        """A new segment, for a record of `size` first."""
        again = self._spare >= SEGMENT_HEADER + size
        name = os.path.join(self.folder, SPARE) if again else _path(self.folder, self.next_seq)
        # Without O_EXCL: on a full disk the file is made and its header is not. Then the next try goes on with that
        # file, which a reader may have opened already.
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        epoch = int.from_bytes(os.urandom(8)) | 1 << 63 | 1 if again else EPOCH
        descriptor = os.open(name, flags, 0o600)
        try:
            header = format_.segment_header(epoch, self.next_seq, FLAG_LAZY)
            _write_all(descriptor, [header, _NOTHING if again else b""], 0)
            if again:
                os.rename(name, _path(self.folder, self.next_seq))
        except OSError:
            os.close(descriptor)
            raise
        self._fd, self._first, self._at = descriptor, self.next_seq, SEGMENT_HEADER
        self._salt, self._length = _salt(epoch), 0
        if again:
            self._length, self._spare = self._spare, 0
        self._grow(SEGMENT_HEADER)


class SpoolReader:
    """Reads a folder from a seq on, while it is written or after. Blocking, for one thread at a time.

    `seq` is the next record; `behind` is how many bytes the file had beyond it when it was last read.
    """

    def __init__(self, folder: str, seq: int = 1) -> None:
        self.folder, self.seq = folder, max(seq, 1)
        self.behind = 0
        self._fd = -1
        self._first = self._at = 0
        self._salt: int | None = None  # until the header was read

    def __repr__(self) -> str:
        return f"<SpoolReader {self.folder} at {self.seq}>"

    def read(self, limit: int = READ_BYTES) -> list[Item]:
        """Records and gaps, at least one when there is one. Raises OSError (the folder may be gone)."""
        if self._fd < 0 and (gap := self._locate()) is not None:
            return [gap]
        if self._fd < 0:
            return []
        items = self._records(limit)
        while not items and (names := _segments(self.folder)) and names[-1] > self._first:
            items = self._records(limit)  # it is complete now; what was torn a moment ago may be whole
            if items:
                break
            self.close()
            later = names[bisect_right(names, self._first)]
            if later > self.seq:
                items = [self._gap_to(later, "corrupt" if self._first in names else "retention")]
            self._locate()
            items = items or self._records(limit)
        return items

    def at_hand(self, count: int = READ_BYTES) -> bool:
        """Whether the next `count` bytes are in memory: then a read need not wait for a disk. False: nobody knows."""
        try:
            return self._fd >= 0 and all(
                os.preadv(self._fd, [_byte], at, _NOWAIT) >= 0 for at in range(self._at, self._at + count, _PROBE)
            )
        except BlockingIOError:
            return False
        except OSError:  # a file system that cannot tell
            return _in_memory(self._fd)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _records(self, limit: int) -> list[Item]:
        if self._salt is None and not self._read_header():
            return []
        items: list[Item] = []
        taken = 0
        while taken < limit:
            head = os.pread(self._fd, _HEAD, self._at)
            self.behind = 0 if self._salt and head.startswith(_NOTHING[: len(head)]) else len(head)
            size = format_.needed(memoryview(head), 0)
            if len(head) < size <= _MOST_BYTES:
                found = self._large(head, size)
            elif not self.behind:
                break
            else:
                found = self._small(limit - taken)
            if not found:
                break
            items += found
            taken += sum(len(item.payload) for item in found)
        return items

    def _large(self, head: bytes, size: int) -> list[Record]:
        """One record that is read where it is to stay, not copied out of a buffer."""
        parsed = format_.parse_head(head, self.seq)
        if parsed is None:
            return []
        kind, time_ns, crc = parsed
        payload = os.pread(self._fd, size - RECORD_HEADER, self._at + RECORD_HEADER)
        if len(payload) < size - RECORD_HEADER or format_.checksum(head, payload, self._salt or 0) != crc:
            return []
        self._at, self.seq = self._at + size, self.seq + 1
        return [Record(EPOCH, self.seq - 1, kind, time_ns, b"", payload)]

    def _small(self, limit: int) -> list[Record]:
        """Those that come next, as many as are whole."""
        found: list[Record] = []
        view, at = memoryview(os.pread(self._fd, limit + _HEAD, self._at)), 0
        while at < limit and (parsed := format_.parse_record(view, at, self.seq, self._salt or 0)) is not None:
            found.append(Record(EPOCH, self.seq, parsed.kind, parsed.time_ns, parsed.id, bytes(parsed.payload)))
            at, self.seq = parsed.end, self.seq + 1
        self._at += at
        return found

    def _read_header(self) -> bool:
        """Which use of the file this is; False: not the one that we want, or there is nothing in it yet."""
        data = os.pread(self._fd, SEGMENT_HEADER, 0)
        if len(data) < SEGMENT_HEADER:
            return False
        header = format_.parse_segment_header(data)
        if header is not None and header[1] != self._first:
            return False
        self._salt = _salt(EPOCH if header is None else header[0])  # damaged: the records' own checksums decide
        return True

    def _locate(self) -> Gap | None:
        """Open the segment that holds `seq`; a gap when that one is gone and a later one is there."""
        gap = None
        while (names := _segments(self.folder)) and self._fd < 0:
            index = bisect_right(names, self.seq) - 1
            if index < 0:
                gap, index = self._gap_to(names[0], "retention"), 0
            try:
                self._fd = os.open(_path(self.folder, names[index]), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue  # dropped just now
            self._first, self._at, self._salt = names[index], SEGMENT_HEADER, None
            self._skip(names[index])
        return gap

    def _skip(self, seq: int) -> None:
        """Go on from record `seq`, which is here, to the one that is wanted."""
        while seq < self.seq:
            data = os.pread(self._fd, READ_BYTES, self._at)
            view, at = memoryview(data), 0
            while seq < self.seq and (size := format_.needed(view, at, seq)):
                at, seq = at + size, seq + 1
            if not at:
                return  # a position from the future; reading there gives nothing
            self._at += at

    def _gap_to(self, first: int, reason: str) -> Gap:
        gap = Gap(Cursor(EPOCH, self.seq), Cursor(EPOCH, first), reason)
        self.seq = first
        return gap


def last_record(folder: str) -> Record | None:
    """The newest whole record of a spool, None when there is none (or no such folder)."""
    try:
        names = _segments(folder)
        for first in reversed(names):
            reader, last = SpoolReader(folder, first), None
            try:
                while items := [item for item in reader.read() if isinstance(item, Record)]:
                    last = items[-1]
            finally:
                reader.close()
            if last is not None:
                return last
    except FileNotFoundError:
        pass
    return None


def spool_size(folder: str) -> int:
    """Bytes on disk."""
    total = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                total += entry.stat(follow_symlinks=False).st_size
    return total


def remove_spool(folder: str) -> None:
    """Delete a spool; harmless when there is none."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))
        os.rmdir(folder)


def _in_memory(descriptor: int) -> bool:
    """Whether a file is on a tmpfs (proc_pid_mountinfo(5)); asked for once for each of them."""
    device = os.fstat(descriptor).st_dev
    if device not in _devices:
        try:
            with open("/proc/self/mountinfo") as file:
                mounts = [line.split() for line in file]
        except OSError:
            mounts = []
        numbers = f"{os.major(device)}:{os.minor(device)}"
        _devices[device] = any(row[2] == numbers and row[row.index("-") + 1] == "tmpfs" for row in mounts)
    return _devices[device]


def _salt(epoch: int) -> int:
    return epoch & 0xFFFFFFFF if epoch != EPOCH else 0


def _segments(folder: str) -> list[int]:
    stems = (name.removesuffix(SUFFIX) for name in os.listdir(folder) if name.endswith(SUFFIX))
    return sorted(int(stem) for stem in stems if stem.isdigit())


def _path(folder: str, first_seq: int) -> str:
    return os.path.join(folder, f"{first_seq:020d}{SUFFIX}")


def _write_all(descriptor: int, parts: list[bytes | memoryview], offset: int) -> None:
    total = sum(map(len, parts))
    written = os.pwritev(descriptor, parts, offset)
    if written < total:
        view = memoryview(b"".join(parts))
        while written < total:
            written += os.pwrite(descriptor, view[written:], offset + written)
