"""A limit on bytes per second, shared by the lanes of a transfer."""

from __future__ import annotations

import threading
import time

_BURST_SECONDS = 0.05


class Pace:
    """A token bucket; `rate` in bytes a second, 0 for no limit. Blocks in `spend`, until `stop`."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._next = 0.0  # when the bytes spent so far have had their time
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def spend(self, count: int) -> None:
        """Account for `count` bytes; waits until they fit the rate."""
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            self._next = max(self._next, now - _BURST_SECONDS) + count / self._rate
            wait = self._next - now
        if wait > 0:
            self._stopped.wait(wait)

    def stop(self) -> None:
        """Let everybody go."""
        self._stopped.set()
