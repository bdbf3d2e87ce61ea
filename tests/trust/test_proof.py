"""The bytes that a proof is made over."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.trust.proof import transcript

_PRINT = bytes(range(32))


def test_the_form_is_fixed() -> None:
    parts = [b"towline prove v1", b"pc", b"hc", b"ps", b"hs", _PRINT]
    expected = hashlib.sha256(b"".join(len(part).to_bytes(8) + part for part in parts)).digest()
    assert transcript(b"pc", b"hc", b"ps", b"hs", _PRINT) == expected
    assert transcript(b"pc", b"hc", b"ps", b"hs", _PRINT.hex()) == expected


@given(
    st.lists(st.binary(max_size=6), min_size=4, max_size=4), st.lists(st.binary(max_size=6), min_size=4, max_size=4)
)
def test_other_parts_give_another_transcript(one: list[bytes], two: list[bytes]) -> None:
    same = transcript(one[0], one[1], one[2], one[3], _PRINT) == transcript(two[0], two[1], two[2], two[3], _PRINT)
    assert same == (one == two)


@given(st.binary(min_size=1, max_size=12), st.integers(0, 12))
def test_moving_a_boundary_changes_it(data: bytes, at: int) -> None:
    at = min(at, len(data) - 1)
    assert transcript(data[:at], data[at:], b"", b"", _PRINT) != transcript(data, b"", b"", b"", _PRINT)


def test_the_certificate_is_bound() -> None:
    assert transcript(b"", b"", b"", b"", _PRINT) != transcript(b"", b"", b"", b"", bytes(32))
    assert transcript(b"", b"", b"", b"", b"") != transcript(b"", b"", b"", b"", bytes(32))
    with pytest.raises(ValueError, match="32 bytes"):
        transcript(b"", b"", b"", b"", b"short")


@pytest.mark.parametrize("module", ["proof", "grants", "invites"])
def test_the_pure_modules_load_nothing_that_does(module: str) -> None:
    code = (
        f"import sys, towline.trust.{module}\n"
        "print(*sorted({'socket', 'ssl', 'asyncio', 'cryptography', 'fcntl', 'sqlite3'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == ""
