"""Which seq a record gets: the next one, or the one that its id has already. Under the journal's lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias
from zlib import crc32

from towline.base.errors import IdReused, JournalFull, TowlineError
from towline.journal.batch import Batch, Options, Tickets
from towline.journal.ids import reference, split_reference
from towline.journal.interface import RECORD, RECORD_ID, Record
from towline.journal.record import RECORD_HEADER, record_size
from towline.journal.segments import Segments

Entry: TypeAlias = tuple[bytes, bytes]
DONE = Batch(done=True)
_tuple = tuple.__new__  # half the price of Record(...)


class Keys(NamedTuple):
    """Of the ids of some records (0 where there is none), and of their payloads."""

    ids: list[int]
    payloads: list[int]

    @classmethod
    def of(cls, entries: Sequence[Entry], id_key: Callable[[bytes], int]) -> Keys:
        return cls([id_key(id_) if id_ else 0 for id_, _ in entries], [crc32(payload) for _, payload in entries])


class Numbering:
    """`open` is the batch that fills, `flying` the one that is being written; `kept` finds a record in the files."""

    def __init__(self, segments: Segments, options: Options, kept: Callable[[int], Record | None]) -> None:
        self._segments, self._options, self._kept = segments, options, kept
        self._refuses = options.retention.max_bytes is not None and options.retention.when_full == "refuse"
        self.next_seq = segments.active.next_seq
        self.open, self.flying = Batch(), DONE

    def __repr__(self) -> str:
        return f"<Numbering next={self.next_seq}, {self.pending} bytes pending>"

    @property
    def pending(self) -> int:
        """Bytes that are not on the disk."""
        return self.flying.size + self.open.size

    def give(self, batch: Batch, kind: int, entries: Sequence[Entry], keys: Keys, time_ns: int) -> Tickets:
        """Put what is new into `batch`, with seqs that are theirs from now on."""
        if entries and self._all_new(entries, keys):
            return self._give_all(batch, kind, entries, keys, time_ns)
        outcomes: list[int | TowlineError] = []
        known: dict[int, Batch] = {}
        size_before = batch.size
        for (id_, payload), key, crc in zip(entries, keys.ids, keys.payloads, strict=True):
            try:
                seq, where = self._give_one(batch, Record(0, 0, kind, time_ns, id_, payload), key, crc)
            except TowlineError as error:
                outcomes.append(error)
                continue
            outcomes.append(seq)
            if where is not None:
                known[seq] = where
        if batch.size == size_before:  # nothing new: it waits for the one that holds the last of what was there
            under_way = (each for each in (self.open, self.flying) if any(each is one for one in known.values()))
            batch = next(under_way, DONE)
        return Tickets(outcomes, batch, known)

    def _all_new(self, entries: Sequence[Entry], keys: Keys) -> bool:
        """As nearly always; then there is nothing to decide for each."""
        fits = all(id_ and len(id_) <= RECORD_ID.value and len(payload) <= RECORD.value for id_, payload in entries)
        return fits and not self._refuses and self._segments.all_new(keys.ids)

    def _give_all(self, batch: Batch, kind: int, entries: Sequence[Entry], keys: Keys, time_ns: int) -> Tickets:
        epoch, seqs = self._segments.epoch, range(self.next_seq, self.next_seq + len(entries))
        self._segments.ids.update(zip(keys.ids, map(reference, seqs, keys.payloads), strict=True))
        batch.records += [
            _tuple(Record, (epoch, seq, kind, time_ns, id_, bytes(payload)))
            for seq, (id_, payload) in zip(seqs, entries, strict=True)
        ]
        batch.size += sum([RECORD_HEADER + len(id_) + len(payload) for id_, payload in entries])
        self.next_seq = seqs.stop
        return Tickets(list(seqs), batch, {})

    def _give_one(self, batch: Batch, record: Record, key: int, crc: int) -> tuple[int, Batch | None]:
        """The seq of a record, and where it is when it was known. Raises IdReused, JournalFull, LimitExceeded."""
        RECORD.check(len(record.payload))
        RECORD_ID.check(len(record.id))
        if record.id and (found := self._segments.find_id(key)) is not None:
            where = self._known(found, record, crc, batch)
            if where is not None:
                return split_reference(found)[0], where
        size = record_size(record.id, record.payload)
        if self._refuses:
            self._room_for(batch, size)
        seq = self.next_seq
        self.next_seq += 1
        if record.id:
            self._segments.ids[key] = reference(seq, crc)
        batch.records.append(Record(self._segments.epoch, seq, *record[2:5], bytes(record.payload)))
        batch.size += size
        return seq, None

    def _room_for(self, batch: Batch, size: int) -> None:
        most = self._options.retention.max_bytes
        wanted = self._segments.size + self.flying.size + self.open.size + size
        if batch is not self.open:
            wanted += batch.size
        if most is not None and wanted > most:
            raise JournalFull(f"The log may hold {most} bytes; {wanted} were needed.")

    def _known(self, found: int, record: Record, crc: int, batch: Batch) -> Batch | None:
        """Where the record is that an id was used for: a batch under way, or one that is done; None: it was another
        id. Raises IdReused when that was for another payload."""
        seq, kept_crc = split_reference(found)
        for where in (batch, self.open, self.flying):
            if (kept := where.holds(seq)) is not None:
                break
        else:
            where, kept = DONE, self._kept(seq)
        if kept is not None and kept.id != record.id:  # two ids with one 64-bit key: the older is forgotten
            return None
        if crc != kept_crc or (kept is not None and kept.payload != record.payload):
            raise IdReused(f"The id was used for record {seq} with other content.")
        return where
