"""What the verbs about jobs share: the command behind `--`, output in raw bytes, standard input, Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import base64
import codecs
import errno
import os
import select
import signal
import stat
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from towline.base.errors import DiskError, Exit, Interrupted, JobUnreachable, TowlineError, UnknownJob, UsageError
from towline.base.text import printable
from towline.cli.output import Output, shown
from towline.cli.signals import leave_to_system, on_signal
from towline.runtime.threads import in_thread

if TYPE_CHECKING:
    from towline.client.jobs import Job
    from towline.client.output import Chunk, Ended, Missing

_SMALL = 4096  # what a terminal takes at once when poll(2) says that it takes something
# RWF_NOWAIT (pwritev(2)) writes what can be written without waiting: to pipes and /dev/null, not to terminals and
# most files. An old kernel, and another system than Linux, does not know it.
_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)
_NO_NOWAIT = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ESPIPE})
_READ = 64 * 1024
_LAST_WORD_SECONDS = 2.0  # of a client that was told to end itself
_MUCH = 32 * 1024  # a piece this large is not the last one
_ANY = codecs.BOM_UTF32_LE + bytes(range(256))  # behind what utf-16 and utf-32 like to begin with


def take_command(parser: argparse.ArgumentParser, *, help: str) -> None:  # noqa: A002
    """`command`: everything behind `--`, untouched (options of ours stand before it)."""
    parser.add_argument("command", nargs="*", metavar="-- COMMAND", help=help)
    ours = parser.parse_args

    def parse(arguments: list[str]) -> argparse.Namespace:
        if "--" not in arguments:
            return ours(arguments)
        at = arguments.index("--")
        args: argparse.Namespace = ours(arguments[:at])
        if args.command:
            parser.error(f"unexpected: {' '.join(args.command)}")
        args.command = arguments[at + 1 :]
        return args

    parser.parse_args = parse  # type: ignore[method-assign,assignment]


def variables(pairs: list[str]) -> dict[str, str]:
    """`K=V` …; `K` alone takes its value from here. Raises UsageError."""
    env: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name:
            raise UsageError(f"{pair!r} is not NAME=VALUE.")
        if equals or name in os.environ:
            env[name] = value if equals else os.environ[name]
    return env


def codec_of(name: str) -> str:
    """For argparse: the name of a text encoding that Python knows, and that makes text of any bytes."""
    try:
        found = codecs.lookup(name).name
        makes_text = isinstance(_decoder(found).decode(_ANY, True), str)
    except Exception:  # noqa: BLE001  # Python has codecs of many kinds (hex, zlib, idna), and each fails in its own way
        makes_text = False
    if not makes_text:
        raise argparse.ArgumentTypeError(f"{name!r} is no text encoding; utf-8, gbk, cp1252 … are")
    return found


class Printer:
    """Puts a job's output where it belongs: raw bytes to standard output and error, or events."""

    def __init__(self, out: Output, *, encoding: str | None = None, **fields: object) -> None:
        self._out, self._fields = out, fields
        self._encoding = encoding or ""
        self._seq: dict[str, int] = {}  # of the last piece, where there is something to decode
        self._decoders = {name: _decoder(encoding) for name in ("stdout", "stderr")} if encoding else {}
        sys.stdout.flush()

    @property
    def sink(self) -> Callable[[int, memoryview], None] | None:
        """Where raw bytes may go past the event loop; None when they are not what is shown."""
        return None if self._out.json or self._decoders else _pour

    async def show(self, item: Chunk | Missing) -> None:
        """One piece."""
        from towline.client.output import Missing

        if isinstance(item, Missing):
            self._out.event("gap", **{"from": item.from_}, to=item.to, reason=item.reason, **self._fields)
            self._out.note(f"[output {item.from_} to {item.to - 1} is missing: {item.reason}]")
            return
        data = item.data
        if len(data) >= _MUCH:
            from towline.runtime.memory import keep_freed_memory  # loads ctypes (1.5 ms): not for a few lines

            keep_freed_memory()
        text = self._decoded(item) if self._decoders else None
        if self._out.json:
            self._out.event("output", **self._fields, stream=item.stream, seq=item.seq, **_json_data(data, text))
            return
        await write(1 if item.stream == "stdout" else 2, data if text is None else text.encode("utf-8", "replace"))

    def recoded(self, chunk: Chunk) -> Chunk:
        """The same in UTF-8."""
        if not self._decoders:
            return chunk
        return chunk._replace(data=self._decoded(chunk).encode("utf-8", "replace"))

    def _decoded(self, chunk: Chunk) -> str:
        decoder = self._decoders[chunk.stream]
        self._seq[chunk.stream] = chunk.seq
        try:
            return decoder.decode(chunk.data)
        except UnicodeError:  # utf-16 and utf-32, when the output does not begin with a byte order mark
            before = decoder.getstate()[0]
            decoder = self._decoders[chunk.stream] = _decoder(f"{self._encoding}-le")
            return decoder.decode(before + chunk.data)

    async def finish(self) -> None:
        """A character that was never finished is shown as such."""
        for chunk in self.rest():
            text = chunk.data.decode()
            if self._out.json:
                self._out.event("output", **self._fields, stream=chunk.stream, seq=chunk.seq, data=text)
            else:
                await write(1 if chunk.stream == "stdout" else 2, chunk.data)

    def rest(self) -> list[Chunk]:
        """What is left when nothing more comes, in UTF-8: characters that were never finished."""
        from towline.client.output import Chunk

        left = [
            (name, decoder.decode(b"", True).encode("utf-8", "replace")) for name, decoder in self._decoders.items()
        ]
        return [Chunk(name, self._seq.get(name, 0), data) for name, data in left if data]


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder(encoding)(errors="replace")


def _json_data(data: bytes, text: str | None) -> dict[str, object]:
    if text is not None:
        return {"data": text}
    try:
        return {"data": data.decode()}
    except UnicodeDecodeError:
        return {"data_base64": base64.b64encode(data).decode("ascii")}


def _pour(descriptor: int, view: memoryview) -> None:
    with shown():
        _write_all(descriptor, view)


async def write(descriptor: int, data: bytes) -> None:
    """All of it; on a thread when it might block, so that the connection lives on.

    Raises BrokenPipeError (nobody reads any more), DiskError.
    """
    with shown():
        await _write(descriptor, memoryview(data))


async def _write(descriptor: int, view: memoryview) -> None:
    try:
        while view:
            view = view[_write_nowait(descriptor, view) :]
    except BlockingIOError:
        pass  # a pipe that is full
    except OSError as error:
        if error.errno not in _NO_NOWAIT:
            raise
        if len(view) <= _SMALL and _takes_some(descriptor):  # a terminal, a file
            view = view[os.write(descriptor, view) :]
    if view:
        # On a thread of its own: the end of a loop waits for those of the pool, and nobody may ever read this.
        await in_thread(_write_all, descriptor, view)


def _write_nowait(descriptor: int, view: memoryview) -> int:
    if _NOWAIT is None:
        raise OSError(errno.ENOSYS, "no RWF_NOWAIT")
    return os.pwritev(descriptor, [view], -1, _NOWAIT)


def _takes_some(descriptor: int, wait: float | None = 0) -> bool:
    """`wait`: milliseconds; None: as long as it takes."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return poll.poll(wait) == [(descriptor, select.POLLOUT)]


def _write_all(descriptor: int, view: memoryview) -> None:
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # whoever started us, or shares it with us, has made it one that does not block
            _takes_some(descriptor, None)


def has_input() -> bool:
    """Whether standard input is anything but /dev/null or closed."""
    try:
        info = os.fstat(0)
    except OSError:
        return False
    return not (stat.S_ISCHR(info.st_mode) and info.st_rdev == os.makedev(1, 3))


async def feed(job: Job) -> None:
    """Standard input to the job, to its end."""
    while data := await in_thread(_read):
        await job.write(data)
    await job.write_eof()


def _read() -> bytes:
    try:
        return os.read(0, _READ)
    except OSError as error:
        raise DiskError(f"Standard input cannot be read: {error.strerror}.") from error


def on_interrupt(jobs: Callable[[], Iterable[Job]], out: Output, leave: Callable[[], object], left: str) -> None:
    """The first Ctrl-C is the remote commands'; the second leaves them running, and says `left`. A third one ends us,
    whatever hangs."""
    pressed = 0
    tasks: set[asyncio.Task[Any]] = set()

    def press() -> None:
        nonlocal pressed
        pressed += 1
        if pressed > 1:
            leave_to_system(signal.SIGINT)
            out.note(f"\nLeft running; {left}")
            leave()
            return
        out.note("\nInterrupting the remote command; Ctrl-C again leaves it running.")
        for job in jobs():
            out.event("interrupt", job=job.id)
            task = asyncio.ensure_future(job.signal("INT"))
            tasks.add(task)
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    on_signal(signal.SIGINT, press)


async def follow(
    job: Job, out: Output, printer: Printer, *, alias: str, from_: int = 1, stdin: bool = False, note: bool = False
) -> int:
    """Show everything until the job has ended; its exit status."""
    showing = asyncio.ensure_future(_show(job, printer, from_, note=note))
    feeding = asyncio.ensure_future(feed(job)) if stdin else None
    left = False
    unread: list[TowlineError] = []  # why there is no more input

    def leave() -> None:
        nonlocal left
        left = True
        showing.cancel()

    def fed(done: asyncio.Task[None]) -> None:
        error = None if done.cancelled() else done.exception()
        if isinstance(error, TowlineError) and not isinstance(error, JobUnreachable):  # that the output tells
            unread.append(error)
            showing.cancel()

    if feeding is not None:
        feeding.add_done_callback(fed)
    on_interrupt(lambda: [job], out, leave, f"come back with: tow attach {printable(alias)} {job.id}")
    try:
        await showing
    except DiskError as error:
        raise DiskError(f"{error.sentence} {_goes_on(job)}") from error
    except asyncio.CancelledError:
        if unread:
            raise type(unread[0])(f"{unread[0].sentence} {_goes_on(job)}") from unread[0]
        if not left:
            raise Interrupted(f"Interrupted. {_goes_on(job)}") from None
        out.event("detached", job=job.id)
        return Exit.INTERRUPTED
    finally:
        if feeding is not None:
            feeding.cancel()
        await job.close()
    assert job.ended is not None
    tell_end(job.id, job.ended, out)
    return job.ended.exit_status


async def unread(job: Job, alias: str, *, ends: bool) -> None:
    """The reader of our output has left, as `head` does. With `ends` so does the command, as it would in a pipeline:
    TERM, then KILL. Otherwise it goes on, and that is said; with --json, too, as events reach nobody."""
    why = "The reader of its output has left"
    if ends:
        try:
            await job.signal("TERM")
            return
        except UnknownJob:
            return  # it ended, and was forgotten
        except TowlineError as error:
            why += f", and it could not be ended: {printable(error.sentence).removesuffix('.')}"
    node = printable(alias)
    print(
        f"{why}; the job {job.id} goes on. `tow attach {node} {job.id}` goes on with it, "
        f"`tow kill {node} {job.id}` ends it.",
        file=sys.stderr,
        flush=True,
    )


async def end(job: Job) -> bool:
    """Have it end, now or never: False when nobody can be told. (Then the node has lost us, and sees to it.)"""
    try:
        async with asyncio.timeout(_LAST_WORD_SECONDS):
            await job.signal("TERM")
    except (TowlineError, TimeoutError):
        return False
    return True


def _goes_on(job: Job) -> str:
    return f"The job {job.id} goes on: tow attach goes on with it."


async def _show(job: Job, printer: Printer, from_: int, *, note: bool) -> None:
    async for item in job.output(from_, note=note, sink=printer.sink):
        await printer.show(item)
    await printer.finish()


def tell_end(job: str, ended: Ended, out: Output, **fields: object) -> None:
    """The `exit` event."""
    out.event(
        "exit", job=job, status=ended.exit_status, signal=ended.signal, timed_out=ended.timed_out,
        left_open=ended.left_open, **fields,
    )  # fmt: skip
    if ended.timed_out:
        out.note("The command was ended: its time was up.")
