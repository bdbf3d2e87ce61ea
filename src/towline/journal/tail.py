"""The newest records of a journal, in memory: one copy for all followers, however many.

Not thread-safe; the journal's lock is held around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

from towline.journal.interface import Cursor, Item, Record

_payload_of = itemgetter(5)
OVERHEAD = 200  # bytes that a record costs beside its payload, about


class Tail:
    """Records `first` up to `end`, at most about `limit` bytes of them."""

    def __init__(self, limit: int, end: Cursor) -> None:
        self._limit = limit
        self._epoch, self._first = end
        self._records: list[Record] = []
        self._size = 0

    def __repr__(self) -> str:
        return f"<Tail {self._first}.. {len(self._records)} records, {self._size} bytes>"

    def extend(self, records: Sequence[Record]) -> None:
        """What was just kept."""
        self._records += records
        self._size += _size(records)
        if self._size > self._limit:
            self._shrink()

    def read(self, from_: Cursor, limit_bytes: int, limit_records: int) -> list[Item] | None:
        """From `from_` on; empty at the end; None when the position is not in here."""
        index = from_.seq - self._first
        if from_.epoch != self._epoch or not 0 <= index <= len(self._records):
            return None
        items: list[Item] = []
        taken = 0
        for record in self._records[index : index + limit_records]:
            taken += len(record.payload)
            if items and taken > limit_bytes:
                break
            items.append(record)
        return items

    def drop_below(self, floor: int) -> None:
        """Retention dropped these: memory says the same as the disk."""
        if floor > self._first:
            self._forget(min(floor - self._first, len(self._records)))

    def _shrink(self) -> None:
        count, size = 0, self._size
        # A quarter more than necessary, so that this is not done for every record.
        for record in self._records:
            if size <= self._limit * 3 // 4:
                break
            size -= len(record[5]) + OVERHEAD
            count += 1
        self._forget(count)

    def _forget(self, count: int) -> None:
        self._size -= _size(self._records[:count])
        del self._records[:count]
        self._first += count


def _size(records: Sequence[Record]) -> int:
    return sum(map(len, map(_payload_of, records))) + OVERHEAD * len(records)
