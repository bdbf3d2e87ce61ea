"""People and their keys. One person may join from several machines; each machine has a key of its own."""

from __future__ import annotations

from msgspec import Struct

from towline.base.errors import Conflict, NotFound
from towline.base.names import checked_name
from towline.base.text import printable
from towline.store.database import Database, Row

_COLUMNS = "people.name, people.grants, people.created, people.last_seen, people.revoked"


class Person(Struct, frozen=True):
    """Somebody who was invited and joined. Times in seconds since 1970; `grants` is opaque here."""

    name: str
    grants: str
    created: float
    last_seen: float | None
    revoked: bool


class People:
    """The people of a node and the public keys (32 bytes) that they prove."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def by_key(self, public: bytes) -> Person | None:
        """Who proves that key, None for a stranger. `revoked` is set when the person or this one key is."""
        row = self._db.row(
            f"SELECT {_COLUMNS}, keys.revoked FROM keys JOIN people ON people.name = keys.person"  # noqa: S608
            " WHERE keys.public = ?",
            (public,),
        )
        if row is None:
            return None
        *columns, key_revoked = row
        return _person((*columns[:4], columns[4] or key_revoked))

    def by_name(self, name: str) -> Person | None:
        """The person with that name, None if nobody has joined with it."""
        row = self._db.row(f"SELECT {_COLUMNS} FROM people WHERE name = ?", (checked_name(name),))  # noqa: S608
        return None if row is None else _person(row)

    def all(self) -> list[Person]:
        """Everybody, the revoked too, by name."""
        return [_person(row) for row in self._db.rows(f"SELECT {_COLUMNS} FROM people ORDER BY name")]  # noqa: S608

    def keys(self, name: str) -> list[bytes]:
        """The keys of a person that are not revoked, oldest first."""
        sql = "SELECT public FROM keys WHERE person = ? AND NOT revoked ORDER BY added, rowid"
        return [bytes(row[0]) for row in self._db.rows(sql, (checked_name(name),))]

    def admit(self, name: str, grants: str, now: float) -> Person:
        """Make the person, or give an existing one these grants and lift a revocation (of the person, not of keys
        that were revoked with it: they may be in the wrong hands)."""
        checked = checked_name(name)
        with self._db.transaction():
            self._db.execute(
                "INSERT INTO people (name, grants, created) VALUES (?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET grants = excluded.grants, revoked = 0",
                (checked, grants, now),
            )
            return self._known(checked)

    def add_key(self, name: str, public: bytes, now: float = 0.0) -> Person:
        """Let `public` stand for the person too. Raises NotFound without the person, Conflict when the key stands for
        somebody else. A revoked key is good again after this."""
        with self._db.transaction():
            person = self._known(name)
            owner = self.by_key(public)
            if owner is not None and owner.name != person.name and not owner.revoked:
                raise Conflict(
                    f"This key has joined as {owner.name!r} already. Ask for an invite for {owner.name!r}, or join "
                    "with another TOWLINE_HOME."
                )
            self._db.execute(
                "INSERT INTO keys (public, person, added) VALUES (?, ?, ?)"
                " ON CONFLICT (public) DO UPDATE SET person = excluded.person, revoked = 0",
                (public, person.name, now),
            )
            return person

    def revoke(self, name: str) -> None:
        """Shut out the person with every key and cancel the open invites for the name. Raises NotFound."""
        checked = checked_name(name)
        with self._db.transaction():
            people = self._db.execute("UPDATE people SET revoked = 1 WHERE name = ?", (checked,))
            self._db.execute("UPDATE keys SET revoked = 1 WHERE person = ?", (checked,))
            invites = self._db.execute(
                "UPDATE invites SET cancelled = 1 WHERE name = ? AND used IS NULL AND NOT cancelled", (checked,)
            )
            if not people and not invites:
                raise _nobody(checked)

    def seen(self, name: str, now: float) -> None:
        """Note that the person was here; not worth a disk flush."""
        with self._db.transaction(durable=False):
            self._db.execute("UPDATE people SET last_seen = ? WHERE name = ?", (now, checked_name(name)))

    def _known(self, name: str) -> Person:
        person = self.by_name(name)
        if person is None:
            raise _nobody(name)
        return person


def _person(row: Row) -> Person:
    name, grants, created, last_seen, revoked = row
    return Person(name, grants, created, last_seen, bool(revoked))


def _nobody(name: str) -> NotFound:
    return NotFound(f"Nobody with the name '{printable(name, limit=80)}' was invited or has joined.")
