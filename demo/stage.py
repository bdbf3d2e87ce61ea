"""The processes and folders of a run, and their end."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from demo.luggage import ROOT

Event: TypeAlias = dict[str, Any]
MIB = 1 << 20
_MARK = "TOWLINE_DEMO_PID"  # in the environment of all that we start, and of what that starts
_GOODBYE_SECONDS = 8.0


class DemoFailed(Exception):
    """A step did not do what it promises; the text says which and how."""


@dataclass(slots=True)
class Actor:
    """A process of ours that speaks JSON lines."""

    name: str
    process: subprocess.Popen[str]
    errors: str  # the file that holds its standard error
    said: list[Event] = field(default_factory=list)

    def events(self) -> Iterator[Event]:
        """What it says, until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event: Event = json.loads(line)
            self.said.append(event)
            yield event

    def wait_for(self, name: str) -> Event:
        """The next event of that name. Raises DemoFailed when it ends before."""
        for event in self.events():
            if event["event"] == name:
                return event
        raise DemoFailed(f"{self.name} ended before it said {name!r}: {self.trouble()}")

    def trouble(self) -> str:
        """What it said went wrong."""
        with open(self.errors, encoding="utf-8", errors="replace") as file:
            words = file.read().strip()
        told = [event["message"] for event in self.said if event["event"] == "error"]
        return "; ".join([*told, *([words] if words else [])]) or "it said nothing"


class Stage:
    """A temporary folder and what runs in it; a context manager that leaves neither behind."""

    def __init__(self, *, size: int, seed: int, room: int) -> None:
        self.size = size
        self.seed = seed
        self.folder = tempfile.mkdtemp(prefix="towline-demo-", dir=roomy_folder(room))
        self.desk = self.make("desk")  # where the client's commands are typed
        self.node: Actor | None = None
        self.node_address = ""
        self.proxy: Actor | None = None
        self.packed: dict[str, str] = {}  # path -> digest of the luggage
        self._actors: list[Actor] = []

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        ignored = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
        signal.alarm(0)
        try:
            for actor in reversed(self._actors):  # clients first
                self.end(actor)
            _end_marked()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            for number, handler in before.items():
                signal.signal(number, handler)

    def make(self, name: str) -> str:
        """A folder of that name on the stage."""
        path = os.path.join(self.folder, name)
        os.makedirs(path, mode=0o700, exist_ok=True)
        return path

    def start(self, *arguments: str, who: str = "laptop") -> Actor:
        """Start `tow … --json` as `who` (everybody has a TOWLINE_HOME of their own) and go on."""
        errors = os.path.join(self.folder, f"{len(self._actors)}.err")
        with open(errors, "w", encoding="utf-8") as file:
            process = subprocess.Popen(
                _command(*arguments, "--json"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file,
                text=True, encoding="utf-8", cwd=self.desk, env=self._environment(who), start_new_session=True,
            )  # fmt: skip
        actor = Actor(f"tow {arguments[0]}", process, errors)
        self._actors.append(actor)
        return actor

    def tow(self, *arguments: str, who: str = "laptop", stdin: str = "") -> str:
        """Run one verb to its end and return what it printed. Raises DemoFailed."""
        try:
            done = subprocess.run(
                _command(*arguments), input=stdin, capture_output=True, text=True, encoding="utf-8", check=False,
                cwd=self.desk, env=self._environment(who), timeout=60,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"tow {arguments[0]} did not end within a minute") from None
        if done.returncode:
            raise DemoFailed(f"tow {arguments[0]} ended with status {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def end(self, actor: Actor, number: signal.Signals = signal.SIGTERM) -> int:
        """End one of ours by a signal, by force when it does not listen; its exit status."""
        process = actor.process
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(_GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None and not process.stdout.closed:
            _drain(actor)
            process.stdout.close()
        return process.returncode

    def verbs(self) -> set[str]:
        """The verbs that this `tow` has."""
        from towline.cli.main import VERBS

        return set(VERBS)

    def _environment(self, who: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TOWLINE_")}
        return {**kept, "TOWLINE_HOME": self.make(f"home-{who}"), _MARK: str(os.getpid())}


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", os.path.join(ROOT, "demo", "leash.py"), *arguments]


def _drain(actor: Actor) -> None:
    try:
        for _ in actor.events():
            pass
    except ValueError:
        pass  # a line that was cut off by its writer's end


def _end_marked() -> None:
    """End what our processes left running on purpose: a node's keeper outlives its node, and jobs their client."""
    left = _handles(marked(os.getpid()))
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            waiting = set(left)
            for handle in waiting:
                _signal(handle, number)
            deadline = time.monotonic() + _GOODBYE_SECONDS
            while waiting and (wait := deadline - time.monotonic()) > 0:
                waiting -= set(select.select(list(waiting), [], [], wait)[0])
    finally:
        for handle in left:
            os.close(handle)


def _handles(pids: list[int]) -> list[int]:
    handles = []
    for pid in pids:
        try:
            handles.append(os.pidfd_open(pid))
        except ProcessLookupError:
            continue
    return handles


def _signal(handle: int, number: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass  # it went by itself


def marked(demo: int) -> list[int]:
    """Processes that carry the mark of this demo, the demo itself excepted. Empty where there is no /proc."""
    found = []
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if entry.isdecimal() and int(entry) != demo:
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    if f"{_MARK}={demo}".encode() in file.read().split(b"\0"):
                        found.append(int(entry))
            except OSError:
                continue  # it went, or is somebody else's
    return found


def roomy_folder(room: int) -> str:
    """Where `room` bytes fit: TMPDIR when it is set, memory when there is plenty, or else the usual place."""
    chosen = [os.environ["TMPDIR"]] if os.environ.get("TMPDIR") else []
    if not chosen and _free("/dev/shm") > room and _free_memory() > 3 * room:
        chosen.append("/dev/shm")
    for folder in [*chosen, tempfile.gettempdir(), "/var/tmp"]:
        if _free(folder) > room:
            return folder
    raise DemoFailed(f"No folder for temporary files has {room // MIB} MiB of room; set TMPDIR or use --size.")


def _free(folder: str) -> int:
    try:
        return shutil.disk_usage(folder).free if os.access(folder, os.W_OK | os.X_OK) else 0
    except OSError:
        return 0


def _free_memory() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0
