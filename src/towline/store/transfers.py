"""A record of transfers for people to look at. What a transfer resumes from is kept beside its files, not here."""

from __future__ import annotations

from msgspec import Struct

from towline.base.errors import Conflict, NotFound, UsageError
from towline.base.limits import Limit
from towline.base.text import printable
from towline.store.database import Database

TRANSFER_ROWS = Limit("transfer_rows", 10_000, "rows", "the oldest records are dropped; a row takes about 200 bytes")
RUNNING = "running"
_COLUMNS = "id, person, direction, share, path, files, bytes, state, started, updated"


class Transfer(Struct, frozen=True):
    """One transfer. `direction` is `get` or `put` as the client sees it; `state` is `running` until it ends."""

    id: str
    person: str
    direction: str
    share: str
    path: str
    files: int
    bytes: int
    state: str
    started: float
    updated: float


class Transfers:
    """The transfers of a node."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def begin(self, id: str, person: str, direction: str, share: str, path: str, *, now: float) -> Transfer:  # noqa: A002
        """Record a transfer as running. The same id of the same person is the one that goes on after a cut; raises
        Conflict when the id is somebody else's."""
        if direction not in {"get", "put"}:
            raise UsageError(f"'{printable(direction, limit=80)}' is no direction; 'get' and 'put' are.")
        with self._db.transaction(durable=False):
            before = self._db.row("SELECT person FROM transfers WHERE id = ?", (id,))
            if before is not None and before[0] != person:
                raise Conflict("That transfer id belongs to another person.")
            self._db.execute(
                "INSERT INTO transfers (id, person, direction, share, path, files, bytes, state, started, updated)"
                " VALUES (?, ?, ?, ?, ?, 0, 0, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET state = excluded.state, updated = excluded.updated",
                # As bytes, because a path may hold what is no valid Unicode (surrogate escapes).
                (id, person, direction, share, path.encode("utf-8", "surrogatepass"), RUNNING, now, now),
            )
            self._db.execute(
                "DELETE FROM transfers WHERE number <= (SELECT max(number) FROM transfers) - ?",
                (TRANSFER_ROWS.value,),
            )
            return self._known(id)

    def update(self, id: str, *, files: int, bytes: int, now: float) -> None:  # noqa: A002
        """Note how far it got. Not flushed to the disk: nothing is resumed from it."""
        self._set(id, RUNNING, files, bytes, now)

    def finish(self, id: str, state: str, *, files: int, bytes: int, now: float) -> None:  # noqa: A002
        """Note how it ended: `done`, or why not."""
        self._set(id, state, files, bytes, now)

    def all(self, person: str | None = None, *, limit: int = 1000) -> list[Transfer]:
        """The transfers (of one person), newest first."""
        rows = self._db.rows(
            f"SELECT {_COLUMNS} FROM transfers WHERE ? IS NULL OR person = ? ORDER BY number DESC LIMIT ?",  # noqa: S608
            (person, person, limit),
        )
        return [_transfer(row) for row in rows]

    def _set(self, id: str, state: str, files: int, size: int, now: float) -> None:  # noqa: A002
        with self._db.transaction(durable=False):
            changed = self._db.execute(
                "UPDATE transfers SET state = ?, files = ?, bytes = ?, updated = ? WHERE id = ?",
                (state, files, size, now, id),
            )
            if not changed:
                raise NotFound(f"There is no record of a transfer '{printable(id, limit=80)}'.")

    def _known(self, id: str) -> Transfer:  # noqa: A002
        row = self._db.row(f"SELECT {_COLUMNS} FROM transfers WHERE id = ?", (id,))  # noqa: S608
        assert row is not None
        return _transfer(row)


def _transfer(row: tuple[object, ...]) -> Transfer:
    id_, person, direction, share, path, *rest = row
    assert isinstance(path, bytes)
    return Transfer(id_, person, direction, share, path.decode("utf-8", "surrogatepass"), *rest)  # type: ignore[arg-type]
