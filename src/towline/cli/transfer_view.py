"""How a transfer is shown: bars on a terminal, a line per file in a pipe, events with --json."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from towline.base.quantity import format_count, format_duration, format_size
from towline.base.text import printable
from towline.cli.output import Output
from towline.cli.running import gone, worth_a_word
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
from towline.client.line import LineEvent, Reconnecting

if TYPE_CHECKING:
    from rich.progress import TaskID

_NAME_WIDTH = 32  # what a bar shows of a name
_NOTES = {"same": "same already", "kept": "left alone, the target is newer"}


class View(Protocol):
    """Hears of a transfer and of its line; a context manager around the whole."""

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def transfer(self, event: TransferEvent) -> None: ...

    def line(self, event: LineEvent) -> None: ...


def view_for(out: Output, *, quiet: bool) -> View:
    """The right one for where the output goes."""
    if out.json:
        return EventView(out)
    if not quiet and sys.stderr.isatty():
        return BarView(out)
    return LineView(out, quiet=quiet)


class EventView:
    """One JSON object a line."""

    def __init__(self, out: Output) -> None:
        self._out = out

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out.release()

    def line(self, event: LineEvent) -> None:
        if isinstance(event, Reconnecting):
            reason = printable(event.error.sentence)
            self._out.event("reconnecting", attempt=event.attempt, wait=round(event.wait, 3), reason=reason)

    def transfer(self, event: TransferEvent) -> None:
        event_ = self._out.event
        match event:
            case Started(files, size):
                event_("started", files=files, bytes=max(size, 0))
            case Progress():
                event_(
                    "progress",
                    files=event.files,
                    total_files=event.total_files,
                    bytes=event.bytes,
                    total_bytes=max(event.total_bytes, 0),
                    path=event.path,
                    path_bytes=event.path_bytes,
                    path_total=event.path_total,
                )
            case Resumed(position, path, covered):
                event_("resumed", position=position, path=path, covered=covered)
            case FileDone(path, size, digest, note):
                self._out.hold()  # small files end by the hundred
                event_("file", path=path, bytes=size, digest=digest, note=note)
            case FileFailed(path, error):
                message = printable(error.sentence)
                event_(
                    "error", code=error.code, name=error.name, message=message, retryable=error.retryable, path=path
                )
            case Warned(path, reason):
                event_("warning", path=path, reason=reason)
            case Done():
                event_(
                    "done",
                    files=event.files,
                    bytes=event.bytes,
                    sent_bytes=event.sent_bytes,
                    resent_bytes=event.resent_bytes,
                    seconds=round(event.seconds, 3),
                    cuts=event.cuts,
                    failed=len(event.failures),
                )


class LineView:
    """One plain line per file, and a last one for the whole."""

    def __init__(self, out: Output, *, quiet: bool) -> None:
        self._quiet = quiet
        self._hold, self._release = out.hold, out.release
        self._say = out.line
        self._note = out.note

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def line(self, event: LineEvent) -> None:
        if isinstance(event, Reconnecting) and worth_a_word(event):
            self._note(gone(event))

    def transfer(self, event: TransferEvent) -> None:
        match event:
            case FileDone(path, size, _, note) if not self._quiet:
                self._hold()
                self._say(
                    f"{printable(path)}  {format_size(size)}" + (f"  ({_NOTES[note]})" if note in _NOTES else "")
                )
            case _:
                tell_trouble(event, self._note)
                if isinstance(event, Done) and not self._quiet:
                    self._say(summary(event))


class BarView:
    """Bars for the whole and for the file that is under way, with rate and remaining time."""

    def __init__(self, out: Output) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as Speed

        self._console = Console(stderr=True, highlight=False)
        self._say = out.line
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            Speed(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._total: TaskID | None = None
        self._file: TaskID | None = None
        self._path = ""  # of that file
        self._shown = 0.0
        self._done: Done | None = None

    def __enter__(self) -> View:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        if self._done is not None:
            self._say(summary(self._done))

    def line(self, event: LineEvent) -> None:
        if isinstance(event, Reconnecting):
            self._describe(f"reconnecting ({event.attempt})")

    def transfer(self, event: TransferEvent) -> None:
        match event:
            case Started(files, size):
                self._total = self._bars.add_task(f"{format_count(files, 'file')}", total=size if size >= 0 else None)
            case Progress() if self._total is not None:
                self._describe(f"{event.files} of {format_count(event.total_files, 'file')}")
                self._bars.update(self._total, completed=event.bytes)
                if event.total_files > 1:
                    self._show_file(event)
            case FileDone(path, size, _, _):
                now = time.monotonic()
                if size >= 1 << 20 or now - self._shown > 0.1:  # a person cannot read thousands of lines a second
                    self._shown = now
                    self._bars.console.print(f"{printable(path)}  {format_size(size)}", markup=False, style="dim")
            case Done():
                self._done = event
            case _:
                tell_trouble(event, lambda text: self._bars.console.print(text, markup=False))

    def _show_file(self, event: Progress) -> None:
        """A bar of its own for a large file among others."""
        if event.path != self._path and self._file is not None:
            self._bars.remove_task(self._file)
            self._file = None
        self._path = event.path
        if not event.path:
            return
        if self._file is None:
            name = printable(event.path, limit=200).rpartition("/")[2][-_NAME_WIDTH:]
            self._file = self._bars.add_task(name, total=event.path_total or None)
        self._bars.update(self._file, completed=event.path_bytes)

    def _describe(self, text: str) -> None:
        if self._total is not None:
            self._bars.update(self._total, description=text)


def tell_trouble(event: TransferEvent, say: object) -> None:
    """What went wrong or is left out, in a line."""
    assert callable(say)
    match event:
        case Resumed(position, "", _):
            say(f"Connected again; goes on at {format_size(position)}.")
        case Resumed(_, path, covered):
            say(f"{printable(path)}: goes on at {format_size(covered)}")
        case FileFailed(path, error):
            say(f"{printable(path)}: {printable(error.sentence)}")
        case Warned(path, reason):
            say(f"{printable(path)}: {printable(reason)}" if path else printable(reason))
        case _:
            pass


def summary(done: Done) -> str:
    """The last line: what arrived, how fast, and what the cuts cost."""
    rate = done.sent_bytes / done.seconds if done.seconds > 0 else 0
    text = f"{format_count(done.files, 'file')}, {format_size(done.bytes)} in {format_duration(done.seconds)}"
    if done.sent_bytes:
        text += f", {format_size(rate)}/s"
    if done.cuts:
        times = "once" if done.cuts == 1 else f"{done.cuts} times"
        text += f"; cut {times}, {format_size(done.resent_bytes)} sent again"
    if done.failures:
        text += f"; {len(done.failures)} failed"
    return text
