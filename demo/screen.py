"""All output of the demo: live on a terminal, plain lines in a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from towline.base.quantity import format_duration, format_size


@dataclass(frozen=True, slots=True)
class Check:
    """A promise and whether it was kept."""

    text: str
    kept: bool = True


@dataclass(frozen=True, slots=True)
class Trip:
    """One way of the luggage: `bytes` of files; `resent` arrived in vain, `lost` is what a killed receiver forgot."""

    name: str
    files: int
    bytes: int
    seconds: float
    cuts: int
    resent: int
    lost: int


class Screen:
    """Where the demo speaks."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=False)
        self.live = self.console.is_terminal
        self.trips: list[Trip] = []

    def introduce(self, text: str) -> None:
        if self.live:
            self.console.print(Panel(escape(text), border_style="cyan", expand=False))
        else:
            self.console.print(escape(text))

    def title(self, number: int, text: str) -> None:
        self.console.print(f"\n[bold]{number}. {escape(text)}[/bold]")

    def command(self, text: str) -> None:
        """A command as a person would type it."""
        self.console.print(f"   [bold cyan]$[/] [cyan]{escape(text)}[/]", soft_wrap=True)

    def say(self, text: str, *, style: str = "") -> None:
        self.console.print(f"   {escape(text)}", style=style, soft_wrap=True)

    def check(self, check: Check) -> None:
        mark = "[bold green]✓[/]" if check.kept else "[bold red]✗[/]"
        self.console.print(f"   {mark} {escape(check.text)}", soft_wrap=True)

    @contextmanager
    def bar(self, text: str) -> Iterator[Bar]:
        """A bar on a terminal, nothing in a pipe."""
        if not self.live:
            yield Bar(None)
            return
        columns = (
            TextColumn("   {task.description}"), BarColumn(bar_width=30), DownloadColumn(binary_units=True),
            TransferSpeedColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=self.console, transient=True) as progress:
            yield Bar(progress, text)

    def report(self, checks: list[Check], seconds: float, wire: str) -> None:
        """The last word."""
        kept = all(check.kept for check in checks)
        self.console.print()
        if self.trips:
            self.console.print(_trips(self.trips))
        if wire:
            self.say(wire, style="dim")
        self.console.print()
        for check in checks:
            self.check(check)
        word = "Every promise was kept." if kept else "A promise was broken."
        style = "bold green" if kept else "bold red"
        self.console.print(f"\n   [{style}]{word}[/] {format_duration(seconds)} in all; nothing is left behind.")


class Bar:
    """A bar that may be none."""

    def __init__(self, progress: Progress | None, text: str = "") -> None:
        self._progress = progress
        self._task = progress.add_task(escape(text), total=None) if progress is not None else None

    def update(self, done: int, total: int, text: str = "") -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total)
            if text:
                self._progress.update(self._task, description=escape(text))


def _trips(trips: list[Trip]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 2), header_style="dim", title_justify="left")
    table.add_column("")
    for name in ("files", "size", "time", "cuts", "sent again", "lost by kill"):
        table.add_column(name, justify="right", no_wrap=True)
    for trip in trips:
        share = f" ({trip.resent / trip.bytes:.1%})" if trip.bytes else ""
        table.add_row(
            f"[bold]{escape(trip.name)}[/]", str(trip.files), format_size(trip.bytes), format_duration(trip.seconds),
            str(trip.cuts), f"{format_size(trip.resent)}{share}", format_size(trip.lost),
        )  # fmt: skip
    return table
