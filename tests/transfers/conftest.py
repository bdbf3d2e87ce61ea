from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.transfers.kit import Town


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """A running node with one share, `files`."""
    town = Town(tmp_path)
    try:
        yield town
    finally:
        town.close()
