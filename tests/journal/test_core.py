"""The blocking journal: groups, retention, ids, descriptors, threads."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from towline.base.errors import CursorFromFuture, IdReused, JournalFull, TimedOut
from towline.journal import START, Cursor, Gap, Record, Retention
from towline.journal.batch import Options
from towline.journal.committer import Committer
from towline.journal.core import Journal
from towline.journal.descriptors import Descriptors
from towline.journal.ids import IdTable, Sieve

SECOND = 10**9


def everything(journal: Journal, from_: Cursor = START) -> list[Record | Gap]:
    items: list[Record | Gap] = []
    while got := journal.read(from_):
        items += got
        from_ = got[-1].next
    return items


def test_what_comes_while_the_disk_is_busy_is_one_group(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path / "log"))
    commits: list[int] = []
    journal.subscribe(lambda: commits.append(1))
    with journal._write_lock:  # as while an fsync runs
        tickets = [journal.append(1, b"%d" % i) for i in range(1000)]
        assert not tickets[0].done()
        assert journal.end.seq == 1  # readers see nothing that is not on the disk
    assert tickets[-1].result(20) == 1000
    journal.close()
    assert len(commits) <= 2  # the group, and the close


def test_nothing_is_acknowledged_or_seen_before_it_was_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.open(str(tmp_path / "log"))
    seen: list[tuple[bool, int]] = []
    real = os.fdatasync

    def watched(descriptor: int) -> None:
        seen.append((ticket.done(), journal.end.seq))
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", watched)
    with journal._write_lock:
        ticket = journal.append(1, b"x")
    ticket.result(20)
    assert seen == [(False, 1)]
    journal.close()


@pytest.mark.parametrize("segment_bytes", [300, 1000, 1 << 20])
def test_ids_of_a_batch_that_goes_over_segments_are_known_at_every_moment(tmp_path: Path, segment_bytes: int) -> None:
    journal = Journal.open(str(tmp_path / "log"), Options(segment_bytes=segment_bytes))
    entries = [(b"id%d" % i, b"payload %d" % i) for i in range(300)]
    with journal._write_lock:  # so that they are committed together
        first = journal.append_many(1, entries[:200])
        second = journal.append_many(1, entries[100:])  # some of them again
        assert not second.done()
    journal.sync()
    assert (first.outcomes, second.outcomes) == (list(range(1, 201)), list(range(101, 301)))
    assert journal.append_many(1, entries).outcomes == list(range(1, 301))
    assert journal.append_many(1, entries).done()
    journal.close()
    journal = Journal.open(str(tmp_path / "log"), Options(segment_bytes=segment_bytes))
    assert journal.append_many(1, entries).outcomes == list(range(1, 301))
    assert [item.payload for item in everything(journal) if isinstance(item, Record)] == [each for _, each in entries]
    journal.close()


def test_what_waits_to_be_started_is_committed_by_a_sync_and_by_a_log_without_room(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path / "log"), Options(pending_bytes=1000))
    held = journal.append_many(1, [(b"", b"x" * 500)], start=False)
    assert not held.done()
    journal.sync()
    assert held.done()
    for _ in range(10):  # more than may be pending
        journal.append_many(1, [(b"", b"x" * 500)], start=False)
    journal.close()
    assert journal.end.seq == 12


def test_a_ticket_that_is_not_kept_in_time_says_so(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path / "log"))
    with journal._write_lock:
        ticket = journal.append(1, b"first")
        with pytest.raises(TimedOut):
            ticket.result(0.01)
    assert ticket.result(20) == 1
    journal.close()


def test_the_same_id_while_it_is_pending_is_the_same_record(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path / "log"))
    with journal._write_lock:
        one = journal.append(1, b"x", id=b"i")
        other = journal.append(1, b"x", id=b"i")
        assert (one.seq, one.duplicate, other.seq, other.duplicate) == (1, False, 1, True)
        assert not other.done()
        with pytest.raises(IdReused):
            journal.append(1, b"y", id=b"i")
    assert other.result(20) == 1
    journal.close()


def test_many_threads_append_and_every_seq_is_given_once(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path / "log"), Options(segment_bytes=5000))
    got: list[tuple[int, bytes]] = []

    def work(name: int) -> None:
        for i in range(100):
            payload = b"%d/%d" % (name, i)
            got.append((journal.append(1, payload, id=payload).result(20), payload))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(got) == [(item.seq, item.payload) for item in everything(journal) if isinstance(item, Record)]
    assert [seq for seq, _ in sorted(got)] == list(range(1, 801))
    journal.close()


def test_a_reader_on_another_thread_wakes_up(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path / "log"))
    assert journal.wait_beyond(0, 0.01) is False
    woken: list[bool] = []
    waiter = threading.Thread(target=lambda: woken.append(journal.wait_beyond(0, 20)))
    waiter.start()
    journal.append(1, b"x").result(20)
    waiter.join(20)
    assert woken == [True]
    journal.close()


def test_retention_by_age_drops_whole_segments(tmp_path: Path) -> None:
    now = [1000 * SECOND]
    options = Options(segment_bytes=500, retention=Retention(max_seconds=100))
    journal = Journal.open(str(tmp_path / "log"), options, clock=lambda: now[0])
    for _ in range(100):
        now[0] += 2 * SECOND
        journal.append(1, b"x" * 20).result(20)
    assert 40 <= journal.floor.seq <= 60
    now[0] += 1000 * SECOND
    journal.retain()  # also the one that is being written to
    assert everything(journal, journal.floor) == []
    assert everything(journal) == [Gap(Cursor(journal.epoch, 1), Cursor(journal.epoch, 101), "retention")]
    assert journal.append(1, b"new").result(20) == 101
    journal.close()


@pytest.mark.parametrize("durable", [True, False])
def test_retention_by_size_is_a_ceiling(tmp_path: Path, durable: bool) -> None:
    journal = Journal.open(
        str(tmp_path / "log"), Options(durable=durable, retention=Retention(max_bytes=100_000), cache_bytes=0)
    )
    for i in range(600):
        journal.append(1, b"%03d" % i + bytes(1000)).result(20)
        assert journal.size <= 100_000
    assert journal.size > 80_000
    items = everything(journal)
    assert isinstance(items[0], Gap)
    assert [item.seq for item in items[1:] if isinstance(item, Record)] == list(range(journal.floor.seq, 601))
    assert sum(path.stat().st_size for path in (tmp_path / "log").glob("*.log")) == journal.size
    journal.close()


def test_a_full_log_refuses_until_its_reader_releases(tmp_path: Path) -> None:
    retention = Retention(max_bytes=50_000, when_full="refuse")
    journal = Journal.open(str(tmp_path / "log"), Options(durable=False, retention=retention))
    appended = read = 0
    cursor = Cursor(journal.epoch, 1)
    refused = 0
    while read < 1000:
        try:
            while appended < 1000:
                journal.append(1, b"%d" % appended * 300)
                appended += 1
        except JournalFull:
            refused += 1
        assert journal.size <= 50_000
        for item in journal.read(cursor):
            assert isinstance(item, Record)
            assert item.payload == b"%d" % read * 300
            read += 1
            cursor = item.next
        journal.release(cursor.seq - 1)
    assert refused > 3
    assert journal.read(START)[0].next == journal.floor
    journal.close()


def test_release_frees_nothing_that_was_not_released(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path / "log"), Options(segment_bytes=500))
    for _ in range(100):
        journal.append(1, b"x" * 20).result(20)
    for upto in (0, 1, 50, 30, 99):
        journal.release(upto)
        assert journal.floor.seq <= max(upto, 50 if upto == 30 else upto) + 1
    journal.release(10_000)  # more than there is
    assert journal.append(1, b"y").result(20) == 101
    assert [item.seq for item in everything(journal, journal.floor) if isinstance(item, Record)][-1] == 101
    journal.close()


def test_ids_survive_many_drops_and_restarts(tmp_path: Path) -> None:
    options = Options(retention=Retention(max_records=8))
    for round_ in range(4):
        journal = Journal.open(str(tmp_path / "log"), options)
        for i in range(100):
            number = round_ * 100 + i
            journal.append(1, b"%d" % number, id=b"%d" % number).result(20)
        for number in range(0, (round_ + 1) * 100, 7):
            assert journal.append(1, b"%d" % number, id=b"%d" % number).result(20) == number + 1
            with pytest.raises(IdReused):
                journal.append(1, b"other", id=b"%d" % number)
        assert len(list((tmp_path / "log").iterdir())) < 40  # the tables of dropped segments are merged
        journal.close()


def test_seals_and_ids_when_the_index_was_lost(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path / "log"), Options(segment_bytes=1000))
    for i in range(100):
        journal.append(1, b"%d" % i, id=b"%d" % i).result(20)
    journal.close()
    for path in (tmp_path / "log").glob("*.idx"):
        path.unlink()
    journal = Journal.open(str(tmp_path / "log"), Options(segment_bytes=1000))
    assert journal.append(1, b"3", id=b"3").result(20) == 4
    assert len(everything(journal)) == 100
    journal.close()


def test_positions(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path / "log"), random=lambda count: bytes(range(1, count + 1)))
    assert journal.epoch == 0x0102030405060708
    journal.append(1, b"a").result(20)
    assert journal.cursor(1) == Cursor(journal.epoch, 1)
    assert journal.read(Cursor(journal.epoch, 0)) == journal.read(START)
    with pytest.raises(CursorFromFuture):
        journal.read(Cursor(journal.epoch, 9))
    assert "1..1" in repr(journal)
    journal.close()


def test_lazy_appends_are_on_the_disk_after_a_sync(tmp_path: Path) -> None:
    committer = Committer()
    options = Options(durable=False, segment_bytes=2000, checkpoint_seconds=1000)
    journal = Journal.open(str(tmp_path / "log"), options, committer=committer)
    for _ in range(100):
        journal.append(1, b"x" * 50)
    assert journal.high_water.seq == 0
    journal.sync()
    assert journal.high_water.seq == 100
    journal.close()
    journal = Journal.open(str(tmp_path / "log"), Options(durable=False, checkpoint_seconds=0.0), committer=committer)
    journal.append(1, b"y")
    done = threading.Event()
    while not done.wait(0.001) and journal.high_water.seq < 101:  # by itself, at a checkpoint
        pass
    journal.close()
    committer.close()


def test_hundreds_of_journals_need_few_descriptors_and_threads(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    journals = [Journal.open(str(tmp_path / str(i))) for i in range(300)]
    for journal in journals:
        journal.append(1, b"x")
    for journal in journals:
        journal.sync()
        assert len(journal.read(START)) == 1
    assert len(os.listdir("/proc/self/fd")) <= before + 140
    for journal in journals:
        journal.close()
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_a_file_in_use_is_closed_by_its_last_user(tmp_path: Path) -> None:
    descriptors = Descriptors(limit=2)
    for name in "abcd":
        (tmp_path / name).write_bytes(name.encode())
    with descriptors.use(str(tmp_path / "a")) as held:
        for name in "bcd":
            with descriptors.use(str(tmp_path / name)) as other:
                assert os.pread(other, 1, 0) == name.encode()
        descriptors.forget(str(tmp_path / "a"))
        assert os.pread(held, 1, 0) == b"a"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pread(held, 1, 0)
    for name in "abcd":
        descriptors.forget(str(tmp_path / name))


def test_id_tables_find_and_merge() -> None:
    first = IdTable.of(10, {5: 10 << 32 | 1, 3: 11 << 32 | 2})
    second = IdTable.of(20, {9: 20 << 32 | 3, 5: 21 << 32 | 4})
    again = IdTable.from_bytes(10, first.to_bytes())
    assert (again.find(3), again.find(4), len(again)) == (11 << 32 | 2, None, 2)
    merged = IdTable.merged([second, first])
    assert [merged.find(key) for key in (3, 5, 9, 1)] == [11 << 32 | 2, 10 << 32 | 1, 20 << 32 | 3, None]


def test_a_sieve_lets_through_all_that_was_added_and_little_else() -> None:
    keys = [id_ * 0x9E3779B97F4A7C15 % (1 << 64) for id_ in range(1, 200_001)]
    tables = [
        IdTable.of(first, {key: first + i << 32 for i, key in enumerate(keys[first : first + 5000])})
        for first in range(0, 100_000, 5000)
    ]
    sieve = Sieve(tables)
    assert all(bool(sieve.suspects([key])) for key in keys[:100_000])
    assert sum(bool(sieve.suspects([key])) for key in keys[100_000:]) < 2000
    sieve.forget(66_000)  # the first filter, which had room for 65,536
    assert all(bool(sieve.suspects([key])) for key in keys[66_000:100_000])
    assert not all(bool(sieve.suspects([key])) for key in keys[:65_000])


def test_a_folder_moved_while_closed_is_the_same_log(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path / "a"))
    journal.append(1, b"x").result(20)
    journal.close()
    shutil.move(tmp_path / "a", tmp_path / "b")
    moved = Journal.open(str(tmp_path / "b"), known_high_water=journal.high_water)
    assert (moved.epoch, moved.end.seq) == (journal.epoch, 2)
    moved.close()
