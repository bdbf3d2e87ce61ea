"""How a job begins: its keeper is told what it is, it is written down, durably, and then the keeper is told to go.

All three happen on one thread, in this order, so that neither a turn of the loop nor a change of threads stands
between the commit and the start; the keeper reads the order while the commit is under way. Those that come together
share one commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import NamedTuple

from towline.base.errors import TowlineError
from towline.services.jobs.link import Orders
from towline.store import Store
from towline.store.jobs import JobRow

Outcome = tuple[JobRow, bool] | BaseException


class Begun(NamedTuple):
    """What became of it: the row that is kept, ours (`new`) or that of the same request before; or why there is none.
    `went`: the keeper was told to start it."""

    row: JobRow
    new: bool = False
    went: bool = False
    problem: BaseException | None = None


class _Start(NamedTuple):
    row: JobRow
    order: bytes
    orders: Orders
    then: Callable[[Begun], None]


class Beginning:
    """The one who does that for a node."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Start] = []
        self._busy = False
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Beginning {'busy' if self._busy else 'idle'} waiting={len(self._waiting)}>"

    def begin(self, row: JobRow, order: bytes, orders: Orders, then: Callable[[Begun], None]) -> None:
        """Keep a new job with a line in the audit log and have it started, unless the person's same request was kept
        before. The loop calls `then`; when it has started, the keeper says so itself."""
        self._waiting.append(_Start(row, order, orders, then))
        if not self._busy:
            self._next()

    def resume(self, row: JobRow, order: bytes, orders: Orders, then: Callable[[Begun], None]) -> None:
        """Have a job started that is kept already and never was."""

        def work() -> None:
            went = orders.say([_prepare(row, order), _go(row)])
            self._tell(then, Begun(row, new=True, went=went))

        self._do(work)

    def forget(self, row: JobRow, then: Callable[[], None]) -> None:
        """It could not be started after all. The loop calls `then` when that is written down, too, or cannot be."""

        def work() -> None:
            with contextlib.suppress(TowlineError):  # the next node sees that it never began
                self._store.jobs.forget(row.id)
            self._tell(then)

        self._do(work)

    def close(self) -> None:
        """End the thread after what it has to do. Blocking."""
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()

    # --- on the loop ---

    def _next(self) -> None:
        self._busy = True
        batch, self._waiting = self._waiting, []
        self._do(lambda: self._tell(self._kept, self._begin_all(batch)))

    def _kept(self, told: list[tuple[Callable[[Begun], None], Begun]]) -> None:
        self._busy = False
        if self._waiting:
            self._next()
        for then, begun in told:
            then(begun)

    def _do(self, work: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="towline-beginning", daemon=True)
            self._thread.start()
        self._work.put(work)

    # --- on the thread ---

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _tell(self, what: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self._loop.call_soon_threadsafe(what, *args)

    def _begin_all(self, batch: list[_Start]) -> list[tuple[Callable[[Begun], None], Begun]]:
        for start in batch:
            start.orders.say([_prepare(start.row, start.order)])
        outcomes = self._keep([start.row for start in batch])
        return [(start.then, self._go(start, outcome)) for start, outcome in zip(batch, outcomes, strict=True)]

    def _go(self, start: _Start, outcome: Outcome) -> Begun:
        if not isinstance(outcome, BaseException) and outcome[1]:
            return Begun(start.row, new=True, went=start.orders.say([_go(start.row)]))
        start.orders.say([({"t": "drop", "job": start.row.id}, b"")])
        if isinstance(outcome, BaseException):
            return Begun(start.row, problem=outcome)
        return Begun(outcome[0])

    def _keep(self, rows: list[JobRow]) -> list[Outcome]:
        """One that cannot be kept costs the others their common commit, and no more."""
        try:
            with self._store.database.transaction():
                return [self._keep_one(row) for row in rows]
        except Exception as error:  # noqa: BLE001  # handed to whoever waits
            if len(rows) == 1:
                return [error]
        return [self._keep([row])[0] for row in rows]

    def _keep_one(self, row: JobRow) -> tuple[JobRow, bool]:
        kept, new = self._store.jobs.begin(row)
        if new:
            self._store.audit.note(row.started, row.person, "run", row.id, " ".join(row.argv))
        return kept, new


def _prepare(row: JobRow, order: bytes) -> tuple[dict[str, object], bytes]:
    return {"t": "prepare", "job": row.id}, order


def _go(row: JobRow) -> tuple[dict[str, object], bytes]:
    return {"t": "go", "job": row.id}, b""
