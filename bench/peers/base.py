"""What a peer is to the harness."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.processes import Failed

if TYPE_CHECKING:
    from bench.harness import Bench

HOST = "127.0.0.1"
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
READY_SECONDS = 20.0


class Peer:
    """A peer of Towline. `programs` and `modules` are what must be installed for it."""

    name = ""
    programs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.folder = bench.path("peers", self.name.replace(" ", "-"))

    def missing(self) -> str:
        """Why it can't take part; empty when it can."""
        for program in self.programs:
            if which(program) is None:
                return f"{program} is not installed"
        for module in self.modules:
            if importlib.util.find_spec(module) is None:
                return f"the Python package {module} is not installed"
        return ""

    def start(self) -> None:
        """Set it up and wait until it answers."""

    def stop(self) -> None:
        """End it."""

    def version(self) -> str:
        return ""


class Helper:
    """A Python process of ours that holds a peer's client or server: one JSON line in, one JSON line out."""

    def __init__(self, bench: Bench, module: str, *arguments: str, env: dict[str, str] | None = None) -> None:
        self._bench = bench
        self.process = bench.processes.start(
            [sys.executable, "-m", module, *arguments], cwd=ROOT, env=env, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=None if os.environ.get("BENCH_DEBUG") else subprocess.DEVNULL,
        )  # fmt: skip

    def ask(self, **question: Any) -> dict[str, Any]:
        """Send a question and wait for the answer. Raises Failed."""
        self.send(**question)
        return self.answer()

    def send(self, **question: Any) -> None:
        """Send a question; `answer` waits. Raises Failed."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            self.process.stdin.flush()
        except OSError as error:
            raise Failed(f"the helper has ended ({error})") from error

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Failed("the helper has ended; BENCH_DEBUG=1 shows why")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise Failed(str(answer["failed"]))
        return answer

    def close(self) -> None:
        self._bench.processes.stop(self.process)


def say(**answer: Any) -> None:
    """A helper's answer."""
    print(json.dumps(answer), flush=True)


def which(program: str) -> str | None:
    """Where a program is; daemons live in sbin, which a user's PATH may lack."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


def wait_for_port(port: int, process: subprocess.Popen[bytes] | None = None) -> None:
    """Until somebody accepts there. Raises Failed."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise Failed(f"{os.path.basename(str(process.args[0]))} ended at once with {process.returncode}")
        try:
            socket.create_connection((HOST, port), 1.0).close()
            return
        except OSError:
            time.sleep(0.02)
    raise Failed(f"nobody listens on port {port}")


def write(path: str, text: str, mode: int = 0o600) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


def answer_questions(handle: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """A helper's life: a question on each line of standard input, until it is closed."""
    for line in sys.stdin:
        try:
            say(**handle(json.loads(line)))
        except Exception as error:
            say(failed=f"{type(error).__name__}: {error}")
            if os.environ.get("BENCH_DEBUG"):
                raise
