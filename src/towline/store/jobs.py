"""The jobs of a node: what was started for whom, and how it ended. Their output is kept in spools, not here."""

from __future__ import annotations

import json

from msgspec import Struct
from msgspec.structs import replace

from towline.base.limits import Limit
from towline.store.database import Database, Row

JOB_ROWS = Limit("job_rows", 10_000, "rows", "records of finished jobs; the oldest are forgotten with their output")
STARTING, RUNNING, EXITED, KILLED, LOST = "starting", "running", "exited", "killed", "lost"
LIVE = (STARTING, RUNNING)
_COLUMNS = (
    "id, person, request, argv, terminal, on_disconnect, after, state, status, signal, reason, pid, started, ended,"
    " bytes, size"
)


class JobRow(Struct, frozen=True):
    """One job. `state` is starting, running, exited, killed or lost; `status` or `signal` are set as it ended.

    `bytes` were printed, `size` are on disk; `on_disconnect` and `after` (seconds) say what happens without a client.
    """

    id: str
    person: str
    request: str
    argv: list[str]
    terminal: bool
    on_disconnect: str
    after: float
    state: str
    started: float
    status: int | None = None
    signal: int | None = None
    reason: str = ""
    pid: int = 0
    ended: float | None = None
    bytes: int = 0
    size: int = 0

    def ending(self, state: str, **fields: object) -> JobRow:
        """The same job in another state."""
        return replace(self, state=state, **fields)


class Jobs:
    """Rows of jobs. A person's request id stands for one job."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def begin(self, row: JobRow) -> tuple[JobRow, bool]:
        """Keep a new job, unless the person's request was kept before: then that one, and False."""
        with self._db.transaction():
            if self._db.insert(
                "INSERT INTO jobs (id, person, request, argv, terminal, on_disconnect, after, state, pid, started,"
                " reason, bytes, size) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, '', 0, 0)"
                " ON CONFLICT (person, request) DO NOTHING",
                (row.id, row.person, row.request, json.dumps(row.argv), int(row.terminal), row.on_disconnect,
                 row.after, row.state, row.started),
            ):  # fmt: skip
                return row, True
            known = self._db.row(
                f"SELECT {_COLUMNS} FROM jobs WHERE person = ? AND request = ?",  # noqa: S608
                (row.person, row.request),
            )
            assert known is not None
            return _job(known), False

    def is_known(self, person: str, request: str) -> bool:
        """Whether that request was kept."""
        return self._db.row("SELECT 1 FROM jobs WHERE person = ? AND request = ?", (person, request)) is not None

    def update(self, row: JobRow, *, durable: bool = False) -> None:
        """Keep what has changed: state, status, signal, reason, pid, ended, bytes, size."""
        with self._db.transaction(durable=durable):
            self._db.execute(
                "UPDATE jobs SET state = ?, status = ?, signal = ?, reason = ?, pid = ?, ended = ?, bytes = ?,"
                " size = ? WHERE id = ?",
                (row.state, row.status, row.signal, row.reason, row.pid, row.ended, row.bytes, row.size, row.id),
            )

    def find(self, id: str) -> JobRow | None:  # noqa: A002
        """The job with that id."""
        row = self._db.row(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (id,))  # noqa: S608
        return None if row is None else _job(row)

    def live(self) -> list[JobRow]:
        """Those that have not ended, as far as is known here."""
        return [_job(row) for row in self._db.rows(f"SELECT {_COLUMNS} FROM jobs WHERE state IN (?, ?)", LIVE)]  # noqa: S608

    def all(self, person: str | None = None, *, limit: int = 1000) -> list[JobRow]:
        """The jobs (of one person), the newest `limit`, oldest first."""
        rows = self._db.rows(
            f"SELECT {_COLUMNS} FROM jobs WHERE ? IS NULL OR person = ? ORDER BY number DESC LIMIT ?",  # noqa: S608
            (person, person, limit),
        )
        return [_job(row) for row in reversed(rows)]

    def finished(self) -> list[JobRow]:
        """Those that have ended, oldest first."""
        rows = self._db.rows(f"SELECT {_COLUMNS} FROM jobs WHERE state NOT IN (?, ?) ORDER BY number", LIVE)  # noqa: S608
        return [_job(row) for row in rows]

    def kept_bytes(self, person: str | None = None) -> int:
        """What finished jobs (of one person) have on disk."""
        row = self._db.row(
            "SELECT coalesce(sum(size), 0) FROM jobs WHERE (? IS NULL OR person = ?) AND state NOT IN (?, ?)",
            (person, person, *LIVE),
        )
        return int(row[0]) if row is not None else 0

    def forget(self, id: str) -> None:  # noqa: A002
        """Drop the row; harmless when there is none."""
        with self._db.transaction(durable=False):
            self._db.execute("DELETE FROM jobs WHERE id = ?", (id,))


def _job(row: Row) -> JobRow:
    (id_, person, request, argv, terminal, on_disconnect, after, state, status, number, reason, pid, started, ended,
     printed, size) = row  # fmt: skip
    return JobRow(
        id_, person, request, json.loads(argv), bool(terminal), on_disconnect, after, state, started, status, number,
        reason, pid, ended, printed, size,
    )  # fmt: skip
