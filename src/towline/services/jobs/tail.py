"""Which records of a terminal's output bring a newcomer's terminal to where the job's is. Pure.

What was printed is in the spool; here are positions alone, in spans of records that were printed at one size. The
normal screen needs what it was sent last; the alternate one everything since it was switched to.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from towline.base.limits import KIB

NORMAL_BYTES = 128 * KIB
ALTERNATE_BYTES = 512 * KIB
SPANS = 400  # whoever resizes in each line gets fewer bytes
COARSE = 4 * KIB  # neighbours share an entry until then, so that keystrokes cost no memory each

Size = tuple[int, int]


@dataclass(slots=True)
class Span:
    """Records from `first` to `last`, both included; `bytes` of output."""

    first: int
    last: int
    bytes: int
    size: Size


class _Kept:
    """The last spans of one screen. `whole`: nothing of it was dropped."""

    __slots__ = ("bytes", "limit", "spans", "whole")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.clear()

    def clear(self) -> None:
        self.spans: deque[Span] = deque()
        self.bytes, self.whole = 0, True

    def note(self, seq: int, count: int, size: Size) -> None:
        newest = self.spans[-1] if self.spans else None
        if newest and newest.last == seq - 1 and newest.size == size and newest.bytes < COARSE:
            newest.last, newest.bytes = seq, newest.bytes + count
        else:
            self.spans.append(Span(seq, seq, count, size))
        self.bytes += count
        while len(self.spans) > 1 and (self.bytes > self.limit or len(self.spans) > SPANS):
            self.bytes -= self.spans.popleft().bytes
            self.whole = False


class Tail:
    """Fed with the positions of what a terminal is sent. `size` (rows, columns) is its size by now."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self._normal = _Kept(NORMAL_BYTES)
        self._alternate = _Kept(ALTERNATE_BYTES)
        self._is_alternate = False

    def note(self, seq: int, count: int, *, before: bool, after: bool) -> None:
        """Record `seq` has `count` bytes; whether the alternate screen was on before and is on after it."""
        if before and after:
            self._alternate.note(seq, count, self.size)
            return
        self._alternate.clear()
        self._is_alternate = after
        self._normal.note(seq, count, self.size)

    @property
    def exact(self) -> bool:
        """Whether the spans are all that has to do with the screen that is shown."""
        return self._alternate.whole if self._is_alternate else self._normal.whole

    def spans(self) -> list[Span]:
        """In their order, neighbours of one size together."""
        joined: list[Span] = []
        for span in [*self._normal.spans, *self._alternate.spans]:
            newest = joined[-1] if joined else None
            if newest and newest.last == span.first - 1 and newest.size == span.size:
                newest.last, newest.bytes = span.last, newest.bytes + span.bytes
            else:
                joined.append(Span(span.first, span.last, span.bytes, span.size))
        return joined
