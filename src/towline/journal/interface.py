"""What a journal offers, whatever keeps it: its values, and `Log`, whose tests every back-end passes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from towline.base.errors import TowlineError
from towline.base.limits import KIB, MIB, Limit

RECORD = Limit("journal_record", 1 * MIB, "bytes", "one record is one buffer, and one turn of a reader", True)
RECORD_ID = Limit("journal_id", 64, "bytes", "a client's id is a name, not a payload", True)
READ_BYTES = 256 * KIB
READ_RECORDS = 1000


class Cursor(NamedTuple):
    """A position: the record `seq` of `epoch` is the next to be read. Seqs start at 1.

    The epoch changes when a log was restored from an older copy, so that a position is never taken for another one.
    """

    epoch: int
    seq: int


START = Cursor(0, 0)
"""The first record that ever was; reading from it names what retention dropped."""


class Record(NamedTuple):
    """One entry. `id` is the client's (empty: none); `time_ns` is the keeper's clock, nanoseconds since 1970."""

    epoch: int
    seq: int
    kind: int
    time_ns: int
    id: bytes
    payload: bytes

    @property
    def next(self) -> Cursor:
        """Where reading goes on after this record."""
        return Cursor(self.epoch, self.seq + 1)


class Gap(NamedTuple):
    """Records from `from_` up to, not including, `to` cannot be had. Reading goes on at `to`.

    Reasons: `retention` (dropped by age, size, count or release), `restored` (the log went back to an older state and
    began a new epoch), `unknown-epoch` (the position belongs to another log), `corrupt` (checksum), `missing` (a
    segment file is gone).
    """

    from_: Cursor
    to: Cursor
    reason: str

    @property
    def next(self) -> Cursor:
        """Where reading goes on after this gap."""
        return self.to


Item = Record | Gap


class Retention(Struct, frozen=True):
    """How much is kept; None: without bound. Whole segments go, from the front, so up to one segment more is kept.

    `when_full` says what `max_bytes` means for an append: `drop-oldest`, or `refuse` (JournalFull until `release`).
    """

    max_seconds: float | None = None
    max_bytes: int | None = None
    max_records: int | None = None
    when_full: str = "drop-oldest"

    def __post_init__(self) -> None:
        if self.when_full not in {"drop-oldest", "refuse"}:
            raise ValueError(f"when_full is drop-oldest or refuse, not {self.when_full!r}")


class Log(Protocol):
    """One journal. Errors: IdReused, CursorFromFuture, JournalFull, LimitExceeded, NoSpace, DiskError."""

    @property
    def epoch(self) -> int:
        """The current epoch (64 bits, never 0)."""

    @property
    def floor(self) -> Cursor:
        """The oldest record that is kept (or the end, when none is)."""

    @property
    def end(self) -> Cursor:
        """The position after the newest visible record."""

    async def append(self, kind: int, payload: bytes, *, id: bytes = b"") -> int:  # noqa: A002
        """Keep a record and return its seq, once it is kept. The same id and payload again: the same seq, once."""

    async def append_many(self, kind: int, entries: Sequence[tuple[bytes, bytes]]) -> list[int | TowlineError]:
        """Keep records, each an id (or b"") and a payload, together and in this order. For each its seq, or why just
        this one was not kept; the others are."""

    async def read(
        self, from_: Cursor, *, limit_bytes: int = READ_BYTES, limit_records: int = READ_RECORDS
    ) -> Sequence[Item]:
        """Records and gaps from `from_` on, at least one when there is one, otherwise nothing. Does not wait."""

    def follow(self, from_: Cursor) -> AsyncIterator[Item]:
        """Everything from `from_` on, for ever: history first, then live."""

    async def release(self, upto: int) -> None:
        """The owner needs no record up to and including seq `upto` any more."""

    async def close(self) -> None:
        """Finish what was appended, and end followers."""
