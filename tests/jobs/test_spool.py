"""The log that one process writes and another reads; what a terminal has switched on."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from tests.jobs.kit import Made, collect, items
from tests.kit import disk_of, run, until

from towline.base.errors import JournalFull
from towline.client.output import Chunk, Missing
from towline.journal import Gap, Record
from towline.journal.spool import SpoolReader, SpoolWriter, last_record, remove_spool, spool_size
from towline.services.jobs.held import Held
from towline.services.jobs.keeper import Keeper

KIB = 1024


def read_all(reader: SpoolReader) -> list[object]:
    found: list[object] = []
    while items := reader.read():
        found += [item.payload if isinstance(item, Record) else (item.from_.seq, item.to.seq) for item in items]
    return found


def test_a_reader_follows_a_writer_from_any_position(tmp_path: Path) -> None:
    writer = SpoolWriter(str(tmp_path / "s"), 1 << 30, drop=False, clock=lambda: 1)
    reader = SpoolReader(str(tmp_path / "s"))
    assert reader.read() == []
    payloads = [b"%d" % number * (number % 50) for number in range(500)]
    for number, payload in enumerate(payloads):
        assert writer.append(1, payload) == number + 1
        if number % 7 == 0:
            assert read_all(reader) == payloads[max(number - 6, 0) : number + 1]
    for seq in (1, 2, 250, 500):
        assert read_all(SpoolReader(str(tmp_path / "s"), seq)) == payloads[seq - 1 :]
    assert read_all(SpoolReader(str(tmp_path / "s"), 900)) == []
    last = last_record(str(tmp_path / "s"))
    assert last is not None
    assert (last.seq, last.payload) == (500, payloads[-1])
    writer.close()
    assert spool_size(str(tmp_path / "s")) == writer.size
    remove_spool(str(tmp_path / "s"))
    assert not (tmp_path / "s").exists()


def test_what_was_released_goes_when_others_need_the_room(tmp_path: Path) -> None:
    writer = SpoolWriter(str(tmp_path / "s"), 64 * KIB, drop=False, clock=lambda: 1)
    for _ in range(40):
        writer.append(1, bytes(KIB))
    writer.drop_released()
    assert spool_size(str(tmp_path / "s")) == writer.size > 40 * KIB
    writer.release(35)
    writer.drop_released()
    assert spool_size(str(tmp_path / "s")) == writer.size < 15 * KIB
    first, *rest = read_all(SpoolReader(str(tmp_path / "s")))
    assert isinstance(first, tuple)
    assert rest == [bytes(KIB)] * (41 - first[1])
    assert 30 < first[1] <= 36
    writer.append(1, b"on")
    assert read_all(SpoolReader(str(tmp_path / "s"), 41)) == [b"on"]
    writer.close()


@pytest.mark.parametrize("largest_file", [0, 40])  # not even a header; a header and a part of a record
def test_when_the_disk_has_room_again_it_goes_on_behind_the_last_record(tmp_path: Path, largest_file: int) -> None:
    writer = SpoolWriter(str(tmp_path / "s"), 64 * KIB, drop=False, clock=lambda: 1)
    reader = SpoolReader(str(tmp_path / "s"))
    payloads = [b"%d" % number * KIB for number in range(20)]
    for payload in payloads:
        for _ in range(3):
            with disk_of(largest_file), pytest.raises(OSError, match="large"):
                writer.append(1, payload)
            read_all(reader)
        writer.append(1, payload)
    assert read_all(SpoolReader(str(tmp_path / "s"))) == payloads
    writer.close()
    assert spool_size(str(tmp_path / "s")) == writer.size


@pytest.mark.parametrize("size", [None, [24, 80]])
def test_what_cannot_be_written_down_is_not_started_and_leaves_no_descriptor(
    tmp_path: Path, size: list[int] | None
) -> None:
    async def work() -> None:
        house = Keeper(str(tmp_path), asyncio.get_running_loop())
        spec = {"job": "one", "argv": ["sleep", "60"], "cwd": "/", "env": dict(os.environ), "stdin": True}
        before = os.listdir("/proc/self/fd")
        with disk_of(0), pytest.raises(OSError, match="large"):
            Held(house, SpoolWriter(str(tmp_path / "one"), 64 * KIB, drop=False), {**spec, "size": size})
        assert os.listdir("/proc/self/fd") == before

    run(work())


def test_a_full_spool_waits_for_release_and_drops_only_what_is_released(tmp_path: Path) -> None:
    writer = SpoolWriter(str(tmp_path / "s"), 64 * KIB, drop=False, clock=lambda: 1)
    count = 0
    with pytest.raises(JournalFull):
        while True:
            writer.append(1, b"x" * KIB)
            count += 1
    assert 50 <= count <= 64
    reader = SpoolReader(str(tmp_path / "s"))
    assert len(read_all(reader)) == count
    writer.release(count // 2)
    for _ in range(count // 2 - 16):
        writer.append(1, b"y" * KIB)
    assert writer.size <= 64 * KIB
    assert spool_size(str(tmp_path / "s")) == writer.size
    assert all(item == b"y" * KIB for item in read_all(reader))
    late = read_all(SpoolReader(str(tmp_path / "s")))
    assert isinstance(late[0], tuple)
    assert late[0][0] == 1
    assert late[0][1] <= count // 2 + 1
    writer.close()


def test_drop_oldest_names_what_is_gone(tmp_path: Path) -> None:
    writer = SpoolWriter(str(tmp_path / "s"), 64 * KIB, drop=True, clock=lambda: 1)
    slow = SpoolReader(str(tmp_path / "s"))
    writer.append(1, b"first")
    assert read_all(slow) == [b"first"]
    for number in range(1000):
        writer.append(1, b"%04d" % number + b"x" * KIB)
        assert writer.size <= 64 * KIB
    found = read_all(slow)
    gaps = [item for item in found if isinstance(item, tuple)]
    kept = [item for item in found if isinstance(item, bytes)]
    assert len(gaps) == 1
    assert gaps[0][1] - gaps[0][0] + len(kept) == 1000
    assert kept[-1][:4] == b"0999"
    writer.close()


def test_a_torn_record_is_not_there_yet_and_damage_is_a_gap(tmp_path: Path) -> None:
    writer = SpoolWriter(str(tmp_path / "s"), 64 * KIB, drop=False, clock=lambda: 1)
    for number in range(6):
        writer.append(1, bytes([number]) * 900)
    path = tmp_path / "s" / f"{1:020d}.log"
    reader = SpoolReader(str(tmp_path / "s"))
    whole = path.read_bytes()
    with open(path, "r+b") as file:
        file.truncate(len(whole) - 1)
    seen = read_all(reader)
    assert len(seen) == 5
    with open(path, "r+b") as file:  # now it is whole
        file.write(whole)
    seen += read_all(reader)
    assert seen == [bytes([number]) * 900 for number in range(6)]
    damaged = bytearray(whole)
    damaged[1500] ^= 1  # in the second record
    path.write_bytes(damaged)
    while len(list((tmp_path / "s").iterdir())) == 1:
        writer.append(1, b"later" * 100)
    found = read_all(SpoolReader(str(tmp_path / "s")))
    assert found[0] == bytes([0]) * 900
    assert isinstance(found[1], tuple)
    assert found[-1] == b"later" * 100
    writer.close()


def test_gap_items_have_both_ends(tmp_path: Path) -> None:
    writer = SpoolWriter(str(tmp_path / "s"), 32 * KIB, drop=True, clock=lambda: 1)
    for _ in range(100):
        writer.append(1, b"x" * 900)
    first = SpoolReader(str(tmp_path / "s"), 3).read()[0]
    assert isinstance(first, Gap)
    assert (first.from_.seq, first.reason) == (3, "retention")
    writer.close()
    os.close(os.open(tmp_path, os.O_RDONLY))


# --- full spools, with real commands ---


def test_block_makes_the_command_wait_and_nothing_is_lost(make_place: Made) -> None:
    place = make_place("--spool-per-job", "1MiB")

    async def go() -> None:
        async with place.line() as line:
            script = "head -c 8000000 /dev/zero | tr '\\0' x; echo done >&2"
            job = await line.start(["sh", "-c", script], detach=True)
            folder = str(place.jobs_folder / job.id)
            await until(lambda: spool_size(folder) > 600_000)
            row = (await line.jobs())[0]
            assert row["state"] == "running"
            got = await collect(line.job(job.id))  # a reader makes room
            assert len(got["stdout"]) == 8_000_000
            assert got["stderr"] == b"done\n"
            assert spool_size(folder) <= 1024 * 1024 + 4096

    run(go())


def test_drop_oldest_lets_the_command_go_on_and_names_the_gap(make_place: Made) -> None:
    place = make_place("--spool-per-job", "1MiB")

    async def go() -> None:
        async with place.line() as line:
            options = {"overflow": "drop-oldest", "detach": True}
            job = await line.start(["sh", "-c", "seq 1000000; exit 6"], **options)
            again = line.job(job.id)
            assert (await again.wait()).status == 6
            found = await items(line.job(job.id))
            assert isinstance(found[0], Missing)
            assert found[0].reason == "retention"
            rest = b"".join(each.data for each in found if isinstance(each, Chunk))
            assert rest.endswith(b"\n999999\n1000000\n")
            assert len(rest) < 1024 * 1024

    run(go())


@pytest.mark.parametrize("script", ["exec yes", "yes & exec yes"], ids=["alone", "and another one prints on"])
def test_a_command_that_waits_for_room_can_be_killed(make_place: Made, tmp_path: Path, script: str) -> None:
    place = make_place("--spool-per-job", "1MiB")

    async def go() -> None:
        async with place.line() as line:
            job = await line.start(["sh", "-c", f"echo $$ >pid; {script}"], cwd=str(tmp_path), detach=True)
            while not (await line.jobs())[0].get("full"):
                pass
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)  # it alone: the other one prints on
            while (await line.jobs())[0]["state"] == "running":
                pass
            assert (await line.jobs())[0]["state"] == "killed"
            assert spool_size(str(place.jobs_folder / job.id)) < 5 << 20
            assert not b"".join(each.data for each in await items(job) if isinstance(each, Chunk)).strip(b"y\n")

    run(go())
