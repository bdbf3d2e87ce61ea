"""Writing down that a job is to be started, durably, before it is. Those that come together share one commit."""

from __future__ import annotations

import asyncio
import functools

from towline.base.errors import TowlineError
from towline.store import Store
from towline.store.jobs import JobRow

Outcome = tuple[JobRow, bool] | TowlineError


class Beginning:
    """The one who does that for a node."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[JobRow, asyncio.Future[tuple[JobRow, bool]]]] = []
        self._busy = False

    def __repr__(self) -> str:
        return f"<Beginning {'busy' if self._busy else 'idle'} waiting={len(self._waiting)}>"

    async def begin(self, row: JobRow) -> tuple[JobRow, bool]:
        """Keep a new job with a line in the audit log; or what the person's same request has begun before, and False.

        Raises DiskError, NoSpace.
        """
        kept: asyncio.Future[tuple[JobRow, bool]] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, kept))
        if not self._busy:
            self._go()
        return await kept

    def _go(self) -> None:
        self._busy = True
        batch, self._waiting = self._waiting, []
        work = asyncio.get_running_loop().run_in_executor(None, self._keep, [row for row, _ in batch])
        work.add_done_callback(functools.partial(self._kept, [kept for _, kept in batch]))

    def _kept(self, batch: list[asyncio.Future[tuple[JobRow, bool]]], work: asyncio.Future[list[Outcome]]) -> None:
        self._busy = False
        if self._waiting:
            self._go()
        bug = None if work.cancelled() else work.exception()
        outcomes = [bug] * len(batch) if work.cancelled() or bug else work.result()
        for kept, outcome in zip(batch, outcomes, strict=True):
            if kept.done():
                continue  # whoever asked has left; asked again, it is known
            if outcome is None:
                kept.cancel()
            elif isinstance(outcome, BaseException):
                kept.set_exception(outcome)
            else:
                kept.set_result(outcome)

    def _keep(self, rows: list[JobRow]) -> list[Outcome]:
        """Blocking. One that cannot be kept costs the others their common commit, and no more."""
        try:
            with self._store.database.transaction():
                return [self._keep_one(row) for row in rows]
        except TowlineError as error:
            if len(rows) == 1:
                return [error]
        return [self._keep([row])[0] for row in rows]

    def _keep_one(self, row: JobRow) -> tuple[JobRow, bool]:
        kept, new = self._store.jobs.begin(row)
        if new:
            self._store.audit.note(row.started, row.person, "run", row.id, " ".join(row.argv))
        return kept, new
