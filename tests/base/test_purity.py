"""The pure floors pull in no socket, event loop, clock, randomness or logging; checked in a fresh interpreter."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import pytest

import towline.base
import towline.protocol

IMPURE = {
    "socket", "_socket", "select", "selectors", "asyncio", "ssl", "_ssl", "time", "random", "_random",
    "secrets", "logging", "threading", "_thread", "queue", "subprocess", "multiprocessing", "concurrent",
    "datetime", "uuid", "tempfile", "sqlite3", "signal",
}  # fmt: skip

# Python itself has loaded `time` and `_thread` before our first line; that nobody here uses them is read from the
# sources.
_PROBE = """
import json, sys
before = set(sys.modules)
import {module}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def modules() -> list[str]:
    found = ["towline"]
    for package in (towline.base, towline.protocol):
        found.append(package.__name__)
        found += [each.name for each in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
    return found


def pulled_in(module: str) -> set[str]:
    probe = [sys.executable, "-I", "-c", _PROBE.format(module=module)]
    result = subprocess.run(probe, capture_output=True, text=True, check=True, timeout=30)
    return set(json.loads(result.stdout))


def test_nothing_impure_comes_with_all_of_it() -> None:
    found = pulled_in("towline.protocol, " + ", ".join(modules()))
    assert "towline.protocol.session" in found
    assert not {name for name in found if name.split(".")[0] in IMPURE}


def test_the_probe_would_notice() -> None:
    assert pulled_in("logging") & IMPURE
    assert "random" in pulled_in("random")


@pytest.mark.parametrize("module", modules())
def test_no_clock_and_no_thread_is_imported_by_name(module: str) -> None:
    __import__(module)
    path = sys.modules[module].__file__
    assert path is not None
    with open(path, encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    for line in lines:
        if line.startswith(("import ", "from ")):
            assert line.split()[1].split(".")[0] not in IMPURE | {"os"}, line
