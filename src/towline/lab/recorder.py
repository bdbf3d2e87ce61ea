"""The tap: a plain blocking (or non-blocking) socket whose every call is noted, with what the kernel says after it.

    with Recorder("sticky-send") as recorder:
        recorder.scene("two-sends", {"en": "two sends", "zh": "发送两次"})
        listener = recorder.listen()
        client = recorder.connect(listener.local)
        server = listener.accept()
        client.send(b"hello")
        server.recv(1024)
        recording = recorder.recording()

Both ends are tapped by one recorder, so they share one time line. Errors are noted and raised again.
"""

from __future__ import annotations

import platform
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from towline.base.errors import TimedOut
from towline.base.limits import Limit
from towline.lab.capture import Capture, Seen
from towline.lab.recording import Event, Recording, Scene, Table
from towline.lab.tap import SocketAddress, Tap, family_of
from towline.lab.texts import Text

LAB_EVENTS = Limit("lab_events", 20_000, "events", "a recording is held in memory; the rest is counted")
LAB_PAYLOAD = Limit(
    "lab_payload", 4096, "bytes", "payload that is kept of one call; sizes and positions are kept whole"
)
PATIENCE = 8.0  # seconds; what a deaf peer holds up, TCP repeats after 1 s at first


class Recorder:
    """One time line for all taps. Payload beyond `keep` bytes a call is not kept (0: none at all)."""

    def __init__(self, name: str, *, keep: int = LAB_PAYLOAD.value, segments: bool = True) -> None:
        self.name = name
        self.keep = keep
        self._began = time.monotonic()
        self._scenes: list[_Draft] = []
        self._taps: list[Tap] = []
        self._muted = False
        opened: Capture | str = Capture.open() if segments else "switched off"
        self._capture = opened if isinstance(opened, Capture) else None
        self.no_segments = opened if isinstance(opened, str) else ""

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every tapped socket and the capture."""
        for tap in self._taps:
            tap.sock.close()
        if self._capture:
            self._capture.close()

    # --- scenes and remarks ---

    def scene(
        self,
        name: str,
        title: Text,
        *,
        left: tuple[str, ...] = ("client",),
        right: tuple[str, ...] = ("server",),
        segments: bool = True,
    ) -> None:
        """Begin a scene; the former one ends here. Without `segments` the calls alone are kept."""
        self._settle()
        self._scenes.append(_Draft(name, title, left, right, segments))

    def fact(self, name: str, value: Any) -> None:
        """Keep a measured JSON value in the scene, for the verdict."""
        self._now.facts[name] = value

    def facts(self) -> Mapping[str, Any]:
        return self._now.facts

    def table(self, title: Text, columns: tuple[Text, ...], rows: list[tuple[str | Text, ...]]) -> None:
        """Keep a small table in the scene, for a person."""
        self._now.tables.append(Table(title, columns, tuple(rows)))

    def footnote(self, text: Text) -> None:
        """Said below the scene: what is not shown here, and why."""
        self._now.note = text

    def remark(self, who: str, text: Text) -> None:
        """A sentence at this point of the time line, on the side of `who`."""
        self.note(Event(at=self.clock(), who=who, call="remark", text=text))

    def look(self, tap: Tap, other: Tap | None = None) -> tuple[str, str]:
        """Note the TCP states of both ends of `tap`'s connection (/proc/net/tcp): (here, there)."""
        states = tap.states()
        at = self.clock()
        there = other.who if other else (self._now.right if tap.who in self._now.left else self._now.left)[0]
        ends = [(tap.who, states[0]), (there, states[1])]
        for who, state in ends if tap.who in self._now.left else reversed(ends):
            self.note(Event(at=at, who=who, call="state", detail=state))
        return states

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Look until `condition` holds; TimedOut, naming `what`, when it does not within `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimedOut(f"Waited {seconds:g} s for this, in vain: {what}.")
            time.sleep(0.002)

    # --- sockets ---

    def new(self, who: str, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> Tap:
        """A new tapped socket of that family and kind; waits at most PATIENCE in any one call."""
        sock = socket.socket(family, kind)
        sock.settimeout(PATIENCE)
        return self.tap(sock, who)

    def tap(self, sock: socket.socket, who: str) -> Tap:
        """Tap a socket that is already there."""
        tap = Tap(self, sock, who)
        self._taps.append(tap)
        return tap

    def listen(
        self, address: SocketAddress = ("127.0.0.1", 0), who: str = "server", *, backlog: int = 16, reuse: bool = True
    ) -> Tap:
        """A tapped listener on loopback (a path: on a Unix socket)."""
        tap = self.new(who, family_of(address))
        if reuse and tap.sock.family != socket.AF_UNIX:
            tap.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tap.bind(address)
        tap.listen(backlog)
        return tap

    def connect(self, address: SocketAddress, who: str = "client") -> Tap:
        """A tapped connection to a listener."""
        tap = self.new(who, family_of(address))
        tap.connect(address)
        return tap

    def pair(self, who: str = "client", whom: str = "server", *, nodelay: bool = False) -> tuple[Tap, Tap]:
        """Both ends of a TCP connection on loopback that already stands: how it came to be is not noted."""
        self._muted = True
        listener = self.listen(who=whom)
        near = self.connect(listener.local, who)
        far = listener.accept()
        if nodelay:
            near.option("TCP_NODELAY", 1)
        listener.sock.close()
        self._muted = False
        if self._capture:
            self._capture.drain()
        return near, far

    def recording(self) -> Recording:
        """All that was noted so far."""
        self._settle()
        return Recording(
            name=self.name,
            scenes=tuple(draft.scene() for draft in self._scenes),
            system=f"{platform.system()} {platform.release()}",
            segments_shown=self._capture is not None,
            redacted=self.keep == 0,
        )

    def frames(self) -> list[Seen]:
        """The frames of this scene so far, whole; empty where segments are not shown."""
        self._settle()
        return list(self._now.frames)

    # --- for the taps ---

    def clock(self) -> float:
        """Seconds since the recording began."""
        return time.monotonic() - self._began

    def note(self, event: Event) -> None:
        """Put an event on the time line; above the limit it is only counted."""
        if self._muted:
            return
        if len(self._now.events) < LAB_EVENTS.value:
            self._now.events.append(event)
        else:
            self._now.facts["events_not_kept"] = self._now.facts.get("events_not_kept", 0) + 1

    def watch(self, tap: Tap) -> None:
        """Have the segments of this socket captured from now on."""
        if self._capture and tap.sock.family != socket.AF_UNIX:
            self._capture.watch([tap.local[1]])

    def mate(self, tap: Tap) -> Tap | None:
        """The tap at the other end of an accepted connection, where it is one of ours."""
        unix = tap.sock.family == socket.AF_UNIX
        for other in self._taps:
            fits = other.peer == tap.local if unix else other.local == tap.peer
            if fits and other is not tap and other.peer and other.out and not other.accepted:
                return other
        return None

    def owner(self, address: SocketAddress) -> str:
        """The name of the tap that listens at `address`; `peer` for somebody else's."""
        names = [tap.who for tap in self._taps if tap.local and _same(tap.local, address)]
        return names[-1] if names else "peer"

    def flow(self, source: str, target: str) -> str:
        """A name for the bytes from `source` to `target`, unique in this scene."""
        count = self._now.flows[f"{source}→{target}"] = self._now.flows.get(f"{source}→{target}", 0) + 1
        return f"{source}→{target}" + (f" #{count}" if count > 1 else "")

    @property
    def _now(self) -> _Draft:
        if not self._scenes:
            self._scenes.append(_Draft("", {"en": "", "zh": ""}, ("client",), ("server",), True))
        return self._scenes[-1]

    def _settle(self) -> None:
        # Calls are noted as they return and segments after the fact; the time line is sorted when a scene ends.
        if not self._scenes:
            return
        draft = self._now
        if self._capture:
            frames = self._capture.drain()
            draft.frames += frames[: LAB_EVENTS.value - len(draft.frames)]
            draft.events += [self._segment(seen) for seen in frames if draft.segments]
        draft.events.sort(key=lambda event: event.at)

    def _segment(self, seen: Seen) -> Event:
        part = seen.segment
        owners = [tap for tap in self._taps if tap.local and tap.local[:2] == part.source]
        exact = [tap for tap in owners if tap.peer and tap.peer[:2] == part.target] or owners
        tap = exact[-1] if exact else None
        start = None
        if part.protocol == "TCP":
            origin = self._now.origins.setdefault((part.source, part.target), part.seq + ("SYN" in part.flags))
            start = (part.seq - origin) % 2**32 if part.size else None
        return Event(
            at=seen.when - self._began,
            who=tap.who if tap else "?",
            call="segment",
            returned=part.size,
            flow=tap.out if tap else "",
            start=start,
            data=part.payload[: self.keep],
            detail=" ".join(part.flags) or part.protocol,
        )


class _Draft:
    """A scene while it is played."""

    def __init__(self, name: str, title: Text, left: tuple[str, ...], right: tuple[str, ...], segments: bool) -> None:
        self.name, self.title, self.left, self.right, self.segments = name, title, left, right, segments
        self.events: list[Event] = []
        self.facts: dict[str, Any] = {}
        self.tables: list[Table] = []
        self.note: Text | None = None
        self.frames: list[Seen] = []
        self.flows: dict[str, int] = {}
        self.origins: dict[tuple[tuple[str, int], tuple[str, int]], int] = {}

    def scene(self) -> Scene:
        return Scene(
            name=self.name,
            title=self.title,
            left=self.left,
            right=self.right,
            events=tuple(self.events),
            facts=dict(self.facts),
            tables=tuple(self.tables),
            note=self.note,
        )


def _same(one: SocketAddress, other: SocketAddress) -> bool:
    return bool(one[:2] == other[:2] if isinstance(one, tuple) and isinstance(other, tuple) else one == other)
