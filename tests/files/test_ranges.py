from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.base.errors import BadMessage
from towline.services.files.ranges import Ranges

SPACE = 24
intervals = st.tuples(st.integers(0, SPACE), st.integers(0, SPACE)).map(lambda pair: (min(pair), max(pair)))
steps = st.lists(st.tuples(st.sampled_from(["add", "discard"]), intervals), max_size=30)


def applied(what: list[tuple[str, tuple[int, int]]]) -> tuple[Ranges, set[int]]:
    ranges, model = Ranges(), set[int]()
    for verb, (a, b) in what:
        if verb == "add":
            ranges.add(a, b)
            model |= set(range(a, b))
        else:
            ranges.discard(a, b)
            model -= set(range(a, b))
    return ranges, model


@given(steps, intervals, st.integers(0, SPACE + 4))
def test_it_is_a_set_of_positions(what: list[tuple[str, tuple[int, int]]], asked: tuple[int, int], size: int) -> None:
    ranges, model = applied(what)
    a, b = asked
    assert {at for x, y in ranges for at in range(x, y)} == model
    assert ranges.covered == len(model)
    assert ranges.end == max(model, default=-1) + 1
    assert ranges.contiguous() == next(at for at in range(SPACE + 1) if at not in model)
    assert ranges.has(a, b) == (set(range(a, b)) <= model)
    assert ranges.overlaps(a, b) == bool(set(range(a, b)) & model)
    assert {at for x, y in ranges.missing(size) for at in range(x, y)} == set(range(size)) - model
    assert {at for x, y in ranges.missing(size, a) for at in range(x, y)} == set(range(a, size)) - model


@given(steps)
def test_it_is_sorted_disjoint_and_joined(what: list[tuple[str, tuple[int, int]]]) -> None:
    ranges, _ = applied(what)
    flat = [edge for pair in ranges for edge in pair]
    assert flat == sorted(set(flat))
    assert len(ranges) == len(list(ranges))


@given(steps)
def test_lists_round_trip_and_copies_are_independent(what: list[tuple[str, tuple[int, int]]]) -> None:
    ranges, _ = applied(what)
    assert Ranges.from_list(ranges.to_list()) == ranges
    twin = ranges.copy()
    twin.add(100, 101)
    assert twin != ranges
    assert not ranges.has(100, 101)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        "x",
        [1],
        [[1]],
        [[1, 2, 3]],
        [[2, 1]],
        [[1, 1]],
        [[-1, 2]],
        [[0, 2], [1, 3]],
        [[0, 2], [2, 3]],
        [[4, 5], [0, 1]],
        [[0, 2**63]],
        [[0.0, 1]],
        [[False, True]],
        [["0", "1"]],
        [[2 * i, 2 * i + 1] for i in range(9000)],
    ],
)
def test_a_list_that_is_no_range_list_is_refused(value: object) -> None:
    with pytest.raises(BadMessage):
        Ranges.from_list(value)


def test_an_interval_has_its_ends_in_order() -> None:
    with pytest.raises(ValueError, match="no interval"):
        Ranges().add(2, 1)
    with pytest.raises(ValueError, match="no interval"):
        Ranges().discard(-1, 1)
