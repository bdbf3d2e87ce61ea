"""Transfers, the audit log, settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from towline.base.errors import Conflict, LimitExceeded, NotFound, UsageError
from towline.store import Store, transfers
from towline.store.audit import AUDIT_TEXT, Audit


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path)) as opened:
        yield opened


def test_a_transfer_from_beginning_to_end(store: Store) -> None:
    begun = store.transfers.begin("t1", "anna", "put", "files", "a/b", now=1.0)
    assert (begun.state, begun.files, begun.bytes, begun.started) == ("running", 0, 0, 1.0)
    store.transfers.update("t1", files=2, bytes=10, now=2.0)
    again = store.transfers.begin("t1", "anna", "put", "files", "a/b", now=3.0)  # after a cut
    assert (again.started, again.updated, again.bytes) == (1.0, 3.0, 10)
    store.transfers.finish("t1", "done", files=3, bytes=2**40, now=4.0)
    (ended,) = store.transfers.all()
    assert (ended.state, ended.files, ended.bytes, ended.updated) == ("done", 3, 2**40, 4.0)


def test_transfers_newest_first_and_by_person(store: Store) -> None:
    for number, person in enumerate(["anna", "bob", "anna"]):
        store.transfers.begin(str(number), person, "get", "files", "x", now=float(number))
    assert [one.id for one in store.transfers.all()] == ["2", "1", "0"]
    assert [one.id for one in store.transfers.all("anna")] == ["2", "0"]
    assert [one.id for one in store.transfers.all(limit=1)] == ["2"]


def test_a_transfer_id_belongs_to_one_person(store: Store) -> None:
    store.transfers.begin("t", "anna", "get", "files", "x", now=1.0)
    with pytest.raises(Conflict):
        store.transfers.begin("t", "bob", "get", "files", "x", now=2.0)
    with pytest.raises(NotFound):
        store.transfers.update("other", files=1, bytes=1, now=2.0)
    with pytest.raises(UsageError, match="'push' is no direction"):
        store.transfers.begin("u", "bob", "push", "files", "x", now=2.0)
    with pytest.raises(LimitExceeded):
        store.transfers.finish("t", "done", files=1, bytes=2**63, now=2.0)


@pytest.mark.parametrize("path", ["new\nline", "名前/😀", "not-utf8-\udcff", "\ud800", "nul\0"])
def test_any_path_comes_back_exactly(store: Store, path: str) -> None:
    assert store.transfers.begin("t", "anna", "get", "files", path, now=1.0).path == path


def test_the_oldest_transfers_are_dropped(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "TRANSFER_ROWS", transfers.Limit("transfer_rows", 5, "rows", "small for the test"))
    for number in range(12):
        store.transfers.begin(str(number), "anna", "get", "files", "x", now=float(number))
    assert [one.id for one in store.transfers.all()] == ["11", "10", "9", "8", "7"]


def test_the_audit_log_is_read_from_a_position(store: Store) -> None:
    ids = [store.audit.note(float(number), "anna", "get", f"f{number}", "ok") for number in range(10)]
    assert ids == list(range(1, 11))
    assert [row.subject for row in store.audit.read(since_id=7)] == ["f7", "f8", "f9"]
    assert [row.id for row in store.audit.read(limit=2)] == [1, 2]
    assert [row.id for row in store.audit.latest(3)] == [8, 9, 10]
    row = store.audit.read()[3]
    assert (row.time, row.person, row.action, row.subject, row.detail) == (3.0, "anna", "get", "f3", "ok")


def test_text_from_a_peer_is_kept_as_it_may_be_shown(store: Store) -> None:
    store.audit.note(1.0, "anna", "run", "\x1b[2J\ud800\udcff\n", "x" * 5000)
    (row,) = store.audit.read()
    assert row.subject == "\\x1b[2J\\ud800\\xff\\n"
    assert len(row.detail) == AUDIT_TEXT.value


def test_the_audit_log_is_bounded_and_ids_are_never_used_again(store: Store) -> None:
    audit = Audit(store.database, keep=100)
    for number in range(1000):
        audit.note(float(number), "anna", "get", durable=False)
    rows = audit.read(limit=10_000)
    assert 100 <= len(rows) <= 100 + 256
    assert rows[-1].id == 1000
    store.database.execute("DELETE FROM audit")
    assert audit.note(1.0, "anna", "get") == 1001


def test_settings(store: Store, tmp_path: Path) -> None:
    assert store.settings.get("name") is None
    assert store.settings.get("name", "node") == "node"
    store.settings.set("name", "home")
    store.settings.set("name", "家")
    store.settings.set("address", "h:1")
    with Store.open(str(tmp_path)) as other:
        assert other.settings.all() == {"name": "家", "address": "h:1"}
    store.settings.remove("name")
    store.settings.remove("name")
    assert store.settings.get("name") is None
