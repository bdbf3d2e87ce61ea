"""A stream of input: the node says from which byte it wants it, acknowledges what the command's pipe has taken, and
END is the command's end of input."""

from __future__ import annotations

import asyncio

from towline.base.errors import BadMessage
from towline.base.limits import KIB
from towline.protocol.codec import Header
from towline.runtime.channel import Channel, Message
from towline.services.jobs.live import Live, Writer
from towline.services.jobs.roster import Roster

UNWRITTEN = 512 * KIB  # bytes that may wait for the command to read them
_PIECE = 256 * KIB


async def take_input(channel: Channel, roster: Roster, live: Live | None, job: str, name: str) -> None:
    """Until the writer `name` ends it or the job is over. Raises LimitExceeded."""
    if live is None:
        _end(channel)
        return
    with live.writing(name) as writer:  # before we ask: what is taken meanwhile is heard
        answer, _ = await roster.keeping.ask({"t": "position", "job": job, "writer": name})
        at = answer.get("at", 0)
        if live.over or not isinstance(at, int):
            _end(channel)
            return
        writer.at = max(writer.at, at)
        writer.ended = writer.ended or answer.get("eof") is True  # an earlier node may have brought the end
        channel.accept({"at": at})
        taking = asyncio.ensure_future(_take(channel, roster, live, name, writer, at))
        acking = asyncio.ensure_future(_acknowledge(channel, live, writer, at))
        try:
            await asyncio.wait({taking, acking}, return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                taking.result()
            await acking
            channel.end({"at": writer.at, "eof": writer.ended, "over": live.over})
        finally:
            taking.cancel()
            acking.cancel()


def _end(channel: Channel) -> None:
    channel.accept({"at": 0, "over": True})
    channel.end({"over": True})


async def _take(channel: Channel, roster: Roster, live: Live, name: str, writer: Writer, at: int) -> None:
    order: Header = {"t": "input", "job": live.row.id, "writer": name}
    async for message in channel.messages():
        if message.header and "size" in message.header:
            _resize(roster, live, message)
        at = _position(message, at, writer.at)
        body = message.body
        for start in range(0, len(body), _PIECE):
            piece = body[start : start + _PIECE]
            roster.keeping.tell({**order, "at": at}, piece)
            at += len(piece)
            await _room(live, writer, at)
    roster.keeping.tell({**order, "at": at, "end": True})


async def _room(live: Live, writer: Writer, sent: int) -> None:
    """What is not read from the channel is held back at its other end by credit."""
    while not live.over and sent - writer.at > UNWRITTEN:
        await live.pulse.wait()


async def _acknowledge(channel: Channel, live: Live, writer: Writer, told: int) -> None:
    while True:
        pulse = live.pulse
        if writer.at > told:
            told = writer.at
            channel.send_nowait(b"", {"ack": told})
        if writer.ended or live.over:
            return
        await pulse.wait()


def _position(message: Message, at: int, taken: int) -> int:
    """Where a message's bytes begin: behind the last ones, or, said with `at`, behind what the command has taken
    meanwhile (of an earlier stream's bytes, which were still on their way)."""
    match message.header:
        case {"at": int(said)} if at <= said <= max(at, taken):
            return said
        case {"at": said}:
            raise BadMessage(f"Input from {said} on was sent; {at} is next.")
        case _:
            return at


def _resize(roster: Roster, live: Live, message: Message) -> None:
    match message.header:
        case {"size": [int(rows), int(columns)]} if 0 < rows < 10_000 and 0 < columns < 10_000:
            roster.keeping.tell({"t": "resize", "job": live.row.id, "rows": rows, "columns": columns})
        case _:
            raise BadMessage("The terminal's size is not [rows, columns].")
