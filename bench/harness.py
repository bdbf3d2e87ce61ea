"""Rounds: contenders take turns (A B C A B C …) at the same work; medians, spread, ratios.

A `Case` is one row of the table: what is measured, in which unit, who takes part. A `Contender` does the work once
and returns a `Sample`. One warm-up round is thrown away. A contender that fails is left out, with its reason.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from bench.processes import Failed, Processes

if TYPE_CHECKING:
    from bench.peers.base import Peer

MIB = 1 << 20
HIGHER, LOWER = "higher", "lower"
P = TypeVar("P", bound="Peer")


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured value, and what else was seen (processor seconds, memory, …)."""

    value: float
    extras: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Contender:
    """Who takes part: `work` does it once. `verifies` says what is checked on the way, and by whom."""

    name: str
    work: Callable[[], Sample]
    verifies: str = ""
    before: Callable[[], None] | None = None  # not measured: remove the last target


@dataclass(slots=True)
class Case:
    """One row. `better` is HIGHER or LOWER; `digits` is how many are shown."""

    work: str
    name: str
    unit: str
    better: str
    contenders: list[Contender]
    note: str = ""
    rounds: int | None = None  # None: the run's own number
    key: str = ""  # by which targets find it; default: its name


@dataclass(slots=True)
class Scale:
    """How much: the full size or a quick look."""

    quick: bool
    rounds: int

    @property
    def bulk(self) -> int:
        """Bytes of the large file."""
        return 64 * MIB if self.quick else 1024 * MIB

    @property
    def files(self) -> int:
        """How many small files."""
        return 500 if self.quick else 10_000

    def count(self, full: int) -> int:
        """Messages, calls, …: a tenth in a quick look."""
        return max(full // 10, 1) if self.quick else full


class Bench:
    """One run: its temporary folder, its processes, its peers, its results."""

    def __init__(self, scale: Scale, say: Callable[[str], None] = print) -> None:
        self.scale = scale
        self.say = say
        self.processes = Processes()
        base = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.folder = tempfile.mkdtemp(prefix="towline-bench-", dir=base)
        self.disk = ""
        self.results: list[dict[str, Any]] = []
        self.left_out: dict[str, str] = {}
        self.details: dict[str, Any] = {}  # what a work wants to keep beside the rows
        self._peers: dict[type[Peer], Peer | None] = {}

    def path(self, *parts: str) -> str:
        return os.path.join(self.folder, *parts)

    def fresh(self, *parts: str) -> str:
        """An empty folder of that name."""
        path = self.path(*parts)
        remove(path)
        os.makedirs(path)
        return path

    def on_disk(self, name: str) -> str:
        """A folder on a real disk, as far as the system's folder for temporary files is on one."""
        if not self.disk:
            self.disk = tempfile.mkdtemp(prefix="towline-bench-")
        path = os.path.join(self.disk, name)
        os.makedirs(path, exist_ok=True)
        return path

    def peer(self, kind: type[P]) -> P | None:
        """The peer, started once; None when it is not to be had, which the report names."""
        if kind not in self._peers:
            self._peers[kind] = None
            peer = kind(self)
            reason = peer.missing()
            if not reason:
                try:
                    peer.start()
                    self._peers[kind] = peer
                except (Failed, OSError, ValueError, KeyError) as error:
                    reason = str(error) or type(error).__name__
            if reason:
                self.leave_out(kind.name, reason)
        found = self._peers[kind]
        return found if isinstance(found, kind) else None

    @property
    def peers(self) -> list[Peer]:
        return [peer for peer in self._peers.values() if peer is not None]

    def leave_out(self, name: str, reason: str) -> None:
        if name not in self.left_out:
            self.left_out[name] = reason
            self.say(f"  left out: {name}: {reason}")

    def measure(self, case: Case) -> None:
        """Run the rounds of one case and keep its row."""
        values: dict[str, list[Sample]] = {contender.name: [] for contender in case.contenders}
        rounds = case.rounds or self.scale.rounds
        standing = list(case.contenders)
        begun = time.monotonic()
        for number in range(rounds + 1):  # the first warms up
            for contender in list(standing):
                try:
                    if contender.before is not None:
                        contender.before()
                    sample = contender.work()
                except NotThereYet as error:
                    standing.remove(contender)
                    self.leave_out(f"{case.work}: {case.name}: {contender.name}", f"not there yet ({error})")
                except (Failed, OSError, ValueError, KeyError) as error:
                    standing.remove(contender)
                    self.leave_out(f"{case.work}: {case.name}: {contender.name}", f"{error or type(error).__name__}")
                else:
                    if number:
                        values[contender.name].append(sample)
        rows = [_row(contender, values[contender.name]) for contender in case.contenders if values[contender.name]]
        for contender in case.contenders:  # the last target need not stay
            if contender.before is not None:
                contender.before()
        if rows:
            key = f"{case.work}/{case.key or case.name}"
            row = {"work": case.work, "case": case.name, "key": key, "unit": case.unit, "better": case.better,
                   "rounds": rounds, "note": case.note, "contenders": with_ratios(rows, case.better)}  # fmt: skip
            self.results.append(row)
            self.say(_told(row, time.monotonic() - begun))

    def close(self) -> list[str]:
        """End the peers and every process, remove the folder; the names of processes that would not go."""
        for peer in self.peers:
            try:
                peer.stop()
            except (OSError, Failed):
                pass  # what is left of it is ended below
        left = self.processes.end_all()
        for folder in (self.folder, self.disk):
            remove(folder)
        return left


class NotThereYet(Exception):
    """A verb that the work needs does not exist in this Towline."""


def _row(contender: Contender, samples: list[Sample]) -> dict[str, Any]:
    numbers = [sample.value for sample in samples]
    extras = {
        name: statistics.median(sample.extras[name] for sample in samples if name in sample.extras)
        for name in samples[0].extras
    }
    return {"name": contender.name, "median": statistics.median(numbers), "least": min(numbers),
            "most": max(numbers), "values": numbers, "extras": extras, "verifies": contender.verifies}  # fmt: skip


def with_ratios(rows: list[dict[str, Any]], better: str) -> list[dict[str, Any]]:
    """Add `ratio` to each row: how many times better Towline is (above 1: Towline is ahead)."""
    own = next((row["median"] for row in rows if row["name"] == "towline"), None)
    for row in rows:
        if own and row["median"]:
            row["ratio"] = own / row["median"] if better == HIGHER else row["median"] / own
    return rows


def _told(row: dict[str, Any], seconds: float) -> str:
    lines = [f"  {row['work']}: {row['case']} ({row['unit']}; {seconds:.0f} s)"]
    for each in row["contenders"]:
        ratio = f"towline is {each['ratio']:.2f} ×" if "ratio" in each and each["name"] != "towline" else ""
        spread = f"{short(each['least'])} to {short(each['most'])}"
        extras = ", ".join(f"{name} {short(value)}" for name, value in each["extras"].items())
        lines.append(f"    {each['name']:<34} {short(each['median']):>9}  ({spread})  {ratio}  {extras}".rstrip())
    return "\n".join(lines)


def short(value: float) -> str:
    """Three digits that matter."""
    if value and abs(value) < 10:
        return f"{value:.3g}"
    if abs(value) < 100:
        return f"{value:.1f}"
    return f"{value:,.0f}"


def remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        os.unlink(path)


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
