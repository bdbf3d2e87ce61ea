"""Frozen values behave as the standard library's frozen dataclasses with slots do."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from typing import ClassVar

import pytest

from towline.base.frozen import as_dict, fields, frozen, made, replace


@frozen
class Point:
    """A place."""

    x: int
    y: int = 0
    tags: list[str] = made(factory=list)
    kind: ClassVar[str] = "point"

    def moved(self, by: int) -> Point:
        return replace(self, x=self.x + by)


@dataclass(frozen=True, slots=True)
class Model:
    x: int
    y: int = 0


@frozen(kw_only=True)
class Named:
    name: str
    secret: str

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("no name")

    def __repr__(self) -> str:
        return f"<Named {self.name}>"


@frozen
class Nothing:
    pass


def test_it_is_made_shown_compared_and_taken_apart_like_a_dataclass() -> None:
    point, model = Point(1, y=2), Model(1, y=2)
    assert repr(point) == "Point(x=1, y=2, tags=[])"
    assert point == Point(1, 2)
    assert point != Point(1)
    assert point != model
    assert len({Named(name="a", secret="b"), Named(name="a", secret="b")}) == 1
    assert (Point.__match_args__, Point.__doc__, Point.kind) == (("x", "y", "tags"), "A place.", "point")
    match point:
        case Point(x, y):
            assert (x, y) == (1, 2)
    assert not hasattr(point, "__dict__")


def test_it_does_not_change() -> None:
    point = Point(1)
    for change in (lambda: setattr(point, "x", 2), lambda: setattr(point, "new", 2), lambda: delattr(point, "x")):
        with pytest.raises(AttributeError, match="does not change"):
            change()
    assert point.moved(2) == Point(3)
    assert (as_dict(point), fields(Point)) == ({"x": 1, "y": 0, "tags": []}, ("x", "y", "tags"))
    assert copy.deepcopy(point) == pickle.loads(pickle.dumps(point)) == point


def test_defaults_that_change_are_made_anew() -> None:
    one, other = Point(1), Point(1)
    one.tags.append("here")
    assert other.tags == []
    with pytest.raises(TypeError, match="made"):

        @frozen
        class Shared:
            tags: list[str] = []  # noqa: RUF012


def test_wrong_arguments_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"Point\.__init__\(\) missing 1 required positional argument: 'x'"):
        Point()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        replace(Point(1), z=1)
    with pytest.raises(TypeError, match="takes 1 positional argument"):
        Named("a", "b")  # type: ignore[misc]


def test_what_a_class_says_itself_stays() -> None:
    assert repr(Named(name="a", secret="b")) == "<Named a>"
    with pytest.raises(ValueError, match="no name"):
        Named(name="", secret="b")
    assert Nothing() == Nothing()
    assert hash(Nothing()) == hash(Nothing())
