"""What a node remembers in SQLite: people and their keys, invites, transfers, the audit log, settings.

In: plain values (names, key bytes, times in seconds since 1970). Out: frozen structs and documented errors.
May import: base and the standard library; `sqlite3` in `database.py` alone. Must not: know what a grant means or what
a key is good for (they are opaque text and bytes here), read a clock, import trust or asyncio. Everything here blocks
and may be called from any thread.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from msgspec import Struct

from towline.store.audit import Audit
from towline.store.database import Database
from towline.store.invites import Invites
from towline.store.jobs import Jobs
from towline.store.people import People
from towline.store.rooms import RoomRows
from towline.store.schema import MIGRATIONS
from towline.store.settings import Settings
from towline.store.transfers import Transfers

DATABASE_FILE = "towline.db"


class Store(Struct, frozen=True):
    """One node's database, room by room."""

    database: Database
    people: People
    invites: Invites
    transfers: Transfers
    audit: Audit
    settings: Settings
    rooms: RoomRows
    jobs: Jobs

    @classmethod
    def open(cls, folder: str) -> Self:
        """The store in `folder`/towline.db; both are made on first use, an older database is brought up to date.

        Raises LaxPermissions, Conflict (written by a newer version), InUse, NoSpace, PermissionDenied or DiskError.
        """
        db = Database(os.path.join(folder, DATABASE_FILE), MIGRATIONS)
        return cls(db, People(db), Invites(db), Transfers(db), Audit(db), Settings(db), RoomRows(db), Jobs(db))

    def close(self) -> None:
        """Close the database; calling it again does nothing."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
