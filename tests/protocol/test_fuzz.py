"""A quick slice of each fuzz target over its seed corpus, the same every time."""

from __future__ import annotations

import pytest
from fuzz import decoder, engine, operations, seeds


def test_the_decoder_target() -> None:
    engine.slice_of(decoder.target, seeds.decoder_seeds(), 1500, seed=1)


def test_the_operations_target() -> None:
    engine.slice_of(operations.target, seeds.operation_seeds(), 300, seed=1)


def test_a_finding_is_found_and_can_be_run_again() -> None:
    def target(data: bytes) -> None:
        assert b"\xff" not in data

    with pytest.raises(engine.Finding) as caught:
        engine.slice_of(target, [b"abc"], 10_000)
    assert b"\xff" in caught.value.data


def test_the_same_seed_is_the_same_run() -> None:
    def run(seed: int) -> list[bytes]:
        seen: list[bytes] = []
        engine.slice_of(seen.append, [b"abc", b"defg"], 50, seed)
        return seen

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_the_corpus_as_files(tmp_path: object) -> None:
    assert seeds.write(str(tmp_path)) == len(seeds.decoder_seeds()) + len(seeds.operation_seeds())
