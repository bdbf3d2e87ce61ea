"""Is the other side alive, and how far away? PING when nothing was heard, PONG at once, the round trip from both."""

from __future__ import annotations

from towline.protocol.codec import Frame, encode
from towline.protocol.scheduler import Scheduler
from towline.protocol.table import Kind
from towline.protocol.timers import Timer, Timers

PING_INTERVAL = 15.0
PONG_TIMEOUT = 15.0


class Liveness:
    """`rtt`: seconds of the last round trip that was measured, or None. HELLO asks and is answered too."""

    __slots__ = ("_asked", "_heard", "_number", "_scheduler", "_timers", "rtt")

    def __init__(self, scheduler: Scheduler, timers: Timers, now: float) -> None:
        self.rtt: float | None = None
        self._scheduler = scheduler
        self._timers = timers
        self._heard = now
        self._asked: float | None = None
        self._number = 0

    def start(self, now: float) -> None:
        """The connection is open: look after it."""
        self._asked = None
        self._timers.arm(Timer.PING, now + PING_INTERVAL)

    def heard(self, now: float) -> None:
        """Some bytes came in: a sign of life, whatever they are."""
        self._heard = now

    def asked(self, now: float) -> None:
        """Something went out that the peer answers at once."""
        self._asked = now

    def answered(self, now: float) -> None:
        """The answer to that came in."""
        if self._asked is not None:
            self.rtt = max(now - self._asked, 1e-6)
            self._asked = None

    def ping(self, now: float) -> None:
        """Ask, unless an answer is awaited already."""
        if self._asked is None:
            self._number += 1
            self._scheduler.push_control(encode(Frame(Kind.PING, body=self._number.to_bytes(8))))
            self.asked(now)
            self._timers.disarm(Timer.PING)
            self._timers.arm(Timer.PONG, now + PONG_TIMEOUT)

    def on_ping(self, frame: Frame) -> None:
        """Raises ControlFlood when the peer asks without listening."""
        self._scheduler.push_reply(encode(Frame(Kind.PONG, body=bytes(frame.body))))

    def on_pong(self, frame: Frame, now: float) -> None:
        if self._asked is None or int.from_bytes(frame.body) != self._number:
            return  # nobody asked that
        self.answered(now)
        self._timers.disarm(Timer.PONG)
        self._timers.arm(Timer.PING, now + PING_INTERVAL)

    def ping_due(self, now: float) -> None:
        due = self._heard + PING_INTERVAL
        if due > now:  # not `now - heard < interval`: rounding would arm the same moment for ever
            self._timers.arm(Timer.PING, due)
        else:
            self.ping(now)

    def pong_due(self, now: float) -> bool:
        """Whether the peer is taken for dead."""
        if self._asked is not None and self._heard > self._asked and self._heard + PONG_TIMEOUT > now:
            self._timers.arm(Timer.PONG, self._heard + PONG_TIMEOUT)  # other bytes are a sign of life too
            return False
        return True
