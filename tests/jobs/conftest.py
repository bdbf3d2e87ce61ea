from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.jobs.kit import Made, Place
from tests.jobs.terminals import Make, Terminal
from tests.kit import TOW


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A node that is not restarted, and a person who may run anything. Other tests' jobs are in its list."""
    shared = Place(tmp_path_factory.mktemp("place"))
    yield shared
    shared.close()


@pytest.fixture
def make_place(tmp_path: Path) -> Iterator[Made]:
    """Make a place with a node; it is closed, and must have worked without a complaint."""
    places: list[Place] = []

    def make(*arguments: str, can: str = "run,read") -> Place:
        places.append(Place(tmp_path, *arguments, can=can))
        return places[-1]

    yield make
    for each in places:
        each.close()


@pytest.fixture
def own(make_place: Made) -> Place:
    """A node of this test's own, to be killed and restarted."""
    return make_place()


@pytest.fixture
def terminals(place: Place, tmp_path: Path) -> Iterator[Make]:
    """Start `tow` with some words on a terminal of its own; all are closed at the end."""
    made: list[Terminal] = []

    def make(*words: str, home: Path | None = None) -> Terminal:
        made.append(Terminal(tmp_path, f"t{len(made)}", [*map(shlex.quote, [*TOW, *words])], home or place.home))
        return made[-1]

    yield make
    for each in made:
        each.close()
