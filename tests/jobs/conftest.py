from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.jobs.kit import Made, Place


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
