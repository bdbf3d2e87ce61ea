"""Puts batches into segments, begins new ones, drops old ones. One caller at a time: it holds the write lock.

What readers look at (`Segments.ids`, sizes, the end) is changed under the journal's state lock only.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

from towline.base.errors import DiskError, InternalError, NoSpace, TowlineError
from towline.journal.batch import Batch, Options, dispensable, sliced
from towline.journal.ids import newer_ids
from towline.journal.interface import Record
from towline.journal.segments import Segments

# EFBIG is a full quota in disguise (setrlimit(2) RLIMIT_FSIZE).
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Writer:
    """`publish` is called under `lock` with records that are where they should be."""

    def __init__(
        self, segments: Segments, options: Options, lock: threading.Condition, publish: Callable[[list[Record]], None]
    ) -> None:
        self._segments, self._options, self._lock, self._publish = segments, options, lock, publish
        self.released = 0  # the owner needs nothing up to here
        self.unsynced: list[str] = []  # sealed with durable=False, and not yet on the disk for certain
        self._torn = False  # what failed may have left something behind the newest published record
        self._doubtful = False  # an fsync of the active segment failed

    def store(self, batch: Batch, now_ns: int) -> None:
        """Put a batch into one segment or several, each slice published before the next; failures are put into it."""
        rest = batch.records
        try:
            self._mend()
            while rest:
                rest = self._store_slice(rest, now_ns)
        except OSError as error:
            batch.error = disk_error(error, self._segments.folder)
        except Exception as error:  # noqa: BLE001  # a bug of ours must fail appends, not hang those who wait
            batch.error = InternalError(f"A bug in the journal: {type(error).__name__}: {error}.")
        if batch.error is not None:
            batch.kept_upto = rest[0].seq - 1

    def _store_slice(self, records: list[Record], now_ns: int) -> list[Record]:
        segment = self._segments.active
        slice_ = sliced(records, segment, self._options)
        if not slice_.count:
            self.roll()
            self.drop(now_ns)
            return records
        self._torn = True
        segment.write(slice_.parts, slice_.size)
        if self._options.durable:
            self._doubtful = True
            segment.sync()
        self._torn = self._doubtful = False
        for mark in slice_.marks:
            segment.note(*mark)
        stored = records[: slice_.count]
        with self._lock:
            segment.size += slice_.size
            segment.next_seq = stored[-1].seq + 1
            self._publish(stored)
        return records[slice_.count :]

    def cut_back(self) -> TowlineError | None:
        """Remove what a failed write left behind the newest published record; the error if even that fails."""
        try:
            self._cut()
        except OSError as error:
            return disk_error(error, self._segments.folder)
        return None

    def _cut(self) -> None:
        active = self._segments.active
        active.truncate(active.size, active.next_seq)
        self._torn = False

    def _mend(self) -> None:
        """Before anything is written again after a failure: no byte comes behind a torn tail.

        A file whose fsync failed is not written to any more. The kernel may have given up what it could not write
        and call those pages clean, so that the next fsync of that file proves nothing. Raises OSError.
        """
        if self._torn:
            self._cut()
        if self._doubtful:
            if len(
                self._segments.active
            ):  # an empty one has nothing in doubt: its header was synced when it was made
                self.roll()
            self._doubtful = False

    def roll(self) -> None:
        """Seal the active segment and begin the next. Raises OSError, nothing changed then."""
        segments, active = self._segments, self._segments.active
        with self._lock:
            ids = segments.ids.copy()
            for key in newer_ids(ids, active.next_seq):
                del ids[key]
        segments.roll(ids)
        with self._lock:
            segments.ids = newer_ids(segments.ids, active.next_seq)
            if not self._options.durable:
                self.unsynced.append(active.path)

    def release(self, upto: int, now_ns: int) -> bool:
        """Note what the owner needs no more; True when segments were dropped."""
        self.released = max(self.released, upto)
        active = self._segments.active
        # A new file for each acknowledgement would cost two fsyncs each: up to half a segment is kept instead.
        if active.size > self._options.segment_bytes // 2 and self.released >= active.next_seq - 1:
            self._roll_if_possible()
        return self.drop(now_ns)

    def retain(self, now_ns: int) -> bool:
        """Drop what is too old; True when segments were dropped."""
        active, most = self._segments.active, self._options.retention.max_seconds
        if most is not None and len(active) and now_ns - active.oldest_ns > most * 0.5e9:
            self._roll_if_possible()
        return self.drop(now_ns)

    def drop(self, now_ns: int) -> bool:
        """Delete the segments at the front that can go; True when there were any."""
        count = dispensable(self._segments.files, self._options, self.released, now_ns)
        if not count:
            return False
        try:
            self._segments.drop_front(count)
        except OSError:  # no room even for what must be remembered: more than wanted is kept until there is
            return False
        return True

    def _roll_if_possible(self) -> None:
        try:
            self.roll()
        except OSError:
            pass  # a full disk: what could be dropped then is dropped later


def disk_error(error: OSError, path: str) -> TowlineError:
    """What the operating system said, as one of ours."""
    if error.errno in NO_SPACE:
        return NoSpace("The disk is full; nothing of this record was kept.")
    return DiskError(f"The disk reported an error at {path}: {error.strerror}.")
