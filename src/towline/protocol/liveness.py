"""Is the other side alive, and how far away? PING when nothing was heard, PONG at once, the round trip from both."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from towline.protocol.codec import Frame, encode
from towline.protocol.scheduler import Scheduler
from towline.protocol.table import Kind
from towline.protocol.timers import Pace, Timer, Timers

PING_INTERVAL = 15.0
PONG_TIMEOUT = 15.0


class Liveness:
    """Measures `pace.rtt`: HELLO asks and is answered too."""

    __slots__ = ("_asked", "_number", "_pace", "_scheduler", "_timers")

    def __init__(self, scheduler: Scheduler, timers: Timers, pace: Pace) -> None:
        self._scheduler = scheduler
        self._timers = timers
        self._pace = pace
        self._asked: float | None = None
        self._number = 0

    def start(self) -> None:
        """The connection is open: look after it."""
        self._asked = None
        self._timers.arm(Timer.PING, self._pace.now + PING_INTERVAL)

    def asked(self) -> None:
        """Something went out that the peer answers at once."""
        self._asked = self._pace.now

    def answered(self) -> None:
        """The answer to that came in."""
        if self._asked is not None:
            self._pace.rtt = max(self._pace.now - self._asked, 1e-6)
            self._asked = None

    def ping(self) -> None:
        """Ask, unless an answer is awaited already."""
        if self._asked is None:
            self._number += 1
            self._scheduler.push_control(encode(Frame(Kind.PING, body=self._number.to_bytes(8))))
            self.asked()
            self._timers.disarm(Timer.PING)
            self._timers.arm(Timer.PONG, self._pace.now + PONG_TIMEOUT)

    def on_ping(self, frame: Frame) -> None:
        """Raises ControlFlood when the peer asks without listening."""
        self._scheduler.push_reply(encode(Frame(Kind.PONG, body=bytes(frame.body))))

    def on_pong(self, frame: Frame) -> None:
        if self._asked is None or int.from_bytes(frame.body) != self._number:
            return  # nobody asked that
        self.answered()
        self._timers.disarm(Timer.PONG)
        self._timers.arm(Timer.PING, self._pace.now + PING_INTERVAL)

    HANDLERS: ClassVar[dict[int, Callable[[Liveness, Frame], None]]] = {
        int(Kind.PING): on_ping,
        int(Kind.PONG): on_pong,
    }

    def ping_due(self) -> None:
        due = self._pace.heard + PING_INTERVAL
        if due > self._pace.now:  # not `now - heard < interval`: rounding would arm the same moment for ever
            self._timers.arm(Timer.PING, due)
        else:
            self.ping()

    def pong_due(self) -> bool:
        """Whether the peer is taken for dead."""
        due = self._pace.heard + PONG_TIMEOUT
        if self._asked is not None and self._pace.heard > self._asked and due > self._pace.now:
            self._timers.arm(Timer.PONG, due)  # other bytes are a sign of life too
            return False
        return True
