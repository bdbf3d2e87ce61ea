"""Journals: append-only record logs with a cursor `(epoch, seq)`. A room is one; so is a command's output.

In: opaque payloads with a kind and, where wanted, a client's id. Out: records from any position, and named gaps.
May import: base, files and threads; asyncio in `aio.py` alone. Must not: know what a payload means, open sockets, use
SQLite, see another room.

    interface.py    what every back-end offers (cursor, record, gap, `Log`)
    aio.py          `FileLog`: the face for an event loop; implements `Log`
    core.py         `Journal`: the same, blocking and thread-safe, without an event loop
    numbering.py    which seq a record gets: of its own, or that of its id
    batch.py        what is committed together, its tickets, and the options
    writer.py       batches into segments; retention
    tail.py         the newest records, in memory, for all followers
    committer.py    group commit: a few threads for any number of journals
    segments.py     the files of a log in order; epochs, gaps
    segment.py      one file of records: scan, repair, index, read
    ids.py          which client ids were used: 16 bytes each
    catalogue.py    epochs and salt: the small file beside the segments
    record.py       PURE: the bytes of a segment
    descriptors.py  a bounded set of open files for any number of journals

What is promised: a resolved append is on the disk (fsync); readers see only what is; a crash costs nothing that was
acknowledged; what cannot be had any more is a `Gap` with a reason, never silence.
"""

from __future__ import annotations

from towline.journal.interface import START, Cursor, Gap, Log, Record, Retention

__all__ = ["START", "Cursor", "Gap", "Log", "Record", "Retention"]
