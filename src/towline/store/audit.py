"""Who did what and when: an append-only log of bounded length."""

from __future__ import annotations

from msgspec import Struct

from towline.base.limits import Limit
from towline.base.text import printable
from towline.store.database import Database

AUDIT_ROWS = Limit("audit_rows", 100_000, "rows", "the oldest are dropped, some at a time; about 20 MB in all")
AUDIT_TEXT = Limit("audit_text", 1024, "characters", "subject and detail come from a peer; the rest is cut off")
# Old rows go in batches, so that not every note pays for it.
_BATCH = 256


class AuditRow(Struct, frozen=True):
    """One thing that somebody did. `id` grows and is never used again; `time` in seconds since 1970."""

    id: int
    time: float
    person: str
    action: str
    subject: str
    detail: str


class Audit:
    """The audit log of a node; `keep` is how many rows it holds at most (and up to 256 more for a while)."""

    def __init__(self, db: Database, keep: int = AUDIT_ROWS.value) -> None:
        self._db = db
        self._keep = keep

    def note(
        self, time: float, person: str, action: str, subject: str = "", detail: str = "", *, durable: bool = True
    ) -> int:
        """Keep a row and return its id. Text is kept as it may be shown: through the text gate, cut to its limit.

        With `durable=False` a power cut may lose it: for what happens thousands of times a minute.
        """
        texts = (printable(text, limit=AUDIT_TEXT.value) for text in (person, action, subject, detail))
        with self._db.transaction(durable=durable):
            newest = self._db.insert(
                "INSERT INTO audit (time, person, action, subject, detail) VALUES (?, ?, ?, ?, ?)", (time, *texts)
            )
            if newest % _BATCH == 0:
                self._db.execute("DELETE FROM audit WHERE id <= ?", (newest - self._keep,))
        return newest

    def read(self, since_id: int = 0, limit: int = 1000) -> list[AuditRow]:
        """The rows behind `since_id`, oldest first, at most `limit`."""
        rows = self._db.rows(
            "SELECT id, time, person, action, subject, detail FROM audit WHERE id > ? ORDER BY id LIMIT ?",
            (since_id, limit),
        )
        return [AuditRow(*row) for row in rows]

    def latest(self, limit: int = 100) -> list[AuditRow]:
        """The newest `limit` rows, oldest of them first."""
        rows = self._db.rows(
            "SELECT id, time, person, action, subject, detail FROM audit ORDER BY id DESC LIMIT ?", (limit,)
        )
        return [AuditRow(*row) for row in reversed(rows)]
