"""What waits for the disk together: batches, the tickets of their records, and their bytes.

Options of a journal are here too, because they say how batches are cut and what is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from towline.base.errors import TowlineError
from towline.base.limits import KIB, MIB
from towline.journal.interface import Record, Retention
from towline.journal.record import record_prefixes, record_size
from towline.journal.segment import Segment

SMALLEST_SEGMENT = 4 * KIB
MARK_EVERY = 32 * KIB


class Options(Struct, frozen=True):
    """How a journal is kept. Bytes and seconds.

    `cache_bytes` of the newest records stay in memory for followers; `pending_bytes` may wait for an fsync before
    `append` blocks. With `durable=False` fsync comes every `checkpoint_bytes` or `checkpoint_seconds`.
    """

    durable: bool = True
    segment_bytes: int = 8 * MIB
    retention: Retention = field(default_factory=Retention)
    cache_bytes: int = 512 * KIB
    pending_bytes: int = 8 * MIB
    checkpoint_bytes: int = 64 * MIB
    checkpoint_seconds: float = 1.0

    def fitted(self) -> Options:
        """With segments small enough for the retention: an eighth of `max_bytes` is the grain that is dropped."""
        most = self.retention.max_bytes
        if most is None:
            return self
        return replace(self, segment_bytes=max(min(self.segment_bytes, most // 8), SMALLEST_SEGMENT))

    def segment_records(self) -> int | None:
        """How many records one segment takes, where their number is what is kept by."""
        most = self.retention.max_records
        return None if most is None else max(most // 4, 1)


class Batch(Struct):
    """Records that are committed together."""

    records: list[Record] = []
    size: int = 0
    done: bool = False
    error: TowlineError | None = None
    kept_upto: int = 0  # with an error: the records up to this one were kept all the same

    def failure(self, seq: int) -> TowlineError | None:
        """Why a record of this batch was not kept; None when it was (or may still be)."""
        return self.error if self.error is not None and seq > self.kept_upto else None

    def holds(self, seq: int) -> Record | None:
        """The record with this seq, if it is one of this batch."""
        if self.records and self.records[0].seq <= seq <= self.records[-1].seq:
            return self.records[seq - self.records[0].seq]
        return None


class Waits(Protocol):
    """Where tickets wait: the journal."""

    def wait(self, true: Callable[[], bool], timeout: float | None = None) -> None:
        """Wait for something that commits change. Raises TimedOut."""


class Tickets:
    """Records on their way to the disk that were handed over together.

    `outcomes` has, for each in order, its seq (settled; that it is kept is not until `done`) or why it was refused at
    once. `known`: the seqs of ids that had been used for the same record already, and the batch that one is in.
    """

    __slots__ = ("batch", "known", "outcomes")

    def __init__(self, outcomes: list[int | TowlineError], batch: Batch, known: dict[int, Batch]) -> None:
        self.outcomes, self.batch, self.known = outcomes, batch, known

    def __repr__(self) -> str:
        return f"<Tickets {len(self.outcomes)} {'done' if self.done() else 'pending'}>"

    @property
    def kept_all(self) -> bool:
        """Each was new and is kept, once they are done: their seqs are in a row."""
        first, last = self.outcomes[0], self.outcomes[-1]
        if self.known or self.batch.error is not None or not isinstance(first, int) or not isinstance(last, int):
            return False
        return last - first == len(self.outcomes) - 1

    def done(self) -> bool:
        """Each is kept, or failed."""
        return self.batch.done

    def failure(self, seq: int) -> TowlineError | None:
        """Why the record was not kept after all; None when it was (or may still be)."""
        return self.known.get(seq, self.batch).failure(seq)


class Ticket:
    """One record on its way to the disk; its `seq` is settled, that it is kept is not until `done`."""

    __slots__ = ("_journal", "_tickets", "seq")

    def __init__(self, tickets: Tickets, journal: Waits) -> None:
        """Raises what it was refused for."""
        (outcome,) = tickets.outcomes
        if isinstance(outcome, TowlineError):
            raise outcome
        self.seq = outcome
        self._tickets, self._journal = tickets, journal

    def __repr__(self) -> str:
        return f"<Ticket {self.seq} {'done' if self.done() else 'pending'}>"

    @property
    def duplicate(self) -> bool:
        """The id had been used for this record already."""
        return self.seq in self._tickets.known

    def done(self) -> bool:
        """Kept, or failed."""
        return self._tickets.done()

    def result(self, timeout: float | None = None) -> int:
        """The seq, once the record is kept. Raises what kept it from being kept (nothing of it is), TimedOut."""
        if not self.done():
            self._journal.wait(self.done, timeout)
        if (error := self._tickets.failure(self.seq)) is not None:
            raise type(error)(str(error))
        return self.seq


class Slice(Struct, frozen=True):
    """The bytes of some records for one segment: two parts each, and `(seq, offset, time)` marks for its index."""

    parts: list[bytes]
    marks: list[tuple[int, int, int]]
    size: int

    @property
    def count(self) -> int:
        """How many records."""
        return len(self.parts) // 2


def sliced(records: Sequence[Record], segment: Segment, options: Options) -> Slice:
    """As many of `records` as `segment` takes; none when it is full. An empty segment takes one, however large."""
    begin, most = segment.size, options.segment_records()
    room = options.segment_bytes - begin
    takes = records if most is None else records[: max(most - len(segment), 0)]
    parts: list[bytes] = []
    marks: list[tuple[int, int, int]] = []
    total = next_mark = size = 0
    for record, prefix in zip(takes, record_prefixes(takes), strict=True):
        payload = record[5]
        size = len(prefix) + len(payload)
        if total + size > room and (parts or len(segment)):
            break
        if total >= next_mark:
            marks.append((record[1], begin + total, record[3]))
            next_mark = total + MARK_EVERY
        parts += (prefix, payload)
        total += size
    if parts:  # the newest time of the segment is the last record's
        last = records[len(parts) // 2 - 1]
        marks.append((last.seq, begin + total - record_size(last.id, last.payload), last.time_ns))
    return Slice(parts, marks, total)


def dispensable(files: Sequence[Segment], options: Options, released: int, now_ns: int) -> int:
    """How many segments at the front can go. The last one, which is written to, never does.

    `max_bytes` is a ceiling (room for the active segment to fill up is made in advance); `max_records` and
    `max_seconds` are at least kept.
    """
    retention = options.retention
    ceiling = retention.max_bytes if retention.when_full == "drop-oldest" else None
    size, number, count = sum(file.size for file in files), sum(map(len, files)), 0
    for segment in files[:-1]:
        number -= len(segment)
        over = ceiling is not None and size + options.segment_bytes - files[-1].size > ceiling
        many = retention.max_records is not None and number >= retention.max_records
        old = retention.max_seconds is not None and now_ns - segment.newest_ns > retention.max_seconds * 1e9
        if not (over or many or old or segment.next_seq - 1 <= released):
            break
        size -= segment.size
        count += 1
    return count
