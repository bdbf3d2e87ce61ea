"""The node's books: which jobs there are, who looks at them, what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable

from msgspec.structs import replace

from towline.base.errors import JobLost, LimitExceeded, TowlineError, UnknownJob, error_from_wire
from towline.base.text import printable
from towline.journal.spool import remove_spool
from towline.protocol.codec import Header
from towline.services.jobs import messages
from towline.services.jobs.aftermath import ended, last_known
from towline.services.jobs.keeping import Keeping
from towline.services.jobs.live import Attachment, Live
from towline.services.jobs.messages import Spec, signal_name
from towline.services.jobs.starting import Starting
from towline.store import Store
from towline.store.jobs import JOB_ROWS, RUNNING, STARTING, JobRow

log = logging.getLogger("towline.jobs")
SAVE_SECONDS = 0.05
SWEEP_SECONDS = 600.0
RETURN_SECONDS = 60.0  # in which the clients of a node that was away come back to it
CROWDED = 0.75  # of the node's spool: from here on the oldest outputs that were read go first


class Roster:
    """All jobs of one node. `folder` has a spool per job, and the keeper's socket."""

    def __init__(self, store: Store, folder: str, *, spool: int, spool_per_job: int) -> None:
        self.folder, self.spool_per_job = folder, spool_per_job
        self.draining = asyncio.Event()
        self.closing = asyncio.Event()
        self.live: dict[str, Live] = {}
        self.keeping = Keeping(folder, spool, self._hear, self._keeper_lost)
        self._starting = Starting(self, store)
        self._store = store
        self._todo: list[tuple[Callable[[], object], Callable[[], object] | None]] = []
        self._saving: asyncio.Task[None] | None = None
        self._read_out: set[str] = set()  # finished jobs whose end somebody has
        self._sweeping: asyncio.TimerHandle | None = None

    # --- life ---

    async def open(self) -> None:
        """Take over what an earlier node left."""
        rows = await asyncio.to_thread(self._store.jobs.live)
        self.keeping.elsewhere = await asyncio.to_thread(self._store.jobs.kept_bytes)
        held = await self.keeping.adopt()
        by_id = {str(each["job"]): each for each in held or []}
        for row in rows:
            if (known := by_id.pop(row.id, None)) is not None:
                live = self.live[row.id] = Live(replace(row, state=RUNNING, pid=int(str(known["pid"]))))
                live.end, live.bytes = int(str(known["end"])), int(str(known["bytes"]))
                live.gone = True
                live.goodbye = known.get("goodbye") is not False
                live.settle()
                self._arm(live, at_least=RETURN_SECONDS)
            else:
                await asyncio.to_thread(self._settle, row)
        for job in by_id:  # nobody knows whose they are
            self.keeping.tell({"t": "signal", "job": job, "number": int(signal.SIGKILL)})
        self._sweep_later()

    async def close(self) -> None:
        """Write down what is known; the jobs go on."""
        self.closing.set()
        self.draining.set()
        if self._sweeping is not None:
            self._sweeping.cancel()
        for live in self.live.values():
            self._disarm(live)
            live.hush()
        self.keeping.close()
        while self._saving is not None:
            await asyncio.shield(self._saving)
        await asyncio.to_thread(self._starting.close)

    # --- asking ---

    def spool_folder(self, job: str) -> str:
        """Where a job's output is."""
        return os.path.join(self.folder, job)

    async def start(self, person: str, spec: Spec) -> JobRow:
        """See `Starting.start`. Raises LimitExceeded, too."""
        try:
            await self._check_spool(person)
            self._check_limits(person, spec)
        except LimitExceeded:
            if not await asyncio.to_thread(self._store.jobs.is_known, person, spec.request):
                raise  # otherwise it has started already, and nobody heard of it
        return await self._starting.start(person, spec)

    def _save_running(self, live: Live) -> None:
        """Most commands have ended by now, and are written down once."""
        if not live.over and not self.closing.is_set():
            row = live.row
            self._save(lambda: self._store.jobs.update(row) if not live.over else None)

    def _check_limits(self, person: str, spec: Spec) -> None:
        mine = [live for live in self.live.values() if live.row.person == person and not live.over]
        messages.RUNNING_PER_PERSON.check(len(mine) + 1)
        if spec.size is not None:
            messages.TERMINALS_PER_PERSON.check(sum(live.row.terminal for live in mine) + 1)

    async def _check_spool(self, person: str) -> None:
        """Raise LimitExceeded when the person's kept output is too much. Makes room first where that is possible."""
        if self.keeping.elsewhere > CROWDED * self.keeping.spool:
            await asyncio.to_thread(self._sweep)
        limit = min(messages.SPOOL_PER_PERSON.value, self.keeping.spool // 2)
        if self.keeping.elsewhere > limit // 2:
            # What has just ended is on its way into the books, and leaves `live` when it is there. Counted before
            # they are read it may count twice, which the second look puts right; after that it could be left out.
            kept = sum(live.row.size for live in self.live.values() if live.over and live.row.person == person)
            kept += await asyncio.to_thread(self._store.jobs.kept_bytes, person)
            if kept >= limit:
                while self._saving is not None:
                    await asyncio.shield(self._saving)
                kept = await asyncio.to_thread(self._store.jobs.kept_bytes, person)
                kept -= await asyncio.to_thread(self._drop_read, person, kept - limit + 1)
            if kept >= limit:
                raise LimitExceeded(
                    f"Limit job_spool_person is {limit} bytes; {kept} are kept of your finished jobs. "
                    "Forget some: tow forget ALIAS JOB."
                )

    async def find(self, job: str) -> JobRow:
        """The job's row as it is now. Raises UnknownJob."""
        live = self.live.get(job)
        row = live.row if live is not None else await asyncio.to_thread(self._store.jobs.find, job)
        if row is None:
            raise UnknownJob
        return row

    async def rows(self, person: str | None) -> list[tuple[JobRow, int]]:
        """The jobs (of one person), oldest first, with how many clients look at each."""
        before = dict(self.live)  # what ends while we read is written down behind our back
        rows = await asyncio.to_thread(self._store.jobs.all, person)
        result: list[tuple[JobRow, int]] = []
        for row in rows:
            live = self.live.get(row.id) or before.get(row.id)
            if live is None:
                result.append((row, 0))
            else:
                row = live.row if live.over else replace(live.row, bytes=live.bytes)  # noqa: PLW2901
                result.append((row, len(live.attached)))
        return result

    async def signal(self, person: str, row: JobRow, number: int, kill_after: float | None) -> bool:
        """Signal a job's process group; False when it has ended."""
        self.note(person, "signal", row.id, signal_name(number))
        if row.id not in self.live or not self.keeping.is_up:
            return False
        header: Header = {"t": "signal", "job": row.id, "number": number, "kill_after": kill_after}
        answer, _ = await self.keeping.ask(header)
        return answer.get("done") is True

    async def forget(self, row: JobRow) -> None:
        """Drop a finished job and its output."""
        await asyncio.to_thread(self._drop, row)
        self.live.pop(row.id, None)  # when it has just ended

    def note(self, person: str, action: str, job: str, detail: str = "") -> None:
        """A line in the audit log."""
        now = time.time()
        self._save(lambda: self._store.audit.note(now, person, action, job, detail, durable=False))

    # --- attachments ---

    def attach(self, live: Live, attachment: Attachment) -> None:
        """Somebody looks."""
        live.attached.add(attachment)
        self._goodbye(live, False)
        self._disarm(live)

    def detach(self, live: Live, attachment: Attachment) -> None:
        """They do not look any more."""
        live.attached.discard(attachment)
        self.release(live)
        if live.attached:
            return
        self._goodbye(live, attachment.detached)
        if not self.draining.is_set():
            self._arm(live)

    def _goodbye(self, live: Live, said: bool) -> None:
        """Whether whoever looked last has said it. Where that matters, the keeper knows it for the next node."""
        if live.goodbye is not said:
            live.goodbye = said
            if live.row.on_disconnect == "kill" and not live.row.after:
                self.keeping.tell({"t": "goodbye", "job": live.row.id, "said": said})

    def release(self, live: Live) -> None:
        """Tell the keeper what all who look have got."""
        acks = [each.acked for each in live.attached if each.acked is not None]
        live.release(min(acks, default=0), self.keeping)

    def read_out(self, row: JobRow) -> None:
        """Somebody has everything, the end included."""
        self._read_out.add(row.id)

    def _arm(self, live: Live, *, at_least: float = 0.0) -> None:
        """Nobody looks: what happens then, and when."""
        if live.over or live.attached:
            return
        after = max(live.row.after, at_least)
        if live.row.on_disconnect == "kill" and live.goodbye and not live.row.after:
            after = messages.KEEP_SECONDS  # whoever said goodbye did not lose the connection
        self._disarm(live)
        live.alone = asyncio.get_running_loop().call_later(after, self._abandon, live)

    def _disarm(self, live: Live) -> None:
        if live.alone is not None:
            live.alone.cancel()
            live.alone = None

    def _abandon(self, live: Live) -> None:
        if not live.over and not live.attached:
            self.note("node", "signal", live.row.id, f"no client for {live.row.after:.0f} s")
            header: Header = {
                "t": "signal",
                "job": live.row.id,
                "number": int(signal.SIGHUP if live.row.terminal else signal.SIGTERM),
            }
            self.keeping.tell(header | {"kill_after": messages.KILL_GRACE})

    # --- what the keeper says ---

    def _hear(self, header: Header) -> None:
        live = self.live.get(str(header.get("job")))
        if live is None:
            return
        match header:
            case {"t": "started", "pid": int(pid)} if not live.settled:
                self._started(live, pid)
            case {"t": "refused", "code": int(code), "message": str(message)} if not live.settled:
                self._starting.refuse(live, error_from_wire(code, printable(message), retryable=False))
            case {"t": "grown", "end": int(end), "bytes": int(size)}:
                live.end, live.bytes = end, size
                live.ring()
            case {"t": "input", "writer": str(writer), "at": int(at), "eof": bool(eof)}:
                if (known := live.inputs.get(writer)) is not None:
                    known.at, known.ended = at, eof
                    live.ring()
            case {"t": "exited", "pid": int(pid), "end": int(end), "size": int(size), "exit": dict(ending)}:
                live.end, live.ending, live.gone, live.settled = end, ending, True, True
                self._finish(live, ended(live.row, ending, size, pid))
            case _:
                pass  # a newer keeper may say more

    def _started(self, live: Live, pid: int) -> None:
        live.row = replace(live.row, state=RUNNING, pid=pid)
        asyncio.get_running_loop().call_later(SAVE_SECONDS, self._save_running, live)
        self._arm(live)
        live.gone = True
        live.settle()

    def _finish(self, live: Live, row: JobRow) -> None:
        live.row, live.over, live.bytes = row, True, row.bytes
        self._disarm(live)
        self.keeping.count_elsewhere(row.size)
        live.ring()

        def kept() -> None:
            self._store.jobs.update(row)

        self._save(kept, then=lambda: self.live.pop(row.id, None))

    def _keeper_lost(self) -> None:
        """Its jobs are lost, unless their spools say that they had ended."""
        log.error("the process that held the jobs has gone; %d jobs are lost", len(self.live))
        for live in list(self.live.values()):
            if live.gone and not live.over:
                self.lose(live)

    def lose(self, live: Live) -> None:
        """Its keeper has ended: what its spool says is all that is known."""
        self._finish(live, last_known(live.row, self.spool_folder(live.row.id)))
        if not live.settled:
            live.settle(JobLost("The process that holds jobs ended while it started this one."))

    def _settle(self, row: JobRow) -> None:
        """A job of an earlier node that nobody holds any more. Blocking."""
        if row.state == STARTING and not self._starting.was_begun(row):
            self._store.jobs.forget(row.id)  # it never came to that
            return
        known = last_known(row, self.spool_folder(row.id))
        self._store.jobs.update(known, durable=True)
        self.keeping.tell_elsewhere(known.size)

    # --- writing down ---

    def _save(self, do: Callable[[], object], then: Callable[[], object] | None = None) -> None:
        """In the background, in order, many at once; `then` once it is in the books."""
        self._todo.append((do, then))
        if self._saving is None:
            self._saving = asyncio.ensure_future(self._save_all())

    async def _save_all(self) -> None:
        try:
            await _either(self.closing, SAVE_SECONDS)  # a few more may come
            while self._todo:
                todo, self._todo = self._todo, []
                try:
                    await asyncio.to_thread(self._in_one, [do for do, _ in todo])
                except TowlineError as error:
                    log.error("jobs could not be written down: %s", error.sentence)
                    continue
                for _, then in todo:
                    if then is not None:
                        then()
        finally:
            self._saving = None

    def _in_one(self, todo: list[Callable[[], object]]) -> None:
        with self._store.database.transaction(durable=False):
            for do in todo:
                do()

    # --- tidying ---

    def _sweep_later(self) -> None:
        def sweep() -> None:
            self._save(self._sweep)
            self._sweep_later()

        self._sweeping = asyncio.get_running_loop().call_later(SWEEP_SECONDS, sweep)

    def _sweep(self) -> None:
        """Drop what is old, and when it gets crowded what was read. Blocking."""
        rows = self._store.jobs.finished()
        before = time.time() - messages.KEEP_SECONDS
        for index, row in enumerate(rows):
            crowded = self.keeping.elsewhere > CROWDED * self.keeping.spool and row.id in self._read_out
            if (row.ended or 0) < before or crowded or len(rows) - index > JOB_ROWS.value:
                self._drop(row)

    def _drop_read(self, person: str, wanted: int) -> int:
        """Drop what was read of a person, the oldest first, until so many bytes are free; how many are. Blocking."""
        freed = 0
        for row in self._store.jobs.finished():
            if freed < wanted and row.person == person and row.id in self._read_out:
                self._drop(row)
                freed += row.size
        return freed

    def _drop(self, row: JobRow) -> None:
        remove_spool(self.spool_folder(row.id))
        self._store.jobs.forget(row.id)
        self._read_out.discard(row.id)
        self.keeping.tell_elsewhere(-row.size)


async def _either(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, but no longer than that."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
