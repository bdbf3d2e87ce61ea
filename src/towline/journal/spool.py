"""A log that one process writes and another reads: what a command prints while the node may come and go.

The bytes are those of `record.py` in segment files named by their first seq; no ids, no epochs, no fsync (whoever is
killed loses nothing; a power cut ends the command, too, and may cost what it printed last). A reader needs the folder
alone: a record counts when its checksum is right, a segment is over when the next one is there.
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
from towline.journal.record import FLAG_LAZY, SEGMENT_HEADER
from towline.journal.segment import SUFFIX

EPOCH = 1
SEGMENT_BYTES = 8 * MIB
SMALLEST_SEGMENT = 4 * KIB
READ_BYTES = 256 * KIB


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
        self._first = self._at = 0

    def __repr__(self) -> str:
        return f"<SpoolWriter {self.folder} next={self.next_seq} {self.size} bytes>"

    def append(
        self, kind: int, payload: bytes | memoryview, *, limit: int | None = None, always: bool = False
    ) -> int:
        """Keep a record and return its seq. Raises JournalFull, OSError.

        `limit` may be less than `max_bytes` for once; `always`: the record is small and must be kept.
        """
        seq = self.next_seq
        prefix = format_.record_prefix(seq, kind, self._clock(), b"", payload, format_.UNKNOWN_BEHIND)
        size = len(prefix) + len(payload)
        if self._fd < 0:
            self._begin()
        if not always:
            self._make_room(size, self.max_bytes if limit is None else min(limit, self.max_bytes))
        if self._at + size > self._segment_bytes and self._at > SEGMENT_HEADER:
            self._seal()
            self._begin()
        _write_all(self._fd, [prefix, payload], self._at)
        self._at += size
        self.size += size
        self.next_seq = seq + 1
        return seq

    def release(self, upto: int) -> None:
        """Nobody needs the records up to and including `upto`: they go when their room is needed."""
        self.released = max(self.released, upto)

    def close(self) -> None:
        """Let go of the files."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _make_room(self, size: int, limit: int) -> None:
        while self.size + size > limit and self._drop_first():
            pass
        unread = self.released < self.next_seq - 1
        if self.size + size > limit and unread and not self.drop:
            raise JournalFull(f"The spool may hold {limit} bytes; {self.size + size} were needed.")

    def _drop_first(self) -> bool:
        if not self._sealed:
            if self._at == SEGMENT_HEADER or not (self.drop or self.released >= self.next_seq - 1):
                return False
            self._seal()
            self._begin()
        first, size = self._sealed[0]
        last = (self._sealed[1].first_seq if len(self._sealed) > 1 else self._first) - 1
        if not (self.drop or self.released >= last):
            return False
        self._sealed.pop(0)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_path(self.folder, first))
        self.size -= size
        return True

    def _seal(self) -> None:
        self.close()
        self._sealed.append(_Part(self._first, self._at))

    def _begin(self) -> None:
        # Without O_EXCL: on a full disk the file is made and its header is not. Then the next try goes on with that
        # file, which a reader may have opened already.
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(_path(self.folder, self.next_seq), flags, 0o600)
        try:
            _write_all(descriptor, [format_.segment_header(EPOCH, self.next_seq, FLAG_LAZY)], 0)
        except OSError:
            os.close(descriptor)
            raise
        self._fd, self._first, self._at = descriptor, self.next_seq, SEGMENT_HEADER
        self.size += SEGMENT_HEADER


class SpoolReader:
    """Reads a folder from a seq on, while it is written or after. Blocking, for one thread at a time.

    `seq` is the next record; `behind` is how many bytes the file had beyond it when it was last read.
    """

    def __init__(self, folder: str, seq: int = 1) -> None:
        self.folder, self.seq = folder, max(seq, 1)
        self.behind = 0
        self._fd = -1
        self._first = self._at = 0

    def __repr__(self) -> str:
        return f"<SpoolReader {self.folder} at {self.seq}>"

    def read(self, limit: int = READ_BYTES) -> list[Item]:
        """Records and gaps, at least one when there is one. Raises OSError (the folder may be gone)."""
        if self._fd < 0 and (gap := self._locate()) is not None:
            return [gap]
        if self._fd < 0:
            return []
        items = self._records(limit)
        while not items and (later := [first for first in _segments(self.folder) if first > self._first]):
            items = self._records(limit)  # it is complete now; what was torn a moment ago may be whole
            if items:
                break
            self.close()
            if later[0] > self.seq:
                items = [self._gap_to(later[0], "corrupt")]
            self._locate()
            items = items or self._records(limit)
        return items

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _records(self, limit: int) -> list[Item]:
        items: list[Item] = []
        taken = 0
        data = os.pread(self._fd, limit + 4 * KIB, self._at)
        wanted = format_.needed(memoryview(data), 0)
        if len(data) < wanted <= RECORD.value + SEGMENT_HEADER:
            data = os.pread(self._fd, wanted, self._at)
        view, at = memoryview(data), 0
        while taken < limit and (parsed := format_.parse_record(view, at, self.seq)) is not None:
            items.append(Record(EPOCH, self.seq, parsed.kind, parsed.time_ns, parsed.id, bytes(parsed.payload)))
            taken += len(parsed.payload)
            at, self.seq = parsed.end, self.seq + 1
        self._at += at
        self.behind = len(data) - at
        return items

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
            self._first, self._at = names[index], SEGMENT_HEADER
            self._skip(names[index])
        return gap

    def _skip(self, seq: int) -> None:
        """Go on from record `seq`, which is here, to the one that is wanted."""
        while seq < self.seq:
            data = os.pread(self._fd, READ_BYTES, self._at)
            view, at = memoryview(data), 0
            while seq < self.seq and (size := format_.needed(view, at)):
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
