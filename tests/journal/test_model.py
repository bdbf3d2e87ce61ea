"""A journal and a list do the same, whatever is done to them; crashes, damage to the tail and restores included."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from towline.base.errors import IdReused
from towline.journal import START, Cursor, Gap, Record, Retention
from towline.journal.batch import Options
from towline.journal.core import Journal
from towline.journal.record import UNKNOWN_BEHIND, parse_record, record_prefix, resync

PAYLOADS = st.one_of(st.binary(max_size=40), st.integers(0, 3000).map(bytes))


class JournalMachine(RuleBasedStateMachine):
    """`model` holds every record that was ever acknowledged, by position."""

    @initialize(
        durable=st.booleans(),
        segment_bytes=st.sampled_from([200, 1000, 10_000]),
        max_records=st.sampled_from([None, 5, 40]),
        cache_bytes=st.sampled_from([0, 2000, 100_000]),
    )
    def begin(self, durable: bool, segment_bytes: int, max_records: int | None, cache_bytes: int) -> None:
        self.home = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.options = Options(
            durable=durable,
            segment_bytes=segment_bytes,
            cache_bytes=cache_bytes,
            retention=Retention(max_records=max_records),
        )
        self.model: list[tuple[int, int, int, bytes, bytes]] = []  # epoch, seq, kind, id, payload
        self.ids: dict[bytes, tuple[int, bytes]] = {}
        self.readers: list[Cursor] = []
        self.journal = Journal.open(str(self.home / "log"), self.options)
        self.generation = self.released = 0

    @rule(kind=st.integers(0, 255), payloads=st.lists(PAYLOADS, min_size=1, max_size=8))
    def append(self, kind: int, payloads: list[bytes]) -> None:
        tickets = [(self.journal.append(kind, payload), payload) for payload in payloads]
        for ticket, payload in tickets:
            self.model.append((self.journal.epoch, ticket.result(20), kind, b"", payload))

    @rule(id_=st.binary(min_size=1, max_size=2), payload=st.sampled_from([b"a", b"b"]))
    def append_with_id(self, id_: bytes, payload: bytes) -> None:
        known = self.ids.get(id_)
        try:
            ticket = self.journal.append(1, payload, id=id_)
        except IdReused:
            assert known is not None
            assert known[1] != payload
            return
        seq = ticket.result(20)
        assert ticket.duplicate == (known is not None)
        if known is None:
            self.model.append((self.journal.epoch, seq, 1, id_, payload))
            self.ids[id_] = seq, payload
        else:
            assert known == (seq, payload)

    @rule()
    def reopen(self) -> None:
        known = self.journal.high_water
        self.journal.close()
        self.journal = Journal.open(str(self.home / "log"), self.options, known_high_water=known)
        assert self.journal.epoch == known.epoch

    @rule(torn=st.binary(max_size=60), real=st.booleans(), cut=st.integers(1, 60))
    def crash(self, torn: bytes, real: bool, cut: int) -> None:
        """The folder as a killed process leaves it: perhaps with a part of an unacknowledged record at the end."""
        self.generation += 1
        copy = self.home / f"log{self.generation}"
        shutil.copytree(self.home / "log", copy)
        self.journal.close()
        shutil.rmtree(self.home / "log")
        copy.rename(self.home / "log")
        if real:
            seq = self.journal.end.seq
            torn = (record_prefix(seq, 1, 1, b"", bytes(40), 1) + bytes(40))[:cut]
        with max((self.home / "log").glob("*.log")).open("ab") as file:
            file.write(torn)
        epoch = self.journal.epoch
        self.journal = Journal.open(str(self.home / "log"), self.options)
        assert self.journal.epoch == epoch

    @rule(data=st.data())
    def join(self, data: st.DataObject) -> None:
        position = data.draw(st.integers(0, len(self.model)))
        self.readers.append(Cursor(*self.model[position][:2]) if position < len(self.model) else self.journal.end)

    @rule(limit_bytes=st.integers(1, 5000), limit_records=st.integers(1, 10))
    def readers_read(self, limit_bytes: int, limit_records: int) -> None:
        for index, reader in enumerate(self.readers):
            cursor = reader
            items = self.journal.read(cursor, limit_bytes=limit_bytes, limit_records=limit_records)
            assert bool(items) == (cursor != self.journal.end)
            for item in items:
                if isinstance(item, Gap):
                    assert item.from_ == cursor
                    assert item.reason == "retention"
                else:
                    assert Cursor(item.epoch, item.seq) == cursor
                    assert self.as_model(item) in self.model
                cursor = item.next
            self.readers[index] = cursor

    @rule(upto=st.integers(0, 200))
    def release(self, upto: int) -> None:
        floor = self.journal.floor.seq
        self.released = max(self.released, min(upto, self.journal.end.seq - 1))
        self.journal.release(upto)
        most = self.options.retention.max_records
        by_count = 0 if most is None else self.journal.end.seq - most
        assert self.journal.floor.seq <= max(floor, self.released + 1, by_count)

    @invariant()
    def the_log_is_the_model(self) -> None:
        cursor, items = START, []
        while got := self.journal.read(cursor, limit_records=50):
            items += got
            cursor = got[-1].next
        kept = [self.as_model(item) for item in items if isinstance(item, Record)]
        assert kept == self.model[len(self.model) - len(kept) :]
        gaps = [item for item in items if isinstance(item, Gap)]
        assert [gap.reason for gap in gaps] == ["retention"] * (len(kept) < len(self.model))
        assert self.journal.floor.seq == len(self.model) - len(kept) + 1
        most = self.options.retention.max_records
        if most is not None and self.journal.floor.seq > 201:  # above what `release` may have asked for
            assert len(kept) >= most

    @staticmethod
    def as_model(item: Record) -> tuple[int, int, int, bytes, bytes]:
        return item.epoch, item.seq, item.kind, item.id, item.payload

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()
            shutil.rmtree(self.home)


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_a_record_round_trips_and_any_flipped_bit_is_noticed() -> None:
    record = record_prefix(7, 3, 123456789, b"id", b"payload", 5) + b"payload"
    parsed = parse_record(memoryview(record), 0, 7)
    assert parsed is not None
    assert (parsed.kind, parsed.time_ns, parsed.id, bytes(parsed.payload), parsed.behind) == (
        3, 123456789, b"id", b"payload", 5,
    )  # fmt: skip
    assert parse_record(memoryview(record), 0, 8) is None
    for bit in range(len(record) * 8):
        flipped = bytearray(record)
        flipped[bit // 8] ^= 1 << bit % 8
        assert parse_record(memoryview(bytes(flipped)), 0, 7) is None


def test_behind_saturates() -> None:
    parsed = parse_record(memoryview(record_prefix(1, 0, 0, b"", b"", 10**9)), 0, 1)
    assert parsed is not None
    assert parsed.behind == UNKNOWN_BEHIND


def test_resync_finds_the_next_record_behind_zeros_across_a_boundary_of_256() -> None:
    for bad in (5, 254, 255, 256, 65_535, 2**32 - 1):
        for lost in (1, 2, 300):
            seq = bad + lost
            good = record_prefix(seq, 1, 1, b"", b"found", 1) + b"found"
            data = b"\xff" * 10 + bytes(1000) + good
            assert resync(data, 0, bad) == (1010, parse_record(memoryview(data), 1010, seq))
