"""Which client ids were used, and for what: 16 bytes each, in memory once the first id is asked for.

A key is a keyed 64-bit hash of the id (the salt is the log's secret, so nobody can look for collisions); its
reference holds the seq, relative to the table's first, and the CRC-32 of the payload. A look-up costs one bisection
per sealed segment, but nearly every id is a new one, and that most are in no table a sieve tells (4 to 8 bytes an id
more). Building costs a sort when a segment is sealed. Tables outlive the records they point to, so that a retried id
is known for as long as the log lives; the number of ids of dropped records is bounded (`DROPPED_IDS`), the oldest are
forgotten first.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import takewhile

from towline.base.limits import Limit

DROPPED_IDS = Limit("journal_dropped_ids", 1_000_000, "ids", "ids remembered after their records were dropped: 16 MB")
FILTER_IDS, MOST_FILTER_IDS = 1 << 16, 1 << 20  # of the first filter of a sieve, and of the largest
_LOW = 0xFFFFFFFF


def keyed(salt: bytes) -> Callable[[bytes], int]:
    """What makes the 64-bit key of an id."""
    salted = blake2b(digest_size=8, key=salt)

    def key(id_: bytes) -> int:
        state = salted.copy()  # the block with the salt is hashed once, not for every id
        state.update(id_)
        return int.from_bytes(state.digest())

    return key


def reference(seq: int, payload_crc: int) -> int:
    """What a key maps to: where the record is, and a digest of its payload."""
    return seq << 32 | payload_crc


def split_reference(value: int) -> tuple[int, int]:
    """`(seq, payload_crc)` of a reference."""
    return value >> 32, value & _LOW


def newer_ids(ids: dict[int, int], seq: int) -> dict[int, int]:
    """The references to `seq` or later, in order: of many that were noted in order the last few."""
    newest_first = list(takewhile(lambda item: item[1] >> 32 >= seq, reversed(ids.items())))
    return dict(reversed(newest_first))


class IdTable:
    """An immutable map from key to reference, as two sorted arrays."""

    def __init__(self, first_seq: int, keys: array[int], references: array[int]) -> None:
        self.first_seq = first_seq
        self._keys, self._references = keys, references

    @classmethod
    def of(cls, first_seq: int, entries: Mapping[int, int]) -> IdTable:
        """From key -> absolute reference."""
        base = first_seq << 32
        keys = sorted(entries)
        return cls(first_seq, array("Q", keys), array("Q", [entries[key] - base for key in keys]))

    @classmethod
    def merged(cls, tables: Iterable[IdTable]) -> IdTable:
        """One table of many; an older entry wins over a newer one with the same key."""
        ordered = sorted(tables, key=lambda table: table.first_seq)
        entries: dict[int, int] = {}
        for table in reversed(ordered):
            base = table.first_seq << 32
            entries.update(zip(table._keys, (base + ref for ref in table._references), strict=True))  # noqa: SLF001
        return cls.of(ordered[0].first_seq, entries)

    @classmethod
    def from_bytes(cls, first_seq: int, data: bytes) -> IdTable:
        """The inverse of `to_bytes`."""
        half = len(data) // 2
        return cls(first_seq, array("Q", data[:half]), array("Q", data[half:]))

    def to_bytes(self) -> bytes:
        """Keys, then references, in the machine's byte order."""
        return self._keys.tobytes() + self._references.tobytes()

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def keys(self) -> array[int]:
        """All of them, sorted; not to be changed."""
        return self._keys

    @property
    def last_seq(self) -> int:
        """The newest record that an id in here was used for."""
        return self.first_seq + (max(self._references, default=0) >> 32)

    def find(self, key: int) -> int | None:
        """The absolute reference of a key."""
        index = bisect_left(self._keys, key)
        if index == len(self._keys) or self._keys[index] != key:
            return None
        return (self.first_seq << 32) + self._references[index]


class _Filter:
    """Which of up to `capacity` keys were added: two bits of 32 for each, so that one in 250 others seems to be."""

    def __init__(self, capacity: int) -> None:
        self.left = capacity
        self.upto = 0  # the newest seq that one of the keys was used for
        self.mask = capacity * 32 - 1
        self.bits = bytearray(capacity * 4)

    def add(self, table: IdTable) -> None:
        bits, mask = self.bits, self.mask
        for key in table.keys:  # a key is a hash: its halves are two of them
            one, two = key & mask, key >> 32 & mask
            bits[one >> 3] |= 1 << (one & 7)
            bits[two >> 3] |= 1 << (two & 7)
        self.left -= len(table)
        self.upto = max(self.upto, table.last_seq)


class Sieve:
    """Tells of nearly every key that is in none of many tables that it is not (Bloom filters, each twice as large as
    the one before it, to a bound: a small log has a small one). What was added may be forgotten from the front."""

    def __init__(self, tables: Iterable[IdTable]) -> None:
        self._filters: list[_Filter] = []
        for table in tables:
            self.add(table)

    def __repr__(self) -> str:
        return f"<Sieve {len(self._filters)} filters, {sum(len(each.bits) for each in self._filters)} bytes>"

    def add(self, table: IdTable) -> None:
        """A table, in the order of their seqs. Other threads may ask meanwhile."""
        if not self._filters or self._filters[-1].left < len(table):
            wanted = min(FILTER_IDS << len(self._filters), MOST_FILTER_IDS)
            self._filters.append(_Filter(max(wanted, 1 << len(table).bit_length())))
        self._filters[-1].add(table)

    def forget(self, before: int) -> None:
        """Nobody asks any more for what was used before that seq."""
        self._filters = [each for each in self._filters if each.upto >= before]

    def suspects(self, keys: Sequence[int]) -> list[int]:
        """Those that may be in a table: all that are in one, and about one in 250 of the others."""
        found: list[int] = []
        for each in self._filters:
            bits, mask = each.bits, each.mask
            half = [key for key in keys if bits[(key & mask) >> 3] >> (key & 7) & 1]
            found += [key for key in half if bits[(key >> 32 & mask) >> 3] >> (key >> 32 & 7) & 1]
        return found
