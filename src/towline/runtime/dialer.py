"""When to try again: full-jitter backoff that heeds the node's wish and gives up only when told."""

from __future__ import annotations

import os
from collections.abc import Callable

FIRST_DELAY = 0.05
LONGEST_DELAY = 15.0


class Backoff:
    """Waits between attempts to reach a node (seconds, monotonic clock).

    Full jitter (Brooker, "Exponential Backoff And Jitter", 2015): each wait is uniform between 0 and a bound that
    doubles, so that a thousand clients do not come back at the same moment. The first attempt after a cut is at once.
    `uniform` draws between two numbers.
    """

    def __init__(self, give_up_after: float, now: float, uniform: Callable[[float, float], float]) -> None:
        self.attempt = 0
        self._deadline = now + give_up_after
        self._uniform = uniform

    def left(self, now: float) -> float:
        """Seconds until it is time to give up; negative when it was."""
        return self._deadline - now

    def next_wait(self, now: float, retry_after: float | None = None) -> float | None:
        """How long to wait before the next attempt; None when it is time to give up."""
        self.attempt += 1
        if self.attempt == 1 and not retry_after:
            return 0.0
        bound = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self.attempt, 16))
        # The node's wish is the least to wait, with jitter on top: everybody was told the same number.
        wait = (retry_after or 0.0) + self._uniform(0.0, bound)
        left = self.left(now)
        if left <= 0:
            return None
        return min(wait, left)


def uniform(least: float, most: float) -> float:
    """A number between the two, by the system's randomness: `random` takes 1 ms to import, and most never wait."""
    return least + (most - least) * int.from_bytes(os.urandom(6)) / (1 << 48)
