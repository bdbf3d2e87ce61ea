"""What the fault proxy does and when: a script, and the schedule that a seed makes of it.

Pure: no socket, no clock. Positions are counted in bytes forwarded over all connections and both directions, times in
seconds since the proxy started. Same script and same seed give the same schedule.
"""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Iterator
from itertools import count, islice

from msgspec import Struct

from towline.base.errors import UsageError
from towline.base.limits import KIB, Limit
from towline.base.quantity import parse_duration, parse_size

SCRIPT_BYTES = Limit("fault_script", 256 * KIB, "bytes", "a script is a list of steps that a person wrote")
ACTIONS = ("cut", "stall", "refuse", "throttle", "delay", "dribble")


class Step(Struct, frozen=True):
    """One thing done once. `seconds`: stall, refuse, delay; `amount`: throttle (bytes/s), dribble (bytes)."""

    do: str
    seconds: float = 0.0
    amount: int = 0


class FaultScript(Struct, frozen=True):
    """Everything that `tow lab faults` can be asked for; the defaults relay faithfully. Bytes and seconds.

    `jitter` is the share by which each recurring distance varies (0.2: between 80 % and 120 %); `at_bytes` and
    `at_seconds` are exact. `dribble_bytes` counts per direction of each connection.
    """

    seed: int = 0
    jitter: float = 0.2
    cut_after: int | None = None
    cut_every: int | None = None
    cut_each_seconds: float | None = None
    stall_every: int | None = None
    stall: float = 1.0
    refuse: float = 0.0
    reset: bool = False
    max_cuts: int | None = None
    dribble: bool = False
    dribble_bytes: int = 0
    throttle: int = 0
    delay: float = 0.0
    at_bytes: tuple[tuple[int, Step], ...] = ()
    at_seconds: tuple[tuple[float, Step], ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.jitter < 1:
            raise UsageError(f"jitter is a share from 0 to below 1, not {self.jitter}.")
        for name in ("cut_after", "cut_every", "cut_each_seconds", "stall_every"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise UsageError(f"{name} must be more than 0, not {value}.")
        for name in ("stall", "refuse", "throttle", "delay", "dribble_bytes", "max_cuts"):
            if (getattr(self, name) or 0) < 0:
                raise UsageError(f"{name} cannot be negative.")

    def by_bytes(self) -> Iterator[tuple[int, Step]]:
        """Endless or not: what happens after how many forwarded bytes, in order."""
        cut, stall = Step("cut"), Step("stall", seconds=self.stall)
        sources: list[Iterator[tuple[int, Step]]] = [iter(sorted(self.at_bytes, key=lambda item: item[0]))]
        if self.cut_after is not None:
            sources.append(iter([(self.cut_after, cut)]))
        if self.cut_every is not None:
            distances = self._distances("cut", self.cut_every)
            sources.append((max(1, round(position)), cut) for position in distances)
        if self.stall_every is not None:
            distances = self._distances("stall", self.stall_every)
            sources.append((max(1, round(position)), stall) for position in distances)
        return heapq.merge(*sources, key=lambda item: item[0])

    def by_seconds(self) -> Iterator[tuple[float, Step]]:
        """The same for what happens after how many seconds."""
        sources: list[Iterator[tuple[float, Step]]] = [iter(sorted(self.at_seconds, key=lambda item: item[0]))]
        if self.cut_each_seconds is not None:
            sources.append((when, Step("cut")) for when in self._distances("seconds", self.cut_each_seconds))
        return heapq.merge(*sources, key=lambda item: item[0])

    def plan(self, limit: int = 16) -> list[dict[str, object]]:
        """The first `limit` steps by bytes, to be shown before anything runs."""
        return [{"at": at, "do": step.do} for at, step in islice(self.by_bytes(), limit)]

    def _distances(self, name: str, every: float) -> Iterator[float]:
        # Each kind draws from a generator of its own, so that adding stalls does not move the cuts.
        draw = random.Random(f"{self.seed}:{name}")  # noqa: S311  # repeatable is the point
        position = 0.0
        for _ in count():
            position += every * (1 + self.jitter * draw.uniform(-1, 1))
            yield position


def parse_steps(text: str) -> tuple[tuple[tuple[int, Step], ...], tuple[tuple[float, Step], ...]]:
    """`(at_bytes, at_seconds)` of a JSON list like `[{"at": "20MB", "do": "stall", "for": "1s"}]`.

    Keys: `at` (size) or `after` (duration), `do` (one of ACTIONS), `for` (duration: stall, refuse, delay),
    `rate` (throttle), `bytes` (dribble). Raises UsageError that names the step.
    """
    SCRIPT_BYTES.check(len(text.encode("utf-8", "surrogatepass")))
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The fault script is not JSON: {error}.")
    if not isinstance(items, list):
        raise UsageError("The fault script must be a JSON list of steps.")
    at_bytes: list[tuple[int, Step]] = []
    at_seconds: list[tuple[float, Step]] = []
    for number, item in enumerate(items, 1):
        try:
            when, step = _parse_step(item)
        except (UsageError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"Step {number} of the fault script is not understood: {error}")
        if isinstance(when, int):
            at_bytes.append((when, step))
        else:
            at_seconds.append((when, step))
    return tuple(at_bytes), tuple(at_seconds)


def _parse_step(item: dict[str, object]) -> tuple[int | float, Step]:
    unknown = set(item) - {"at", "after", "do", "for", "rate", "bytes"}
    if unknown:
        raise UsageError(f"there is no key {min(unknown)!r}.")
    if item["do"] not in ACTIONS:
        raise UsageError(f"'do' is one of {', '.join(ACTIONS)}.")
    if ("at" in item) == ("after" in item):
        raise UsageError("it needs either 'at' (a size) or 'after' (a duration).")
    step = Step(
        str(item["do"]),
        seconds=parse_duration(str(item.get("for", 0))),
        amount=parse_size(str(item.get("rate", item.get("bytes", 0)))),
    )
    return (parse_size(str(item["at"])) if "at" in item else parse_duration(str(item["after"]))), step
