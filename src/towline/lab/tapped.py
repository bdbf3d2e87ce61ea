"""A tap's events, made into a recording that the ladder can draw: one scene a connection."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from towline.base.errors import DiskError, UsageError
from towline.base.text import printable
from towline.lab.recording import Event, Recording, Scene
from towline.lab.texts import Text
from towline.lab.wiretap import TAP_FILE

_BULK = frozenset({"DATA", "CREDIT"})  # runs of these are drawn as one line

_OVER: Text = {"en": "the connection is over", "zh": "连接结束"}


def load(path: str) -> Recording:
    """Read a file that a tap wrote. Raises UsageError when it is none, DiskError when it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(2 * TAP_FILE.value)
    except OSError as error:
        raise DiskError(f"{printable(path)} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{printable(path)} is no recording of a tap.") from None
    try:
        events = _events(text)
        if not events or events[0].get("event") != "tap":
            raise ValueError("no tap")
        return recording(events, name="tap")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise UsageError(f"{printable(path)} is no recording of a tap.") from None


def _events(text: str) -> list[Any]:
    *whole, last = text.split("\n")
    events = [json.loads(line) for line in whole]
    try:
        events += [json.loads(last)] if last else []
    except json.JSONDecodeError:  # its writer is still at it, or was killed in the middle of a line
        pass
    return events


def recording(events: Iterable[Mapping[str, Any]], *, name: str) -> Recording:
    """Scenes from a tap's events. Raises KeyError, TypeError, ValueError or OverflowError for what no tap wrote."""
    connections: dict[int, _Connection] = {}
    payload, left_out = False, 0
    for event in events:
        kind = event["event"]
        if kind == "tap":
            payload = bool(event.get("payload"))
        elif kind == "left-out":
            left_out = int(event["events"])
        elif kind == "connection":
            number = int(event["connection"])
            # Numbered by what is shown: a tap in a process with both ends has seen every connection twice.
            connections[number] = _Connection(len(connections) + 1, str(event["role"]), printable(str(event["peer"])))
        else:
            connections[int(event["connection"])].take(event)
    scenes = [connection.scene() for connection in connections.values()]
    if left_out:
        scenes.append(Scene("left-out", _left_out(left_out), note=_left_out(left_out)))
    return Recording(name, tuple(scenes), redacted=not payload)


def _left_out(count: int) -> Text:
    return {
        "en": f"{count} events are left out: the recording had reached its limit",
        "zh": f"有 {count} 个事件没有记录：已到录制上限",
    }


@dataclass(slots=True)
class _Run:
    """Frames of one kind on one stream in a row: one line."""

    at: float
    sender: str
    kind: str
    stream: int
    start: int
    text: str
    count: int = 0
    size: int = 0
    body: int = 0

    def event(self, peer: str) -> Event:
        stream = f" stream {self.stream}" if self.stream else ""
        times = f" × {self.count}" if self.count > 1 else ""
        words = f"{self.body} bytes" if self.count > 1 and self.body else self.text.removeprefix(self.kind + stream)
        words = printable(words.strip(), limit=150)
        return Event(
            at=self.at,
            who=self.sender,
            call="frame",
            returned=self.size,
            flow=f"{self.sender}→{peer}",
            start=self.start,
            detail=f"{self.kind}{stream}{times}",
            text={"en": words, "zh": words} if words else None,
        )


@dataclass(slots=True)
class _Connection:
    number: int
    role: str
    peer: str
    runs: list[_Run] = field(default_factory=list)
    open_runs: dict[tuple[str, str, int], _Run] = field(default_factory=dict)
    ending: Event | None = None
    sizes: dict[str, int] = field(default_factory=dict)

    def take(self, event: Mapping[str, Any]) -> None:
        kind, at = event["event"], float(event["at"])
        if not math.isfinite(at):
            raise ValueError("no time")
        if kind == "over":
            why = printable(str(event.get("reason") or ""))
            text: Text = {"en": why, "zh": why} if why else _OVER
            self.ending = Event(at, "client", "remark", detail=printable(str(event.get("name") or "")), text=text)
        elif kind == "preface":
            self.runs.append(_Run(at, self._sender(event), "TOWLINE", 0, 0, "", 1, 8))
        elif kind == "frame":
            self._frame(event, at)

    def _frame(self, event: Mapping[str, Any], at: float) -> None:
        sender, name, stream = self._sender(event), printable(str(event["kind"]), limit=20), int(event["stream"])
        key = (sender, name, stream)
        bulk = name in _BULK and "{" not in str(event["text"])  # a header says something of its own
        if not bulk:
            self.open_runs.clear()
        run = self.open_runs.get(key)
        if run is None:
            run = _Run(at, sender, name, stream, int(event["start"]), str(event["text"]))
            self.runs.append(run)
            if bulk:
                self.open_runs[key] = run
        run.count += 1
        run.size += int(event["size"])
        run.body += int(event["body_size"])
        self.sizes[sender] = self.sizes.get(sender, 0) + int(event["body_size"])

    def _sender(self, event: Mapping[str, Any]) -> str:
        return "node" if event["sender"] == "node" else "client"

    def scene(self) -> Scene:
        events = [run.event("node" if run.sender == "client" else "client") for run in self.runs]
        # Prefaces are told when they are complete, frames when they end: put them where their first byte was.
        if self.ending:
            events.append(self.ending)
        events.sort(key=lambda event: event.at)
        where = f" ({self.peer})" if self.peer else ""
        lane = self.role == "lane"
        title: Text = {
            "en": f"{'lane' if lane else 'connection'} {self.number}{where}",
            "zh": f"{'通道' if lane else '连接'} {self.number}{where}",
        }
        facts = {"role": self.role, "body_bytes": self.sizes, "ended": self.ending.detail if self.ending else None}
        return Scene(f"connection-{self.number}", title, ("client",), ("node",), tuple(events), facts)
