"""A node as a process, a client's home, and lines to it, straight or through a fault proxy."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.kit import NodeProcess, own_address, until

from towline.client.connect import connect
from towline.client.jobs import Job
from towline.client.line import Line
from towline.client.output import Chunk, Missing
from towline.lab import faults
from towline.lab.faults import FaultScript
from towline.trust.pins import KnownNodes


class Place:
    """A node (that can be restarted on its address) and one person's home."""

    def __init__(self, folder: Path, *arguments: str, can: str = "run,read") -> None:
        self.folder, self.arguments = folder, arguments
        self.home = folder / "home"
        self._held = contextlib.ExitStack()
        self.address = self._held.enter_context(own_address())
        self.node = NodeProcess(folder, *arguments, listen=self.address)
        self.node.join(self.home, "ann", "home", "--can", can)

    def restart(self, number: int = signal.SIGKILL) -> None:
        """End the node in that way, and start one on the same data and address."""
        self.node.signal(number)
        self.node.wait()
        self.node.end()
        self.node = NodeProcess(self.folder, *self.arguments, listen=self.address)

    def line(self, **options: object) -> Line:
        return connect("home", home=str(self.home), **options)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def faulty(self, script: FaultScript) -> Iterator[faults.RunningProxy]:
        """Our way to the node leads through a proxy meanwhile."""
        known = KnownNodes(str(self.home))
        with faults.running(to=self.address, script=script) as proxy:
            known.set_address("home", proxy.address)
            try:
                yield proxy
            finally:
                known.set_address("home", self.address)

    @property
    def jobs_folder(self) -> Path:
        return self.node.data / "jobs"

    def keepers(self) -> list[int]:
        """The keeper of this node, if it has one, by its command line."""
        found = []
        for each in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{each}/cmdline").read_bytes().split(b"\0") if each.isdigit() else []
                if b"towline.services.jobs.keeper" in words and os.fsencode(self.jobs_folder) in words:
                    found.append(int(each))
        return found

    def close(self) -> None:
        errors = ""
        with contextlib.suppress(ProcessLookupError):
            for pid in self.keepers():
                os.kill(pid, signal.SIGKILL)
        log = self.jobs_folder / "keeper.log"
        if log.exists():
            errors = log.read_text()
        if self.node.process.poll() is None:
            self.node.signal()
            self.node.wait()
        errors += self.node.errors()
        self.node.end()
        self._held.close()
        assert "Traceback" not in errors, errors
        assert "bug" not in errors, errors


async def collect(job: Job, from_: int = 1, **options: object) -> dict[str, bytes]:
    """Everything that it prints."""
    parts: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
    async for item in job.output(from_, **options):  # type: ignore[arg-type]
        assert isinstance(item, Chunk), item
        parts[item.stream].append(item.data)
    return {name: b"".join(each) for name, each in parts.items()}


async def items(job: Job, from_: int = 1, **options: object) -> list[Chunk | Missing]:
    return [item async for item in job.output(from_, **options)]  # type: ignore[arg-type]


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def gone(pid: int) -> None:
    await until(lambda: not alive(pid), f"{pid} ends")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


Made = Callable[..., Place]
