"""How fast one person may write: a bucket of tokens. Pure; `now` is seconds, monotonic."""

from __future__ import annotations

from towline.base.errors import TooFast


class Bucket:
    """`burst` tokens at most, refilled by `rate` a second."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._at = burst, now

    @property
    def full(self) -> bool:
        """Whether nothing was spent lately, as of the last call."""
        return self._left >= self._burst

    def spend(self, cost: float, now: float) -> None:
        """Take `cost` tokens. Raises TooFast, which says when to come again."""
        self.refill(now)
        if self._left < cost:
            wait = (min(cost, self._burst) - self._left) / self._rate
            raise TooFast(
                f"Limit room_rate is {self._rate:g} messages/s (room_burst {self._burst:g}); wait {wait:.2g} s.",
                retry_after=wait,
            )
        self._left -= cost

    def has(self, cost: float, now: float) -> bool:
        """Whether `spend` would take so much."""
        self.refill(now)
        return self._left >= cost

    def refill(self, now: float) -> None:
        """Let time pass."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
