"""One transfer, from its first plan to its last outcome, over as many connections as it takes."""

from __future__ import annotations

import asyncio
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from towline.base.errors import PathRefused, PeerError, TowlineError, error_from_wire
from towline.base.text import printable
from towline.client.events import (
    Done,
    FileDone,
    FileFailed,
    Progress,
    Resumed,
    Started,
    TransferEvent,
    Warned,
)
from towline.client.reach import Reach, lane_dialler
from towline.protocol.codec import Header
from towline.protocol.table import Class
from towline.runtime.channel import Channel
from towline.runtime.descriptors import descriptor_limit
from towline.runtime.lanes import Lane, StreamLane
from towline.runtime.pump import Connection
from towline.runtime.threads import in_thread, to_the_end
from towline.services import requests
from towline.services.files.conversation import Talk
from towline.services.files.messages import Outcome, index_of
from towline.services.files.places import most_lanes
from towline.services.files.plan import Entry, Skipped, position

Drive: TypeAlias = Callable[[Lane, int], None]
_TICK = 0.2  # seconds between two looks at the counters
# A transfer smaller than this does not earn the round trips of a second connection.
_WORTH_A_LANE = 1024 * 1024
_FRUITLESS = 5  # conversations, or lanes, in a row that ended on an open connection and brought nothing


@dataclass(slots=True)
class Options:
    """How to transfer. `rate` in bytes a second (0: no limit), `lanes` None for a good default; fewer where few files
    may be open."""

    overwrite: str = "never"
    links: str = "skip"
    any_names: bool = False
    rate: int = 0
    lanes: int | None = None


@dataclass(slots=True)
class Books:
    """What became of the entries so far. `after` is the plan's entry before which all have their outcome."""

    after: str | None = None
    files: int = 0
    bytes: int = 0
    total_files: int = 0
    total_bytes: int = 0
    cuts: int = 0
    received: int = 0
    wasted: int = 0
    ahead: set[str] = field(default_factory=set)  # have their outcome though an earlier entry has not
    failures: list[TowlineError] = field(default_factory=list)


def default_lanes() -> int:
    """Half the cores, at most four: each lane keeps one busy at both ends."""
    return max(1, min(4, (os.cpu_count() or 1) // 2))


class Transfer(ABC):
    """What put and get have in common. `on_event` hears of everything as it happens."""

    verb: str

    def __init__(self, line: Reach, options: Options, on_event: Callable[[TransferEvent], None]) -> None:
        self.line = line
        self.options = options
        self.books = Books()
        self.id = os.urandom(12).hex()
        wanted = options.lanes if options.lanes is not None else default_lanes()
        self.lanes = min(wanted, most_lanes(descriptor_limit()))
        self._on_event = on_event
        self._order: dict[int, Entry] = {}  # this conversation's entries that are not behind `after` yet
        self._next = 0
        self.counted = False  # files and bytes are known
        self._over_streams = False
        self._skipped_upto: list[bytes] | None = None
        self._tickets: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        self._started_at = 0.0
        self._node_tally = self._tallies_before = (0, 0)  # the node's counters, and what its predecessors had counted
        self._told = -1  # the last position
        self._base = 0  # bytes of the total that were there when this conversation began
        self._goes_on = False  # after a cut, and nobody was told yet from where

    # --- the two kinds fill in ---

    @abstractmethod
    async def converse(self, connection: Connection) -> None:
        """One conversation on one connection, to the end of the transfer or of the connection."""

    @abstractmethod
    def in_flight(self) -> int:
        """Bytes of this conversation that travelled."""

    @abstractmethod
    def under_way(self) -> tuple[str, int, int] | None:
        """The large file that is on its way: path, bytes, size (-1: not known)."""

    # --- the course of it ---

    async def run(self) -> Done:
        """Transfer everything. Raises what cannot be mended by trying again, and Unreachable when given up."""
        self._started_at = time.monotonic()
        fruitless = 0
        while True:
            connection = await self.line.connection()
            before = (self.books.files, self.books.received)
            try:
                await self.converse(connection)
                break
            except TowlineError as error:
                if not error.retryable:
                    raise
                fruitless = 0 if before != (self.books.files, self.books.received) else fruitless + 1
                if connection.is_open and fruitless >= _FRUITLESS:
                    raise
                self.books.cuts += 1
        return self._done()

    def _done(self) -> Done:
        books = self.books
        done = Done(
            files=books.files,
            bytes=books.bytes,
            sent_bytes=books.received,
            resent_bytes=books.wasted,
            seconds=time.monotonic() - self._started_at,
            cuts=books.cuts,
            failures=tuple(books.failures),
        )
        self.tell(done)
        return done

    def tell(self, event: TransferEvent) -> None:
        self._on_event(event)

    def started(self, files: int, size: int) -> None:
        self.counted = True
        self.books.total_files, self.books.total_bytes = files, size
        self.tell(Started(files, size))

    async def tick(self) -> None:
        """Beside a conversation: tell how far it got, while something moves."""
        while True:
            await asyncio.sleep(_TICK)
            moved = self.position()
            if moved != self._told:
                self._tell_going_on()
                self._told = moved
                path, size, total = self.under_way() or ("", 0, 0)
                books = self.books
                self.tell(
                    Progress(
                        books.files, books.total_files, moved, books.total_bytes, path, max(size, 0), max(total, 0)
                    )
                )

    def position(self) -> int:
        """Bytes of the total that are at the other end, durable or on their way."""
        books = self.books
        at = max(books.bytes, self._base + self.in_flight())
        return min(at, books.total_bytes) if books.total_bytes > 0 else at

    # --- a conversation ---

    def begin_conversation(self) -> None:
        """Numbers begin anew; what has its outcome is remembered by its path."""
        self._order.clear()
        self._next = 0
        self._base = self.books.bytes
        self._goes_on = self.books.cuts > 0 and self.books.files > 0
        self._tickets = asyncio.Queue()

    def resumed(self, path: str, covered: int) -> None:
        """A file goes on from what was there."""
        self._base += covered
        if covered:
            self._goes_on = False
            self.tell(Resumed(self.position(), path, covered))

    def _tell_going_on(self) -> None:
        """… and the whole, where no file does. Not before something moves: until then a file may still be found whose
        beginning is there, and without it the position would be too low."""
        if self._goes_on:
            self._goes_on = False
            self.tell(Resumed(self.position(), "", 0))

    def settled_before(self, entry: Entry) -> bool:
        """Whether an earlier conversation brought the entry's outcome already."""
        return entry.path in self.books.ahead

    def settled(self, ended: list[tuple[Entry, Outcome]]) -> None:
        """Entries' outcomes; moves the resume position on."""
        books, ahead = self.books, self.books.ahead
        events: list[FileDone | FileFailed] = []
        for entry, outcome in ended:
            known = entry.path in ahead
            ahead.add(entry.path)
            self._order[outcome.entry] = entry
            if known or (entry.kind == "dir" and outcome.error is None):
                continue
            if outcome.error is not None:
                books.failures.append(outcome.error)
                events.append(FileFailed(entry.path, outcome.error))
                continue
            books.files += 1
            books.bytes += max(outcome.size, 0)
            events.append(FileDone(entry.path, outcome.size, outcome.digest, outcome.note))
        self._advance()
        if events:
            self._tell_going_on()
        for event in events:
            self.tell(event)

    def skipped(self, skipped: Skipped) -> None:
        """Something is not taken along; said once, though the walk may come by again after a cut."""
        at = position(skipped.path)
        if self._skipped_upto is not None and at <= self._skipped_upto:
            return
        self._skipped_upto = at
        if not skipped.code:
            self.tell(Warned(skipped.path, skipped.reason))
            return
        reason = skipped.reason if skipped.code == PathRefused.code else f'"{skipped.path}": {skipped.reason}.'
        error = error_from_wire(skipped.code, printable(reason, limit=600), retryable=False)
        self.books.failures.append(error)
        self.tell(FileFailed(skipped.path, error))

    def tell_restarted(self, path: str, reason: str) -> None:
        """An unfinished file could not be gone on with."""
        self.tell(Warned(path, f"begun anew: {reason}"))

    def _advance(self) -> None:
        """Move `after` over the entries that have their outcome, in the order of the plan."""
        books, order = self.books, self._order
        while (entry := order.pop(self._next, None)) is not None:
            self._next += 1
            books.ahead.discard(entry.path)
            # Files come in order and once; folders come again at last.
            if entry.kind != "dir" or books.after is None or position(entry.path) > position(books.after):
                books.after = entry.path

    async def aside(self, header: Header) -> None:
        """What the node says beside the transfer itself."""
        match header.get("t"):
            case "ticket":
                ticket = (requests.number(header, "lane"), requests.text(header, "ticket"))
                await self._tickets.put(ticket)
            case "resume":
                self.resumed(requests.text(header, "path"), requests.number(header, "covered", 0))
            case "restarted":
                self.tell_restarted(requests.text(header, "path"), requests.text(header, "reason"))
            case "lane-over" | "kept":
                self.note_tally(header.get("tally"))
            case _:
                pass  # a newer node may say more than we know

    def note_tally(self, value: object) -> None:
        """The receiver's counters, when the receiver is the node. One that was restarted counts from nothing."""
        match value:
            case [int(received), int(wasted)]:
                if received < self._node_tally[0]:
                    self._tallies_before = (self.books.received, self.books.wasted)
                self._node_tally = (received, wasted)
                self.books.received = self._tallies_before[0] + received
                self.books.wasted = self._tallies_before[1] + wasted
            case _:
                pass

    # --- lanes ---

    async def open(self, connection: Connection, request: Header) -> tuple[Channel, Header]:
        """Open the transfer's stream and wait until the node takes it."""
        channel = connection.open({"service": "files", "op": self.verb, "transfer": self.id, **request}, Class.CHAT)
        with no_stream_left(channel):
            answer = await channel.accepted()
            tickets = answer.get("tickets")
            for row in tickets if isinstance(tickets, list) else []:
                match row:
                    case [int(number), str(ticket)]:
                        await self._tickets.put((index_of(number), ticket))
                    case _:
                        raise PeerError("The node's tickets cannot be understood.")
        return channel, answer

    async def keep_lanes(self, connection: Connection, talk: Talk, drive: Drive, over: Callable[[], bool]) -> None:
        """Keep as many lanes going as were wanted until the transfer is `over` or the connection lost."""
        small = 0 <= self.books.total_bytes < _WORTH_A_LANE and self.books.total_files > 0
        wanted = 1 if small else max(self.lanes, 1)
        streams = small or self._over_streams or not self.lanes
        await asyncio.gather(
            *(self._keep_lane(connection, talk, drive, over, streams=streams) for _ in range(wanted))
        )

    async def _keep_lane(
        self,
        connection: Connection,
        talk: Talk,
        drive: Drive,
        over: Callable[[], bool],
        *,
        streams: bool,
    ) -> None:
        idle = 0  # lanes in a row that ended before they had brought anything
        while not over() and connection.is_open:
            number, ticket = await self._ticket(talk)
            before = self.in_flight()
            try:
                if streams or connection.peer.kind == "memory":
                    await self._over_stream(connection, drive, number)
                else:
                    await in_thread(self._over_socket, connection, drive, number, ticket)
            except TowlineError:
                if not connection.is_open:
                    return  # the conversation's stream says so, too
                streams = self._over_streams = True  # a second connection cannot be had
            idle = idle + 1 if self.in_flight() == before else 0
            if idle >= _FRUITLESS:
                streams = self._over_streams = True  # nor can one be kept

    async def _ticket(self, talk: Talk) -> tuple[int, str]:
        if self._tickets.empty():
            talk.say({"t": "ticket"})
        return await self._tickets.get()

    async def _over_stream(self, connection: Connection, drive: Drive, number: int) -> None:
        channel = connection.open({"service": "files", "op": "lane", "transfer": self.id, "lane": number}, Class.BULK)
        await channel.accepted()
        await in_thread(_drive, lambda: StreamLane(channel), drive, number)

    def _over_socket(self, connection: Connection, drive: Drive, number: int, ticket: str) -> None:
        """On a thread: dial, drive, close. Raises what dialling raises."""
        _drive(lane_dialler(self.line, connection, ticket), drive, number)


@contextmanager
def no_stream_left(channel: Channel) -> Iterator[None]:
    """Between the request and its conversation: whoever fails in here ends the stream, with no word of why."""
    try:
        yield
    except BaseException:
        channel.reset()
        raise


def _drive(dial: Callable[[], Lane], drive: Drive, number: int) -> None:
    lane = dial()
    try:
        drive(lane, number)
    finally:
        lane.close()


async def conversation(talk: Talk, channel: Channel, work: Awaitable[None], close: Callable[[], None]) -> None:
    """Run `work`, and whatever happens: end the threads that work for it, and the stream."""
    try:
        await work
    except TowlineError as error:
        channel.reset(error)
        raise
    except BaseException:  # cancelled; or whoever listens failed, and the line goes on
        channel.reset()
        raise
    finally:
        await to_the_end(close)
