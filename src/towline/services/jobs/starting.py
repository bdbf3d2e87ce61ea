"""Starting a job, in the node's books: from a person's request to the keeper's word that it runs, or why not."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Callable
from typing import Protocol

from towline.base.errors import Draining, JobLost, TimedOut, TowlineError
from towline.base.ids import short_id
from towline.services.jobs import messages
from towline.services.jobs.beginning import Beginning, Begun
from towline.services.jobs.keeping import Keeping
from towline.services.jobs.link import Orders
from towline.services.jobs.live import Live
from towline.services.jobs.messages import Spec
from towline.store import Store
from towline.store.jobs import STARTING, JobRow

START_SECONDS = 20.0  # that whoever starts something waits at the most
Order = Callable[[str], bytes]  # for a job's id


class Books(Protocol):
    """Whose part this is."""

    live: dict[str, Live]
    keeping: Keeping
    closing: asyncio.Event
    spool_per_job: int

    def spool_folder(self, job: str) -> str:
        """Where a job's output is."""

    def lose(self, live: Live) -> None:
        """The keeper that held it has ended."""


class Starting:
    """A job is among the live ones, and counted, from the first; the keeper's answer settles it.

    Whoever asked may leave in the middle of it, or be told that it takes too long: what has begun goes on without
    them, because what nobody would start any more must not stand in the books as if it ran.
    """

    def __init__(self, books: Books, store: Store) -> None:
        self._books = books
        self._beginning = Beginning(store)
        self._resuming: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Starting {self._beginning!r}>"

    async def start(self, person: str, spec: Spec) -> JobRow:
        """Start it, or find what the same request started before. Raises what keeps it from starting."""
        most = self._books.spool_per_job
        spool = max(min(int(spec.spool) or most, most), messages.LEAST_SPOOL)
        order = functools.partial(messages.order_for, spec=spec, spool=spool)
        row = JobRow(
            id=short_id(os.urandom(5)), person=person, request=spec.request,
            argv=[spec.shown] if spec.login else spec.argv,
            terminal=spec.size is not None, on_disconnect=spec.on_disconnect, after=spec.after, state=STARTING,
            started=time.time(),
        )  # fmt: skip
        live = self._books.live[row.id] = Live(row)
        try:
            orders = await self._ready()
        except BaseException:
            del self._books.live[row.id]
            raise
        self._beginning.begin(row, order(row.id), orders, functools.partial(self._begun, live, orders, order))
        try:
            async with asyncio.timeout(START_SECONDS):
                return await self._settled(live, order)
        except TimeoutError:
            raise TimedOut(
                "The process that holds jobs does not answer. The command may start yet: tow jobs shows it."
            ) from None

    async def _ready(self) -> Orders:
        """Wait for a keeper, and for those who wait for it already, but not longer than for anything else here."""
        try:
            async with asyncio.timeout(START_SECONDS):
                return await self._books.keeping.ready()
        except TimeoutError:
            raise TimedOut("The process that holds jobs cannot be reached. The command was not started.") from None

    async def _settled(self, live: Live, order: Order) -> JobRow:
        ours = live.row.id
        kept = await live.wait_settled()
        if kept.id == ours:
            return kept
        first = self._books.live.get(kept.id)
        if first is None:
            if kept.state != STARTING or self.was_begun(kept):
                return kept
            first = Live(kept)  # an earlier node came no further
            self._resume(first, order)
        return await first.wait_settled()

    def refuse(self, live: Live, problem: TowlineError) -> None:
        """The keeper could not start it: it never was."""

        def forgotten() -> None:
            self._books.live.pop(live.row.id, None)
            live.settle(problem)

        self._beginning.forget(live.row, forgotten)

    def was_begun(self, row: JobRow) -> bool:
        """Whether a keeper has made its spool, which comes before its process."""
        return os.path.isdir(self._books.spool_folder(row.id))

    def close(self) -> None:
        """After what is under way. Blocking."""
        self._beginning.close()

    def _begun(self, live: Live, orders: Orders, order: Order, begun: Begun) -> None:
        """It is written down, and the keeper was told; or not."""
        if begun.problem is not None or not begun.new:
            del self._books.live[live.row.id]
            live.row = begun.row
            live.settle(begun.problem)
        elif begun.went:
            self._went(live, orders)
        else:
            self._resume(live, order)  # the keeper ended meanwhile

    def _went(self, live: Live, orders: Orders) -> None:
        live.gone = True
        if live.settled or orders is self._books.keeping.orders:
            return
        if self._books.closing.is_set():
            live.settle(Draining(retry_after=0.5))  # it was us who left; asked again, the next node knows
        else:
            self._books.lose(live)

    def _resume(self, live: Live, order: Order) -> None:
        """Start a job that is kept, and that no keeper was told of."""
        self._books.live[live.row.id] = live
        resuming = asyncio.ensure_future(self._resume_soon(live, order))
        self._resuming.add(resuming)
        resuming.add_done_callback(self._resuming.discard)

    async def _resume_soon(self, live: Live, order: Order) -> None:
        def resumed(begun: Begun) -> None:
            if begun.went:
                self._went(live, orders)
            else:
                self.refuse(live, JobLost("The process that holds jobs ended before it could start this one."))

        if self._books.closing.is_set():
            live.settle(Draining(retry_after=0.5))
            return
        try:
            orders = await self._books.keeping.ready()
        except TowlineError as error:
            self.refuse(live, error)
        else:
            self._beginning.resume(live.row, order(live.row.id), orders, resumed)
