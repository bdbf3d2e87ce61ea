"""A stream of output: opened at a seq; it ends with what the spool says about the job's end, and nothing else."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from towline.base.errors import Draining, UnknownJob
from towline.base.limits import MIB
from towline.journal.interface import Item
from towline.journal.spool import SpoolReader
from towline.protocol.codec import Header
from towline.runtime.channel import Channel
from towline.services.jobs.bypass import Bypass, Lanes, Source, messages
from towline.services.jobs.live import Attachment, Live
from towline.services.jobs.messages import signal_name
from towline.services.jobs.roster import Roster
from towline.store.jobs import LOST, JobRow

FIRST_OUTPUT = 2  # the record before it says what was started; it is no loss when that went for room
# What was written so shortly before is in the page cache: it is read where we are, as is what the kernel says that it
# has in memory. The rest may have to come from the disk: a thread reads it, and more of it at once, because a thread
# costs more than the copy (a third of a millisecond for each read, beside a loop that is busy).
NEAR_RECORDS = 32
FAR_BYTES = 1 * MIB


class Wanted(NamedTuple):
    """Where to begin, whether to wait for more, and which streams (1 standard output, 2 standard error)."""

    seq: int
    follow: bool
    streams: frozenset[int]
    acks: bool


async def send_output(channel: Channel, roster: Roster, row: JobRow, wanted: Wanted, lanes: Lanes | None) -> None:
    """Everything from `wanted.seq` on, then END with how the job ended, if it has. Raises what ends the stream.

    `lanes`: where there may be one for output that flows; None when the client does not want any.
    """
    live = roster.live.get(row.id)
    if live is not None and live.ending is not None and not live.ending.get("bytes"):
        if wanted.acks:  # it printed nothing: what its spool says is here already
            roster.read_out(row)
        channel.end(trailer_of(live.row, live.end, live.ending))
        return
    attachment = Attachment(channel.person)
    if live is not None:
        attachment.acked = wanted.seq - 1 if wanted.acks else None
        roster.attach(live, attachment)
    pumping = asyncio.ensure_future(_pump(channel, roster, row, live, wanted, lanes))
    listening = asyncio.ensure_future(_listen(channel, roster, live, attachment))
    try:
        await asyncio.wait({pumping, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not pumping.done():
            listening.result()  # raises when the stream is lost; the client may also just have ended its side
            if attachment.detached:
                channel.end({"detached": True})
                return
        trailer = await pumping
        if "exit" in trailer and wanted.acks:
            roster.read_out(row)
        channel.end(trailer)
    finally:
        pumping.cancel()
        listening.cancel()
        if live is not None:
            roster.detach(live, attachment)


async def _listen(channel: Channel, roster: Roster, live: Live | None, attachment: Attachment) -> None:
    async for message in channel.messages():
        match message.header:
            case {"ack": int(seq)} if live is not None and attachment.acked is not None:
                attachment.acked = max(attachment.acked, min(seq, live.end - 1))
                roster.release(live)
            case {"detach": True}:
                attachment.detached = True
                return
            case _:
                pass


async def _pump(
    channel: Channel, roster: Roster, row: JobRow, live: Live | None, wanted: Wanted, lanes: Lanes | None
) -> Header:
    source = Source(roster.spool_folder(row.id), live, wanted.streams)
    reader = SpoolReader(source.folder, max(wanted.seq, FIRST_OUTPUT))
    bypass = Bypass(channel, lanes, source)
    try:
        while True:
            over, pulse = live is None or live.over, live.pulse if live is not None else None
            items = await _read(reader, live, row)
            for header, body, ending in messages(items, wanted.streams):
                if ending:
                    return trailer_of(live.row if live is not None and live.over else row, reader.seq, ending)
                await channel.send(body, header)
                bypass.sent(len(body))
            if items and bypass.is_there:
                reader.close()
                reader.seq, ending = await bypass.carry(reader.seq, roster.draining)
                if ending:
                    return trailer_of(live.row if live is not None and live.over else row, reader.seq, ending)
            if items:
                continue
            if over:
                if reader.behind:  # bytes that no reader can make sense of
                    await channel.send(b"", {"gap": [reader.seq, reader.seq + 1], "reason": "corrupt"})
                return trailer_of(live.row if live is not None else row, reader.seq, None)
            if not wanted.follow:
                return {"end": reader.seq, "state": "running"}
            assert pulse is not None
            await _either(pulse, roster.draining)
    finally:
        bypass.close()
        reader.close()


async def _read(reader: SpoolReader, live: Live | None, row: JobRow) -> list[Item]:
    try:
        near = live is not None and live.end - reader.seq <= NEAR_RECORDS
        if near and live is not None and not live.over and live.end <= reader.seq:
            return []
        if near:
            return reader.read()
        if reader.at_hand():
            await asyncio.sleep(0)  # what nobody asked for is passed over without a wait: others get their turn
            return reader.read()
        return await asyncio.to_thread(reader.read, FAR_BYTES)
    except FileNotFoundError:
        if (live.row if live is not None else row).bytes:  # an exit status now would say that this was all
            raise UnknownJob("The job's output was forgotten while it was read.") from None
        return []  # it has none, or never began


async def _either(pulse: asyncio.Event, draining: asyncio.Event) -> None:
    """Wait for the one; the other ends it. (A drain rings every job, so that one wait is enough.)"""
    if not draining.is_set():
        await pulse.wait()
    if draining.is_set():
        raise Draining("The node is shutting down; the job goes on.", retry_after=0.5)


def trailer_of(row: JobRow, end: int, ending: Header | None) -> Header:
    """How a stream of output ends: with `exit` only when the keeper said so."""
    if row.state == LOST and ending is None:
        return {"end": end, "lost": row.reason}
    status, number = (ending.get("status"), ending.get("signal")) if ending else (row.status, row.signal)
    said: Header = {"status": status, "signal": signal_name(number) if isinstance(number, int) else None}
    if isinstance(number, int):
        said["number"] = number
    for name in ("timed_out", "left_open", "unwritten"):
        if ending is not None and ending.get(name):
            said[name] = ending[name]
    return {"end": end, "exit": said}
