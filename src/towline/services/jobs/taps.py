"""Where a job's output comes out: the keeper's ends of its pipes, or of its terminal, and when they are read.

What comes alone is read at once. Who prints without end is read each millisecond: then a record is a full buffer and
not what the command happened to write, and neither it, the node nor the client is woken for each line.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections.abc import Callable

from towline.base.limits import KIB, MIB

READ_BYTES = 256 * KIB
FULL_PIPE = 64 * KIB  # what a pipe holds at first (pipe(7)); who fills it gets a larger one
LARGE_PIPE = 1 * MIB
BUSY_SECONDS = 0.002  # there is more again so soon
REST_SECONDS = 0.001  # then it is left alone for so long
TURNS = 64  # reads for what a pipe or a terminal holds, however small its pieces
_F_SETPIPE_SZ = 1031
_buffer = memoryview(bytearray(READ_BYTES))  # for all: the keeper has one thread, and it stays in the cache


class Taps:
    """Reads `descriptors` (by kind of record). `keep(kind, data)` gets what came, in a buffer that is used again;
    `closed(kind, descriptor)` hears of the end, and closes it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        descriptors: dict[int, int],
        keep: Callable[[int, memoryview], None],
        closed: Callable[[int, int], None],
        *,
        terminal: bool,
    ) -> None:
        self.open = descriptors
        self.paused = True
        self._loop, self._keep, self._closed = loop, keep, closed
        self._may_rest = not terminal  # somebody sits there
        self._large: set[int] = set(descriptors) if terminal else set()
        self._read_at: dict[int, float] = {}
        self._resting: dict[int, asyncio.TimerHandle] = {}

    def __repr__(self) -> str:
        return f"<Taps {sorted(self.open)}{' paused' if self.paused else ''}>"

    def listen(self) -> None:
        """Read what comes from now on."""
        self.paused = False
        for kind in self.open:
            self._watch(kind)

    def pause(self) -> None:
        """Read nothing until `listen`."""
        if not self.paused:
            self.paused = True
            for kind in self.open:
                self._unwatch(kind)

    def take(self, kind: int) -> int:
        """Take what is there, once; how many bytes it was."""
        if self.paused or kind not in self.open:
            return 0
        try:
            size = os.readv(self.open[kind], [_buffer])
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal whose other side is closed
                raise
            size = 0
        if not size:
            self.close(kind)
            return 0
        self._keep(kind, _buffer[:size])
        return size

    def take_all(self) -> None:
        """Take what is in all of them, one after the other; who goes on printing does not hold us for ever."""
        for kind in list(self.open):
            for _ in range(TURNS):
                if not self.take(kind):
                    break

    def close(self, kind: int) -> None:
        """Read this one no more."""
        self._unwatch(kind)
        self._closed(kind, self.open.pop(kind))

    def _watch(self, kind: int) -> None:
        self._loop.add_reader(self.open[kind], self._on_readable, kind)

    def _unwatch(self, kind: int) -> None:
        if (rest := self._resting.pop(kind, None)) is not None:
            rest.cancel()
        self._loop.remove_reader(self.open[kind])

    def _on_readable(self, kind: int) -> None:
        for other in list(self._resting):
            self.take(other)  # it was there before this, for all we know
        self.take(kind)
        now = self._loop.time()
        before, self._read_at[kind] = self._read_at.get(kind, 0.0), now
        if self._may_rest and now - before < BUSY_SECONDS:
            self._rest(kind)

    def _rest(self, kind: int, seconds: float = REST_SECONDS) -> None:
        if kind in self.open and not self.paused:
            self._enlarge(kind)
            self._unwatch(kind)
            self._resting[kind] = self._loop.call_later(seconds, self._rested, kind)

    def _rested(self, kind: int) -> None:
        del self._resting[kind]
        taken = 0
        while (size := self.take(kind)) and taken < LARGE_PIPE:
            taken += size
        if taken:
            # A pipe that is full again has stopped its command; what comes of it is whole buffers, rest or not.
            self._rest(kind, 0 if taken >= LARGE_PIPE else REST_SECONDS)
        elif kind in self.open and not self.paused:
            self._watch(kind)

    def _enlarge(self, kind: int) -> None:
        if kind not in self._large:
            self._large.add(kind)
            try:
                fcntl.fcntl(self.open[kind], _F_SETPIPE_SZ, LARGE_PIPE)
            except OSError:
                pass  # the user's pipes hold as much as they may (pipe-user-pages-soft)
