"""`tow run` on several nodes: at once, each on a line of its own; one that fails does not stop the others."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from towline.base.errors import Exit, Interrupted, TowlineError
from towline.base.text import printable
from towline.cli.output import Output

if TYPE_CHECKING:
    from towline.client.jobs import Job
    from towline.client.output import Chunk

_GATHERED = 1024 * 1024  # bytes of each stream and node that are held back to be shown; all are compared
_LINE = 64 * 1024  # a line that is longer is shown in pieces


_Task: TypeAlias = "asyncio.Task[None]"


class _Gathered:
    """One stream of a node: its beginning, and what tells it from another one."""

    __slots__ = ("_digest", "_head", "_size")

    def __init__(self) -> None:
        self._head, self._size, self._digest = bytearray(), 0, hashlib.blake2b()

    def add(self, data: bytes) -> None:
        self._head += data[: max(_GATHERED - len(self._head), 0)]
        self._size += len(data)
        self._digest.update(data)

    @property
    def identity(self) -> bytes:
        return self._digest.digest() if self._size else b""

    @property
    def text(self) -> str:
        """For a person."""
        text = printable(self._head.decode("utf-8", "replace").rstrip("\n"), keep_newlines=True)
        return text if self._size == len(self._head) else f"{text}\n[more was printed; see tow logs]"


@dataclass(slots=True)
class _Host:
    """One node's part. `rest`: the last line of each stream, not finished yet."""

    alias: str
    job: str = ""
    starting: bool = False
    running: Job | None = None
    interrupted: bool = False
    told: bool = False  # to end, because we were
    unread: bool = False  # nobody reads what we print
    leaving: _Task | None = None  # what is done about it
    status: int | None = None
    signal: str | None = None
    error: TowlineError | None = None
    rest: dict[str, bytes] = field(default_factory=lambda: {"stdout": b"", "stderr": b""})
    kept: dict[str, _Gathered] = field(default_factory=lambda: {"stdout": _Gathered(), "stderr": _Gathered()})

    @property
    def exit_status(self) -> int:
        if self.error is not None:
            return self.error.exit_status
        return self.status if self.status is not None else Exit.FAILED


async def run_many(args: argparse.Namespace, out: Output, aliases: list[str]) -> int:
    """Run it everywhere; the worst status."""
    from towline.cli.jobbing import on_interrupt
    from towline.cli.run import ends_with_us

    hosts = [_Host(alias) for alias in dict.fromkeys(aliases)]
    turn = asyncio.Semaphore(args.parallel)
    width = max(len(host.alias) for host in hosts)

    def to_interrupt() -> list[Job]:
        """… and who has not begun, because its turn has not come or its node is away, does not."""
        for task, host in zip(tasks, hosts, strict=True):
            host.interrupted = True
            if host.running is None and not host.starting:
                task.cancel()
        return [host.running for host in hosts if host.running is not None]

    def leave() -> None:
        for task in tasks:
            task.cancel()

    async def one(host: _Host) -> None:
        async with turn:
            try:
                if host.unread:
                    raise Interrupted("Not started.")
                await _on_host(args, out, host, width)
            except TowlineError as error:
                host.error = error
                out.event("error", node=host.alias, code=error.code, name=error.name,
                          message=printable(error.sentence), retryable=error.retryable, job=host.job)  # fmt: skip

    tasks = [asyncio.ensure_future(one(host)) for host in hosts]
    on_interrupt(to_interrupt, out, leave, "come back with: tow attach NODE JOB")
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        if any(isinstance(_raised(task), BrokenPipeError) for task in tasks):
            for task in await _all_unread(args, dict(zip(tasks, hosts, strict=True))):
                task.cancel()
        await asyncio.wait(tasks)
    except asyncio.CancelledError:  # SIGTERM
        if ends_with_us(args):
            await asyncio.gather(*(_end(host) for host in hosts))
        leave()
        await asyncio.wait(tasks)
    for task, host in zip(tasks, hosts, strict=True):
        if task.cancelled():
            host.error = Interrupted(_stopped(host))
        else:
            task.result()
    if args.gather:
        _show_gathered(out, hosts)
    _conclude(args, out, hosts)
    return max((host.exit_status for host in hosts), default=Exit.OK)


async def _end(host: _Host) -> None:
    from towline.cli.jobbing import end

    host.told = host.running is not None and await end(host.running)


def _stopped(host: _Host) -> str:
    if host.told:
        return "Told to end."
    if host.job:
        return "Left running."
    return "Perhaps left running: tow jobs shows it." if host.starting else "Not started."


def _raised(task: _Task) -> BaseException | None:
    return None if not task.done() or task.cancelled() else task.exception()


async def _all_unread(args: argparse.Namespace, hosts: dict[_Task, _Host]) -> list[_Task]:
    """One found that nobody reads any more; that holds for the others. Those which run are done with, and returned;
    one that is just being started finds it out afterwards, so that no command is left behind without a word."""
    running = {task: host for task, host in hosts.items() if host.running is not None}
    for host in hosts.values():
        host.unread = True
    await asyncio.gather(*(_left(args, host) for host in running.values()))
    return [task for task, host in running.items() if host.running is not None]  # others close their lines already


async def _left(args: argparse.Namespace, host: _Host) -> None:
    """Once for each, whoever finds it out first: nobody reads what it prints."""
    from towline.cli.jobbing import unread
    from towline.cli.run import ends_unread

    if host.leaving is None and host.running is not None:
        host.leaving = asyncio.ensure_future(unread(host.running, host.alias, ends=ends_unread(args)))
    if host.leaving is not None:
        await asyncio.shield(host.leaving)


async def _on_host(args: argparse.Namespace, out: Output, host: _Host, width: int) -> None:
    from towline.cli.jobbing import tell_end
    from towline.cli.run import start
    from towline.cli.running import tell_line_events
    from towline.client.connect import connect

    quiet = Output(json=out.json) if out.json else _Silent(json=False)
    async with connect(host.alias, give_up=args.give_up, on_event=tell_line_events(quiet, node=host.alias)) as line:
        host.starting = True
        job: Job = await start(line, args, stdin=False)
        host.job, host.running, host.starting = job.id, job, False
        try:
            if host.unread:
                raise BrokenPipeError
            out.event("started", node=host.alias, job=job.id)
            if args.detach:
                host.status = 0
                return
            if host.interrupted:  # while it was started
                await job.signal("INT")
            await _show_output(args, out, host, job, width)
        except BrokenPipeError:
            await _left(args, host)
            raise
        finally:
            host.running = None
            await job.close()
        assert job.ended is not None
        host.status, host.signal = job.ended.exit_status, job.ended.signal
        tell_end(job.id, job.ended, out, node=host.alias)


async def _show_output(args: argparse.Namespace, out: Output, host: _Host, job: Job, width: int) -> None:
    from towline.cli.jobbing import Printer
    from towline.client.output import Chunk

    async def show(chunk: Chunk) -> None:
        if args.gather:
            host.kept[chunk.stream].add(chunk.data)
        else:
            await _show_lines(host, chunk, width)

    printer = Printer(out, encoding=args.encoding, node=host.alias, job=job.id)
    async for item in job.output():
        if out.json or not isinstance(item, Chunk):
            await printer.show(item)
        else:
            await show(printer.recoded(item))
    if out.json:
        await printer.finish()
    for chunk in printer.rest():
        await show(chunk)
    for stream in host.rest:
        await _flush(host, stream, width)


class _Silent(Output):
    """One line about each reconnection of each node would be too much."""

    def note(self, text: str) -> None:
        """Not shown."""


async def _show_lines(host: _Host, chunk: Chunk, width: int) -> None:
    """Whole lines with the node's name before each, so that nodes do not mix within a line."""
    from towline.cli.jobbing import write

    text = host.rest[chunk.stream] + chunk.data
    whole, newline, rest = text.rpartition(b"\n")
    if len(rest) > _LINE:
        whole, newline, rest = text, b"\n", b""
    host.rest[chunk.stream] = rest
    if newline:
        prefix = f"{host.alias:<{width}} | ".encode()
        lines = b"".join(prefix + line + b"\n" for line in whole.split(b"\n"))
        await write(1 if chunk.stream == "stdout" else 2, lines)


async def _flush(host: _Host, stream: str, width: int) -> None:
    from towline.client.output import Chunk

    if host.rest[stream]:
        await _show_lines(host, Chunk(stream, 0, b"\n"), width)


def _show_gathered(out: Output, hosts: list[_Host]) -> None:
    """Each output once, under the names of all who printed it."""
    groups: dict[tuple[bytes, ...], list[_Host]] = {}
    for host in hosts:
        groups.setdefault(tuple(stream.identity for stream in host.kept.values()), []).append(host)
    for identity, members in groups.items():
        if any(identity):
            out.line(f"--- {', '.join(printable(host.alias) for host in members)}")
        for stream in members[0].kept.values():
            if stream.identity:
                out.line(stream.text)


def _conclude(args: argparse.Namespace, out: Output, hosts: list[_Host]) -> None:
    from towline.cli.jobs import table

    rows = [("NODE", "JOB", "STATUS", "")]
    for host in hosts:
        out.event(
            "host", node=host.alias, job=host.job, status=host.exit_status if host.error is None else None,
            signal=host.signal, error=host.error.name if host.error else None,
        )  # fmt: skip
        status = "-" if host.error is not None else str(host.status)
        said = printable(host.error.sentence) if host.error is not None else host.signal or ""
        rows.append((host.alias, host.job, status, said))
    if args.detach:
        for host in hosts:
            out.line(f"{host.alias} {host.job}" if host.error is None else f"{host.alias} -")
    else:
        out.line()
        table(out, rows)
