"""Watches one transfer through its events: the bar, the cuts, and where it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from demo.screen import Screen
from demo.stage import Actor, DemoFailed, Event
from towline.base.quantity import format_size

_SIGNS_OF_LIFE = {"resumed", "file", "done"}  # not `progress`: it goes on ticking while the line is down


@dataclass(slots=True)
class Journey:
    """What was seen of a transfer. Sizes in bytes, of the whole."""

    files: int = 0
    bytes: int = 0
    at: int = 0  # where it stood when it last said so
    began_at: int = 0  # where it first went on: for a second try, what the first one left
    cuts: int = 0
    killed_at: int = 0  # where it stood when its receiver was killed
    lost: int = 0  # what the killed receiver could not keep
    digests: dict[str, str] = field(default_factory=dict)
    done: Event | None = None


def follow(actor: Actor, screen: Screen, text: str, *, until: Callable[[Journey], bool] | None = None) -> Journey:
    """Watch to the end, or until `until` says that this is enough. Raises DemoFailed when the transfer fails."""
    seen = Journey()
    gone = 0.0
    with screen.bar(text) as bar:
        for event in actor.events():
            name = event["event"]
            if name == "reconnecting" and event["attempt"] == 1:
                gone = gone or time.monotonic()
                seen.cuts += 1
                bar.update(seen.at, seen.bytes, f"{text}, cut {seen.cuts}")
            elif gone and name in _SIGNS_OF_LIFE:
                where = f", goes on at {format_size(event['position'])}" if name == "resumed" else ""
                screen.say(f"cut {seen.cuts}: back after {time.monotonic() - gone:.2f} s{where}", style="yellow")
                gone = 0.0
                bar.update(seen.at, seen.bytes, text)
            _note(seen, event)
            bar.update(seen.at, seen.bytes)
            if until is not None and until(seen):
                return seen
    if actor.process.wait() != 0 or seen.done is None:
        raise DemoFailed(f"{actor.name} ended with status {actor.process.returncode}: {actor.trouble()}")
    return seen


def _note(seen: Journey, event: Event) -> None:
    match event["event"]:
        case "started":
            seen.files, seen.bytes = event["files"], event["bytes"]
        case "progress":
            seen.at, seen.bytes = event["bytes"], event["total_bytes"]
        case "resumed":
            seen.began_at = seen.began_at or event["position"]
            if seen.killed_at:
                seen.lost, seen.killed_at = max(seen.killed_at - event["position"], 0), 0
            seen.at = event["position"]
        case "file":
            seen.digests[event["path"]] = event["digest"]
        case "done":
            seen.done, seen.at = event, seen.bytes
