"""Which client ids were used, and for what: 16 bytes each, in memory once the first id is asked for.

A key is a keyed 64-bit hash of the id (the salt is the log's secret, so nobody can look for collisions); its
reference holds the seq, relative to the table's first, and the CRC-32 of the payload. A look-up costs one bisection
per sealed segment; building costs a sort when a segment is sealed. Tables outlive the records they point to, so that
a retried id is known for as long as the log lives; the number of ids of dropped records is bounded
(`DROPPED_IDS`), the oldest are forgotten first.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from hashlib import blake2b

from towline.base.limits import Limit

DROPPED_IDS = Limit("journal_dropped_ids", 1_000_000, "ids", "ids remembered after their records were dropped: 16 MB")
_LOW = 0xFFFFFFFF


def id_key(id_: bytes, salt: bytes) -> int:
    """The 64-bit key of an id."""
    return int.from_bytes(blake2b(id_, digest_size=8, key=salt).digest())


def reference(seq: int, payload_crc: int) -> int:
    """What a key maps to: where the record is, and a digest of its payload."""
    return seq << 32 | payload_crc


def split_reference(value: int) -> tuple[int, int]:
    """`(seq, payload_crc)` of a reference."""
    return value >> 32, value & _LOW


class IdTable:
    """An immutable map from key to reference, as two sorted arrays."""

    def __init__(self, first_seq: int, keys: array[int], references: array[int]) -> None:
        self.first_seq = first_seq
        self._keys, self._references = keys, references

    @classmethod
    def of(cls, first_seq: int, entries: Mapping[int, int]) -> IdTable:
        """From key -> absolute reference."""
        base = first_seq << 32
        pairs = sorted(entries.items())
        return cls(first_seq, array("Q", [key for key, _ in pairs]), array("Q", [ref - base for _, ref in pairs]))

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

    def find(self, key: int) -> int | None:
        """The absolute reference of a key."""
        index = bisect_left(self._keys, key)
        if index == len(self._keys) or self._keys[index] != key:
            return None
        return (self.first_seq << 32) + self._references[index]
