"""The job verbs of a line: run, start, jobs, job. A job goes on without us; its output is read from a position."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any, TypeAlias

from towline.base.errors import JobLost, JobUnreachable, PeerError, TowlineError, Unreachable
from towline.base.limits import MIB
from towline.base.text import printable
from towline.client.bypass import Bypasses, Sink, can_bypass
from towline.client.feeding import Feeding
from towline.client.output import Chunk, Ended, Missing, Result, ended_of, item_of
from towline.client.reach import Reach
from towline.client.replay import Replay
from towline.client.rows import ListedJob, parsed
from towline.client.taking import Taking
from towline.protocol.codec import Header
from towline.protocol.table import Class
from towline.runtime.channel import Channel
from towline.services.jobs.messages import KEEP_SECONDS, Spec

KEPT_OUTPUT = 64 * MIB  # of each stream, for `run`; the rest is read and counted, not kept
_FRUITLESS = 3
_MOST_ROWS = 10_000  # ten times what a node lists


class Job:
    """A job of a node. `id` names it there; `ended` is set once the node has said how it ended."""

    def __init__(self, line: Reach, id: str, *, scheduling: Class = Class.BULK) -> None:  # noqa: A002
        self.line, self.id = line, id
        self.ended: Ended | None = None
        self.state = ""
        self._class = scheduling
        self._first: Channel | None = None  # the stream that `start` opened, for the first reader
        self._fed: Feeding | None = None  # once there is input
        self._input_over = False
        self._bypasses = Bypasses(line)

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.ended or self.state}>"

    async def output(
        self,
        from_: int = 1,
        *,
        stream: str = "both",
        follow: bool = True,
        acknowledge: bool = True,
        screen: bool = False,
        note: bool = False,
        sink: Sink | None = None,
    ) -> AsyncIterator[Chunk | Missing]:
        """What it prints from the position `from_` on, through all cuts, each byte once; ends when the job has ended.

        `acknowledge`: what was taken from here need not be kept when room is short. `sink`: where there is much, it
        takes output on another thread (1 or 2, the bytes; it may block), and the chunks here say only how far it got.
        Raises JobLost, UnknownJob, JobUnreachable (given up; the job goes on), what `sink` raises.
        """
        first, self._first = self._first, None
        if first is None:
            await self.line.places.following.take()
        elif from_ != 1 or stream != "both":
            _detach(first)
            first = None
        request: Header = {"stream": stream, "follow": follow, "acks": acknowledge}
        following = self._follow(first, request, from_, {"screen": screen, "note": note}, sink)
        try:
            async for item in following:
                yield item
        finally:
            await following.aclose()
            self.line.places.following.leave()

    async def _follow(
        self, channel: Channel | None, request: Header, from_: int, once: Header, sink: Sink | None
    ) -> AsyncGenerator[Chunk | Missing, None]:
        """`channel`: the stream that is open already. `once`: what is asked for with the first attachment."""
        seq, fruitless = from_, 0
        taking: Taking | None = None
        while True:
            connection = await self._connection()
            before = seq
            try:
                if channel is None or channel.closed:
                    request["lanes"] = self._bypasses.wanted(connection, self._class)
                    header = self._request("attach", **{"from": seq}, **request, **(once if seq == from_ else {}))
                    channel = connection.open(header, self._class)
                    self.state = str((await channel.accepted()).get("state", ""))
                taking, replay = Taking(channel), Replay()
                async with contextlib.aclosing(self._bypasses.through(channel, sink)) as messages:
                    async for message in messages:
                        if (item := item_of(message, replay)) is not None:
                            yield item
                            seq = item.seq + 1 if isinstance(item, Chunk) else item.to
                            if request["acks"] is True:
                                taking.took(seq - 1, len(message.body))
                self._over(channel.trailer or {})
                return
            except TowlineError as error:
                fruitless = 0 if seq > before else fruitless + 1
                if not error.retryable or (connection.is_open and fruitless >= _FRUITLESS):
                    raise
            finally:
                if taking is not None:
                    taking.close()
                if channel is not None:
                    _detach(channel)
                channel = taking = None

    def _over(self, trailer: Header) -> None:
        match trailer:
            case {"exit": dict(said)}:
                self.ended = ended_of(said)
                self.state = "exited"
                self._end_input()
            case {"lost": str(reason)}:
                self.state = "lost"
                self._end_input()
                raise JobLost(f"The job {self.id} is lost: {printable(reason)} Its exit status is not known.")
            case {"state": str(state)}:
                self.state = state
            case _:
                raise PeerError("The node ended the output without saying how the job ended.")

    async def wait(self) -> Ended:
        """Wait until it has ended, without reading its output. Raises as `output`."""
        if self.ended is None:
            async for _ in self.output(-1, acknowledge=False):
                pass
        assert self.ended is not None
        return self.ended

    # --- input and control ---

    async def write(self, data: bytes) -> None:
        """Input. Returns when it is on its way; waits while too much is."""
        await self._feeding.write(data)

    async def write_eof(self) -> None:
        """End of input; returns when the command has been given everything, or has ended."""
        await self._feeding.write_eof()

    def resize(self, rows: int, columns: int) -> None:
        """The terminal has another size."""
        self._feeding.resize(rows, columns)

    async def signal(self, name: str = "TERM", *, kill_after: float | None = None) -> bool:
        """Signal its process group; False when it has ended. After TERM comes KILL in `kill_after` seconds."""
        request = self._request("signal", signal=name)
        if kill_after is not None:
            request["kill_after"] = kill_after
        return (await self._ask(request)).get("done") is True

    async def forget(self) -> None:
        """Drop a finished job and its output. Raises Conflict while it runs."""
        await self._ask(self._request("forget"))

    async def close(self) -> None:
        """Let go of it; it goes on."""
        self._end_input()
        if self._fed is not None:
            await self._fed.close()
        if self._first is not None:
            channel, self._first = self._first, None
            _detach(channel)
            self.line.places.following.leave()

    # --- inside ---

    @property
    def _feeding(self) -> Feeding:
        if self._fed is None:
            self._fed = Feeding(self.line, self.id, self._class)
            if self._input_over:
                self._fed.over()
        return self._fed

    def _end_input(self) -> None:
        """The job has ended, or is let go of: input is of no use any more."""
        self._input_over = True
        if self._fed is not None:
            self._fed.over()

    def _request(self, op: str, **fields: object) -> Header:
        return {"service": "jobs", "op": op, "job": self.id, **fields}

    async def _connection(self) -> Any:
        try:
            return await self.line.connection()
        except Unreachable as error:
            raise JobUnreachable(
                f"{error.sentence} The job {self.id} goes on: tow attach goes on with it."
            ) from error

    async def _ask(self, request: Header) -> Header:
        """A request that does no harm twice."""
        async with self.line.places.asking:
            return await self._ask_now(request)

    async def _ask_now(self, request: Header) -> Header:
        while True:
            connection = await self._connection()
            channel = connection.open(request, Class.INTERACTIVE)
            try:
                answer: Header = await channel.accepted()
                return answer
            except TowlineError as error:
                if not error.retryable or connection.is_open:
                    raise
            finally:
                channel.end()


class JobVerbs(Reach):
    """What a line can do with commands."""

    async def start(
        self,
        argv: Sequence[str],
        *,
        shell: bool = False,
        login: bool = False,
        cwd: str = "",
        env: Mapping[str, str] | None = None,
        stdin: bool = False,
        size: tuple[int, int] | None = None,
        term: str = "",
        timeout: float = 0.0,
        on_disconnect: str = "keep",
        after: float | None = None,
        overflow: str = "block",
        spool: int = 0,
        detach: bool = False,
    ) -> Job:
        """Start a command (with `shell`: one line for /bin/sh) as a job of the node, once, whatever is cut.

        `size` (rows, columns): on a terminal; `login`: the login shell. Times in seconds, `spool` in bytes. Raises
        CommandNotFound, NotExecutable, NotFound (cwd), NoGrant, LimitExceeded, Unreachable.
        """
        if after is None:
            after = KEEP_SECONDS if on_disconnect == "keep" else 0.0
        spec = Spec(
            request=os.urandom(12).hex(), argv=list(argv), shell=shell, login=login, cwd=cwd, env=dict(env or {}),
            stdin=stdin or size is not None, size=size, term=term, timeout=timeout, on_disconnect=on_disconnect,
            after=after, overflow=overflow, spool=spool,
        )  # fmt: skip
        body = spec.encode()
        scheduling = Class.BULK if size is None else Class.INTERACTIVE
        if not detach and self.places.following.take_nowait():
            try:
                return await self._begin(body, scheduling, follow=True)
            except BaseException:
                self.places.following.leave()
                raise
        async with self.places.asking:  # whoever wants its output waits for a place then
            return await self._begin(body, scheduling, follow=False)

    async def _begin(self, body: bytes, scheduling: Class, *, follow: bool) -> Job:
        while True:
            connection = await self.connection()
            lanes = can_bypass(connection, scheduling)
            request: Header = {"service": "jobs", "op": "start", "follow": follow, "lanes": lanes}
            channel = connection.open(request, scheduling)
            try:
                channel.send_nowait(body)
                answer = await channel.accepted()
            except TowlineError as error:
                channel.reset()
                if not error.retryable or connection.is_open:
                    raise
                continue
            except BaseException:
                channel.reset()
                raise
            return self._started(channel, answer, scheduling, follow=follow)

    def _started(self, channel: Channel, answer: Header, scheduling: Class, *, follow: bool) -> Job:
        job = Job(self, printable(str(answer.get("job", "")), limit=64), scheduling=scheduling)
        job.state, job._first = str(answer.get("state", "")), channel if follow else None  # noqa: SLF001  # the same room
        if not follow:
            channel.end()
        return job

    async def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,  # noqa: A002
        keep: int = KEPT_OUTPUT,
        **options: Any,
    ) -> Result:
        """Run a command to its end. Options are those of `start`. `keep` (bytes) of each stream are in the result.

        Raises what `start` and `Job.output` raise; a lost connection is never an exit status. When input cannot be
        brought to its end, the command is ended: it would wait for the rest, or take a part for the whole.
        """
        job = await self.start(argv, stdin=input is not None, **options)
        collecting = _collect(job, keep)
        try:
            kept, truncated = await (collecting if input is None else _feed(job, input, collecting))
        finally:
            await job.close()
        ended = job.ended
        assert ended is not None
        return Result(
            b"".join(kept["stdout"]), b"".join(kept["stderr"]), ended.status, ended.signal, job.id, truncated, ended
        )

    def job(self, id: str, *, terminal: bool = False) -> Job:  # noqa: A002
        """A job that was started before, by its id. `terminal`: its keystrokes and screen go before other data."""
        return Job(self, id, scheduling=Class.INTERACTIVE if terminal else Class.BULK)

    async def jobs(self, *, everybody: bool = False) -> list[dict[str, Any]]:
        """The newest 1,000 jobs of this person (of everybody, for an admin), oldest first."""
        while True:
            connection = await self.connection()
            channel = connection.open({"service": "jobs", "op": "list", "all": everybody})
            try:
                await channel.accepted()
                rows: list[dict[str, Any]] = []
                async for body in channel:
                    rows += parsed(body, list[ListedJob])
                    if len(rows) > _MOST_ROWS:
                        raise PeerError("The node's list of jobs has no end.")
                return rows
            except TowlineError as error:
                if not error.retryable or connection.is_open:
                    raise
            finally:
                channel.end()


_Kept: TypeAlias = tuple[dict[str, list[bytes]], bool]


async def _collect(job: Job, keep: int) -> _Kept:
    """The first `keep` bytes of each stream, and whether that is not all."""
    kept: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
    room = {"stdout": keep, "stderr": keep}
    truncated = False
    async for item in job.output():
        if isinstance(item, Missing):
            truncated = True
            continue
        data = item.data[: room[item.stream]]
        room[item.stream] -= len(data)
        if len(data) < len(item.data):
            truncated = True
        if data:
            kept[item.stream].append(data)
    return kept, truncated


async def _feed(job: Job, data: bytes, collecting: Coroutine[Any, Any, _Kept]) -> _Kept:
    """Collect while `data` is given to it to read."""

    async def feed() -> None:
        await job.write(data)
        await job.write_eof()

    collected, fed = asyncio.ensure_future(collecting), asyncio.ensure_future(feed())
    try:
        await asyncio.wait({collected, fed}, return_when=asyncio.FIRST_COMPLETED)
        error = fed.exception() if fed.done() else None
        if error is not None and not isinstance(error, JobUnreachable):  # that the output tells as well
            with contextlib.suppress(TowlineError):
                await job.signal("TERM")
            raise error
        return await collected
    finally:
        for task in (collected, fed):
            task.cancel()
        await asyncio.wait({collected, fed})


def _detach(channel: Channel) -> None:
    """Say goodbye, so that it is not taken for a lost connection."""
    if not channel.ended and channel.stream.can_send:
        try:
            channel.send_nowait(b"", {"detach": True})
        except TowlineError:
            pass  # lost meanwhile
    channel.end()
    if not channel.ended:
        task = asyncio.ensure_future(_drain(channel))
        _DRAINING.add(task)
        task.add_done_callback(_DRAINING.discard)


_DRAINING: set[asyncio.Task[None]] = set()  # a task that nobody holds may be collected


async def _drain(channel: Channel) -> None:
    """What the node sent before it heard our goodbye."""
    try:
        async for _ in channel.messages():
            pass
    except TowlineError:
        pass  # then there is nothing to say goodbye to
