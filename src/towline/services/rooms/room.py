"""One room: its log, its followers, who is there, what was removed, who is muted, who read what."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from msgspec.structs import replace

from towline.base.errors import (
    BadMessage,
    CursorFromFuture,
    DiskError,
    Muted,
    NoGrant,
    NoSpace,
    NotFound,
    TowlineError,
)
from towline.base.quantity import format_duration
from towline.journal import START, Cursor, Record, Retention
from towline.journal.aio import FileLog
from towline.journal.batch import Options, Tickets
from towline.journal.interface import READ_BYTES, READ_RECORDS
from towline.services.rooms.fanout import Fanout, Follower
from towline.services.rooms.limits import ROOM_KEPT
from towline.services.rooms.messages import RECORD_KIND, SAID, Fields, Post, entries_of, fields_of
from towline.services.rooms.presence import Presence
from towline.store.rooms import Mute, RoomRow

log = logging.getLogger("towline.rooms")
_NEVER = 0  # an epoch that no log has: a log that is to fit it begins a new one
_BELIEVED = 1_000_000  # records that a log may have lost; a reader who claims more may be lying


class Room:
    """An open room. `members`, `mutes`, `removed` and `read` are as in SQLite, which the house keeps in step."""

    def __init__(
        self,
        row: RoomRow,
        log: FileLog,
        *,
        members: dict[str, bool],
        mutes: dict[str, Mute],
        removed: set[int],
        read: dict[str, int],
        grace: float,
    ) -> None:
        self.row = row
        self.log = log
        self.members, self.mutes, self.removed, self.read = members, mutes, removed, read
        self.got: dict[str, int] = {}  # who has received up to which seq; not kept
        self.unsaved_reads: set[str] = set()
        self.unsaved_removed: set[int] = set()
        self.removing = 0  # deletions on their way to the log
        self.fanout = Fanout(log, removed.__contains__)
        self.presence = Presence(lambda line, besides: self.fanout.signal(line, besides=besides), grace=grace)
        self.saved_seq = row.seq
        self.used_at = time.monotonic()
        self._posting = 0
        self._refused = False  # by the disk
        self._open = asyncio.Event()  # cleared while the log is being exchanged
        self._open.set()
        self._exchanging = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Room {self.row.name} {self.fanout!r}>"

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def idle(self) -> bool:
        """Nobody would notice if it were closed."""
        return not self._posting and not len(self.fanout) and not self.presence.people

    # --- saying ---

    async def post(
        self, posts: Sequence[Post], person: str, owner: bytes, settled: Callable[[Tickets], None], *, moderates: bool
    ) -> None:
        """Number messages and put them on their way together; `settled` is called once each is on the disk, or cannot
        be kept. One that refers to another (an edit, a delete) comes alone.

        Raises Muted, NoGrant, NotFound, NoSpace, DiskError: what all are refused for.
        """
        self.check_mute(person)
        if posts[0].ref:
            await self._check_reference(posts[0], person, moderates=moderates)
        if not (self._open.is_set() and self.log.journal.has_room()):
            await self._wait_room()
        entries = entries_of(posts, person, owner)
        if posts[0].kind != "delete":
            self.log.post(RECORD_KIND, entries, settled)
            return
        self.removing += 1
        try:
            self.log.post(RECORD_KIND, entries, partial(self._removed, posts[0].ref, settled))
        except TowlineError:
            self.removing -= 1
            raise

    def _removed(self, seq: int, settled: Callable[[Tickets], None], tickets: Tickets) -> None:
        self.removing -= 1
        if isinstance(kept := tickets.outcomes[0], int) and tickets.failure(kept) is None:
            self.hide(seq)
        settled(tickets)

    async def append(self, payload: bytes) -> int:
        """Keep a record of the node's own; its seq."""
        await self._wait_room()
        return await self.log.append(RECORD_KIND, payload)

    async def remove(self, seq: int, payload: bytes) -> int:
        """Keep the deletion of a message; its seq."""
        self.removing += 1
        try:
            number = await self.append(payload)
            self.hide(seq)
        finally:
            self.removing -= 1
        return number

    async def _wait_room(self) -> None:
        """Until the log takes more; it may be exchanged meanwhile."""
        while not (self._open.is_set() and self.log.journal.has_room()):
            await self._open.wait()
            await self.log.wait_room()

    def wrote(self, error: TowlineError | None) -> None:
        """How the last write went: said once in the node's log when the disk refuses, and when it takes again."""
        refused = isinstance(error, NoSpace | DiskError)
        if refused == self._refused or (error is not None and not refused):
            return
        self._refused = refused
        if error is not None:
            log.warning("Room %s takes no messages: %s Who reads goes on.", self.name, error.sentence)
        else:
            log.warning("Room %s takes messages again.", self.name)

    def hide(self, seq: int) -> None:
        """From now on the text of this message is not given out."""
        if seq not in self.removed:
            self.removed.add(seq)
            self.unsaved_removed.add(seq)
        self.fanout.forget_batches()

    async def find_removed(self, after: int) -> None:
        """What was taken back behind the record `after`. The log has it for certain, the books perhaps not yet: they
        may have been killed in between, or there was no room for them."""
        cursor = self.log.journal.cursor(min(after + 1, self.log.end.seq))
        while items := await self.fanout.read(cursor, limit_bytes=READ_BYTES, limit_records=READ_RECORDS):
            for item in items:
                if isinstance(item, Record) and b'"kind":"delete"' in item.payload:
                    self.hide(int(fields_of(item.payload)["ref"]))
            cursor = items[-1].next

    def check_mute(self, person: str) -> None:
        """Raise Muted."""
        mute = self.mutes.get(person)
        if mute is not None and mute.until > time.time():
            left = format_duration(mute.until - time.time())
            raise Muted(f"An admin ({mute.muted_by}) has muted you in this room; it ends in {left}.")

    async def _check_reference(self, post: Post, person: str, *, moderates: bool) -> None:
        record = await self.record(post.ref)
        fields = fields_of(record.payload)
        if fields["kind"] not in SAID:
            raise BadMessage(f"Record {post.ref} is no message.")
        if fields["from"] != person and not (moderates and post.kind == "delete"):
            raise NoGrant(f"Message {post.ref} is not yours.")
        if post.ref in self.removed and post.kind == "edit":
            raise NotFound(f"Message {post.ref} was removed.")

    async def record(self, seq: int) -> Record:
        """One record. Raises NotFound."""
        if not self.log.floor.seq <= seq < self.log.end.seq:
            raise NotFound(f"There is no message {seq} in this room.")
        items = await self.fanout.read(self.log.journal.cursor(seq), limit_records=1)
        if not items or not isinstance(items[0], Record) or items[0].seq != seq:
            raise NotFound(f"There is no message {seq} in this room.")
        return items[0]

    # --- positions ---

    async def contradicts(self, header: Fields) -> bool:
        """Whether a reader comes out of a history that this log has not: from past its end, from an epoch that it
        never had, or after a record (`seen`, its time in microseconds) in whose place there is another one."""
        match header:
            case {"epoch": int(epoch), "seq": int(seq)} if 0 < epoch < 1 << 64 and 0 < seq < 1 << 62:
                if epoch != self.log.epoch:
                    return not self.log.journal.had(epoch)
                return seq > self.log.end.seq or await self._is_another(Cursor(epoch, seq - 1), header.get("seen"))
            case _:
                return False

    async def _is_another(self, cursor: Cursor, seen: object) -> bool:
        if not isinstance(seen, int) or cursor.seq < self.log.floor.seq:
            return False
        items = await self.fanout.read(cursor, limit_records=1)
        record = items[0] if items else None
        return isinstance(record, Record) and record.seq == cursor.seq and record.time_ns // 1000 != seen

    async def position(self, header: Fields) -> Cursor:
        """Where a reader wants to begin: `epoch` and `seq`, `seq` alone, `time`, the `last` so many, or live.

        Raises CursorFromFuture, BadMessage.
        """
        match header:
            case {"epoch": int(epoch), "seq": int(seq)} if 0 <= epoch < 1 << 64 and 0 <= seq < 1 << 62:
                self._not_from_future(Cursor(epoch, seq))
                return Cursor(epoch, seq)
            case {"seq": int(seq)} if 0 <= seq < 1 << 62:
                cursor = START if seq <= 1 else self.log.journal.cursor(seq)
                self._not_from_future(cursor)
                return cursor
            case {"time": int() | float() as moment}:
                return await self._since(moment)
            case {"last": int(count)} if 0 <= count < 1 << 62:
                return self.log.journal.cursor(max(self.log.end.seq - count, self.log.floor.seq))
            case {"seq": _} | {"epoch": _} | {"time": _} | {"last": _}:
                raise BadMessage("A position is a seq (with its epoch), a time in seconds, or a number of messages.")
            case _:
                return self.log.end

    def _not_from_future(self, cursor: Cursor) -> None:
        end = self.log.end
        if cursor.epoch == end.epoch and cursor.seq > end.seq:
            raise CursorFromFuture(f"Position {cursor.seq} is past the end of the room, which is {end.seq}.")

    async def _since(self, moment: float) -> Cursor:
        """The first record that is not older: by halving, as the keeper's clock rarely goes back."""
        if not abs(moment) < 1e12:
            raise BadMessage("A time is in seconds since 1970.")
        micros = round(moment * 1e6)  # what readers are told is in microseconds, too
        low, high = self.log.floor.seq, self.log.end.seq
        while low < high:
            middle = (low + high) // 2
            items = await self.fanout.read(self.log.journal.cursor(middle), limit_records=2)
            record = next((item for item in items if isinstance(item, Record)), None)
            if record is not None and record.time_ns // 1000 < micros:
                low = max(record.seq, middle) + 1
            else:
                high = middle
        return self.log.journal.cursor(low)

    # --- receipts ---

    def heard(self, person: str, got: int, read: int) -> None:
        """A reader says how far they are. What is past the end is not believed."""
        last = self.log.end.seq - 1
        got, read = min(got, last), min(read, last)
        if max(got, read) > self.got.get(person, 0):
            self.got[person] = max(got, read)
        if read > self.read.get(person, 0):
            self.read[person] = read
            self.unsaved_reads.add(person)

    def receipts(self, seq: int, sender: str) -> tuple[list[str], list[str]]:
        """Who has received a message, and who read it, besides its sender."""
        return _beyond(self.got, seq, sender), _beyond(self.read, seq, sender)

    # --- the log ---

    async def exchange(self, folder: str, row: RoomRow) -> None:
        """Open the log anew with the retention of `row`. Who posts meanwhile waits; who follows goes on."""
        await self._reopen(folder, row, None)

    async def begin_epoch(self, folder: str, seen: int) -> None:
        """Go on in a new epoch, with numbers after `seen` as far as that can be believed. Followers get a gap."""
        seen = min(seen, self.log.end.seq + _BELIEVED)
        await self._reopen(folder, self.row, Cursor(_NEVER, seen))

    async def _reopen(self, folder: str, row: RoomRow, known: Cursor | None) -> None:
        async with self._exchanging:
            self._open.clear()
            try:
                await self.log.close()
                reached = self.log.journal.high_water
                try:
                    self.log = await FileLog.open(folder, options_of(row), known_high_water=known or reached)
                    if self._posting:
                        await self.log.know_ids()
                    self.row = row
                except TowlineError:  # a full disk, say: as it was is better than closed
                    self.log = await FileLog.open(folder, options_of(self.row), known_high_water=reached)
                    raise
                finally:
                    self.fanout.exchange_log(self.log)
            finally:
                self._open.set()

    def reached(self) -> Cursor | None:
        """The newest record that is certainly on the disk, to be noted together with what was removed; None while
        that is not known."""
        return None if self.removing else self.log.journal.high_water

    async def begin_post(self) -> None:
        """A stream that posts here; the room stays open for it."""
        self._posting += 1
        await self.log.know_ids()

    def end_post(self) -> None:
        """… no more."""
        self._posting -= 1

    def followers_of(self, person: str) -> list[Follower]:
        """The streams of one person."""
        return [each for each in self.fanout.everyone() if each.person == person]

    async def close(self) -> None:
        """Finish what was said, and let go of the files."""
        self.presence.close()
        self.fanout.close()
        await self.log.close()


def options_of(row: RoomRow) -> Options:
    """How a room's log is kept."""
    retention = Retention(row.keep_seconds, row.keep_bytes or ROOM_KEPT.value, row.keep_records)
    return replace(Options(), retention=retention, cache_bytes=256 * 1024)


def _beyond(marks: dict[str, int], seq: int, sender: str) -> list[str]:
    return sorted(person for person, mark in _others(marks, sender) if mark >= seq)


def _others(marks: dict[str, int], sender: str) -> Iterable[tuple[str, int]]:
    return ((person, mark) for person, mark in marks.items() if person != sender)
