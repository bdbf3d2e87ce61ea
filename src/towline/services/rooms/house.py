"""All rooms of a node: opening, who may come in, and the books in SQLite that are kept in step."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from functools import partial
from hashlib import sha256

from msgspec.structs import replace

from towline.base.errors import LimitExceeded, NotFound, TowlineError, UnknownRoom, UsageError
from towline.base.ids import encode
from towline.base.oserrors import oserrors
from towline.journal import Cursor
from towline.journal.aio import FileLog
from towline.services.rooms.access import may_create, may_see, require_seen, unseen
from towline.services.rooms.limits import GRACE_SECONDS, ROOM_BURST, ROOM_MADE, ROOM_OPEN, ROOM_RATE
from towline.services.rooms.messages import Fields, note_payload, shown
from towline.services.rooms.names import LOBBY, people_of, room_name, shown_name
from towline.services.rooms.pace import Bucket
from towline.services.rooms.restored import birth_of
from towline.services.rooms.room import Room, options_of
from towline.store import Store
from towline.store.rooms import Mute, RoomRow
from towline.trust.grants import Grants

log = logging.getLogger("towline.rooms")
BOOKS_SECONDS = 1.0
RETAIN_SECONDS = 60.0
_BIRTH = "rooms.birth"
_OWNER = "owner"
_BUCKETS = 4096


class House:
    """`data` is the node's data folder. `rate` and `burst` as ROOM_RATE and ROOM_BURST, `grace` in seconds."""

    def __init__(
        self,
        store: Store,
        data: str,
        *,
        rate: float = ROOM_RATE.value,
        burst: float = ROOM_BURST.value,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self._store = store
        self._folder = os.path.join(data, "rooms")
        self._rate, self._burst, self._grace = rate, burst, grace
        self._rooms: dict[str, Room] = {}
        self._opening: dict[str, asyncio.Task[Room]] = {}
        self._closing: dict[str, asyncio.Task[None]] = {}
        self._buckets: dict[str, Bucket] = {}
        self._books: asyncio.Task[None] | None = None
        self._books_refused = False  # by the disk
        self._restored = False
        self._went_back: set[str] = set()  # rooms that began a new epoch because of what a reader had seen
        self._going_back = asyncio.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"<House {len(self._rooms)} rooms open>"

    async def start(self) -> None:
        """Look whether the data folder is a restored copy; make the lobby; begin to keep books."""
        await asyncio.to_thread(self._prepare)
        self._books = asyncio.create_task(self._keep_books())

    def _prepare(self) -> None:
        store = self._store
        with oserrors(self._folder):
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
        birth, noted = birth_of(store.database.path), store.settings.get(_BIRTH)
        self._restored = noted is not None and noted != birth
        if self._restored:
            log.warning("The data folder is a copy of the one that was written to; every room begins a new epoch.")
            self._forget_epochs()
        if noted != birth:
            store.settings.set(_BIRTH, birth)
        store.rooms.create(LOBBY, _OWNER, time.time())

    def _forget_epochs(self) -> None:
        """No log fits its note any more, so each begins a new epoch when it is opened, even if we crash before."""
        unknown = int.from_bytes(os.urandom(8)) or 1
        marks = [(row.name, unknown, row.seq) for row in self._store.rooms.all() if row.epoch]
        with self._store.database.transaction():
            self._store.rooms.reached(marks)

    # --- finding ---

    async def find(self, text: str, person: str, grants: Grants, *, create: bool = False) -> Room:
        """The room as `person` calls it. Raises UnknownRoom, NoGrant, UsageError, LimitExceeded."""
        grants.require("chat")
        name = room_name(text, person)
        room = self._rooms.get(name)
        if room is None:
            row = await asyncio.to_thread(self._row, name, person, grants, create)
            room = await self._opened(row)
        require_seen(grants, person, name, private=room.row.private, invited=room.members.get(person))
        room.used_at = time.monotonic()
        return room

    def _row(self, name: str, person: str, grants: Grants, create: bool) -> RoomRow:
        row = self._store.rooms.find(name)
        if row is not None:
            return row
        if name == LOBBY or (create and may_create(grants, name)) or _may_write_to(name, person):
            return self._create(name, person)
        raise unseen(grants, name)

    def _create(self, name: str, person: str) -> RoomRow:
        for each in people_of(name):
            self._require_joined(each)
        if self._store.rooms.made_by(person) >= ROOM_MADE.value:
            raise LimitExceeded(f"Limit room_made is {ROOM_MADE.value} rooms; you have made as many.")
        return self._store.rooms.create(name, person, time.time())

    def _require_joined(self, person: str) -> None:
        if person != _OWNER and self._store.people.by_name(person) is None:
            raise NotFound(f"Nobody with the name '{shown(person)}' has joined this node.")

    async def _opened(self, row: RoomRow) -> Room:
        # Looked at again here: somebody else may have opened it while we looked its row up. Two open journals of one
        # folder would each have their own truth.
        room = self._rooms.get(row.name)
        if room is not None:
            return room
        opening = self._opening.get(row.name)
        if opening is None:
            opening = self._opening[row.name] = asyncio.create_task(self._open(row.name))
            opening.add_done_callback(lambda _: self._opening.pop(row.name, None))
        return await asyncio.shield(opening)

    async def _open(self, name: str) -> Room:
        def books() -> tuple[RoomRow, dict[str, bool], dict[str, Mute], set[int], dict[str, int]]:
            rows = self._store.rooms
            row = rows.find(name)
            assert row is not None
            return row, rows.members(name), rows.mutes(name), rows.removed(name), rows.reads(name)

        await self._make_room()
        if name in self._closing:
            await asyncio.wait([self._closing[name]])
        row, members, mutes, removed, read = await asyncio.to_thread(books)
        known = Cursor(row.epoch, row.seq) if row.epoch else None
        log_ = await FileLog.open(self.folder_of(name), options_of(row), known_high_water=known)
        room = Room(row, log_, members=members, mutes=mutes, removed=removed, read=read, grace=self._grace)
        if self._closed:
            await room.close()
            raise UnknownRoom("The node is shutting down.")
        try:
            await room.find_removed(row.seq)
        except TowlineError:
            await room.close()
            raise
        self._rooms[name] = room
        await self._save([room])
        return room

    async def _make_room(self) -> None:
        """Close a room that nobody uses when many are open."""
        if len(self._rooms) < ROOM_OPEN.value:
            return
        idle = [room for room in self._rooms.values() if room.idle and time.monotonic() - room.used_at > 1]
        for room in sorted(idle, key=lambda each: each.used_at)[: len(idle) // 4 + 1]:
            if room.idle and self._rooms.pop(room.name, None) is room:
                closing = self._closing[room.name] = asyncio.create_task(self._close(room))
                closing.add_done_callback(partial(self._closed_one, room.name))
                await asyncio.wait([closing])

    async def _close(self, room: Room) -> None:
        try:
            await self._save([room])
        finally:
            await room.close()

    def _closed_one(self, name: str, closing: asyncio.Task[None]) -> None:
        del self._closing[name]
        if not closing.cancelled() and (error := closing.exception()) is not None:
            log.warning("Room %s could not be closed well: %s", name, error)

    def folder_of(self, name: str) -> str:
        """Where a room's log is: file systems differ in the names they take, so by a hash of the name."""
        return os.path.join(self._folder, encode(sha256(name.encode()).digest()[:15]))

    async def position(self, room: Room, header: Fields) -> Cursor:
        """Where a reader begins. One who has seen what is not in the log proves that it is an older copy.

        A copy over the old files in place looks like the old ones, so it takes a reader to notice. The log then
        begins a new epoch, and everybody gets one gap. Only once for each start of the node: while it runs nobody
        can put a copy in place, and who comes with more tales then is refused (CursorFromFuture) or believed for
        themselves. Raises CursorFromFuture, BadMessage.
        """
        if room.name not in self._went_back and await room.contradicts(header):
            async with self._going_back:  # many come back at once with the same tale
                if room.name not in self._went_back and await room.contradicts(header):
                    log.warning("Room %s is an older copy: a reader has seen more; a new epoch begins.", room.name)
                    await room.begin_epoch(self.folder_of(room.name), int(header["seq"]) - 1)
                    self._went_back.add(room.name)
                    await self._save([room])
        return await room.position(header)

    # --- people ---

    def bucket(self, person: str, now: float) -> Bucket:
        """The pace of one person, on all their connections."""
        bucket = self._buckets.get(person)
        if bucket is None:
            if len(self._buckets) >= _BUCKETS:
                for each in self._buckets.values():
                    each.refill(now)
                self._buckets = {name: each for name, each in self._buckets.items() if not each.full}
            bucket = self._buckets[person] = Bucket(self._rate, self._burst, now)
        return bucket

    async def visible(self, person: str, grants: Grants) -> list[Fields]:
        """The rooms that a person may see, with what is unread."""
        grants.require("chat")
        rows, invited, read = await asyncio.to_thread(
            lambda: (
                self._store.rooms.all(),
                self._store.rooms.rooms_of(person),
                self._store.rooms.read_by(person),
            )
        )
        return [
            self._shown(row, person, read.get(row.name, 0))
            for row in rows
            if may_see(grants, person, row.name, private=row.private, invited=invited.get(row.name))
        ]

    def _shown(self, row: RoomRow, person: str, read: int) -> Fields:
        room = self._rooms.get(row.name)
        last, here = row.seq, 0
        if room is not None:
            row, last, here = room.row, room.log.end.seq - 1, len(room.presence.people)
            read = max(read, room.read.get(person, 0))
        return {
            "room": shown_name(row.name, person),
            "topic": row.topic,
            "private": row.private or bool(people_of(row.name)),
            "here": here,
            "last": last,
            "read": read,
        }

    def everyone(self, person: str, grants: Grants) -> list[Fields]:
        """Who is in which room, of those rooms that are open and that `person` may see."""
        found: dict[str, Fields] = {}
        for room in self._rooms.values():
            invited = room.members.get(person)
            if may_see(grants, person, room.name, private=room.row.private, invited=invited):
                for fields in room.presence.here():
                    entry = found.setdefault(fields["who"], {**fields, "rooms": []})
                    entry["rooms"].append(shown_name(room.name, person))
        return [found[name] for name in sorted(found)]

    # --- changing a room ---

    async def describe(
        self, room: Room, person: str, *, topic: str | None = None, private: bool | None = None
    ) -> None:
        """Another topic (which is said in the room), or another openness."""
        row = room.row
        row = replace(
            row, topic=row.topic if topic is None else topic, private=row.private if private is None else private
        )
        if room.name == LOBBY and row.private:
            raise UsageError("The lobby is for everybody.")
        if topic is not None:
            await room.append(note_payload("topic", person, topic))
        await asyncio.to_thread(self._store.rooms.describe, room.name, topic=row.topic, private=row.private)
        if row.private and not room.row.private:
            await self.invite(room, person, by_admin=False)
        room.row = row
        if row.private:
            _show_out(room)

    async def keep(self, room: Room, seconds: float | None, size: int | None, records: int | None) -> None:
        """Another retention; it holds at once."""
        await asyncio.to_thread(self._store.rooms.keep, room.name, seconds, size, records)
        row = replace(room.row, keep_seconds=seconds, keep_bytes=size, keep_records=records)
        await room.exchange(self.folder_of(room.name), row)
        await asyncio.to_thread(room.log.journal.retain)
        room.fanout.forget_batches()

    async def invite(self, room: Room, person: str, *, by_admin: bool) -> None:
        """Let somebody into a private room. Raises NotFound."""
        if people_of(room.name):
            raise UsageError("A direct room is of two people.")
        await asyncio.to_thread(self._require_joined, person)
        await asyncio.to_thread(self._store.rooms.add_member, room.name, person, by_admin=by_admin)
        room.members[person] = by_admin or room.members.get(person, False)

    async def mute(self, room: Room, person: str, until: float, admin: str) -> None:
        """Mute somebody; an `until` that is past lifts it. Raises NotFound: a slip of the pen mutes nobody."""
        await asyncio.to_thread(self._require_joined, person)
        mute = Mute(person, until, admin)
        await asyncio.to_thread(self._store.rooms.mute, room.name, mute)
        room.mutes[person] = mute
        muted = until > time.time()
        text = f"{person} was muted by {admin}." if muted else f"{person} may write again."
        await room.append(note_payload("notice", admin, text))
        await self.audit(admin, "mute" if muted else "unmute", room.name, person)

    async def remove(self, room: Room, seq: int, admin: str) -> int:
        """Remove a message. Raises NotFound."""
        await room.record(seq)
        number = await room.remove(seq, note_payload("delete", admin, "", ref=seq))
        await self.audit(admin, "remove", room.name, f"message {seq}")
        return number

    async def audit(self, who: str, action: str, room: str, detail: str) -> None:
        """Note it in the audit log."""
        await asyncio.to_thread(self._store.audit.note, time.time(), who, action, room, detail)

    # --- books ---

    async def _keep_books(self) -> None:
        retained = time.monotonic()
        while True:
            await asyncio.sleep(BOOKS_SECONDS)
            await self._save(list(self._rooms.values()))
            if time.monotonic() - retained >= RETAIN_SECONDS:
                retained = time.monotonic()
                for room in list(self._rooms.values()):
                    await asyncio.to_thread(room.log.journal.retain)

    async def _save(self, rooms: list[Room]) -> None:
        """How far the logs are, what was removed up to there, who read what. What a full disk does not take now is
        written later: the logs themselves say so to whoever writes, and who reads is not held up."""
        marks, reads, removed = dict[Room, Cursor](), [], []
        for room in rooms:
            reached = room.reached()
            if reached is not None and (reached.seq != room.saved_seq or reached.epoch != room.row.epoch):
                marks[room] = reached
            reads += [(room, person, room.read[person]) for person in room.unsaved_reads]
            removed += [(room, seq) for seq in room.unsaved_removed]
            room.unsaved_reads.clear()
            room.unsaved_removed.clear()
        if not (marks or reads or removed):
            return
        try:
            await asyncio.to_thread(
                self._write,
                [(room.name, *reached) for room, reached in marks.items()],
                [(room.name, person, seq) for room, person, seq in reads],
                [(room.name, seq) for room, seq in removed],
            )
        except TowlineError as error:
            for room, person, _ in reads:
                room.unsaved_reads.add(person)
            for room, seq in removed:
                room.unsaved_removed.add(seq)
            if not self._books_refused:
                log.warning("The books of the rooms could not be kept: %s", error.sentence)
            self._books_refused = True
            return
        self._books_refused = False
        for room, reached in marks.items():
            room.saved_seq, room.row = reached.seq, replace(room.row, epoch=reached.epoch, seq=reached.seq)

    def _write(
        self, marks: list[tuple[str, int, int]], reads: list[tuple[str, str, int]], removed: list[tuple[str, int]]
    ) -> None:
        with self._store.database.transaction(durable=False):
            self._store.rooms.reached(marks)
            self._store.rooms.note_reads(reads)
            for name, seq in removed:
                self._store.rooms.remove(name, seq)

    async def close(self) -> None:
        """Finish what was said, note how far it got."""
        self._closed = True
        if self._books is not None:
            self._books.cancel()
        for under_way in [*self._opening.values(), *self._closing.values()]:
            await asyncio.wait([under_way])
        rooms, self._rooms = list(self._rooms.values()), {}
        for room in rooms:
            try:
                await room.close()
            except TowlineError as error:
                log.warning("Room %s: %s", room.name, error.sentence)
        await self._save(rooms)


def _show_out(room: Room) -> None:
    """The room has become private: who is not invited hears no more of it."""
    for follower in room.fanout.everyone():
        grants, invited = follower.channel.connection.grants, room.members.get(follower.person)
        assert isinstance(grants, Grants)
        if not may_see(grants, follower.person, room.name, private=True, invited=invited):
            follower.channel.reset(UnknownRoom("The room has become private, and you are not invited."))


def _may_write_to(name: str, person: str) -> bool:
    """The room of two people is made by the first word."""
    return person in people_of(name)
