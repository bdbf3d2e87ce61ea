"""The script: same seed, same schedule; what is not understood is refused by name."""

from __future__ import annotations

from itertools import islice

import pytest

from towline.base.errors import LimitExceeded, UsageError
from towline.lab.faults_script import FaultScript, Step, parse_steps


def test_the_same_seed_gives_the_same_schedule() -> None:
    script = FaultScript(cut_every=20_000_000, stall_every=7_000_000, seed=7)
    assert list(islice(script.by_bytes(), 50)) == list(islice(script.by_bytes(), 50))
    assert script.plan() != FaultScript(cut_every=20_000_000, stall_every=7_000_000, seed=8).plan()


def test_distances_stay_within_the_jitter_and_positions_rise() -> None:
    positions = [at for at, _ in islice(FaultScript(cut_every=1000, jitter=0.2, seed=3).by_bytes(), 200)]
    distances = [after - before for before, after in zip([0, *positions], positions, strict=False)]
    assert min(distances) >= 799
    assert max(distances) <= 1201
    assert len(set(distances)) > 20


def test_without_jitter_positions_are_exact() -> None:
    assert [at for at, _ in islice(FaultScript(cut_every=1000, jitter=0).by_bytes(), 3)] == [1000, 2000, 3000]


def test_adding_stalls_does_not_move_the_cuts() -> None:
    cuts = [at for at, _ in islice(FaultScript(cut_every=1000, seed=5).by_bytes(), 20)]
    both = FaultScript(cut_every=1000, stall_every=300, seed=5).by_bytes()
    assert [at for at, step in islice(both, 200) if step.do == "cut"][:20] == cuts


def test_steps_of_a_script_file() -> None:
    at_bytes, at_seconds = parse_steps(
        '[{"at": "20KB", "do": "cut"}, {"after": "2s", "do": "stall", "for": "500ms"},'
        ' {"at": 5, "do": "throttle", "rate": "1MB"}]'
    )
    assert at_bytes == ((20_000, Step("cut")), (5, Step("throttle", amount=1_000_000)))
    assert at_seconds == ((2.0, Step("stall", seconds=0.5)),)
    assert [at for at, _ in FaultScript(at_bytes=at_bytes).by_bytes()] == [5, 20_000]


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", '[{"do": "cut"}]', '[{"at": 1, "after": "1s", "do": "cut"}]', '[{"at": 1, "do": "melt"}]',
     "[" * 100_000, '[{"at": "soon", "do": "cut"}]', '[{"at": 1, "do": "cut", "kind": 2}]', '[{"at": 1, "do": []}]'],
)  # fmt: skip
def test_a_script_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_steps(text)


def test_a_script_that_is_too_long_is_refused_by_name() -> None:
    with pytest.raises(LimitExceeded, match="fault_script"):
        parse_steps(" " * 300_000)


@pytest.mark.parametrize("field", [{"jitter": 1.0}, {"cut_every": 0}, {"stall": -1.0}, {"max_cuts": -1}])
def test_impossible_numbers_are_refused(field: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        FaultScript(**field)  # type: ignore[arg-type]
