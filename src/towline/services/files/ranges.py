"""Which bytes of a file are there: sorted, disjoint, half-open intervals [a, b). Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from towline.base.errors import BadMessage
from towline.base.limits import Limit

RANGES = Limit("ranges", 8192, "intervals", "a range list is held and written whole; an honest one has a few dozen")
LARGEST_FILE = 2**63 - 1  # off_t


class Ranges:
    """A set of byte positions kept as intervals that neither overlap nor touch. Not thread-safe."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, intervals: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for a, b in intervals:
            self.add(a, b)

    @classmethod
    def from_list(cls, value: object) -> Ranges:
        """The inverse of `to_list`, for data from a peer or a disk. Raises BadMessage."""
        if not isinstance(value, list) or len(value) > RANGES.value:
            raise BadMessage("A range list is not a list of at most 8192 intervals.")
        ranges = cls()
        last = -1
        for pair in value:
            if not isinstance(pair, list) or len(pair) != 2 or type(pair[0]) is not int or type(pair[1]) is not int:
                raise BadMessage("A range is not a pair of numbers.")
            a, b = pair
            if not last < a < b <= LARGEST_FILE:
                raise BadMessage("The ranges are not ascending and disjoint.")
            ranges._starts.append(a)
            ranges._ends.append(b)
            last = b
        return ranges

    def to_list(self) -> list[list[int]]:
        """`[[a, b], …]`, ascending; fit for JSON."""
        return [[a, b] for a, b in self]

    def add(self, a: int, b: int) -> None:
        """Put [a, b) in."""
        _check(a, b)
        if a == b:
            return
        first = bisect_left(self._ends, a)  # touching counts: ends == a joins
        last = bisect_right(self._starts, b)
        if first < last:
            a = min(a, self._starts[first])
            b = max(b, self._ends[last - 1])
        self._starts[first:last] = [a]
        self._ends[first:last] = [b]

    def discard(self, a: int, b: int) -> None:
        """Take [a, b) out."""
        _check(a, b)
        if a == b:
            return
        first = bisect_right(self._ends, a)
        last = bisect_left(self._starts, b)
        if first >= last:
            return
        left, right = self._starts[first], self._ends[last - 1]
        kept = [(x, y) for x, y in ((left, a), (b, right)) if x < y]
        self._starts[first:last] = [x for x, _ in kept]
        self._ends[first:last] = [y for _, y in kept]

    def missing(self, size: int, start: int = 0) -> list[tuple[int, int]]:
        """The intervals of [start, size) that are not in, ascending."""
        holes = []
        at = start
        for a, b in self:
            if a >= size:
                break
            if a > at:
                holes.append((at, a))
            at = max(at, b)
        if at < size:
            holes.append((at, size))
        return holes

    @property
    def covered(self) -> int:
        """How many bytes are in."""
        return sum(self._ends) - sum(self._starts)

    @property
    def end(self) -> int:
        """One past the last position that is in; 0 when empty."""
        return self._ends[-1] if self._ends else 0

    def contiguous(self) -> int:
        """The end of the run that starts at 0."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else 0

    def has(self, a: int, b: int) -> bool:
        """Whether all of [a, b) is in."""
        index = bisect_right(self._starts, a) - 1
        return a == b or (index >= 0 and self._ends[index] >= b)

    def overlaps(self, a: int, b: int) -> bool:
        """Whether any of [a, b) is in."""
        return a < b and bisect_right(self._ends, a) < bisect_left(self._starts, b)

    def copy(self) -> Ranges:
        """An independent copy."""
        twin = Ranges()
        twin._starts = self._starts.copy()
        twin._ends = self._ends.copy()
        return twin

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._starts, self._ends, strict=True)))

    def __len__(self) -> int:
        return len(self._starts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and self._starts == other._starts and self._ends == other._ends

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"<Ranges {' '.join(f'[{a},{b})' for a, b in list(self)[:8])}{' …' if len(self) > 8 else ''}>"


def _check(a: int, b: int) -> None:
    if not 0 <= a <= b:
        raise ValueError(f"[{a}, {b}) is no interval")
