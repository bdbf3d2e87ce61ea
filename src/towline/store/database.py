"""The one file that imports sqlite3: a connection that any thread may use, migrations, and errors as sentences.

One connection behind one lock: SQLite has one writer anyway, and what is kept here is small. Other processes (`tow
invite` beside a stopped node) come in by SQLite's own locks and the busy timeout.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from towline.base.errors import (
    Conflict,
    DiskError,
    InternalError,
    InUse,
    LaxPermissions,
    LimitExceeded,
    NoSpace,
    PermissionDenied,
    TowlineError,
    UsageError,
)
from towline.base.oserrors import oserrors
from towline.base.text import printable

BUSY_SECONDS = 5.0
_POLL_SECONDS = 0.01
_ERRORS = (sqlite3.Error, OverflowError, UnicodeEncodeError)  # which the module raises
Row = tuple[Any, ...]
Values = Sequence[str | bytes | int | float | None]


class Database:
    """An SQLite file in WAL mode, brought to the newest of `migrations` (SQL scripts; user_version counts them)."""

    def __init__(self, path: str, migrations: Sequence[str], *, busy_seconds: float = BUSY_SECONDS) -> None:
        self.path = os.path.abspath(path)
        self._lock = threading.RLock()
        self._depth = 0
        self._durable: bool | None = None  # what `synchronous` is set to; None: nothing yet
        self._connection: sqlite3.Connection | None = None
        _create_private(self.path)
        try:
            self._connection = sqlite3.connect(
                self.path, timeout=busy_seconds, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise self._documented(error) from error
        try:
            self._prepare(migrations, busy_seconds)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """All or nothing, one at a time; inside another transaction it is a part of that one.

        On return what was written survives a power cut; with `durable=False` it survives only the process, until
        the next durable transaction takes it along (no fsync: for what nobody was promised).
        """
        with self._lock:
            if self._depth:
                yield
                return
            if durable is not self._durable:
                self._run(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            self._depth = 1
            try:
                self._run("BEGIN IMMEDIATE")
                yield
                self._run("COMMIT")
            except BaseException:
                self._roll_back()
                raise
            finally:
                self._depth = 0

    def execute(self, sql: str, values: Values = ()) -> int:
        """Run one statement; returns how many rows it changed. Outside a transaction it is one of its own."""
        with self.transaction():
            return self._run(sql, values).rowcount

    def insert(self, sql: str, values: Values = ()) -> int:
        """Run an INSERT of one row and return its number; 0 when it was one to be ignored (ON CONFLICT)."""
        with self.transaction():
            done = self._run(sql, values)
            return int(done.lastrowid or 0) if done.rowcount else 0

    def rows(self, sql: str, values: Values = ()) -> list[Row]:
        """All rows that a query gives."""
        with self._lock:
            try:
                found: list[Row] = self._run(sql, values).fetchall()
            except sqlite3.Error as error:
                raise self._documented(error) from error
            return found

    def row(self, sql: str, values: Values = ()) -> Row | None:
        """The first row that a query gives."""
        found = self.rows(sql, values)
        return found[0] if found else None

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                try:
                    connection.close()
                except sqlite3.Error as error:
                    raise self._documented(error) from error

    def _prepare(self, migrations: Sequence[str], busy_seconds: float) -> None:
        # WAL: readers do not wait for the writer. Synchronous FULL (see `transaction`): a commit is on the disk.
        self._switch_to_wal(time.monotonic() + busy_seconds)
        self._run("PRAGMA foreign_keys = ON")
        self._run("PRAGMA trusted_schema = OFF")
        if self._version() != len(migrations):
            self._migrate(migrations)

    def _switch_to_wal(self, deadline: float) -> None:
        # SQLite does not wait by its busy timeout here: two that switch a fresh file at once would block each other.
        while True:
            try:
                self._run("PRAGMA journal_mode = WAL")
                return
            except InUse:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_POLL_SECONDS)

    def _migrate(self, migrations: Sequence[str]) -> None:
        with self.transaction():
            version = self._version()  # again, now that no other process can be migrating
            if version > len(migrations):
                raise Conflict(
                    f"{printable(self.path)} was written by a newer Towline (its form is {version}, this one knows "
                    f"{len(migrations)}); update Towline."
                )
            for script in migrations[version:]:
                for statement in _statements(script):
                    self._run(statement)
            self._run(f"PRAGMA user_version = {len(migrations)}")

    def _version(self) -> int:
        return int(self.rows("PRAGMA user_version")[0][0])

    def _run(self, sql: str, values: Values = ()) -> sqlite3.Cursor:
        if self._connection is None:
            raise InternalError("The store was used after it was closed.")
        try:
            return self._connection.execute(sql, values)
        except _ERRORS as error:
            raise self._documented(error) from error

    def _roll_back(self) -> None:
        # After a full disk SQLite may have rolled back by itself.
        if self._connection is not None and self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                pass  # the first error is the one to tell; the file rolls back when it is opened again

    def _documented(self, error: Exception) -> TowlineError:
        match error:
            case OverflowError():  # a number from a peer
                return LimitExceeded("A number is too large to be kept; the limit is 2**63 - 1.")
            case UnicodeEncodeError():  # text from a peer with lone surrogates in it
                return UsageError(f"'{printable(str(error.object), limit=80)}' is not valid Unicode.")
            case _:
                return _from_sqlite(error, printable(self.path))


def _create_private(path: str) -> None:
    """Make an empty file with mode 0600 where there is none; refuse a laxer one or somebody else's.

    An existing file is looked at by name and never opened here: closing any descriptor of it would drop the POSIX
    locks that this process may hold on it through another connection (SQLite, "How To Corrupt", 2.2).
    """
    with oserrors(path):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            pass
        info = os.stat(path)
    mode, quoted = stat.S_IMODE(info.st_mode), printable(shlex.quote(path))
    if info.st_uid != os.geteuid():
        raise LaxPermissions(
            f"{printable(path)} belongs to user {info.st_uid}, you are user {os.geteuid()}; "
            f"mend it: chown {os.geteuid()} {quoted} && chmod 600 {quoted}"
        )
    if mode & 0o077:
        raise LaxPermissions(f"{printable(path)} has mode {mode:04o}, others can use it; mend it: chmod 600 {quoted}")


def _statements(script: str) -> Iterator[str]:
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    assert not pending.strip(), "a migration ends with a semicolon"


def _from_sqlite(error: Exception, path: str) -> TowlineError:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # the module's own complaint (ProgrammingError): our misuse
        return InternalError(f"The store was used wrongly: {error}.")
    match code & 0xFF:  # the primary result code, sqlite.org/rescode.html
        case sqlite3.SQLITE_FULL:
            return NoSpace(f"There is no room to write {path}; nothing of this was kept.")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return InUse(f"{path} has been locked by another process for too long; nothing of this was kept.")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return PermissionDenied(f"{path} cannot be written: {error}.")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return DiskError(
                f"{path} is damaged ({error}); restore it from a backup, or move it away and invite anew."
            )
        case sqlite3.SQLITE_CONSTRAINT | sqlite3.SQLITE_MISMATCH | sqlite3.SQLITE_MISUSE | sqlite3.SQLITE_ERROR:
            return InternalError(f"The store was used wrongly: {error}.")
        case _:
            return DiskError(f"{path}: {error}.")
