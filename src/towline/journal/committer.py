"""Group commit: a few threads make any number of journals durable.

While one fsync runs, everything appended to that journal meanwhile gathers into its next batch: the busier, the
larger the groups. A journal is worked on by one thread at a time and goes to the back of the queue after each batch,
so none holds up the others for longer than its own batch.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from itertools import count
from typing import Protocol


class Committable(Protocol):
    """What a committer works on."""

    def commit(self) -> bool:
        """Make durable what is waiting; True when more has come meanwhile. Must not raise."""


class Committer:
    """`threads` daemon threads, started when there is work."""

    def __init__(self, threads: int = 2) -> None:
        self._threads_wanted = threads
        self._threads: list[threading.Thread] = []
        self._ready = threading.Condition()
        self._queue: deque[Committable] = deque()
        self._timed: list[tuple[float, int, Committable]] = []
        self._number = count()
        self._idle = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"<Committer {len(self._queue)} waiting, {len(self._timed)} timed, {len(self._threads)} threads>"

    def submit(self, journal: Committable) -> None:
        """Commit soon. The caller sees to it that a journal is not queued twice."""
        with self._ready:
            self._queue.append(journal)
            self._wake()

    def later(self, journal: Committable, seconds: float) -> None:
        """Commit in `seconds`."""
        with self._ready:
            heapq.heappush(self._timed, (time.monotonic() + seconds, next(self._number), journal))
            self._wake()

    def close(self) -> None:
        """End the threads after what is queued now."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()
        for thread in self._threads:
            thread.join()

    def _wake(self) -> None:
        if self._idle:
            self._ready.notify()
        elif len(self._threads) < self._threads_wanted:
            thread = threading.Thread(target=self._work, name=f"committer-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while (journal := self._next()) is not None:
            if journal.commit():
                self.submit(journal)

    def _next(self) -> Committable | None:
        with self._ready:
            while True:
                now = time.monotonic()
                if self._timed and self._timed[0][0] <= now:
                    return heapq.heappop(self._timed)[2]
                if self._queue:
                    return self._queue.popleft()
                if self._closed:
                    return None
                self._idle += 1
                self._ready.wait(self._timed[0][0] - now if self._timed else None)
                self._idle -= 1


_shared: Committer | None = None
_shared_lock = threading.Lock()


def shared() -> Committer:
    """The process's committer."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = Committer()
        return _shared
