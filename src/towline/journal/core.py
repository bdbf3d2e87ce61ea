"""`Journal`: one append-only log in a folder, blocking and thread-safe.

    append -> open batch -> (a committer's thread) one write, one fsync -> published; tickets done, readers woken

With `durable=False` an append is written at once and published; fsync follows at checkpoints (job output, which a
killed process does not lose; only a power failure may cost what came after the last checkpoint).

One process opens a folder at a time; the owner of the data folder sees to that.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Self

from towline.base.errors import DiskError, NoSpace, StreamClosed, TimedOut, TowlineError
from towline.journal.batch import Batch, Options, Ticket, Tickets
from towline.journal.committer import Committer, shared
from towline.journal.descriptors import SHARED
from towline.journal.interface import READ_BYTES, READ_RECORDS, Cursor, Item, Record
from towline.journal.numbering import DONE, Entry, Keys, Numbering
from towline.journal.segments import Segments
from towline.journal.tail import Tail
from towline.journal.writer import Writer, disk_error


class Journal:
    """Open with `Journal.open`. Every method may be called from any thread."""

    def __init__(self, segments: Segments, options: Options, committer: Committer, clock: Callable[[], int]) -> None:
        self.options = options
        self._segments, self._committer, self._clock = segments, committer, clock
        self._write_lock = threading.RLock()  # whoever changes files; taken before `_lock`
        self._lock = threading.Condition()  # everything below
        self._writer = Writer(segments, options, self._lock, self._publish)
        self._numbers = Numbering(segments, options, self._kept)
        self._end = Cursor(segments.epoch, segments.active.next_seq)
        self._synced = self._end.seq - 1
        self._tail = Tail(options.cache_bytes, self._end)
        self._queued = self._again = False  # the committer has us; it is to come once more
        self._dirty = 0
        self._broken: TowlineError | None = None
        self._closing = self._closed = False
        self._callbacks: dict[object, Callable[[], None]] = {}

    def __repr__(self) -> str:
        return f"<Journal {self._segments.folder} {self.floor.seq}..{self._end.seq - 1} of {self.epoch:016x}>"

    @classmethod
    def open(
        cls,
        folder: str,
        options: Options | None = None,
        *,
        known_high_water: Cursor | None = None,
        committer: Committer | None = None,
        clock: Callable[[], int] = time.time_ns,
        random: Callable[[int], bytes] = os.urandom,
    ) -> Self:
        """Open or create the log in `folder`; a torn tail is cut off.

        `known_high_water` is the `high_water` that the owner last kept elsewhere: a log that does not reach it was
        restored from an older copy and begins a new epoch. Raises NoSpace, DiskError.
        """
        options = (options or Options()).fitted()
        try:
            segments = Segments.open(
                folder, lazy=not options.durable, known_high_water=known_high_water, random=random
            )
        except OSError as error:
            raise disk_error(error, folder)
        return cls(segments, options, committer or shared(), clock)

    # --- where we are ---

    @property
    def epoch(self) -> int:
        """The current epoch."""
        return self._end.epoch

    @property
    def floor(self) -> Cursor:
        """The oldest record that is kept."""
        return self._segments.floor

    @property
    def end(self) -> Cursor:
        """After the newest record that readers see."""
        return self._end

    @property
    def high_water(self) -> Cursor:
        """The newest record that is certainly on the disk; what an owner keeps elsewhere."""
        return Cursor(self.epoch, self._synced)

    @property
    def size(self) -> int:
        """Bytes on disk, without indexes."""
        return self._segments.size

    @property
    def repaired(self) -> int:
        """Bytes of a torn tail that opening cut off."""
        return self._segments.repaired

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._closed

    @property
    def ids_known(self) -> bool:
        """`load_ids` was called."""
        return self._segments.ids_known

    def has_room(self) -> bool:
        """False when `append` would block until the next commit."""
        return self._numbers.pending < self.options.pending_bytes

    # --- appending ---

    def append(self, kind: int, payload: bytes, *, id: bytes = b"", time_ns: int | None = None) -> Ticket:  # noqa: A002
        """Number a record and put it on its way. Raises IdReused, JournalFull, LimitExceeded, NoSpace, DiskError."""
        return Ticket(self.append_many(kind, [(id, payload)], time_ns=time_ns), self)

    def append_many(
        self, kind: int, entries: Sequence[Entry], *, time_ns: int | None = None, start: bool = True
    ) -> Tickets:
        """Number records, each an id (or b"") and a payload, and put them on their way together, in order.

        What is refused (IdReused, JournalFull, LimitExceeded) is so by itself, and named in the outcomes. Waits
        while `pending_bytes` are on their way; one call may go beyond that. Without `start` they wait for what else
        comes until `start` is called. Raises NoSpace, DiskError, StreamClosed.
        """
        self.load_ids()
        keys = Keys.of(entries, self._segments.id_key)
        time_ns = time_ns or self._clock()
        if not self.options.durable:
            return self._append_now(kind, entries, keys, time_ns)
        with self._lock:
            while not self.has_room() and not self._closing:
                self._start()
                self._lock.wait()
            self._usable()
            tickets = self._numbers.give(self._numbers.open, kind, entries, keys, time_ns)
            if start:
                self._start()
        return tickets

    def start(self) -> None:
        """Let what was appended be committed."""
        with self._lock:
            self._start()

    def _start(self) -> None:
        if not self._numbers.open.records:
            return
        if self._queued:
            self._again = True
        else:
            self._queued = True
            self._committer.submit(self)

    def load_ids(self) -> None:
        """Bring the ids of older records into memory, a moment's work in a large log; the first append does it."""
        if not self._segments.ids_known:
            with self._write_lock:
                try:
                    self._segments.load_ids()
                except OSError as error:
                    raise disk_error(error, self._segments.folder)

    def _append_now(self, kind: int, entries: Sequence[Entry], keys: Keys, time_ns: int) -> Tickets:
        with self._write_lock:
            batch = Batch()
            with self._lock:
                self._usable()
                tickets = self._numbers.give(batch, kind, entries, keys, time_ns)
            if batch.records:
                self._writer.store(batch, self._clock())
                self._forget_dropped()
            if batch.error is not None:
                self._fail(batch)
            else:
                self._dirty += batch.size
                self._arm_checkpoint()
            batch.done = True
        self._notify()
        return tickets

    def _usable(self) -> None:
        if self._closing:
            raise StreamClosed("The log is closed.")
        if self._broken is not None:
            raise type(self._broken)(str(self._broken))

    def _kept(self, seq: int) -> Record | None:
        if seq < self.floor.seq:
            return None
        items = self.read(self.cursor(seq), limit_records=1)
        return items[0] if items and isinstance(items[0], Record) and items[0].seq == seq else None

    # --- committing (the committer's threads; the appending one with durable=False) ---

    def commit(self) -> bool:
        """Write and fsync what is waiting. For the committer."""
        if not self.options.durable:
            self._checkpoint()
            return False
        with self._write_lock:
            with self._lock:
                batch, self._numbers.open = self._numbers.open, Batch()
                self._numbers.flying = batch
                self._again = False
            self._writer.store(batch, self._clock())
            self._forget_dropped()
            if batch.error is not None:
                self._fail(batch)
            with self._lock:
                batch.done = True
                self._numbers.flying = DONE
                more = self._queued = self._again and bool(self._numbers.open.records)
                self._lock.notify_all()
        self._notify()
        return more

    def _publish(self, records: list[Record]) -> None:
        self._tail.extend(records)
        self._end = records[-1].next
        if self.options.durable:
            self._synced = records[-1].seq
        self._lock.notify_all()

    def _fail(self, batch: Batch) -> None:
        """Nothing after the newest published record was kept: give the numbers back and cut the file there."""
        error, problem = batch.error, self._writer.cut_back()
        # A full disk may have room again; the writer cuts off what is left before it goes on, and begins a new file
        # where an fsync failed. A disk that fails may have lost what it called written, and the next success means
        # little: that is for a person to look at, and for a scan at the next opening.
        self._broken = next((each for each in (error, problem) if each and not isinstance(each, NoSpace)), None)
        with self._lock:
            for record in [*batch.records, *self._numbers.open.records]:
                if record.id and record.seq >= self._end.seq:
                    self._segments.ids.pop(self._segments.id_key(record.id), None)
            later, self._numbers.open = self._numbers.open, Batch()
            later.done, later.error = True, error
            self._numbers.next_seq = self._end.seq

    # --- durability without waiting ---

    def sync(self) -> None:
        """Make everything appended so far durable. Raises DiskError, NoSpace."""
        if self.options.durable:
            with self._lock:
                self._start()
                waiting = self._numbers.open if self._numbers.open.records else self._numbers.flying
            self.wait(lambda: waiting.done)
            return
        with self._lock:
            upto = self._end.seq - 1
            paths, self._writer.unsynced = [*self._writer.unsynced, self._segments.active.path], []
            self._dirty = 0
        for path in paths:
            try:
                with SHARED.use(path) as descriptor:
                    os.fdatasync(descriptor)
            except FileNotFoundError:  # dropped meanwhile
                continue
            except OSError as error:
                self._broken = disk_error(error, path)
                raise self._broken
        with self._lock:
            self._synced = max(self._synced, upto)

    def _arm_checkpoint(self) -> None:
        if not self._queued:
            self._queued = True
            self._committer.later(self, self.options.checkpoint_seconds)
        if self._dirty >= self.options.checkpoint_bytes:
            self._dirty = 0
            self._committer.submit(self)

    def _checkpoint(self) -> None:
        self._queued = False
        try:
            if not self._closed:
                self.sync()
        except TowlineError:
            pass  # kept as `_broken`: the next append says so

    # --- reading ---

    def had(self, epoch: int) -> bool:
        """Whether this log ever had that epoch (of the last few dozen)."""
        return any(epoch == known for known, _ in self._segments.catalogue.epochs)

    def cursor(self, seq: int) -> Cursor:
        """The position of a seq, whichever epoch it belongs to."""
        epochs = self._segments.catalogue.epochs
        if seq >= epochs[-1][1]:
            return Cursor(epochs[-1][0], seq)
        epoch = next((epoch for epoch, first in reversed(epochs) if first <= seq), epochs[0][0])
        return Cursor(epoch, seq)

    def read(self, from_: Cursor, *, limit_bytes: int = READ_BYTES, limit_records: int = READ_RECORDS) -> list[Item]:
        """Records and gaps from `from_` on: at least one if there is one. Raises CursorFromFuture, DiskError."""
        while True:
            cached = self.read_cached(from_, limit_bytes=limit_bytes, limit_records=limit_records)
            if cached is not None:
                return cached
            with self._lock:
                files, end = self._segments.files, self._end
                end_offset = files[-1].size
            try:
                return self._segments.read(files, from_, end, end_offset, limit_bytes, limit_records)
            except FileNotFoundError:
                if files is self._segments.files:  # not retention: somebody took the file away
                    raise DiskError("A file of the log has disappeared.")
            except OSError as error:
                raise disk_error(error, self._segments.folder)

    def read_cached(
        self, from_: Cursor, *, limit_bytes: int = READ_BYTES, limit_records: int = READ_RECORDS
    ) -> list[Item] | None:
        """The same from memory alone: never waits for a disk; None when the files must be read."""
        with self._lock:
            return self._tail.read(from_, limit_bytes, limit_records)

    def wait_beyond(self, seq: int, timeout: float | None = None) -> bool:
        """Wait until a record after `seq` can be read, or the journal is closed. False: time is up."""
        try:
            self.wait(lambda: self._end.seq > seq + 1 or self._closed, timeout)
        except TimedOut:
            return False
        return True

    def wait(self, true: Callable[[], bool], timeout: float | None = None) -> None:
        """Wait for something that commits change. Raises TimedOut."""
        with self._lock:
            if not self._lock.wait_for(true, timeout):
                raise TimedOut

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` (quick, from any thread) after every commit and at close; returns what ends that."""
        key = object()
        with self._lock:
            self._callbacks[key] = callback

        def unsubscribe() -> None:
            self._callbacks.pop(key, None)

        return unsubscribe

    def _notify(self) -> None:
        for callback in list(self._callbacks.values()):
            callback()

    # --- keeping and dropping ---

    def release(self, upto: int) -> None:
        """The owner needs nothing up to and including `upto` any more; whole segments are dropped."""
        with self._write_lock:
            if self._writer.release(min(upto, self._end.seq - 1), self._clock()):
                self._forget_dropped()

    def retain(self, now_ns: int | None = None) -> None:
        """Drop what is too old; owners call it now and then. Size and count are minded at every new segment."""
        with self._write_lock:
            if self._writer.retain(self._clock() if now_ns is None else now_ns):
                self._forget_dropped()

    def _forget_dropped(self) -> None:
        with self._lock:
            self._tail.drop_below(self.floor.seq)

    # --- ending ---

    def close(self) -> None:
        """Finish what was appended, make it durable, end waiting readers. Idempotent."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        try:
            self.sync()
        finally:
            with self._write_lock, self._lock:
                self._closed = True
                self._lock.notify_all()
            for segment in self._segments.files:
                SHARED.forget(segment.path)
            self._notify()
