"""One file of records: created, written at its end, scanned and repaired, indexed, read.

Beside a sealed segment lies an index file (`.idx`): how many records, where every 64 KiB begins, which ids. It is a
cache with checksums; a missing or damaged one is rebuilt by a scan (about 150 MB/s of small records).
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import IO, Any
from zlib import crc32

from towline.base.limits import KIB, MIB
from towline.journal import record as format_
from towline.journal.catalogue import sync_folder, write_whole
from towline.journal.descriptors import SHARED
from towline.journal.ids import IdTable, keyed, reference
from towline.journal.interface import Cursor, Gap, Item, Record
from towline.journal.record import FLAG_LAZY, SEGMENT_HEADER, UNKNOWN_BEHIND, Parsed

SUFFIX, INDEX_SUFFIX = ".log", ".idx"
INDEX_EVERY = 64 * KIB
CHUNK = 256 * KIB
SCAN_CHUNK = 1 * MIB
LARGE_PART = 2 * KIB  # from this average on, gathering (pwritev) beats copying
PARTS_AT_ONCE = 1000  # below IOV_MAX (1024 on Linux)
HINTS = 256
_INDEX = struct.Struct(">8sIQQQQQQII")
_INDEX_MAGIC = b"TOWINDX1" if sys.byteorder == "little" else b"TOWINDXB"  # a cache: arrays as they lie in memory
_CRC = struct.Struct(">I")

Walked = tuple[int, int, Parsed | None]  # where, which seq, and the record (None: damage begins here)


class Segment:
    """Records `first_seq` up to, not including, `next_seq`. Writing and repairing is serialised by the journal."""

    def __init__(self, path: str, epoch: int, first_seq: int, flags: int) -> None:
        self.path, self.epoch, self.first_seq, self.flags = path, epoch, first_seq, flags
        self.next_seq = first_seq
        self.size = SEGMENT_HEADER
        self.oldest_ns = self.newest_ns = 0
        self._seqs, self._offsets = array("Q"), array("Q")
        self._ids: IdTable | None = None
        self._hints: dict[int, int] = {}  # seq -> offset, where readers stopped: the next read begins there

    def __repr__(self) -> str:
        return f"<Segment {self.epoch:016x} {self.first_seq}..{self.next_seq - 1}, {self.size} bytes>"

    def __len__(self) -> int:
        return self.next_seq - self.first_seq

    @property
    def index_path(self) -> str:
        """The file beside it."""
        return self.path.removesuffix(SUFFIX) + INDEX_SUFFIX

    @classmethod
    def create(cls, folder: str, epoch: int, first_seq: int, flags: int) -> Segment:
        """A new empty file, durable with its name. Raises OSError and leaves nothing behind then."""
        path = os.path.join(folder, f"{first_seq:020d}{SUFFIX}")
        SHARED.forget(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            header = format_.segment_header(epoch, first_seq, flags)
            if os.write(descriptor, header) != len(header):
                raise OSError(28, "No space left on device")
            os.fsync(descriptor)
            sync_folder(folder)
        except OSError:
            os.unlink(path)
            raise
        finally:
            os.close(descriptor)
        return cls(path, epoch, first_seq, flags)

    @classmethod
    def load(cls, path: str) -> Segment | None:
        """An existing file by its header, its records not yet known; None when the header is not whole and valid."""
        SHARED.forget(path)  # a restored folder has other files under the same names
        with SHARED.use(path) as descriptor:
            parsed = format_.parse_segment_header(os.pread(descriptor, SEGMENT_HEADER, 0))
        name = os.path.basename(path).removesuffix(SUFFIX)
        if parsed is None or f"{parsed[1]:020d}" != name:
            return None
        return cls(path, *parsed)

    # --- writing ---

    def note(self, seq: int, offset: int, time_ns: int) -> None:
        """Record `seq` begins at `offset`."""
        if not self._offsets or offset - self._offsets[-1] >= INDEX_EVERY:
            self._offsets.append(offset)  # before the seq: a reader on another thread looks that up first
            self._seqs.append(seq)
        self.oldest_ns = self.oldest_ns or time_ns
        self.newest_ns = max(self.newest_ns, time_ns)

    def write(self, parts: list[bytes], total: int) -> None:
        """Put `parts` (`total` bytes) behind `size`, which the caller moves on when they count. Raises OSError."""
        with SHARED.use(self.path) as descriptor:
            if total < len(parts) * LARGE_PART:
                _write_all(descriptor, b"".join(parts), self.size)
                return
            offset = self.size
            for start in range(0, len(parts), PARTS_AT_ONCE):
                group = parts[start : start + PARTS_AT_ONCE]
                expected = sum(map(len, group))
                written = os.pwritev(descriptor, group, offset)
                if written != expected:
                    _write_all(descriptor, b"".join(group)[written:], offset + written)
                offset += expected

    def sync(self) -> None:
        """Make what was written durable. Raises OSError."""
        with SHARED.use(self.path) as descriptor:
            os.fdatasync(descriptor)

    def truncate(self, size: int, next_seq: int) -> None:
        """Forget everything from `next_seq` on, which begins at `size`."""
        with SHARED.use(self.path) as descriptor:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        self.size, self.next_seq = size, next_seq
        while self._offsets and self._offsets[-1] >= size:
            self._seqs.pop()
            self._offsets.pop()
        self._hints.clear()

    def remove(self) -> None:
        """Delete the file; readers that have it open finish what they read."""
        SHARED.forget(self.path)
        os.unlink(self.path)

    # --- reading ---

    def read(
        self, seq: int, end_seq: int, end_offset: int, limit_bytes: int, limit_records: int, *, one: bool
    ) -> tuple[list[Item], int]:
        """Items from `seq` on, below `end_seq`, and the seq where reading goes on.

        With `one` the first record is given even if it is larger than `limit_bytes`. Raises FileNotFoundError.
        """
        items: list[Item] = []
        taken = 0
        start, offset = self._locate(seq)
        damaged: int | None = None
        for at, current, parsed in self._walk(offset, start, end_offset, min(CHUNK, limit_bytes + 4 * KIB)):
            if parsed is None:
                damaged = current
                continue
            if damaged is not None:
                if current > seq:
                    items.append(self._damage(max(damaged, seq), current))
                    seq = current
                damaged = None
            if current < seq:
                continue
            if len(items) >= limit_records or ((items or not one) and taken + len(parsed.payload) > limit_bytes):
                self._hint(seq, at)
                return items, seq
            payload = bytes(parsed.payload)
            items.append(Record(self.epoch, current, parsed.kind, parsed.time_ns, parsed.id, payload))
            taken += len(payload)
            seq = current + 1
            if seq == end_seq:
                self._hint(seq, at + format_.record_size(parsed.id, payload))
        if seq < end_seq:
            items.append(self._damage(seq, end_seq))
        return items, end_seq

    def _damage(self, first: int, good: int) -> Gap:
        return Gap(Cursor(self.epoch, first), Cursor(self.epoch, good), "corrupt")

    def _locate(self, seq: int) -> tuple[int, int]:
        if (offset := self._hints.get(seq)) is not None:
            return seq, offset
        index = bisect_right(self._seqs, seq) - 1
        return (self._seqs[index], self._offsets[index]) if index >= 0 else (self.first_seq, SEGMENT_HEADER)

    def _hint(self, seq: int, offset: int) -> None:
        if len(self._hints) >= HINTS:
            self._hints.clear()
        self._hints[seq] = offset

    def _walk(self, offset: int, seq: int, end: int, chunk: int) -> Iterator[Walked]:
        """Every record from `offset`, which is `seq`, up to `end`; damage is named where it begins, then skipped."""
        with SHARED.use(self.path) as descriptor:
            want = chunk
            while offset < end:
                data = os.pread(descriptor, min(want, end - offset), offset)
                view, at = memoryview(data), 0
                while (parsed := format_.parse_record(view, at, seq)) is not None:
                    yield offset + at, seq, parsed
                    at, seq = parsed.end, seq + 1
                offset += at
                needed = format_.needed(view, at)
                if offset >= end:
                    return
                if data and at:  # the rest of the chunk is the beginning of a record, perhaps: look again from there
                    want = max(chunk, min(needed, 2 * SCAN_CHUNK))
                    continue
                if len(data) < needed <= min(2 * SCAN_CHUNK, end - offset) and len(data) == want:
                    want = needed
                    continue
                yield offset, seq, None
                found = format_.resync(os.pread(descriptor, end - offset, offset), 0, seq)
                if found is None:
                    return
                offset, seq, want = offset + found[0], found[1].seq, chunk

    # --- scanning and indexing ---

    def scan(self, salt: bytes, *, repair: bool) -> tuple[dict[int, int], int]:
        """Read every record; returns the ids (key -> reference) and how many bytes of a torn tail were cut off.

        A torn tail is what nothing behind it proves to have been kept; it is cut off only with `repair` (the last
        segment of a log).
        """
        with SHARED.use(self.path) as descriptor:
            end = os.fstat(descriptor).st_size
        ids: dict[int, int] = {}
        id_key = keyed(salt)
        unproven: list[tuple[int, int]] = []  # where damage begins, and which seq
        self._seqs, self._offsets = array("Q"), array("Q")
        size, next_seq = SEGMENT_HEADER, self.first_seq
        for offset, seq, parsed in self._walk(SEGMENT_HEADER, self.first_seq, end, SCAN_CHUNK):
            if parsed is None:
                unproven.append((offset, seq))
                continue
            if unproven:
                kept = self._kept_before(seq, parsed.behind)
                unproven = [hole for hole in unproven if hole[1] > kept]
            self.note(seq, offset, parsed.time_ns)
            if parsed.id:
                ids.setdefault(id_key(parsed.id), reference(seq, crc32(parsed.payload)))
            next_seq, size = seq + 1, offset + format_.record_size(parsed.id, parsed.payload)
        self.size, self.next_seq = size, next_seq
        if not repair:
            return ids, 0
        if unproven:
            size, next_seq = unproven[0]
            ids = {key: ref for key, ref in ids.items() if ref >> 32 < next_seq}
        if size < end:
            self.truncate(size, next_seq)
        else:
            # A killed process may have written what it never flushed. From here on it counts as kept: it is read,
            # and acknowledged to whoever says it again.
            with SHARED.use(self.path) as descriptor:
                os.fsync(descriptor)
        return ids, end - size

    def _kept_before(self, seq: int, behind: int) -> int:
        """The newest seq that a valid record proves to have been kept."""
        if self.flags & FLAG_LAZY:
            return seq
        return 0 if behind == UNKNOWN_BEHIND else seq - behind

    def seal(self, ids: dict[int, int], salt: bytes) -> None:
        """Nothing is written here any more: keep what is known about it beside it. A full disk only costs a scan."""
        self._ids = IdTable.of(self.first_seq, ids)
        head = _INDEX.pack(
            _INDEX_MAGIC, crc32(salt), self.epoch, self.first_seq, self.next_seq, self.size,
            self.oldest_ns, self.newest_ns, len(self._seqs), len(self._ids),
        )  # fmt: skip
        with contextlib.suppress(OSError), open(self.index_path, "wb", opener=_private) as file:
            file.write(_index_bytes(head + self._seqs.tobytes() + self._offsets.tobytes(), self._ids))

    def load_index(self, salt: bytes) -> bool:
        """Take over what `seal` kept, unless it does not fit the segment."""
        try:
            with open(self.index_path, "rb") as file, SHARED.use(self.path) as descriptor:
                head = file.read(_INDEX.size)
                values = _INDEX.unpack(head)
                if not _is_long_enough(file, values):
                    return False
                rest = file.read(values[8] * 16 + _CRC.size)
                size = os.fstat(descriptor).st_size
        except (OSError, struct.error):
            return False
        magic, salted, epoch, first_seq, next_seq, expected, oldest, newest, entries, _ = values
        fits = (magic, salted, epoch, first_seq, expected) == (
            _INDEX_MAGIC, crc32(salt), self.epoch, self.first_seq, size,
        )  # fmt: skip
        if not fits or len(rest) != entries * 16 + 4 or crc32(head + rest[:-4]) != _CRC.unpack(rest[-4:])[0]:
            return False
        self.next_seq, self.size, self.oldest_ns, self.newest_ns = next_seq, size, oldest, newest
        self._seqs, self._offsets = array("Q", rest[: entries * 8]), array("Q", rest[entries * 8 : -4])
        return True

    def ids(self, salt: bytes) -> IdTable:
        """The ids of a sealed segment, from memory, its index or a scan."""
        if self._ids is None:
            self._ids = load_ids(self.index_path, salt)
        if self._ids is None:
            self.seal(self.scan(salt, repair=False)[0], salt)
        assert self._ids is not None
        return self._ids

    def hand_over_ids(self, path: str, salt: bytes) -> bool:
        """Make the index durable under another name, as what will be left of this segment. False: damaged."""
        if load_ids(self.index_path, salt) is None:
            return False
        descriptor = os.open(self.index_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(self.index_path, path)
        sync_folder(os.path.dirname(path))
        return True


def save_ids(path: str, table: IdTable, salt: bytes) -> None:
    """Keep the ids of records that are gone, durably. Raises OSError."""
    head = _INDEX.pack(_INDEX_MAGIC, crc32(salt), 0, table.first_seq, table.first_seq, 0, 0, 0, 0, len(table))
    write_whole(path, _index_bytes(head, table))


def _index_bytes(head: bytes, table: IdTable) -> bytes:
    ids = table.to_bytes()
    return head + _CRC.pack(crc32(head)) + ids + _CRC.pack(crc32(ids))


def _is_long_enough(file: IO[bytes], values: tuple[Any, ...]) -> bool:
    """Whether it can hold what its head says, before room is made for that."""
    needed: int = _INDEX.size + values[8] * 16 + values[9] * 16 + 2 * _CRC.size
    return os.fstat(file.fileno()).st_size >= needed


def load_ids(path: str, salt: bytes) -> IdTable | None:
    """The ids in an index file, None when it is damaged or of another log."""
    try:
        with open(path, "rb") as file:
            head = file.read(_INDEX.size)
            values = _INDEX.unpack(head)
            if not _is_long_enough(file, values):
                return None
            file.seek(values[8] * 16 + _CRC.size, os.SEEK_CUR)
            table = file.read(values[9] * 16 + _CRC.size)
    except (OSError, struct.error):
        return None
    if values[0] != _INDEX_MAGIC or values[1] != crc32(salt) or len(table) != values[9] * 16 + 4:
        return None
    if crc32(table[:-4]) != _CRC.unpack(table[-4:])[0]:
        return None
    return IdTable.from_bytes(values[3], table[:-4])


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
