"""Credit: how much DATA may be under way. Counted in whole DATA frames, prefix and header included.

The receiver grants; the sender spends; the receiver returns what its reader has *consumed*, not what has arrived. A
window grows when the sender used it up within two round trips, because then the window was what slowed it down (the
idea of dynamic right-sizing, Fisk and Feng 2001).
"""

from __future__ import annotations

from towline.base.errors import CreditExceeded


class SendWindow:
    """What the peer lets us send."""

    __slots__ = ("available",)

    def __init__(self, initial: int) -> None:
        self.available = initial

    def spend(self, cost: int) -> None:
        assert cost <= self.available
        self.available -= cost

    def grow(self, credit: int) -> None:
        self.available += credit


class ReceiveWindow:
    """What we let the peer send: `size` bytes beyond what was consumed, growing to at most `maximum`."""

    __slots__ = ("_consumed", "_outstanding", "_returned_at", "maximum", "size")

    def __init__(self, size: int, maximum: int) -> None:
        self.size = size
        self.maximum = max(size, maximum)
        self._outstanding = 0  # received and not yet returned
        self._consumed = 0  # consumed and not yet returned
        self._returned_at: float | None = None

    def receive(self, cost: int, what: str) -> None:
        """Account for a DATA frame. Raises CreditExceeded."""
        if self._outstanding + cost > self.size:
            raise CreditExceeded(
                f"The window of {what} is {self.size} bytes; {self._outstanding + cost} were sent unasked."
            )
        self._outstanding += cost

    def consume(self, cost: int, now: float, rtt: float | None) -> int:
        """The reader took `cost` bytes; returns the credit to announce now, or 0 to wait for more."""
        self._consumed += cost
        if self._consumed * 2 < self.size:
            return 0
        credit = self._consumed
        self._outstanding -= credit
        self._consumed = 0
        grown = self._growth(now, rtt)
        self.size += grown
        self._returned_at = now
        return credit + grown

    def _growth(self, now: float, rtt: float | None) -> int:
        if rtt is None or self._returned_at is None or now - self._returned_at > 2 * rtt:
            return 0
        return min(self.size, self.maximum - self.size)
