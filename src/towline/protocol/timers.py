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
    """What the spokes must know of time: `now` as the driver said last, `rtt` as it was measured last (or None)."""

    __slots__ = ("now", "rtt")

    def __init__(self, now: float) -> None:
        self.now = now
        self.rtt: float | None = None


class Timers:
    """Moments in seconds on the driver's monotonic clock."""

    __slots__ = ("_due",)

    def __init__(self) -> None:
        self._due: dict[Timer, float] = {}

    def arm(self, timer: Timer, at: float) -> None:
        self._due[timer] = at

    def disarm(self, timer: Timer) -> None:
        self._due.pop(timer, None)

    def clear(self) -> None:
        self._due.clear()

    def armed(self, timer: Timer) -> bool:
        return timer in self._due

    def next(self) -> float | None:
        """The earliest moment, or None when nothing is armed."""
        return min(self._due.values()) if self._due else None

    def expired(self, now: float) -> list[Timer]:
        """Those that are due, earliest first; they are disarmed."""
        due = sorted((at, timer) for timer, at in self._due.items() if at <= now)
        for _, timer in due:
            del self._due[timer]
        return [timer for _, timer in due]
