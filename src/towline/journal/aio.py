"""`FileLog`: a `Journal` for an event loop. The only file of this room that imports asyncio.

Commits happen on the committer's threads; one wake-up per batch comes over to the loop, resolves what was appended
and stirs all followers. A follower holds a position and one small batch; the tail is read from the journal's memory,
older parts on a thread, so neither a slow reader nor a slow disk holds up the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Self

from towline.base.errors import TowlineError
from towline.base.limits import KIB
from towline.journal.batch import Options, Tickets
from towline.journal.core import Journal
from towline.journal.interface import READ_BYTES, READ_RECORDS, Cursor, Item
from towline.journal.numbering import Entry

FOLLOW_BYTES = 64 * KIB  # what one follower may hold: 2,000 of them on different old parts, 128 MiB
FOLLOW_RECORDS = 256


class FileLog:
    """Implements `interface.Log`. Made in the loop that uses it."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._loop = asyncio.get_running_loop()
        self._pulse = asyncio.Event()
        self._stirred = self._starting = False
        self._order = asyncio.Lock()
        self._waiting: deque[tuple[Tickets, Callable[[Tickets], None]]] = deque()
        self._unsubscribe = journal.subscribe(self._stir)

    def __repr__(self) -> str:
        return f"<FileLog of {self.journal!r}>"

    @classmethod
    async def open(
        cls, folder: str, options: Options | None = None, *, known_high_water: Cursor | None = None
    ) -> Self:
        """See `Journal.open`."""

        def opened() -> Journal:
            return Journal.open(folder, options, known_high_water=known_high_water)

        return cls(await asyncio.to_thread(opened))

    @property
    def epoch(self) -> int:
        """The current epoch."""
        return self.journal.epoch

    @property
    def floor(self) -> Cursor:
        """The oldest record that is kept."""
        return self.journal.floor

    @property
    def end(self) -> Cursor:
        """After the newest visible record."""
        return self.journal.end

    async def append(self, kind: int, payload: bytes, *, id: bytes = b"") -> int:  # noqa: A002
        """See `Log.append`."""
        (outcome,) = await self.append_many(kind, [(id, payload)])
        if isinstance(outcome, TowlineError):
            raise outcome
        return outcome

    async def append_many(self, kind: int, entries: Sequence[Entry]) -> list[int | TowlineError]:
        """See `Log.append_many`."""
        if not self.journal.options.durable:
            async with self._order:  # first come, first numbered: threads alone would not keep to it
                return _outcomes(await asyncio.to_thread(self.journal.append_many, kind, entries))
        await self.wait_room()
        future: asyncio.Future[list[int | TowlineError]] = self._loop.create_future()
        self.post(kind, entries, partial(_resolve, future))
        return await future

    async def know_ids(self) -> None:
        """Before the first `post`: what an append would otherwise do while the loop waits for it."""
        if not self.journal.ids_known:
            await asyncio.to_thread(self.journal.load_ids)

    async def wait_room(self) -> None:
        """Until `post` blocks nobody."""
        while not self.journal.has_room() and not self.journal.closed:
            await self._next_pulse()

    def post(self, kind: int, entries: Sequence[Entry], settled: Callable[[Tickets], None]) -> None:
        """Append, numbered at once, for those who append much: `settled(tickets)` is called, in order, once each is
        kept or failed. Blocks the loop when too much is pending (`wait_room`). Raises as `Journal.append_many`."""
        tickets = self.journal.append_many(kind, entries, start=False)
        if not self._starting:  # behind everybody else who appends in this turn of the loop
            self._starting = True
            self._loop.call_soon(self._start)
        if tickets.done():
            settled(tickets)
        else:
            self._waiting.append((tickets, settled))
            if tickets.done():  # committed in between: its wake-up may have come before the line above
                self._stir()

    def _start(self) -> None:
        self._starting = False
        self.journal.start()

    async def read(
        self, from_: Cursor, *, limit_bytes: int = READ_BYTES, limit_records: int = READ_RECORDS
    ) -> list[Item]:
        """See `Log.read`."""
        cached = self.journal.read_cached(from_, limit_bytes=limit_bytes, limit_records=limit_records)
        if cached is not None:
            return cached
        return await asyncio.to_thread(
            lambda: self.journal.read(from_, limit_bytes=limit_bytes, limit_records=limit_records)
        )

    async def follow(self, from_: Cursor) -> AsyncIterator[Item]:
        """See `Log.follow`. Ends when the log is closed."""
        cursor = from_
        while True:
            pulse = self._pulse  # taken before reading: what comes meanwhile sets this one
            items = await self.read(cursor, limit_bytes=FOLLOW_BYTES, limit_records=FOLLOW_RECORDS)
            for item in items:
                cursor = item.next
                yield item
            if items:
                await asyncio.sleep(0)  # a consumer that never waits must not keep the loop to itself
            elif self.journal.closed:
                return
            else:
                await pulse.wait()

    async def release(self, upto: int) -> None:
        """See `Log.release`."""
        await asyncio.to_thread(self.journal.release, upto)

    async def sync(self) -> None:
        """Make everything appended so far durable."""
        await asyncio.to_thread(self.journal.sync)

    async def close(self) -> None:
        """See `Log.close`."""
        await asyncio.to_thread(self.journal.close)
        self._unsubscribe()
        self._wake()

    async def _next_pulse(self) -> None:
        pulse = self._pulse
        if not self.journal.has_room():
            await pulse.wait()

    def _stir(self) -> None:
        """From any thread: something was committed. Many commits, one wake-up."""
        if not self._stirred:
            self._stirred = True
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to be woken
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._stirred = False
        waiting = self._waiting
        while waiting and waiting[0][0].batch.done:
            tickets, settled = waiting.popleft()
            settled(tickets)
        pulse, self._pulse = self._pulse, asyncio.Event()
        pulse.set()


def _resolve(future: asyncio.Future[list[int | TowlineError]], tickets: Tickets) -> None:
    if not future.done():  # else whoever waited was cancelled
        future.set_result(_outcomes(tickets))


def _outcomes(tickets: Tickets) -> list[int | TowlineError]:
    """With those that could not be kept after all."""
    return [
        each if isinstance(each, TowlineError) else _copied(tickets.failure(each)) or each
        for each in tickets.outcomes
    ]


def _copied(error: TowlineError | None) -> TowlineError | None:
    """One for each who waits: raising an error changes it."""
    return None if error is None else type(error)(str(error))
