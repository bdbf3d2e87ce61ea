"""What a crash, a full disk or a damaged disk may cost: nothing that was acknowledged, and never silence."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.kit import disk_of

from towline.base.errors import DiskError, NoSpace
from towline.journal import START, Cursor, Gap, Record
from towline.journal.batch import Options, Ticket
from towline.journal.core import Journal
from towline.journal.descriptors import SHARED
from towline.journal.segments import DROPPED_SUFFIX, DROPPED_TABLES

LAZY = Options(durable=False)


def filled(folder: Path, count: int, options: Options | None = None, *, size: int = 20) -> None:
    journal = Journal.open(str(folder), options)
    for i in range(count):
        journal.append(i % 256, b"%d." % i + b"x" * size, id=b"id%d" % i).result(20)
    journal.close()


def everything(journal: Journal, from_: Cursor = START) -> list[Record | Gap]:
    items: list[Record | Gap] = []
    while got := journal.read(from_):
        items += got
        from_ = got[-1].next
    return items


def numbers(items: list[Record | Gap]) -> list[int | str]:
    return [int(item.payload.split(b".")[0]) if isinstance(item, Record) else item.reason for item in items]


def last_segment(folder: Path) -> Path:
    return max(folder.glob("*.log"))


@pytest.mark.parametrize("options", [Options(), LAZY], ids=["durable", "lazy"])
def test_a_tail_torn_at_any_byte_of_the_last_record_is_cut_off(tmp_path: Path, options: Options) -> None:
    filled(tmp_path / "log", 2, options)
    whole_before = last_segment(tmp_path / "log").stat().st_size
    journal = Journal.open(str(tmp_path / "log"), options)
    journal.append(9, b"2.the last one", id=b"last").result(20)
    journal.close()
    data = last_segment(tmp_path / "log").read_bytes()
    for length in range(whole_before, len(data)):
        copy = tmp_path / f"at{length}"
        shutil.copytree(tmp_path / "log", copy)
        last_segment(copy).write_bytes(data[:length])
        torn = Journal.open(str(copy), options)
        assert torn.repaired == length - whole_before
        assert last_segment(copy).stat().st_size == whole_before
        assert numbers(everything(torn)) == [0, 1]
        assert torn.append(9, b"3.new", id=b"last").result(20) == 3  # the id was never acknowledged
        assert numbers(everything(torn)) == [0, 1, 3]
        torn.close()


def test_a_batch_torn_at_any_byte_keeps_its_whole_records_and_the_rest_is_taken_again(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path / "log"))
    journal.append(1, b"0.").result(20)
    before = last_segment(tmp_path / "log").stat().st_size
    entries = [(b"id%d" % i, b"%d.text" % i) for i in range(1, 5)]
    journal.append_many(1, entries)
    journal.close()
    data = last_segment(tmp_path / "log").read_bytes()
    size = (len(data) - before) // 4
    for length in range(before, len(data)):
        copy = tmp_path / f"at{length}"
        shutil.copytree(tmp_path / "log", copy)
        last_segment(copy).write_bytes(data[:length])
        torn = Journal.open(str(copy))
        whole = (length - before) // size
        assert torn.repaired == (length - before) % size
        assert numbers(everything(torn)) == list(range(whole + 1))
        assert torn.append_many(1, entries).outcomes == [2, 3, 4, 5]  # said again: each once
        torn.sync()
        assert numbers(everything(torn)) == [0, 1, 2, 3, 4]
        torn.close()


def test_garbage_of_any_byte_in_the_last_record_is_cut_off(tmp_path: Path) -> None:
    filled(tmp_path / "log", 3)
    data = last_segment(tmp_path / "log").read_bytes()
    start = len(data) - (len(data) - 32) // 3
    for position in range(start, len(data)):
        copy = tmp_path / f"at{position}"
        shutil.copytree(tmp_path / "log", copy)
        last_segment(copy).write_bytes(data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :])
        torn = Journal.open(str(copy))
        assert numbers(everything(torn)) == [0, 1]
        torn.close()


def test_damage_in_the_middle_of_the_last_segment_is_a_named_gap_at_every_byte(tmp_path: Path) -> None:
    filled(tmp_path / "log", 5)
    data = last_segment(tmp_path / "log").read_bytes()
    size = (len(data) - 32) // 5
    for position in range(32 + size, 32 + 2 * size):
        copy = tmp_path / f"at{position}"
        shutil.copytree(tmp_path / "log", copy)
        last_segment(copy).write_bytes(data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :])
        journal = Journal.open(str(copy))
        items = everything(journal)
        assert numbers(items) == [0, "corrupt", 2, 3, 4]
        assert items[1] == Gap(Cursor(journal.epoch, 2), Cursor(journal.epoch, 3), "corrupt")
        assert journal.append(1, b"5.").result(20) == 6
        assert numbers(everything(journal)) == [0, "corrupt", 2, 3, 4, 5]
        assert numbers(everything(journal, Cursor(journal.epoch, 2))) == ["corrupt", 2, 3, 4, 5]
        journal.close()


@pytest.mark.parametrize("damaged", [100, 4096, 20_000])
def test_damage_in_a_sealed_segment_is_a_named_gap(tmp_path: Path, damaged: int) -> None:
    filled(tmp_path / "log", 2000, Options(segment_bytes=40_000))
    segment = sorted((tmp_path / "log").glob("*.log"))[1]
    with segment.open("r+b") as file:
        file.seek(10_000)
        file.write(os.urandom(damaged))
    journal = Journal.open(str(tmp_path / "log"))
    items = everything(journal)
    (gap,) = (item for item in items if isinstance(item, Gap))
    assert gap.reason == "corrupt"
    assert damaged / 60 - 2 < gap.to.seq - gap.from_.seq < damaged / 45 + 3
    seqs = [item.seq for item in items if isinstance(item, Record)]
    assert seqs == [*range(1, gap.from_.seq), *range(gap.to.seq, 2001)]
    journal.close()


def test_a_segment_cut_short_or_taken_away_is_a_named_gap(tmp_path: Path) -> None:
    filled(tmp_path / "log", 600, Options(segment_bytes=4000))
    segments = sorted((tmp_path / "log").glob("*.log"))
    os.truncate(segments[1], 1000)
    segments[3].unlink()
    journal = Journal.open(str(tmp_path / "log"))
    items = everything(journal)
    assert [item.reason for item in items if isinstance(item, Gap)] == ["missing", "missing"]
    seqs = [item.seq for item in items if isinstance(item, Record)]
    lost = {seq for item in items if isinstance(item, Gap) for seq in range(item.from_.seq, item.to.seq)}
    assert sorted([*seqs, *lost]) == list(range(1, 601))
    journal.close()


@pytest.mark.parametrize("creating", [False, True], ids=["alone", "before one that was being created"])
def test_a_last_segment_without_header_begins_a_new_epoch(tmp_path: Path, creating: bool) -> None:
    """What its readers have seen has the numbers that would be given again."""
    filled(tmp_path / "log", 100, Options(segment_bytes=1000))
    last = last_segment(tmp_path / "log")
    first_lost = int(last.stem)
    last.write_bytes(bytes(last.stat().st_size))
    if creating:
        (tmp_path / "log" / f"{101:020d}.log").write_bytes(b"TOW")
    journal = Journal.open(str(tmp_path / "log"))
    assert journal.append(1, b"1000.").result(20) > first_lost
    assert numbers(everything(journal)) == [*range(first_lost - 1), "restored", 1000]
    journal.close()


def test_a_crash_while_a_segment_was_created_costs_nothing(tmp_path: Path) -> None:
    for length in (0, 31):
        folder = tmp_path / str(length)
        filled(folder, 3)
        (folder / f"{4:020d}.log").write_bytes(bytes(length))
        journal = Journal.open(str(folder))
        assert journal.append(1, b"3.").result(20) == 4
        assert numbers(everything(journal)) == [0, 1, 2, 3]
        journal.close()


@pytest.mark.parametrize("field", [60, 64], ids=["places", "ids"])
def test_an_index_that_says_it_is_huge_only_costs_a_scan(tmp_path: Path, field: int) -> None:
    filled(tmp_path / "log", 600, Options(segment_bytes=4000))
    index = min((tmp_path / "log").glob("*.idx"))
    with index.open("r+b") as file:
        file.seek(field)
        file.write(b"\xff" * 4)
    journal = Journal.open(str(tmp_path / "log"))
    assert numbers(everything(journal)) == list(range(600))
    assert journal.append(1, b"0." + b"x" * 20, id=b"id0").result(20) == 1, "its ids are known"
    journal.close()


def test_a_lost_catalogue_and_lost_indexes_are_rebuilt(tmp_path: Path) -> None:
    filled(tmp_path / "log", 100, Options(segment_bytes=1000))
    for path in [*(tmp_path / "log").glob("*.idx"), tmp_path / "log" / "catalogue.json"]:
        path.write_bytes(path.read_bytes()[:-3] + b"???")
    for _ in range(2):
        journal = Journal.open(str(tmp_path / "log"))
        assert numbers(everything(journal)) == list(range(100))
        assert journal.append(7, b"7." + b"x" * 20, id=b"id7").result(20) == 8
        journal.close()


@pytest.mark.parametrize("noise", [b"[" * 100_000, b'{"salt":"00","epochs":[["1",1e999]]}'], ids=["deep", "huge"])
def test_a_catalogue_of_noise_is_rebuilt(tmp_path: Path, noise: bytes) -> None:
    filled(tmp_path / "log", 3)
    (tmp_path / "log" / "catalogue.json").write_bytes(noise)
    journal = Journal.open(str(tmp_path / "log"))
    assert numbers(everything(journal)) == [0, 1, 2]
    journal.close()


CHILD = """
import sys
from towline.journal.core import Journal
from towline.journal.batch import Options, Ticket
journal = Journal.open(sys.argv[1], Options(segment_bytes=20_000, durable=sys.argv[2] == "durable"))
begin = journal.end.seq
for i in range(10**9):
    tickets = [journal.append(1, b"%d" % (begin + i * 7 + k), id=b"%d" % (begin + i * 7 + k)) for k in range(7)]
    print(tickets[-1].result(), flush=True)
"""


@pytest.mark.parametrize("mode", ["durable", "lazy"])
def test_killed_with_9_again_and_again_nothing_acknowledged_is_lost(tmp_path: Path, mode: str) -> None:
    folder = str(tmp_path / "log")
    acknowledged = 0
    for lines in (1, 40, 7, 90):
        with subprocess.Popen([sys.executable, "-c", CHILD, folder, mode], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            for _ in range(lines):
                acknowledged = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            rest = child.stdout.read().split(b"\n")[:-1]
            acknowledged = int(rest[-1]) if rest else acknowledged
        journal = Journal.open(folder)
        items = everything(journal)
        assert len(items) >= acknowledged > 0
        assert [(item.seq, item.payload, item.id) for item in items if isinstance(item, Record)] == [
            (seq, b"%d" % seq, b"%d" % seq) for seq in range(1, len(items) + 1)
        ]
        assert journal.append(1, b"3", id=b"3").result(20) == 3
        journal.close()


@pytest.mark.parametrize("options", [Options(), LAZY], ids=["durable", "lazy"])
def test_on_a_full_disk_nothing_is_acknowledged_that_is_not_kept_and_readers_read(
    tmp_path: Path, options: Options
) -> None:
    journal = Journal.open(str(tmp_path / "log"), options)
    kept = []
    failed = 0
    with disk_of(5000):
        for i in range(300):
            try:
                kept.append((journal.append(1, b"%d." % i + b"x" * 50, id=b"%d" % i).result(20), i))
            except NoSpace:
                failed += 1
        assert failed > 200
        assert numbers(everything(journal)) == [i for _, i in kept]
    assert [seq for seq, _ in kept] == list(range(1, len(kept) + 1))
    assert last_segment(tmp_path / "log").stat().st_size == journal.size <= 5000  # no half record stays behind
    # There is room again: a failed id may be retried.
    kept += [(journal.append(1, b"%d." % i, id=b"%d" % i).result(20), i) for i in (299, 300)]
    journal.close()
    again = Journal.open(str(tmp_path / "log"), options)
    assert again.repaired == 0
    assert [
        (item.seq, int(item.payload.split(b".")[0])) for item in everything(again) if isinstance(item, Record)
    ] == kept
    again.close()


def test_a_batch_that_fails_half_way_keeps_what_fitted_and_says_which(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path / "log"), Options(segment_bytes=3000))
    journal.append(1, b"0.").result(20)
    with disk_of(3500):
        with journal._write_lock:  # so that they become one batch, over three files of which the second is too large
            tickets = [journal.append(1, b"%d." % i + b"x" * size, id=b"%d" % i) for i, size in BATCH]
        outcomes = [kept(ticket) for ticket in tickets]
    assert outcomes == [True, True, False, False]
    assert numbers(everything(journal)) == [0, 1, 2]
    assert [journal.append(1, b"%d." % i + b"x" * size, id=b"%d" % i).result(20) for i, size in BATCH] == [2, 3, 4, 5]
    journal.close()


BATCH = [(1, 1000), (2, 1500), (3, 4000), (4, 100)]


def kept(ticket: Ticket) -> bool:
    try:
        ticket.result(20)
    except NoSpace:
        return False
    return True


def test_what_was_appended_behind_a_batch_that_failed_fails_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.open(str(tmp_path / "log"))
    later: list[Ticket] = []

    def full(descriptor: int) -> None:
        if not later:
            later.append(journal.append(1, b"2.", id=b"b"))
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    with journal._write_lock:
        first = journal.append(1, b"1.", id=b"a")
    assert not kept(first)
    assert not kept(later[0])
    assert journal.append(1, b"other", id=b"a").result(20) == 1  # seq and id are free again
    assert journal.append(1, b"other", id=b"b").result(20) == 2
    journal.close()


def test_no_room_for_a_new_segment_is_a_full_disk_too(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path / "log"), Options(segment_bytes=1000))
    journal.append(1, b"0." + b"x" * 900).result(20)
    with disk_of(16):
        with pytest.raises(NoSpace):
            journal.append(1, b"1." + b"x" * 900).result(20)
        assert numbers(everything(journal)) == [0]
    assert journal.append(1, b"1." + b"x" * 900).result(20) == 2
    journal.close()
    journal = Journal.open(str(tmp_path / "log"))
    assert numbers(everything(journal)) == [0, 1]
    journal.close()


def test_ids_of_what_was_dropped_are_known_though_there_was_no_room_to_merge_them(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path / "log"), Options(segment_bytes=1000))
    said = [(b"id%d" % i, b"%d." % i + b"x" * 900) for i in range(3 * DROPPED_TABLES)]
    for id_, payload in said:
        journal.append(1, payload, id=id_).result(20)
    with disk_of(16):
        journal.release(2 * DROPPED_TABLES)
    assert journal.floor.seq > DROPPED_TABLES + 1
    for _ in range(2):
        seqs = [journal.append(1, payload, id=id_).result(20) for id_, payload in said]
        assert seqs == list(range(1, len(said) + 1))
        journal.close()
        journal = Journal.open(str(tmp_path / "log"), Options(segment_bytes=1000))
    journal.release(3 * DROPPED_TABLES)
    journal.close()
    assert len(list((tmp_path / "log").glob(f"*{DROPPED_SUFFIX}"))) <= DROPPED_TABLES


def test_ids_are_known_though_a_crash_left_the_files_of_what_was_dropped(tmp_path: Path) -> None:
    folder, options = tmp_path / "log", Options(segment_bytes=1000)
    said = [(b"id%d" % i, b"%d." % i + b"x" * 900) for i in range(3 * DROPPED_TABLES)]
    journal = Journal.open(str(folder), options)
    for id_, payload in said:
        journal.append(1, payload, id=id_).result(20)
    first = min(folder.glob("*.log"))
    kept = first.read_bytes()
    journal.release(3)
    journal.close()
    assert not first.exists()
    first.write_bytes(kept)  # as if killed when its ids were safe and it was not deleted yet
    journal = Journal.open(str(folder), options)
    journal.release(DROPPED_TABLES + 5)  # so many that what is known of them is merged, once
    journal.close()
    journal = Journal.open(str(folder), options)
    assert [journal.append(1, payload, id=id_).result(20) for id_, payload in said] == list(range(1, len(said) + 1))
    journal.close()


def test_after_an_fsync_for_which_there_was_no_room_it_goes_on_in_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel could not write it may call clean: the next fsync of that file would prove nothing."""
    folder = tmp_path / "log"
    journal = Journal.open(str(folder))
    journal.append(1, b"0.").result(20)
    doubtful = last_segment(folder)
    with monkeypatch.context() as full:
        full.setattr(os, "fdatasync", no_space)
        full.setattr(os, "ftruncate", no_space)  # not even what is left behind can be cut off
        for _ in range(2):
            assert not kept(journal.append(1, b"1.", id=b"a"))
        full.setattr(os, "ftruncate", os.truncate)
        assert not kept(journal.append(1, b"1.", id=b"a"))
        assert numbers(everything(journal)) == [0]
    assert journal.append(1, b"other", id=b"a").result(20) == 2
    assert last_segment(folder) != doubtful
    journal.close()
    again = Journal.open(str(folder))
    assert again.repaired == 0
    assert [item.payload for item in everything(again) if isinstance(item, Record)] == [b"0.", b"other"]
    again.close()


def test_a_disk_that_fails_while_it_is_full_stops_the_log_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.open(str(tmp_path / "log"))
    journal.append(1, b"0.").result(20)
    with monkeypatch.context() as failing:
        failing.setattr(os, "fdatasync", no_space)
        failing.setattr(os, "ftruncate", broken_disk)
        assert not kept(journal.append(1, b"1."))
    with pytest.raises(DiskError):
        journal.append(1, b"1.").result(20)
    assert numbers(everything(journal)) == [0]
    journal.close()


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def broken_disk(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_a_disk_that_fails_stops_the_log_until_it_is_opened_again(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    journal = Journal.open(str(folder))
    journal.append(1, b"0.").result(20)
    path = last_segment(folder)
    SHARED.forget(str(path))
    path.rename(folder / "elsewhere")
    with pytest.raises(DiskError):
        journal.append(1, b"1.").result(20)
    (folder / "elsewhere").rename(path)
    with pytest.raises(DiskError):
        journal.append(1, b"2.").result(20)
    assert numbers(everything(journal)) == [0]
    journal.close()
    journal = Journal.open(str(folder))
    assert journal.append(1, b"1.").result(20) == 2
    journal.close()


def test_a_restored_older_folder_begins_one_new_epoch_with_one_gap(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    filled(folder, 50)
    shutil.copytree(folder, tmp_path / "backup")
    journal = Journal.open(str(folder))
    old_epoch = journal.epoch
    for i in range(50, 80):
        journal.append(1, b"%d." % i).result(20)
    known = journal.high_water
    assert known == Cursor(old_epoch, 80)
    journal.close()
    shutil.rmtree(folder)
    (tmp_path / "backup").rename(folder)

    restored = Journal.open(str(folder), known_high_water=known)
    epoch = restored.epoch
    assert epoch != old_epoch
    assert restored.append(1, b"100.").result(20) == 81
    gap = Gap(Cursor(old_epoch, 51), Cursor(epoch, 81), "restored")
    assert everything(restored, Cursor(old_epoch, 81))[0] == Gap(Cursor(old_epoch, 81), Cursor(epoch, 81), "restored")
    assert numbers(everything(restored, Cursor(old_epoch, 81))) == ["restored", 100]
    assert numbers(everything(restored, Cursor(old_epoch, 200))) == ["restored", 100]
    assert numbers(everything(restored, Cursor(old_epoch, 60))) == ["restored", 100]
    late = everything(restored, Cursor(old_epoch, 41))
    assert numbers(late) == [*range(40, 50), "restored", 100]
    assert late[10] == gap
    assert numbers(everything(restored)) == [*range(50), "restored", 100]
    known = restored.high_water
    restored.close()

    again = Journal.open(str(folder), known_high_water=known)  # offline twice in a row: no second gap
    assert again.epoch == epoch
    assert everything(again, Cursor(epoch, 82)) == []
    again.close()


def test_the_owner_may_know_less_than_was_kept(tmp_path: Path) -> None:
    filled(tmp_path / "log", 10)
    journal = Journal.open(str(tmp_path / "log"))
    epoch = journal.epoch
    journal.close()
    for seq in (0, 5, 10):
        journal = Journal.open(str(tmp_path / "log"), known_high_water=Cursor(epoch, seq))
        assert journal.epoch == epoch
        journal.close()


def test_a_deleted_folder_is_a_new_epoch_after_what_was_known(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path / "log"), known_high_water=Cursor(77, 12))
    assert journal.append(1, b"0.").result(20) == 13
    assert numbers(everything(journal, Cursor(77, 13))) == ["unknown-epoch", 0]
    journal.close()


def test_a_crash_while_a_new_epoch_began_is_finished_at_the_next_opening(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    filled(folder, 5)
    journal = Journal.open(str(folder), known_high_water=Cursor(1, 9))
    begun = Cursor(journal.epoch, 10)
    assert journal.end == begun
    journal.close()
    last_segment(folder).unlink()  # the catalogue was written, the segment was not
    journal = Journal.open(str(folder))
    assert journal.end == begun
    journal.append(1, b"5.").result(20)
    assert numbers(everything(journal)) == [*range(5), "restored", 5]
    journal.close()


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    filled(tmp_path / "log", 50, Options(segment_bytes=500))
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "log").iterdir()} == {0o600}
