"""What tests of the upper floors share: event loops, waiting without sleeping, nodes and clients as processes."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

import towline
from towline.node import Node, NodeConfig

T = TypeVar("T")
# Seconds; a test that waits longer has failed. Less than the 30 s after which a node lets go of what nobody claims.
DEADLINE = 28.0
LOOPS = ("asyncio", "uvloop")
_NEVER = ("Traceback", "Warning", "Exception ignored", "never retrieved", "was destroyed")
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

    runner = asyncio.Runner(loop_factory=factory)
    try:
        return runner.run(bounded())
    finally:
        with nothing_left_open():
            runner.close()


@contextmanager
def nothing_left_open() -> Iterator[None]:
    """For the closing of a loop. uvloop warns of a transport that is still open, and closes it after that; where the
    warning is an error it does not come to it, and waits for that transport for ever."""
    with warnings.catch_warnings(record=True) as left:
        warnings.simplefilter("always", ResourceWarning)
        yield
    assert not left, [str(each.message) for each in left]


@contextmanager
def disk_of(largest_file: int) -> Iterator[None]:
    """The kernel refuses to write beyond this offset, and writes half a record before it does (setrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Let the loop run until `condition` holds. Each round waits for the selector, not for a time."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what or condition}"
        await round_of_the_loop()


async def round_of_the_loop() -> None:
    """One round of the loop that blocks for a moment in the kernel, so that other threads and sockets get on."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    loop.call_later(0.001, lambda: done.done() or done.set_result(None))
    await done


async def open_for_writing(fifo: Path | str) -> int:
    """A descriptor of a FIFO, once somebody reads it. A thread in a blocking open(2) could not be called off."""
    while True:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nobody reads yet (fifo(7))
                raise
        await round_of_the_loop()


async def finished(work: Awaitable[T], within: float = DEADLINE) -> T:
    async with asyncio.timeout(within):
        return await work


def environment(home: Path | str, **extra: str) -> dict[str, str]:
    """A process's environment with a client's home of its own; warnings there are errors, too."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("TOWLINE", "PYTEST", "COV"))}
    return env | {"TOWLINE_HOME": str(home), "PYTHONWARNINGS": "error", **extra}


def tow(
    *arguments: str, home: Path | str, stdin: str = "", expect: int | None = 0, timeout: float = DEADLINE
) -> subprocess.CompletedProcess[str]:
    """Run `tow` to its end; its exit status must be `expect` (None: any). A traceback is never right."""
    done = subprocess.run(
        [*TOW, *arguments], input=stdin, capture_output=True, text=True, timeout=timeout, env=environment(home)
    )
    said = f"tow {' '.join(arguments)}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert not complaints(done.stderr), said
    assert expect is None or done.returncode == expect, said
    return done


def complaints(text: str) -> list[str]:
    """What a program must never say: tracebacks, and warnings (of unclosed sockets, say)."""
    return [line for line in text.splitlines() if any(word in line for word in _NEVER)]


def events(text: str) -> list[dict[str, Any]]:
    """The events of `--json` output: every line is one object with `v` and `event`."""
    found = [json.loads(line) for line in text.splitlines()]
    assert all(each["v"] == 1 and isinstance(each["event"], str) for each in found)
    return found


class NodeProcess:
    """`tow serve --json` on a free port, with a data folder and a home below `folder`."""

    def __init__(
        self, folder: Path, *arguments: str, listen: str = "127.0.0.1:0", command: tuple[str, ...] = (*TOW, "serve")
    ) -> None:
        self.data = folder / "data"
        self.home = folder / "node-home"
        self._err = (folder / "node.err").open("ab+")
        self.process = subprocess.Popen(
            [*command, "--json", "--data", str(self.data), "--listen", listen, *arguments],
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

    def read_rest(self) -> str:
        """What else it says until it ends."""
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()

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
        assert not complaints(node.errors()), node.errors()
    finally:
        node.end()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However soon a line is to give up, an attempt that finds somebody has its time: the first one must succeed."""
    monkeypatch.setattr("towline.client.line.LEAST_ATTEMPT_SECONDS", DEADLINE)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    """A running node."""
    with running_node(tmp_path) as process:
        yield process


@asynccontextmanager
async def serving(folder: Path, **options: Any) -> AsyncIterator[Node]:
    """A node in this process, on a free port."""
    config = NodeConfig(str(folder), **{"listen": "127.0.0.1:0", **options})
    async with Node(config) as node:
        yield node


async def joined(node: Node, home: Path, name: str = "ann", can: str = "chat,read,write") -> str:
    """Let a client in, with the alias `home`; its state folder."""
    await towline.join(await node.invite(name, can), "home", home=str(home))
    return str(home)


@contextmanager
def dead_port() -> Iterator[int]:
    """A port of 127.0.0.1 where nobody listens: bound, not listening, so that nobody else is given it meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def own_address() -> Iterator[str]:
    """`127.0.0.1:PORT` for a node that starts there more than once: bound by us, too, and not listening, so that the
    port is given to nobody else while the node is away (socket(7), SO_REUSEADDR, which a node sets as well)."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{holder.getsockname()[1]}"


@pytest.fixture
def address() -> Iterator[str]:
    """An address of the test's own."""
    with own_address() as own:
        yield own


class Relay:
    """A TCP relay that can be cut, made deaf, and pointed elsewhere; `count` connections came."""

    def __init__(self, to: str) -> None:
        self.to = to
        self.deaf = False  # accept and say nothing
        self.count = 0
        self.address = ""
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await until(lambda: not self.cut(), "all cut")

    def cut(self) -> int:
        """Break every connection; how many there were."""
        for writer in self._writers:
            writer.transport.abort()
        return len(self._writers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        async with self._held(writer):
            if self.deaf:
                await _copy(reader, None)
                return
            there_reader, there_writer = await asyncio.open_connection(*self.to.rsplit(":", 1))
            async with self._held(there_writer):
                await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))

    @asynccontextmanager
    async def _held(self, writer: asyncio.StreamWriter) -> AsyncIterator[None]:
        self._writers.add(writer)
        try:
            yield
        except OSError:
            pass
        finally:
            writer.transport.abort()
            self._writers.discard(writer)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None) -> None:
    try:
        while data := await reader.read(65536):
            if writer is not None:
                writer.write(data)
                await writer.drain()
        if writer is not None:
            writer.write_eof()
    except (OSError, RuntimeError):
        if writer is not None:
            writer.transport.abort()
