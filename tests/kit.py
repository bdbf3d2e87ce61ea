"""What tests of the upper floors share: event loops, waiting without sleeping, nodes and clients as processes."""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
DEADLINE = 20.0  # seconds; a test that waits longer has failed
LOOPS = ("asyncio", "uvloop")
TOW = (sys.executable, "-m", "towline.cli.main")


def run(work: Coroutine[Any, Any, T], loop: str = "uvloop") -> T:
    """Run to the end on a fresh loop of that kind, within the deadline."""
    if loop == "uvloop":
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    else:
        factory = asyncio.new_event_loop

    async def bounded() -> T:
        async with asyncio.timeout(DEADLINE):
            return await work

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(bounded())


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Let the loop run until `condition` holds. Each round waits for the selector, not for a time."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what or condition}"
        await _round()


async def _round() -> None:
    """One round of the loop that blocks for a moment in the kernel, so that other threads and sockets get on."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    loop.call_later(0.001, lambda: done.done() or done.set_result(None))
    await done


async def finished(work: Awaitable[T], within: float = DEADLINE) -> T:
    async with asyncio.timeout(within):
        return await work


def environment(home: Path | str, **extra: str) -> dict[str, str]:
    """A process's environment with a client's home of its own; warnings there are errors, too."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("TOWLINE", "PYTEST", "COV"))}
    return env | {"TOWLINE_HOME": str(home), "PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error", **extra}


def tow(
    *arguments: str, home: Path | str, stdin: str = "", expect: int | None = 0, timeout: float = DEADLINE
) -> subprocess.CompletedProcess[str]:
    """Run `tow` to its end; its exit status must be `expect` (None: any). A traceback is never right."""
    done = subprocess.run(
        [*TOW, *arguments], input=stdin, capture_output=True, text=True, timeout=timeout, env=environment(home)
    )
    said = f"tow {' '.join(arguments)}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, said
    assert "Warning" not in done.stderr, said
    assert expect is None or done.returncode == expect, said
    return done


def events(text: str) -> list[dict[str, Any]]:
    """The events of `--json` output: every line is one object with `v` and `event`."""
    found = [json.loads(line) for line in text.splitlines()]
    assert all(each["v"] == 1 and isinstance(each["event"], str) for each in found)
    return found


class NodeProcess:
    """`tow serve --json` on a free port, with a data folder and a home below `folder`."""

    def __init__(self, folder: Path, *arguments: str, listen: str = "127.0.0.1:0") -> None:
        self.data = folder / "data"
        self.home = folder / "node-home"
        self._err = (folder / "node.err").open("ab+")
        self.process = subprocess.Popen(
            [*TOW, "serve", "--json", "--data", str(self.data), "--listen", listen, *arguments],
            stdout=subprocess.PIPE,
            stderr=self._err,
            env=environment(self.home),
        )
        try:
            self.first_line = self.read_line()
        except BaseException:
            self.end()
            raise
        self.listening: dict[str, Any] = json.loads(self.first_line)

    @property
    def address(self) -> str:
        return str(self.listening["address"])

    @property
    def fingerprint(self) -> str:
        return str(self.listening["fingerprint"])

    def read_line(self) -> str:
        """The next line of standard output, within the deadline."""
        out = self.process.stdout
        assert out is not None
        line, deadline = b"", time.monotonic() + DEADLINE
        with selectors.DefaultSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                assert selector.select(deadline - time.monotonic()), f"the node said nothing: {self.errors()}"
                byte = os.read(out.fileno(), 1)
                assert byte, f"the node ended: {self.errors()}"
                line += byte
        return line.decode()

    def errors(self) -> str:
        self._err.seek(0)
        return self._err.read().decode(errors="replace")

    def tow(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """An administrative verb on this node."""
        return tow(*arguments, "--data", str(self.data), home=self.home, **options)

    def invite(self, name: str, *arguments: str) -> str:
        return self.tow("invite", name, *arguments).stdout.strip()

    def join(self, home: Path, name: str = "ann", alias: str = "home", *arguments: str) -> None:
        """Let a client with that home in."""
        tow("join", "-", "--as", alias, home=home, stdin=self.invite(name, *arguments))

    def memory(self) -> int:
        """Resident bytes (proc_pid_status(5))."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = DEADLINE) -> int:
        return self.process.wait(timeout)

    def end(self) -> None:
        """However it stands, leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._err.close()


@contextmanager
def running_node(folder: Path, *arguments: str, **options: Any) -> Iterator[NodeProcess]:
    """A node; at the end it is stopped, and must have ended well and without a complaint."""
    node = NodeProcess(folder, *arguments, **options)
    try:
        yield node
        if node.process.poll() is None:
            node.signal()
            assert node.wait() == 0, node.errors()
        assert "Traceback" not in node.errors(), node.errors()
        assert "Warning" not in node.errors(), node.errors()
    finally:
        node.end()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    """A running node."""
    with running_node(tmp_path) as process:
        yield process
