"""The database itself: modes, durability settings, migrations, and what goes wrong with a disk."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from towline.base.errors import (
    Conflict,
    DiskError,
    InternalError,
    InUse,
    LaxPermissions,
    LimitExceeded,
    NoSpace,
    NotADirectory,
    UsageError,
)
from towline.store import Store
from towline.store.database import Database
from towline.store.schema import MIGRATIONS

_TABLE = ("CREATE TABLE t (x) ;\n",)
_OPENER = """
import sys
from towline.store import Store
print("ready", flush=True)
sys.stdin.readline()
with Store.open(sys.argv[1]) as store:
    store.audit.note(1.0, "p", "opened")
"""


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(str(tmp_path / "data" / "towline.db"), _TABLE)) as opened:
        yield opened


def test_every_file_is_narrow_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        store = Store.open(str(tmp_path / "data"))
    finally:
        os.umask(old)
    with store:
        store.settings.set("a", "b")
        modes = {
            name: stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) for name in os.listdir(tmp_path / "data")
        }
        assert modes == {"towline.db": 0o600, "towline.db-wal": 0o600, "towline.db-shm": 0o600}
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_a_lax_database_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    Store.open(str(tmp_path)).close()
    (tmp_path / "towline.db").chmod(0o644)
    with pytest.raises(LaxPermissions, match=r"mode 0644.*mend it: chmod 600 ") as refused:
        Store.open(str(tmp_path))
    subprocess.run(["sh", "-c", refused.value.sentence.split("mend it: ")[1]], check=True)
    Store.open(str(tmp_path)).close()


def test_wal_and_full_synchronous_for_what_is_acknowledged(db: Database) -> None:
    assert db.row("PRAGMA journal_mode") == ("wal",)
    assert db.row("PRAGMA foreign_keys") == (1,)
    seen = {}
    for durable in (False, True):
        with db.transaction(durable=durable):
            seen[durable] = db.row("PRAGMA synchronous")
    assert seen == {True: (2,), False: (1,)}  # FULL, NORMAL
    db.execute("INSERT INTO t VALUES (1)")
    assert db.row("PRAGMA synchronous") == (2,)


def test_a_transaction_is_all_or_nothing_nested_too(db: Database) -> None:
    def fail_late() -> None:
        with db.transaction():
            db.execute("INSERT INTO t VALUES (1)")
            with db.transaction():
                db.execute("INSERT INTO t VALUES (2)")
            raise KeyError

    with pytest.raises(KeyError):
        fail_late()
    assert db.rows("SELECT x FROM t") == []
    with db.transaction():
        db.execute("INSERT INTO t VALUES (3)")
    assert db.rows("SELECT x FROM t") == [(3,)]


def test_many_threads_share_it(db: Database) -> None:
    def add() -> None:
        for _ in range(50):
            with db.transaction(durable=False):
                count = db.row("SELECT count(*) FROM t")
                assert count is not None
                db.execute("INSERT INTO t VALUES (?)", (count[0],))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert db.rows("SELECT x FROM t ORDER BY x") == [(number,) for number in range(200)]


def test_a_version_1_database_is_brought_up_to_date(tmp_path: Path) -> None:
    with closing(Database(str(tmp_path / "towline.db"), MIGRATIONS[:1])) as old:
        assert old.row("PRAGMA user_version") == (1,)
        old.execute("INSERT INTO people (name, grants, created) VALUES ('anna', 'chat', 5.0)")
        old.execute("INSERT INTO keys (public, person, added) VALUES (?, 'anna', 6.0)", (b"k" * 32,))
        assert old.rows("SELECT name FROM sqlite_schema WHERE name = 'audit'") == []
    with Store.open(str(tmp_path)) as store:
        assert store.database.row("PRAGMA user_version") == (len(MIGRATIONS),)
        person = store.people.by_key(b"k" * 32)
        assert person is not None
        assert (person.name, person.grants, person.created) == ("anna", "chat", 5.0)
        assert store.audit.note(1.0, "anna", "get") == 1


def test_a_step_that_fails_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    path = str(tmp_path / "towline.db")
    Database(path, _TABLE).close()
    broken = (*_TABLE, "CREATE TABLE u (x);\nCREATE TABLE t (x);\n")
    with pytest.raises(InternalError, match="already exists"):
        Database(path, broken)
    with closing(Database(path, _TABLE)) as again:
        assert again.row("PRAGMA user_version") == (1,)
        assert again.rows("SELECT name FROM sqlite_schema") == [("t",)]


def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "towline.db")
    Database(path, (*MIGRATIONS, "CREATE TABLE later (x);")).close()
    with pytest.raises(Conflict, match=f"newer Towline .its form is {len(MIGRATIONS) + 1}.*update Towline"):
        Store.open(str(tmp_path))
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)


def test_processes_that_open_a_fresh_folder_together_all_succeed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _OPENER, str(tmp_path / "data")]
    openers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    for opener in openers:
        assert opener.stdout is not None
        assert opener.stdout.readline() == "ready\n"
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("go\n")
        opener.stdin.flush()
    errors = [opener.communicate(timeout=30)[1] for opener in openers]
    assert [opener.returncode for opener in openers] == [0] * len(openers), errors
    with Store.open(str(tmp_path / "data")) as store:
        assert len(store.audit.read()) == len(openers)


def test_a_full_disk_is_no_space_and_nothing_is_kept(db: Database) -> None:
    db.execute("PRAGMA max_page_count = 4")

    def fill() -> None:
        with db.transaction():
            db.execute("INSERT INTO t VALUES (1)")
            db.execute("INSERT INTO t VALUES (?)", (b"x" * 100_000,))

    with pytest.raises(NoSpace, match=r"towline\.db"):
        fill()
    assert db.rows("SELECT count(*) FROM t") == [(0,)]
    db.execute("INSERT INTO t VALUES (2)")
    assert db.rows("SELECT x FROM t") == [(2,)]


def test_a_database_locked_by_another_is_in_use(tmp_path: Path) -> None:
    path = str(tmp_path / "towline.db")
    with (
        closing(Database(path, _TABLE, busy_seconds=0.05)) as one,
        closing(Database(path, _TABLE, busy_seconds=0.05)) as two,
    ):
        with one.transaction():
            one.execute("INSERT INTO t VALUES (1)")
            with pytest.raises(InUse, match="locked by another process"):
                two.execute("INSERT INTO t VALUES (2)")
            assert two.rows("SELECT x FROM t") == []  # readers do not wait
        two.execute("INSERT INTO t VALUES (3)")
        assert one.rows("SELECT x FROM t ORDER BY x") == [(1,), (3,)]


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "towline.db"
    path.write_bytes(b"this is not a database, whatever its name says" * 100)
    path.chmod(0o600)
    with pytest.raises(DiskError, match=r"towline\.db is damaged"):
        Store.open(str(tmp_path))
    assert path.read_bytes().startswith(b"this is not")


def test_pages_of_noise_are_a_damaged_database_too(tmp_path: Path) -> None:
    path = tmp_path / "towline.db"
    with Store.open(str(tmp_path)) as store:
        for number in range(200):
            store.settings.set(f"key{number}", "v" * 200)
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xa5" * (len(whole) - 8192))
    with pytest.raises(DiskError, match="damaged"), Store.open(str(tmp_path)) as store:
        store.settings.all()


def test_a_folder_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(Conflict, match="exists already"):
        Store.open(str(tmp_path / "data"))
    with pytest.raises(NotADirectory, match="a folder was expected"):
        Store.open(str(tmp_path / "data" / "deeper"))


def test_values_that_sqlite_cannot_hold_are_documented_errors(db: Database) -> None:
    with pytest.raises(LimitExceeded, match=r"2\*\*63"):
        db.execute("INSERT INTO t VALUES (?)", (2**63,))
    with pytest.raises(UsageError, match=r"\\ud800"):
        db.execute("INSERT INTO t VALUES (?)", ("\ud800",))
    db.execute("INSERT INTO t VALUES (?)", ("nul\0inside",))
    assert db.rows("SELECT x FROM t") == [("nul\0inside",)]


def test_use_after_close_is_ours(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.close()
    store.close()
    with pytest.raises(InternalError, match="closed"):
        store.people.all()


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom towline.store import Store\n"
        "store = Store.open(sys.argv[1])\n"
        "store.settings.set('kept', 'yes')\n"
        "store.people.admit('anna', 'chat', 1.0)\n"
        "store.people.seen('anna', 2.0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=30)
    assert ended.returncode == -9
    with Store.open(str(tmp_path)) as store:
        assert store.settings.get("kept") == "yes"
        assert [person.last_seen for person in store.people.all()] == [2.0]
