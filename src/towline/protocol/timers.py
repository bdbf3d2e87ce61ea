"""Deadlines as a small table: name -> moment. No clock in here: `now` is an argument."""

from __future__ import annotations

from enum import IntEnum


class Timer(IntEnum):
    """What can come due in a session."""

    HANDSHAKE = 0  # absolute: the peer must have proved itself by then
    PING = 1  # nothing was heard for a while: ask
    PONG = 2  # asked, and no answer: the connection is dead
    GOODBYE = 3  # after GOAWAY: streams had their time


class Pace:
    """What the spokes must know of time: `now` as the driver said last, when some bytes of the peer were `heard`
    last (a sign of life, whatever they are), `rtt` as it was measured last (or None)."""

    __slots__ = ("heard", "now", "rtt")

    def __init__(self, now: float) -> None:
        self.now = self.heard = now
        self.rtt: float | None = None


class Timers:
    """Moments in seconds on the driver's monotonic clock. `next`: the earliest, or None when nothing is armed."""

    __slots__ = ("_due", "next")

    def __init__(self) -> None:
        self._due: dict[Timer, float] = {}
        self.next: float | None = None  # kept, not looked for: drivers ask after every step

    def arm(self, timer: Timer, at: float) -> None:
        self._due[timer] = at
        self._changed()

    def disarm(self, timer: Timer) -> None:
        self._due.pop(timer, None)
        self._changed()

    def clear(self) -> None:
        self._due.clear()
        self._changed()

    def armed(self, timer: Timer) -> bool:
        return timer in self._due

    def expired(self, now: float) -> list[Timer]:
        """Those that are due, earliest first; they are disarmed."""
        due = sorted((at, timer) for timer, at in self._due.items() if at <= now)
        for _, timer in due:
            del self._due[timer]
        self._changed()
        return [timer for _, timer in due]

    def _changed(self) -> None:
        self.next = min(self._due.values(), default=None)
