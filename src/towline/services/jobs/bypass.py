"""Output that flows goes past the event loop: over a lane, from the spool to the socket, on a thread of its own.

The node offers a ticket on the stream of output (`lane`), and the client dials while that goes on. Once the lane is
there, the node says on the stream from which seq on it brings the output (`over`); where it ends, the stream goes on.
Acknowledgements, and how the job ended, stay on the stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import NamedTuple

from towline.base.errors import Draining, LimitExceeded
from towline.base.limits import KIB, MIB, Limit
from towline.journal import Gap, Record
from towline.journal.interface import Item
from towline.journal.spool import SpoolReader
from towline.protocol.codec import Header
from towline.protocol.table import Kind
from towline.runtime.channel import Channel
from towline.runtime.lanes import Lane, TicketOffice
from towline.services.jobs.aftermath import CONTROL
from towline.services.jobs.live import Live

MESSAGE_BYTES = 256 * KIB
FLOWING_BYTES = 8 * MIB  # within FLOWING_SECONDS: then a connection more costs little beside what it saves
FLOWING_SECONDS = 1.0
# A lane whose job prints nothing new looks again so soon, as the keeper does, and ends after so long.
LOOK_SECONDS = 0.001
IDLE_SECONDS = 0.1
LANES = Limit("output_lanes", 4, "lanes", "each is a thread; whoever reads more at once has the rest over streams")


class Source(NamedTuple):
    """What a lane carries: a spool's folder, the job, which kinds of record, and whether the job is over."""

    folder: str
    live: Live | None
    streams: frozenset[int]


class Carried(NamedTuple):
    """Where a lane has stopped: the seq that comes next, and the exit's record when that was what it came to."""

    seq: int
    ending: Header | None


class Lanes:
    """All of a node: who has how many."""

    def __init__(self, office: TicketOffice) -> None:
        self._office = office
        self._of_person: Counter[str] = Counter()

    def offer(self, person: str) -> Offer | None:
        """A ticket for one lane; None when the person has enough."""
        if self._of_person[person] >= LANES.value:
            return None
        try:
            offer = Offer(self._office, person, self._gone)
        except LimitExceeded:  # of tickets that nobody has used
            return None
        self._of_person[person] += 1
        return offer

    def _gone(self, person: str) -> None:
        self._of_person[person] -= 1
        if not self._of_person[person]:
            del self._of_person[person]


class Offer:
    """A ticket, and the lane that comes of it."""

    def __init__(self, office: TicketOffice, person: str, gone: Callable[[str], None]) -> None:
        self._office, self._person, self._gone = office, person, gone
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[Callable[[Lane], None] | None] = SimpleQueue()
        self._lane: Lane | None = None
        self.ticket = office.issue(person, self._drive)

    def __repr__(self) -> str:
        return f"<Offer {'taken' if self._lane else 'open'}>"

    @property
    def taken(self) -> bool:
        """Whether the client has dialled, and the lane waits for work."""
        return self._lane is not None

    async def carry(self, source: Source, seq: int) -> Carried:
        """Send what comes from `seq` on over the lane, as long as something comes. Raises ConnectionLost, OSError."""
        done: asyncio.Future[Carried] = self._loop.create_future()

        def settle(result: Carried | None, error: Exception | None) -> None:
            if done.done():
                return
            if result is not None:
                done.set_result(result)
            elif error is not None:
                done.set_exception(error)

        def work(lane: Lane) -> None:
            result, problem = None, None
            try:
                result = carry(lane, source, seq)
            except Exception as error:  # noqa: BLE001  # for the stream, which has somebody to tell
                problem = error
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(settle, result, problem)

        self._work.put(work)
        return await done

    def close(self) -> None:
        """No lane any more; whoever is blocked in it wakes up. Once."""
        self._office.withdraw([self.ticket])
        self._work.put(None)
        if self._lane is not None:
            self._lane.shutdown()
        self._gone(self._person)

    def _drive(self, lane: Lane) -> None:
        self._lane = lane
        if (work := self._work.get()) is not None:
            work(lane)


class Bypass:
    """Of one stream of output: when it is offered a lane, and what goes over that. `lanes`: None: never."""

    def __init__(self, channel: Channel, lanes: Lanes | None, source: Source) -> None:
        self._channel, self._lanes, self._source = channel, lanes, source
        self._loop = channel.connection.loop
        self._offer: Offer | None = None
        self._since = self._loop.time()
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<Bypass {self._offer or 'none'} {self._bytes} bytes since {self._since:.3f}>"

    @property
    def is_there(self) -> bool:
        """Whether a lane waits for work."""
        return self._offer is not None and self._offer.taken

    def sent(self, count: int) -> None:
        """So many bytes went over the stream: a lane is offered when it flows. Raises as `send_nowait`."""
        if self._lanes is None or self._offer is not None:
            return
        if (now := self._loop.time()) - self._since > FLOWING_SECONDS:
            self._since, self._bytes = now, 0
        self._bytes += count
        if self._bytes >= FLOWING_BYTES and (offer := self._lanes.offer(self._channel.person)) is not None:
            self._offer = offer
            self._channel.send_nowait(b"", {"lane": offer.ticket})

    async def carry(self, seq: int, draining: asyncio.Event) -> Carried:
        """What comes from `seq` on goes over the lane. Raises ConnectionLost, Draining, OSError."""
        assert self._offer is not None
        self._channel.send_nowait(b"", {"over": seq})
        carrying = asyncio.ensure_future(self._offer.carry(self._source, seq))
        stopping = asyncio.ensure_future(draining.wait())
        try:
            await asyncio.wait({carrying, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not carrying.done():
                raise Draining("The node is shutting down; the job goes on.", retry_after=0.5)
            return carrying.result()
        finally:
            carrying.cancel()
            stopping.cancel()
            self.close()

    def close(self) -> None:
        """The lane is over; another may be offered."""
        if self._offer is not None:
            self._offer.close()
            self._offer = None
        self._since, self._bytes = self._loop.time(), 0


def carry(lane: Lane, source: Source, seq: int) -> Carried:
    """Everything from `seq` on, then END. Blocking. Raises ConnectionLost, OSError."""
    reader = SpoolReader(source.folder, seq)
    try:
        idle_since = time.monotonic()
        while True:
            over = source.live is None or source.live.over
            items = _read(reader)
            for header, body, ending in messages(items, source.streams):
                if ending:
                    lane.send(Kind.END, {"next": reader.seq})
                    return Carried(reader.seq, ending)
                lane.send(Kind.DATA, header, body)
            if items:
                idle_since = time.monotonic()
            elif over or time.monotonic() - idle_since > IDLE_SECONDS:
                lane.send(Kind.END, {"next": reader.seq})
                return Carried(reader.seq, None)
            else:
                time.sleep(LOOK_SECONDS)
    finally:
        reader.close()


def _read(reader: SpoolReader) -> list[Item]:
    try:
        return reader.read()
    except FileNotFoundError:
        return []  # forgotten meanwhile: whoever goes on without a lane says so


def messages(items: list[Item], streams: frozenset[int]) -> Iterator[tuple[Header, bytes, Header | None]]:
    """Neighbours of one stream go into one message; `q` is the seq of its last record. The last element: the exit."""
    parts: list[bytes] = []
    kind = size = last = 0
    for item in items:
        joins = isinstance(item, Record) and item.kind == kind and size + len(item.payload) <= MESSAGE_BYTES
        if parts and not joins:
            yield {"s": kind, "q": last}, b"".join(parts), None
            parts, size, kind = [], 0, 0
        if isinstance(item, Gap):
            yield {"gap": [item.from_.seq, item.to.seq], "reason": item.reason}, b"", None
        elif item.kind == CONTROL:
            ending = json.loads(item.payload).get("exit")
            if isinstance(ending, dict):
                yield {}, b"", ending
        elif item.kind in streams:
            parts.append(item.payload)
            kind, last = item.kind, item.seq
            size += len(item.payload)
    if parts:
        yield {"s": kind, "q": last}, b"".join(parts), None
