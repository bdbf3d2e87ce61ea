"""What a node remembers of rooms beside their logs: who may come in, topics, mutes, what was read, how far a log got.

How far a log got is kept here, outside the log's own folder, so that a log restored from an older copy is noticed.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from towline.store.database import Database, Row

_COLUMNS = "name, topic, private, created, creator, keep_seconds, keep_bytes, keep_records, epoch, seq"


class RoomRow(Struct, frozen=True):
    """A room. `epoch` and `seq`: the newest record that was known to be on the disk (0, 0: none); `keep_…` None: the
    node's default. Times in seconds since 1970."""

    name: str
    topic: str
    private: bool
    created: float
    creator: str
    keep_seconds: float | None
    keep_bytes: int | None
    keep_records: int | None
    epoch: int
    seq: int


class Mute(Struct, frozen=True):
    """Somebody who may not write until `until`."""

    person: str
    until: float
    muted_by: str


class RoomRows:
    """The rooms of a node. Blocking; from any thread."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, name: str) -> RoomRow | None:
        """The room, None when there is none."""
        row = self._db.row(f"SELECT {_COLUMNS} FROM rooms WHERE name = ?", (name,))  # noqa: S608
        return None if row is None else _room(row)

    def all(self) -> list[RoomRow]:
        """Every room, by name."""
        return [_room(row) for row in self._db.rows(f"SELECT {_COLUMNS} FROM rooms ORDER BY name")]  # noqa: S608

    def made_by(self, person: str) -> int:
        """How many rooms a person made."""
        row = self._db.row("SELECT count(*) FROM rooms WHERE creator = ?", (person,))
        return int(row[0]) if row else 0

    def create(self, name: str, creator: str, now: float, *, private: bool = False) -> RoomRow:
        """Make the room, unless it is there already."""
        with self._db.transaction():
            self._db.execute(
                "INSERT INTO rooms (name, private, created, creator) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (name, int(private), now, creator),
            )
            found = self.find(name)
        assert found is not None
        return found

    def describe(self, name: str, *, topic: str, private: bool) -> None:
        """Change what the room is about and who may see it."""
        self._db.execute("UPDATE rooms SET topic = ?, private = ? WHERE name = ?", (topic, int(private), name))

    def keep(self, name: str, seconds: float | None, size: int | None, records: int | None) -> None:
        """Change how much of the room's log is kept; None: the node's default."""
        self._db.execute(
            "UPDATE rooms SET keep_seconds = ?, keep_bytes = ?, keep_records = ? WHERE name = ?",
            (seconds, size, records, name),
        )

    def reached(self, marks: Iterable[tuple[str, int, int]]) -> None:
        """Note `(room, epoch, seq)`: how far logs are certainly on the disk. Not flushed; the logs themselves are."""
        with self._db.transaction(durable=False):
            for name, epoch, seq in marks:
                self._db.execute("UPDATE rooms SET epoch = ?, seq = ? WHERE name = ?", (f"{epoch:016x}", seq, name))

    # --- people ---

    def members(self, room: str) -> dict[str, bool]:
        """Who was invited into the room; true where by an admin."""
        rows = self._db.rows("SELECT person, by_admin FROM room_members WHERE room = ?", (room,))
        return {str(person): bool(by_admin) for person, by_admin in rows}

    def rooms_of(self, person: str) -> dict[str, bool]:
        """The rooms that a person was invited into; true where by an admin."""
        rows = self._db.rows("SELECT room, by_admin FROM room_members WHERE person = ?", (person,))
        return {str(room): bool(by_admin) for room, by_admin in rows}

    def add_member(self, room: str, person: str, *, by_admin: bool) -> None:
        """Invite somebody into the room."""
        self._db.execute(
            "INSERT INTO room_members (room, person, by_admin) VALUES (?, ?, ?) ON CONFLICT (room, person)"
            " DO UPDATE SET by_admin = max(by_admin, excluded.by_admin)",
            (room, person, int(by_admin)),
        )

    def mutes(self, room: str) -> dict[str, Mute]:
        """Who is muted there."""
        rows = self._db.rows("SELECT person, until, muted_by FROM room_mutes WHERE room = ?", (room,))
        return {str(person): Mute(person, until, by) for person, until, by in rows}

    def mute(self, room: str, mute: Mute) -> None:
        """Mute a person; an `until` that is past lifts it."""
        self._db.execute(
            "INSERT INTO room_mutes (room, person, until, muted_by) VALUES (?, ?, ?, ?) ON CONFLICT (room, person)"
            " DO UPDATE SET until = excluded.until, muted_by = excluded.muted_by",
            (room, mute.person, mute.until, mute.muted_by),
        )

    # --- what became of messages ---

    def removed(self, room: str) -> set[int]:
        """The seqs of messages that were removed."""
        return {int(row[0]) for row in self._db.rows("SELECT seq FROM room_removed WHERE room = ?", (room,))}

    def remove(self, room: str, seq: int) -> None:
        """A message was removed: its text is not given out any more."""
        self._db.execute("INSERT INTO room_removed (room, seq) VALUES (?, ?) ON CONFLICT DO NOTHING", (room, seq))

    def reads(self, room: str) -> dict[str, int]:
        """Who read up to which seq."""
        rows = self._db.rows("SELECT person, seq FROM room_reads WHERE room = ?", (room,))
        return {str(person): int(seq) for person, seq in rows}

    def read_by(self, person: str) -> dict[str, int]:
        """How far a person read, by room."""
        rows = self._db.rows("SELECT room, seq FROM room_reads WHERE person = ?", (person,))
        return {str(room): int(seq) for room, seq in rows}

    def note_reads(self, marks: Iterable[tuple[str, str, int]]) -> None:
        """Note `(room, person, seq)`. Not flushed: a lost one costs an unread mark too many."""
        with self._db.transaction(durable=False):
            for room, person, seq in marks:
                self._db.execute(
                    "INSERT INTO room_reads (room, person, seq) VALUES (?, ?, ?)"
                    " ON CONFLICT (room, person) DO UPDATE SET seq = excluded.seq",
                    (room, person, seq),
                )


def _room(row: Row) -> RoomRow:
    name, topic, private, created, creator, seconds, size, records, epoch, seq = row
    return RoomRow(name, topic, bool(private), created, creator, seconds, size, records, int(epoch or "0", 16), seq)
