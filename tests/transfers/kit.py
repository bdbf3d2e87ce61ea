"""A real node in this process, joined clients, trees to move, and faults between them."""

from __future__ import annotations

import asyncio
import os
import random
import stat
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.kit import DEADLINE, nothing_left_open, own_address, run

from towline.base.errors import TowlineError
from towline.client.connect import connect
from towline.client.events import Done, FileDone, FileFailed, Resumed, TransferEvent, Warned
from towline.client.joining import join
from towline.client.line import Line
from towline.client.transfer import Options
from towline.lab import faults
from towline.node import Node, NodeConfig, Share
from towline.trust.pins import KnownNodes

T = TypeVar("T")
KIB, MIB = 1024, 1024 * 1024


@dataclass
class Heard:
    """The events of a transfer, to be asked about."""

    events: list[object] = field(default_factory=list)

    def __call__(self, event: object) -> None:
        self.events.append(event)

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def notes(self) -> dict[str, str]:
        return {event.path: event.note for event in self.of(FileDone)}

    @property
    def failed(self) -> dict[str, TowlineError]:
        return {event.path: event.error for event in self.of(FileFailed)}

    @property
    def warned(self) -> dict[str, str]:
        return {event.path: event.reason for event in self.of(Warned)}

    @property
    def resumed(self) -> list[Resumed]:
        return self.of(Resumed)


class Town:
    """A node on a loop of its own thread; everything else happens in the test's."""

    def __init__(self, folder: Path, *shares: Share) -> None:
        self.folder = folder
        self.share = folder / "share"
        self.share.mkdir(exist_ok=True)
        self.shares = shares or (Share("files", str(self.share)),)
        self.loop = faults.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="node", daemon=True)
        self.thread.start()
        self._held = ExitStack()
        self.address = self._held.enter_context(own_address())
        self.node = self._do(self._start())

    async def _start(self) -> Node:
        node = Node(NodeConfig(data=str(self.folder / "data"), listen=self.address, shares=self.shares, name="home"))
        await node.start()
        return node

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(DEADLINE)

    def in_loop(self, function: Callable[[], T]) -> T:
        """Call `function` in the node's loop."""
        done: Future[T] = Future()

        def call() -> None:
            try:
                done.set_result(function())
            except BaseException as error:
                done.set_exception(error)

        self.loop.call_soon_threadsafe(call)
        return done.result(DEADLINE)

    def restart(self) -> None:
        """End the node at once and start it anew at the same address."""
        self._do(self.node.stop(drain=0))
        self.node = self._do(self._start())

    def close(self) -> None:
        self._do(self.node.stop(drain=0))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(DEADLINE)
        with nothing_left_open():
            self.loop.close()
        self._held.close()

    def home(self, person: str = "ann", can: str = "chat,read,write", *, folder: str = "") -> str:
        """A client's home, joined as `person` under the alias `home`."""
        home = self.folder / (folder or f"home-{person}")
        if not home.exists():
            service: Any = self.node._services.find("admin")
            run(join(service._administration.invite("owner", person, can, 3600.0), "home", home=str(home)))
        return str(home)

    def with_line(
        self,
        do: Callable[[Line], Awaitable[T]],
        *,
        home: str = "",
        address: str = "",
        give_up: float | None = None,
        on_line: Callable[[object], None] | None = None,
    ) -> T:
        """Connect (through `address`, if given) and do it."""
        home = home or self.home()
        KnownNodes(home).set_address("home", address or self.address)

        async def work() -> T:
            async with connect("home", home=home, give_up=give_up, on_event=on_line) as line:
                return await do(line)

        return run(work())

    def put(self, local: Path | str, remote: str, *, heard: Heard | None = None, **options: Any) -> Done:
        where = {key: options.pop(key) for key in ("home", "address", "give_up") if key in options}
        heard = heard or Heard()
        return self.with_line(
            lambda line: line.put(str(local), remote, options=Options(**options), on_event=heard),
            on_line=heard,
            **where,
        )

    def get(self, remote: str, local: Path | str, *, heard: Heard | None = None, **options: Any) -> Done:
        where = {key: options.pop(key) for key in ("home", "address", "give_up") if key in options}
        heard = heard or Heard()
        return self.with_line(
            lambda line: line.get(remote, str(local), options=Options(**options), on_event=heard),
            on_line=heard,
            **where,
        )

    @contextmanager
    def faults(self, **script: Any) -> Iterator[faults.RunningProxy]:
        """The fault proxy before this node."""
        with faults.running(to=self.address, script=faults.FaultScript(**script)) as proxy:
            yield proxy


def rubbish(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress and do not repeat."""
    return random.Random(seed).randbytes(size)


def write(path: Path | str, content: bytes, *, mode: int = 0o644, mtime: int = 1_700_000_000_123_456_789) -> None:
    """A file with its bits and time; missing folders are made."""
    os.makedirs(os.path.dirname(os.fspath(path)), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)
    os.utime(path, ns=(mtime, mtime))


def seen(folder: Path | str, *, times: bool = True) -> dict[bytes, tuple[object, ...]]:
    """All that is below a folder, by name: kind, content, bits, time. The folder itself is `b"."`."""
    found: dict[bytes, tuple[object, ...]] = {}
    top = os.fsencode(folder)
    for where, folders, files in os.walk(top):
        for name in [b".", *files] + [each for each in folders if os.path.islink(os.path.join(where, each))]:
            path = os.path.normpath(os.path.join(where, name))
            found[os.path.relpath(path, top)] = _look(path, times)
    return found


def _look(path: bytes, times: bool) -> tuple[object, ...]:
    info = os.lstat(path)
    mtime = info.st_mtime_ns if times else 0
    if stat.S_ISLNK(info.st_mode):
        return ("link", os.readlink(path), mtime)
    if stat.S_ISDIR(info.st_mode):
        return ("dir", stat.S_IMODE(info.st_mode), mtime)
    with open(path, "rb") as file:
        return ("file", file.read(), stat.S_IMODE(info.st_mode), mtime)


def partials(folder: Path | str) -> list[str]:
    """The unfinished files below a folder."""
    return sorted(
        os.path.join(where, name)
        for where, _, names in os.walk(folder)
        for name in names
        if name.startswith(".towline")
    )


def events_of(heard: Heard) -> list[TransferEvent]:
    return [event for event in heard.events if type(event).__module__.endswith("client.events")]  # type: ignore[misc]
