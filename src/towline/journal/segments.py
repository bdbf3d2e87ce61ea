"""The files of one journal, in order: opened and repaired, rolled, dropped, read across.

Not thread-safe in what changes it (the journal serialises that); `files` and `dropped` are replaced, never changed in
place, so that readers work on a snapshot.
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_right
from collections.abc import Callable, Sequence

from towline.base.errors import CursorFromFuture
from towline.journal.catalogue import EPOCHS_KEPT, Catalogue, sync_folder
from towline.journal.ids import DROPPED_IDS, IdTable, Sieve, keyed
from towline.journal.interface import START, Cursor, Gap, Item
from towline.journal.record import FLAG_LAZY, SEGMENT_HEADER
from towline.journal.segment import SUFFIX, Segment, load_ids, save_ids

DROPPED_SUFFIX = ".ids"
DROPPED_TABLES = 16  # each look-up bisects them all; beyond, they are merged
SALT_BYTES = 16


class Segments:
    """All segments of a log; the last one is written to. `repaired` is how many torn bytes opening cut off."""

    def __init__(self, folder: str, catalogue: Catalogue, flags: int) -> None:
        self.folder, self.catalogue, self.flags = folder, catalogue, flags
        self.files: list[Segment] = []
        self.ids: dict[int, int] = {}  # of the last segment and what is not yet written
        self.repaired = 0
        self.id_key = keyed(catalogue.salt)
        self._sieve: Sieve | None = None  # of all ids but those above
        self._dropped: list[IdTable] | None = None

    def __repr__(self) -> str:
        return f"<Segments {self.folder}: {len(self.files)} files, {self.floor} to {self.active.next_seq}>"

    @classmethod
    def open(
        cls, folder: str, *, lazy: bool, known_high_water: Cursor | None, random: Callable[[int], bytes]
    ) -> Segments:
        """Open or create. A log that is shorter than the owner knows it to have been begins a new epoch."""
        if not os.path.isdir(folder):
            os.makedirs(folder, mode=0o700)
            sync_folder(os.path.dirname(os.path.abspath(folder)))
        found, damaged = _segments_in(folder)
        stored = Catalogue.load(folder)
        catalogue = stored or Catalogue(random(SALT_BYTES), _epochs_of(found))
        segments = cls(folder, catalogue, FLAG_LAZY if lazy else 0)
        segments._load(found)
        if stored is None:  # also when it was lost: indexes made with another salt are rebuilt then
            catalogue.store(folder)
        segments._settle_epoch(known_high_water, damaged, random)
        return segments

    @property
    def active(self) -> Segment:
        """The one that is written to."""
        return self.files[-1]

    @property
    def epoch(self) -> int:
        """The current epoch."""
        return self.active.epoch

    @property
    def floor(self) -> Cursor:
        """The first record that is kept."""
        return Cursor(self.files[0].epoch, self.files[0].first_seq)

    @property
    def size(self) -> int:
        """Bytes on disk, without the indexes."""
        return sum(segment.size for segment in self.files)

    # --- changing ---

    def roll(self, ids: dict[int, int]) -> None:
        """Seal the active segment, whose ids are given, and begin the next. Raises OSError, nothing changed then."""
        sealed = self.active
        fresh = Segment.create(self.folder, sealed.epoch, sealed.next_seq, self.flags)
        sealed.seal(ids, self.catalogue.salt)
        if self._sieve is not None:
            self._sieve.add(sealed.ids(self.catalogue.salt))
        self.files = [*self.files, fresh]

    def drop_front(self, count: int) -> None:
        """Delete the first `count` segments (never the active one), keeping what is known of their ids.

        Raises OSError when the ids cannot be kept (a full disk); nothing is deleted then.
        """
        gone = self.files[:count]
        for segment in gone:  # its ids are known in the new place before they are gone from the old one
            table = segment.ids(self.catalogue.salt)
            if len(table):
                self._remember(table, segment)
        self.files = self.files[count:]
        for segment in gone:
            segment.remove()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(segment.index_path)

    @property
    def ids_known(self) -> bool:
        """`find_id` may be asked."""
        return self._sieve is not None

    def load_ids(self) -> None:
        """Bring the ids of sealed and dropped segments into memory. No segment may be begun or dropped meanwhile."""
        if self._sieve is None:
            sealed = (segment.ids(self.catalogue.salt) for segment in self.files[:-1])
            self._sieve = Sieve([*self._dropped_tables(), *sealed])

    def all_new(self, keys: Sequence[int]) -> bool:
        """None of these was ever used, nor is among them twice."""
        assert self._sieve is not None
        different = set(keys)
        if len(different) < len(keys) or not self.ids.keys().isdisjoint(different):
            return False
        return all(self._find_older(key) is None for key in self._sieve.suspects(keys))

    def find_id(self, key: int) -> int | None:
        """The reference of an id key anywhere in the log's life."""
        if (found := self.ids.get(key)) is not None:
            return found
        assert self._sieve is not None
        return self._find_older(key) if self._sieve.suspects((key,)) else None

    def _find_older(self, key: int) -> int | None:
        """In the sealed segments, and those that were dropped."""
        for segment in reversed(self.files[:-1]):
            if (found := segment.ids(self.catalogue.salt).find(key)) is not None:
                return found
        for table in self._dropped_tables():
            if (found := table.find(key)) is not None:
                return found
        return None

    def _remember(self, table: IdTable, segment: Segment) -> None:
        before = self._dropped_tables()
        if any(each.first_seq == table.first_seq for each in before):
            return  # it was remembered already; then a crash came before its file was deleted
        tables = sorted([*before, table], key=lambda each: each.first_seq)
        # The index holds the ids already and a rename needs no space, which matters on a full disk.
        if not segment.hand_over_ids(self._dropped_path(table), self.catalogue.salt):
            save_ids(self._dropped_path(table), table, self.catalogue.salt)
        self._dropped = tables
        if len(tables) > DROPPED_TABLES:
            merged = IdTable.merged(tables)
            with contextlib.suppress(OSError):  # a full disk: then they stay apart until the next time
                save_ids(self._dropped_path(merged), merged, self.catalogue.salt)  # over the oldest one's file
                for old in tables[1:]:  # only now: a crash in between costs room, not what is known
                    os.unlink(self._dropped_path(old))
                tables = [merged]
        while len(tables) > 1 and sum(map(len, tables)) > DROPPED_IDS.value:
            os.unlink(self._dropped_path(tables.pop(0)))
            if self._sieve is not None:
                self._sieve.forget(tables[0].first_seq)
        self._dropped = tables

    def _dropped_tables(self) -> list[IdTable]:
        if self._dropped is None:
            names = sorted(name for name in os.listdir(self.folder) if name.endswith(DROPPED_SUFFIX))
            loaded = (load_ids(os.path.join(self.folder, name), self.catalogue.salt) for name in names)
            self._dropped = [table for table in loaded if table is not None]
        return self._dropped

    def _dropped_path(self, table: IdTable) -> str:
        return os.path.join(self.folder, f"{table.first_seq:020d}{DROPPED_SUFFIX}")

    # --- reading ---

    def locate(self, from_: Cursor, end: Cursor) -> tuple[Cursor, list[Item]]:
        """A reader's position as one in this log, and the gap that lies between, if any. Raises CursorFromFuture."""
        epochs = self.catalogue.epochs
        if from_ == START:
            return Cursor(epochs[0][0], 1), []
        index = next((index for index, known in enumerate(epochs) if known[0] == from_.epoch), None)
        if index is None:
            to = max(Cursor(*epochs[-1]), self.floor, key=lambda cursor: cursor.seq)
            return to, [Gap(from_, to, "unknown-epoch")]
        if from_.epoch == end.epoch and from_.seq > end.seq:
            raise CursorFromFuture(f"Position {from_.seq} is past the end of the log, which is {end.seq}.")
        first = epochs[index][1]
        if from_.seq < first:
            to = Cursor(from_.epoch, first)
            return to, ([Gap(from_, to, "restored")] if index else [])
        return from_, []

    def read(
        self,
        files: list[Segment],
        from_: Cursor,
        end: Cursor,
        end_offset: int,
        limit_bytes: int,
        limit_records: int,
    ) -> list[Item]:
        """Items from `from_` up to `end`, whose place in the last of `files` (a snapshot) is `end_offset`."""
        here, items = self.locate(from_, end)
        taken = 0
        for segment in files[self._index(files, here) :]:
            last = end.seq if segment is files[-1] else segment.next_seq
            if segment.epoch != here.epoch or segment.first_seq > here.seq:
                to = Cursor(segment.epoch, segment.first_seq)
                items.append(Gap(here, to, self._reason(here, segment, files)))
                here = to
            if here.seq >= last:
                continue
            offset = end_offset if segment is files[-1] else segment.size
            try:
                left_bytes, left_records = limit_bytes - taken, limit_records - len(items)
                got, seq = segment.read(here.seq, last, offset, left_bytes, left_records, one=not taken)
            except FileNotFoundError:
                if items:
                    break
                raise
            items += got
            here = Cursor(segment.epoch, seq)
            taken += sum(len(item.payload) for item in got if not isinstance(item, Gap))
            if seq < last or taken >= limit_bytes or len(items) >= limit_records:
                break
        return items

    @staticmethod
    def _reason(here: Cursor, segment: Segment, files: list[Segment]) -> str:
        if segment.epoch != here.epoch:
            return "restored"
        return "retention" if segment is files[0] else "missing"

    def _index(self, files: list[Segment], here: Cursor) -> int:
        """Which file holds `here`, or is the next one after it."""
        epochs = self.catalogue.epochs
        after = next((i + 1 for i, known in enumerate(epochs) if known[0] == here.epoch), len(epochs))
        seq = min(here.seq, epochs[after][1]) if after < len(epochs) else here.seq
        index = max(bisect_right(files, seq, key=lambda segment: segment.first_seq) - 1, 0)
        segment = files[index]
        beyond = here.seq >= segment.next_seq if segment is not files[-1] else False
        return index + 1 if beyond and segment.epoch == here.epoch else index

    # --- opening ---

    def _load(self, found: list[Segment]) -> None:
        salt = self.catalogue.salt
        for segment in found[:-1]:
            if not segment.load_index(salt):
                segment.seal(segment.scan(salt, repair=False)[0], salt)
        if found:
            self.ids, self.repaired = found[-1].scan(salt, repair=True)
        self.files = found

    def _settle_epoch(self, known: Cursor | None, damaged: int, random: Callable[[int], bytes]) -> None:
        """Begin a new epoch when this log is not, or may not be, all that its readers have seen.

        `known`: what the owner knows was kept. `damaged`: the first seq of a last segment that cannot be read, or 0.
        """
        epochs = self.catalogue.epochs
        last_seq = self.files[-1].next_seq - 1 if self.files else 0
        went_back = damaged > 0 or (
            known is not None
            and (known.epoch not in dict(epochs) or (known.epoch == epochs[-1][0] and last_seq < known.seq))
        )
        begun = bool(epochs) and bool(self.files) and self.files[-1].epoch == epochs[-1][0]
        if begun and not went_back:
            return
        crashed_beginning = bool(epochs) and epochs[-1][1] > last_seq and (bool(self.files) or len(epochs) == 1)
        if crashed_beginning and not went_back:
            self._create(*epochs[-1])
            return
        highest = max(last_seq, damaged, known.seq if known else 0, epochs[-1][1] if epochs else 0)
        self._begin(_fresh_epoch(random), highest + 1)

    def _begin(self, epoch: int, first_seq: int) -> None:
        # The catalogue first: a crash in between is finished at the next opening.
        self.catalogue.epochs = [*self.catalogue.epochs, (epoch, first_seq)][-EPOCHS_KEPT:]
        self.catalogue.store(self.folder)
        self._create(epoch, first_seq)

    def _create(self, epoch: int, first_seq: int) -> None:
        if self.files:
            if len(self.active):
                self.active.seal(self.ids, self.catalogue.salt)
            else:
                self.active.remove()
                self.files = self.files[:-1]
        self.ids = {}
        self.files = [*self.files, Segment.create(self.folder, epoch, first_seq, self.flags)]


def _segments_in(folder: str) -> tuple[list[Segment], int]:
    """The segments that are there, in order, and the first seq of the last one if it cannot be read (else 0).

    A file that was being created at a crash holds nothing and is removed; one with a damaged header is put aside,
    and readers get a gap where its records were.
    """
    names = sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX))
    found: list[Segment] = []
    damaged = 0
    for name in names:
        path = os.path.join(folder, name)
        segment = Segment.load(path)
        if segment is not None:
            found.append(segment)
            damaged = 0
        elif name == names[-1] and os.stat(path).st_size <= SEGMENT_HEADER:
            os.unlink(path)
        else:
            os.rename(path, path + ".damaged")
            stem = name.removesuffix(SUFFIX)
            damaged = int(stem) if stem.isascii() and stem.isdigit() else 0
    return found, damaged


def _epochs_of(found: list[Segment]) -> list[tuple[int, int]]:
    epochs: dict[int, int] = {}
    for segment in found:
        epochs.setdefault(segment.epoch, segment.first_seq)
    return list(epochs.items())


def _fresh_epoch(random: Callable[[int], bytes]) -> int:
    return int.from_bytes(random(8)) or 1
