"""The reference pages say what the code says, and the programs in the explanations run."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from tools import docs

from towline.base.errors import Exit, error_types
from towline.base.limits import HANDSHAKE_SECONDS
from towline.protocol.table import FRAMES, STATES, State

EXPLANATION = os.path.join(docs.ROOT, "docs", "explanation")


@pytest.mark.parametrize("page", docs.PAGES)
def test_the_reference_is_what_the_code_says(page: str) -> None:
    assert page not in docs.stale(), "run: python -m tools.docs"


def test_nothing_is_left_out() -> None:
    protocol, errors, limits = docs.protocol(), docs.errors(), docs.limits()
    for spec in FRAMES.values():
        assert f"| {int(spec.kind)} | {spec.name} |" in protocol
    assert set(STATES) == set(State)
    for each in error_types():
        assert f"| {each.code} | `{each.name}` | {each.exit_status} |" in errors
    statuses = {value for name, value in vars(Exit).items() if name.isupper()}
    assert all(re.search(rf"^\| {status} \| \w", errors, re.MULTILINE) for status in statuses)
    assert f"`{HANDSHAKE_SECONDS.name}` | {HANDSHAKE_SECONDS.value} seconds" in limits
    assert "towline.base" in docs.modules_with_limits()[0]


def test_a_table_cell_cannot_break_the_table() -> None:
    assert docs.table(["a"], [["x|y\nz"]]).splitlines()[-1] == "| x\\|y z |"


@pytest.mark.parametrize("page", ["message-boundaries.md", "message-boundaries.zh.md"])
def test_the_program_in_the_explanation_runs_and_prints_what_is_said(page: str) -> None:
    with open(os.path.join(EXPLANATION, page), encoding="utf-8") as file:
        text = file.read()
    programs = re.findall(r"```python run\n(.*?)```", text, re.DOTALL)
    assert len(programs) == 1
    shown = text.split(programs[0])[1].split("```\n")[2]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", programs[0]], capture_output=True, text=True, encoding="utf-8",
        timeout=30, check=False, env=environment,
    )  # fmt: skip
    assert result.stderr == ""
    assert result.stdout == shown
