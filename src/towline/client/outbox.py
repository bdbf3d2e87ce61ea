"""What was said and is not acknowledged yet, on disk: who is killed in between sends it at the next start, once.

Several processes may share one outbox. Two that send the same message are harmless: its id makes it one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import NamedTuple

from towline.base.limits import MIB, Limit
from towline.store.database import Database

OUTBOX = Limit("outbox", 64 * MIB, "bytes", "waiting for one node to come back; it is our own disk")
OUTBOX_FILE = "outbox.db"
_MIGRATIONS = (
    """
    CREATE TABLE outbox (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        node TEXT NOT NULL,
        id TEXT NOT NULL,
        room TEXT NOT NULL,
        body BLOB NOT NULL,
        created REAL NOT NULL,
        UNIQUE (node, id)
    ) STRICT;
    """,
)


class Unsent(NamedTuple):
    """One message: its id, room and the request that says it."""

    id: str
    room: str
    body: bytes


class Outbox:
    """The unsent messages for one node. Blocking; from any thread."""

    def __init__(self, home: str, node: str) -> None:
        self._node = node
        self._db = Database(os.path.join(home, OUTBOX_FILE), _MIGRATIONS)
        self._size = sum(len(each.body) for each in self.pending())

    def pending(self) -> list[Unsent]:
        """In the order in which they were said."""
        rows = self._db.rows("SELECT id, room, body FROM outbox WHERE node = ? ORDER BY number", (self._node,))
        return [Unsent(str(id_), str(room), bytes(body)) for id_, room, body in rows]

    def add(self, messages: Sequence[Unsent]) -> list[Unsent]:
        """Keep them, but for those that are given back: another message waits under their id. Raises LimitExceeded,
        NoSpace."""
        OUTBOX.check(self._size + sum(len(each.body) for each in messages))
        now, taken = time.time(), []
        with self._db.transaction():
            for each in messages:
                kept = self._db.insert(
                    "INSERT INTO outbox (node, id, room, body, created) VALUES (?, ?, ?, ?, ?)"
                    " ON CONFLICT DO NOTHING",
                    (self._node, each.id, each.room, each.body, now),
                )
                if not kept and self._waits_for(each.id) != each.body:
                    taken.append(each)
        self._size += sum(len(each.body) for each in messages)
        return taken

    def _waits_for(self, id_: str) -> bytes | None:
        row = self._db.row("SELECT body FROM outbox WHERE node = ? AND id = ?", (self._node, id_))
        return None if row is None else bytes(row[0])

    def remove(self, messages: Sequence[Unsent]) -> None:
        """They have their answer. Not flushed: one that comes back is sent again and acknowledged again."""
        with self._db.transaction(durable=False):
            for each in messages:
                self._db.execute(
                    "DELETE FROM outbox WHERE node = ? AND id = ? AND body = ?", (self._node, each.id, each.body)
                )
        self._size -= sum(len(each.body) for each in messages)

    def close(self) -> None:
        """Close the file."""
        self._db.close()
