"""What is pure in this room stays so."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["grants", "invites"])
def test_the_pure_modules_load_nothing_that_does(module: str) -> None:
    code = (
        f"import sys, towline.trust.{module}\n"
        "print(*sorted({'socket', 'ssl', 'asyncio', 'cryptography', 'fcntl', 'sqlite3'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == ""
