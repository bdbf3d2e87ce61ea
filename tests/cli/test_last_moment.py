"""A command that is done ends, whatever its threads are still waiting for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.kit import DEADLINE, environment

PROGRAM = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from towline.cli import main
main.LAST_SECONDS = 0.01
ThreadPoolExecutor(1).submit(threading.Event().wait)  # a disk that hangs
sys.argv = ["tow", *sys.argv[1:]]
sys.exit(main.main())
"""


def test_a_thread_that_never_ends_is_not_waited_for(tmp_path: Path) -> None:
    for words, status in (["--version"], 0), (["ping", "nobody"], 4):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *words],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            env=environment(tmp_path / "home"),
        )
        assert done.returncode == status, done.stderr
        assert done.stdout or done.stderr
