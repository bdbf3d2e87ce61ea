"""What a job's terminal was sent last, for a newcomer's terminal: in pieces of one size, and what is switched on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

from towline.base.limits import KIB
from towline.journal import Record
from towline.journal.spool import SpoolReader
from towline.protocol.codec import Header
from towline.runtime.channel import Channel
from towline.services.jobs.roster import Roster
from towline.store.jobs import JobRow

PIECE = 256 * KIB
_STDOUT = 1


async def send_replay(channel: Channel, roster: Roster, row: JobRow) -> int | None:
    """Messages with `screen`: [rows, columns] and what was printed at that size; the last one has `q`, where output
    goes on behind it, and the modes. Returns the seq that follows; None when the job has no terminal any more.

    When the screen needs more than is kept, the program is asked to paint itself anew, as for another size.
    """
    if row.id not in roster.live or not row.terminal:
        return None
    answer, body = await roster.keeping.ask({"t": "screen", "job": row.id})
    match answer:
        case {"end": int(end), "size": [int(rows), int(columns)], "exact": bool(exact)}:
            kept = json.loads(body)
        case _:
            return None  # it has just ended
    for first, last, *size in kept["spans"]:
        whole, data = await asyncio.to_thread(_printed, roster.spool_folder(row.id), first, last)
        exact = exact and whole
        for start in range(0, len(data), PIECE):
            await channel.send(data[start : start + PIECE], {"screen": size})
    ending: Header = {"screen": [rows, columns], "q": end - 1, "exact": exact}
    await channel.send(str(kept["modes"]).encode(), ending)
    if not exact:
        roster.keeping.tell({"t": "repaint", "job": row.id})
    return end


def _printed(folder: str, first: int, last: int) -> tuple[bool, bytes]:
    """The output of some records, and whether all of them are still there. Blocking."""
    parts = list(_records(folder, first, last))
    return len(parts) == last - first + 1, b"".join(parts)


def _records(folder: str, first: int, last: int) -> Iterator[bytes]:
    reader = SpoolReader(folder, first)
    try:
        while reader.seq <= last and (items := reader.read()):
            for item in items:
                if isinstance(item, Record) and item.kind == _STDOUT and item.seq <= last:
                    yield item.payload
    except FileNotFoundError:
        pass  # forgotten meanwhile
    finally:
        reader.close()
