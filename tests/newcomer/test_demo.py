"""The demo keeps every promise, ends by itself, and leaves neither a process nor a file, also when it is stopped."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo.acts import ACTS
from demo.luggage import ROOT, digests, pack, working_tree
from demo.stage import marked

from towline.cli.main import VERBS


def start(tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "100"}
    return subprocess.Popen(
        [sys.executable, "-m", "demo", "--size", "8MiB", *options], cwd=ROOT, env=environment, text=True,
        encoding="utf-8", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.fixture
def demo(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    process = start(tmp_path, *getattr(request, "param", ()))
    yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def wait_until_gone(demo_pid: int, seconds: float = 10.0) -> list[int]:
    """Those that are left after a while; each is waited for by its descriptor, not by asking again and again."""
    deadline = time.monotonic() + seconds
    for pid in marked(demo_pid):
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            select.select([handle], [], [], max(deadline - time.monotonic(), 0))
        finally:
            os.close(handle)
    return marked(demo_pid)


def read_until(demo: subprocess.Popen[str], text: str) -> str:
    assert demo.stdout is not None
    seen = ""
    for line in demo.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"{text!r} did not come:\n{seen}")


@pytest.mark.timeout(120)
def test_every_promise_is_kept_and_nothing_is_left(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    said, _ = demo.communicate(timeout=115)
    assert demo.returncode == 0, said
    assert "Every promise was kept." in said
    assert "✗" not in said
    assert re.search(r"cut 2: back after", said)
    assert "goes on at" in said
    assert "\x1b" not in said, "a pipe gets plain lines"
    assert wait_until_gone(demo.pid, 1.0) == []
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_leaves_nothing(
    demo: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    read_until(demo, "cut 1")
    assert len(marked(demo.pid)) >= 3  # node, proxy, client
    demo.send_signal(number)
    said, _ = demo.communicate(timeout=30)
    assert demo.returncode == 130, said
    assert "Traceback" not in said
    assert wait_until_gone(demo.pid, 1.0) == []
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("demo", [("--act", "jobs")], indirect=True)
def test_a_demo_that_is_stopped_while_a_command_runs_leaves_nothing(
    demo: subprocess.Popen[str], tmp_path: Path
) -> None:
    read_until(demo, "tow attach")
    assert len(marked(demo.pid)) >= 4  # node, proxies, the node's keeper, the command
    demo.send_signal(signal.SIGINT)
    said, _ = demo.communicate(timeout=30)
    assert demo.returncode == 130, said
    assert wait_until_gone(demo.pid, 1.0) == []
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_a_demo_that_is_killed_takes_its_processes_along(demo: subprocess.Popen[str]) -> None:
    read_until(demo, "cut 1")
    demo.kill()
    demo.wait()
    assert wait_until_gone(demo.pid) == []


def test_the_luggage_is_the_working_tree_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    packed = pack(str(first), 100_000, seed=7)
    assert packed == digests(str(first))
    assert "tree/README.md" in packed
    assert "tree/demo/__main__.py" in packed
    assert not [path for path in packed if "__pycache__" in path or "/.git/" in path]
    assert pack(str(second), 100_000, seed=7)["generated.bin"] == packed["generated.bin"]
    assert pack(str(second), 100_000, seed=8)["generated.bin"] != packed["generated.bin"]


def test_without_git_the_tree_is_still_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "demo/luggage.py" in working_tree()


def test_acts_name_verbs_that_exist_or_are_to_come() -> None:
    assert all(act.TITLE and act.__doc__ for act in ACTS)
    assert {"serve", "put", "get"} <= set(VERBS)
