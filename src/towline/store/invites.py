"""Invites: each lets one key in, once. Only a hash of the secret is kept."""

from __future__ import annotations

from msgspec import Struct

from towline.base.errors import BadInvite, Conflict, NotFound, Revoked, UsageError
from towline.base.names import checked_name
from towline.base.text import printable
from towline.store.database import Database
from towline.store.people import People, Person

# Used, expired and cancelled invites are remembered this long, to say which of the three a late code is.
REMEMBERED_SECONDS = 30 * 86400.0


class Invite(Struct, frozen=True):
    """An invite that nobody has used yet. Times in seconds since 1970."""

    name: str
    grants: str
    created: float
    expires: float


class Invites:
    """The node's invites."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._people = People(db)

    def create(self, name: str, grants: str, secret_hash: str, expires: float, now: float) -> Invite:
        """Keep an invite. The person's grants change when it is redeemed, not before. Several may be open for one
        name (one a machine). Raises UsageError for a bad name or an expiry that is past."""
        checked = checked_name(name)
        if not expires > now:
            raise UsageError("An invite needs an expiry in the future.")
        with self._db.transaction():
            self._forget_old(now)
            if self._db.row("SELECT 1 FROM invites WHERE secret_hash = ?", (secret_hash,)):
                raise Conflict("An invite with this secret exists already.")
            self._db.execute(
                "INSERT INTO invites (name, grants, secret_hash, created, expires) VALUES (?, ?, ?, ?, ?)",
                (checked, grants, secret_hash, now, expires),
            )
        return Invite(checked, grants, now, expires)

    def redeem(self, secret_hash: str, public_key: bytes, now: float) -> Person:
        """Let `public_key` in as the invited person: exactly once, whoever races for it.

        The same key gets the same answer again (for 30 days): its first answer may have been lost with the
        connection. Raises BadInvite (unknown, cancelled, used, expired: a sentence each), Revoked when the key was
        let in by this invite and shut out since, Conflict when the key has joined as somebody else (the invite
        stays good).
        """
        with self._db.transaction():
            row = self._db.row(
                "SELECT id, name, grants, expires, cancelled, used_by FROM invites WHERE secret_hash = ?",
                (secret_hash,),
            )
            if row is None:
                raise BadInvite("This node does not know the invite; it may be for another node. Ask for a new one.")
            number, name, grants, expires, cancelled, used_by = row
            if used_by is not None:
                return self._again(used_by, public_key)
            if cancelled:
                raise BadInvite("The invite was cancelled; ask for a new one.")
            if now >= expires:
                raise BadInvite("The invite has expired; ask for a new one.")
            self._people.admit(name, grants, now)
            person = self._people.add_key(name, public_key, now)
            self._db.execute("UPDATE invites SET used = ?, used_by = ? WHERE id = ?", (now, public_key, number))
            return person

    def open(self, now: float) -> list[Invite]:
        """The invites that can still be redeemed, oldest first."""
        rows = self._db.rows(
            "SELECT name, grants, created, expires FROM invites"
            " WHERE used IS NULL AND NOT cancelled AND expires > ? ORDER BY id",
            (now,),
        )
        return [Invite(*row) for row in rows]

    def cancel(self, name: str) -> int:
        """Make the unused invites for `name` worthless; returns how many. Raises NotFound when there is none."""
        count = self._db.execute(
            "UPDATE invites SET cancelled = 1 WHERE name = ? AND used IS NULL AND NOT cancelled",
            (checked_name(name),),
        )
        if not count:
            raise NotFound(f"There is no open invite for '{printable(name, limit=80)}'.")
        return count

    def _again(self, used_by: bytes, public_key: bytes) -> Person:
        if used_by != public_key:
            raise BadInvite("The invite was used already, with another key; ask for a new one.")
        person = self._people.by_key(public_key)
        if person is None or person.revoked:
            raise Revoked("Access to this node was revoked; this invite does not give it back. Ask for a new one.")
        return person

    def _forget_old(self, now: float) -> None:
        self._db.execute("DELETE FROM invites WHERE max(expires, ifnull(used, 0)) < ?", (now - REMEMBERED_SECONDS,))
