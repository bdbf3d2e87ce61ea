"""Ctrl-C whenever it comes, and twice: a sentence or nothing, never a traceback."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import kit
from tests.kit import NodeProcess

node = kit.node

WHILE_STARTING = """
import sys, threading
from towline.cli import main

def load(name):
    print("here", flush=True)
    threading.Event().wait()

main.import_module = load
sys.argv = ["tow", "ping", "home"]
main.main()
"""
WHILE_CLOSING = """
import sys, threading
from towline.cli.main import main
from towline.services.files.sources import TreeSource

def totals(source):
    print("here", flush=True)
    threading.Event().wait()  # a disk that hangs

TreeSource.totals = totals
sys.argv = ["tow", "put", sys.executable, "home:files/x"]
main()
"""


@contextmanager
def _running(program: str, home: Path) -> Iterator[subprocess.Popen[str]]:
    """The program, from when it says that it is there."""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=kit.environment(home),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def _catches(process: subprocess.Popen[str]) -> bool:
    """Whether a handler waits for Ctrl-C (proc_pid_status(5))."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGINT - 1) & 1)


def _ends_without_a_word(process: subprocess.Popen[str]) -> None:
    said = process.communicate(timeout=kit.DEADLINE)
    assert process.returncode == -signal.SIGINT
    assert said == ("", "")


def test_while_it_starts(tmp_path: Path) -> None:
    with _running(WHILE_STARTING, tmp_path / "home") as process:
        process.send_signal(signal.SIGINT)
        _ends_without_a_word(process)


def test_again_while_it_tidies_up(node: NodeProcess, tmp_path: Path) -> None:
    node.join(tmp_path / "home")
    with _running(WHILE_CLOSING, tmp_path / "home") as process:
        assert _catches(process)
        process.send_signal(signal.SIGINT)
        asyncio.run(kit.until(lambda: not _catches(process), "the first one is heard"))
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _ends_without_a_word(process)
