"""The bytes of a segment file. Pure.

    segment header   32 bytes  magic "TOWJRNL1", epoch u64, first seq u64, flags u32, CRC-32 of the 28 bytes before
    record           24 bytes  CRC-32 u32 of all that follows, payload length u32, seq (low 32 bits) u32,
                               time u64 (ns since 1970), kind u8, id length u8, behind u16
                     then the id, then the payload

All big-endian. `behind` tells how many records back the last fsync lay when this one was written: a valid record with
seq s and behind b proves that everything up to s - b had been kept. With it a scan can tell a torn tail (never
acknowledged, to be cut off) from damage to what was kept (to be named). 65535 stands for "unknown".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from towline.journal.interface import RECORD, RECORD_ID, Record

try:
    from isal.isal_zlib import crc32
except ImportError:  # no wheel for this system: the same values at a tenth of the rate
    from zlib import crc32

MAGIC = b"TOWJRNL1"
FLAG_LAZY = 1  # written without waiting for fsync: `behind` proves nothing, later records are kept after damage
UNKNOWN_BEHIND = 0xFFFF
_LOW = 0xFFFFFFFF
_SEGMENT = struct.Struct(">8sQQI")
_CRC = struct.Struct(">I")
_BODY = struct.Struct(">IIQBBH")
_WHOLE = struct.Struct(">IIIQBBH")
SEGMENT_HEADER = _SEGMENT.size + _CRC.size
RECORD_HEADER = _WHOLE.size
RESYNC_GROUPS = 256  # 65,536 seqs: more than lie in any damage that a person would still call one
RESYNC_TRIES = 200_000  # candidates looked at behind damage: a tenth of a second at most


class Parsed(NamedTuple):
    """A valid record found in a buffer: where it ends there, and what it says."""

    end: int
    seq: int
    kind: int
    time_ns: int
    id: bytes
    payload: memoryview
    behind: int


def segment_header(epoch: int, first_seq: int, flags: int) -> bytes:
    """The first 32 bytes of a segment."""
    head = _SEGMENT.pack(MAGIC, epoch, first_seq, flags)
    return head + _CRC.pack(crc32(head))


def parse_segment_header(data: bytes) -> tuple[int, int, int] | None:
    """`(epoch, first_seq, flags)`, or None when it is torn, damaged or something else."""
    if len(data) < SEGMENT_HEADER or data[:8] != MAGIC:
        return None
    if _CRC.unpack_from(data, _SEGMENT.size)[0] != crc32(data[: _SEGMENT.size]):
        return None
    _, epoch, first_seq, flags = _SEGMENT.unpack_from(data)
    return epoch, first_seq, flags


def record_prefix(
    seq: int, kind: int, time_ns: int, id_: bytes, payload: bytes | memoryview, behind: int, salt: int = 0
) -> bytes:
    """Everything of a record but its payload, so that a large payload is written without being copied.

    `salt`: where the checksum begins. A file that is written over gives each of its uses another one.
    """
    body = _BODY.pack(len(payload), seq & _LOW, time_ns, kind, len(id_), min(behind, UNKNOWN_BEHIND)) + id_
    return _CRC.pack(crc32(payload, crc32(body, salt))) + body


def record_prefixes(records: Iterable[Record]) -> Iterator[bytes]:
    """The same for records that one fsync will make durable, in order."""
    pack, pack_crc = _BODY.pack, _CRC.pack  # this is done for every message of every room
    for behind, (_, seq, kind, time_ns, id_, payload) in enumerate(records, 1):
        back = min(behind, UNKNOWN_BEHIND)
        body = pack(len(payload), seq & _LOW, time_ns, kind, len(id_), back) + id_
        yield pack_crc(crc32(payload, crc32(body))) + body


def record_size(id_: bytes, payload: bytes | memoryview) -> int:
    """Bytes that a record takes in a file."""
    return RECORD_HEADER + len(id_) + len(payload)


def needed(view: memoryview, offset: int, seq: int | None = None) -> int:
    """How many bytes the record at `offset` says it has (0: not even its header is there, or it has not this seq)."""
    if len(view) - offset < RECORD_HEADER:
        return 0
    _, length, low, _, _, id_length, _ = _WHOLE.unpack_from(view, offset)
    if seq is not None and low != seq & _LOW:
        return 0
    return RECORD_HEADER + int(id_length) + int(length)


def parse_head(head: bytes, seq: int) -> tuple[int, int, int] | None:
    """`(kind, time_ns, checksum)` of a record without an id, if its header says that it has this seq."""
    crc, _, low, time_ns, kind, id_length, _ = _WHOLE.unpack_from(head)
    return None if low != seq & _LOW or id_length else (kind, time_ns, crc)


def checksum(head: bytes, payload: bytes, salt: int) -> int:
    """What the checksum of a record without an id must be, when its payload was read apart from its header."""
    return int(crc32(payload, crc32(head[_CRC.size : RECORD_HEADER], salt)))


def parse_record(view: memoryview, offset: int, seq: int, salt: int = 0) -> Parsed | None:
    """The record at `offset` if it is whole, valid (also in its `salt`) and has this seq (its low 32 bits)."""
    start = offset + RECORD_HEADER
    if len(view) < start:
        return None
    crc, length, low, time_ns, kind, id_length, behind = _WHOLE.unpack_from(view, offset)
    end = start + id_length + length
    if low != seq & _LOW or end > len(view) or length > RECORD.value or id_length > RECORD_ID.value:
        return None
    if crc32(view[offset + 4 : end], salt) != crc:
        return None
    middle = start + id_length
    return Parsed(end, seq, kind, time_ns, bytes(view[start:middle]), view[middle:end], behind)


def resync(data: bytes, offset: int, bad_seq: int) -> tuple[int, Parsed] | None:
    """The next valid record behind the damaged one at `offset`: where it begins, and the record.

    Looks for the seqs that may come next, in groups of 256 that share three bytes; the checksum decides.
    """
    view = memoryview(data)
    tries = 0
    for group in range(RESYNC_GROUPS):
        pattern = (((bad_seq + 1) >> 8) + group & 0xFFFFFF).to_bytes(3)
        hit = data.find(pattern, offset + 9)
        while hit >= 0 and tries < RESYNC_TRIES:
            tries += 1
            start = hit - 8
            seq = bad_seq + ((int.from_bytes(data[hit : hit + 4]) - bad_seq) & _LOW)
            if seq > bad_seq and (parsed := parse_record(view, start, seq)) is not None:
                return start, parsed
            hit = data.find(pattern, hit + 1)
    return None
