"""A simulated world for rooms: a node and its clients on one loop, with a clock that jumps and a disk that forgets.

Everything is the real thing (services, journals, sessions, pumps, outboxes, lines) but what a test cannot wait for or
ask to fail: time goes to whatever is due next, threads are calls, connections are pairs in memory, and a commit of a
journal takes a moment during which the node may be killed. A killed node loses what was not fsynced: of what lay in a
file behind that, a random part survives. One seed makes one run.
"""

from __future__ import annotations

import asyncio
import os
import selectors
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from towline.base.errors import ConnectionLost, TowlineError, Unreachable
from towline.client import line as lines
from towline.client import rooms
from towline.client.line import Line
from towline.client.reach import Target
from towline.journal import committer, descriptors
from towline.protocol import events as ev
from towline.protocol.records import Proof, Welcome
from towline.protocol.session import Session
from towline.protocol.table import Role
from towline.runtime.channel import Channel
from towline.runtime.pump import Connection
from towline.services.rooms.house import House
from towline.services.rooms.service import RoomsService
from towline.store import Store
from towline.transports.memory import connect_pair
from towline.trust.grants import Grants

T = TypeVar("T")
ADDRESS = "memory"
PATIENCE = 600.0  # seconds; a node that is killed again and again is not reached within the 3 s of a first connection


class _Jumping(selectors.SelectSelector):
    """Waits for nobody: instead of sleeping until something is due, the clock goes there."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits for somebody else"
            self.now += max(timeout, 0.0)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Jumping()
        super().__init__(self._clock)
        self.set_default_executor(_Inline())

    def time(self) -> float:
        return self._clock.now


class _Inline(ThreadPoolExecutor):
    """What would go to a thread is done at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class _Committer(committer.Committer):
    """Commits a moment after it was asked to, unless the node was killed before."""

    def __init__(self, random: Random, power_cut: Callable[[], None]) -> None:
        super().__init__(threads=0)
        self._random, self._power_cut = random, power_cut

    def submit(self, journal: committer.Committable) -> None:
        asyncio.get_running_loop().call_later(self._random.uniform(0.0, 0.02), self._commit, journal)

    def _commit(self, journal: committer.Committable) -> None:
        if self is committer._shared:
            try:
                if journal.commit():
                    self.submit(journal)
            except _PowerCut:
                self._power_cut()


class _PowerCut(BaseException):
    """In the middle of an fsync: nobody hears how it went."""


class Disk:
    """Knows how much of each file of a journal was fsynced."""

    def __init__(self, folder: Path, random: Random) -> None:
        self._folder, self._random = folder, random
        self.fails_next = False
        self._kept: dict[str, int] = {}

    def synced(self, descriptor: int) -> None:
        self._kept[os.readlink(f"/proc/self/fd/{descriptor}")] = os.fstat(descriptor).st_size

    def forget(self) -> None:
        """The power goes: what was not fsynced is there in part, or not."""
        for path in self._folder.rglob("*.log"):
            kept, size = self._kept.get(str(path), 0), path.stat().st_size
            if size > kept:
                os.truncate(path, self._random.randint(kept, size))


class World:
    """A node that can be killed and started, and lines to it that are cut."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = Random(seed)
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.node: SimulatedNode | None = None
        self.cuts = self.kills = 0
        self._disk = Disk(folder, self.random)
        self.dark = asyncio.Event()  # the power went in an fsync
        self._lines: list[Connection] = []

    async def start(self) -> None:
        """Start the node, on whatever its disk holds."""
        self.dark.clear()
        self._disk.fails_next = False
        committer._shared = _Committer(self.random, self.dark.set)
        descriptors.SHARED._open.clear()
        self.node = SimulatedNode(self.folder / "data")
        await self.node.start()

    async def kill(self) -> None:
        """As -9 and a power cut do it: nothing more is written, said or tidied up."""
        node, self.node = self.node, None
        assert node is not None
        self.kills += 1
        committer._shared = None
        for connection in node.connections:
            connection.abort()
        await node.die()
        for entry in descriptors.SHARED._open.values():
            os.close(entry[0])
        descriptors.SHARED._open.clear()
        self._disk.forget()

    async def kill_in_fsync(self) -> None:
        """The same in the middle of a commit, if there is one soon: written in part, and nobody hears of it."""
        self._disk.fails_next = True
        try:
            async with asyncio.timeout(0.5):
                await self.dark.wait()
        except TimeoutError:
            pass
        await self.kill()

    def cut(self) -> None:
        """One connection breaks; what is under way on it is lost."""
        standing = [each for each in self._lines if each.is_open]
        if standing:
            self.cuts += 1
            self.random.choice(standing).abort()

    def line(self, name: str) -> SimulatedLine:
        """A client of that name, with an outbox of its own."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        return SimulatedLine(self, name, str(home))

    async def dial(self, person: str, connection: Connection) -> None:
        """Connect to the node. Raises Unreachable."""
        await asyncio.sleep(self.random.uniform(0.0, 0.05))
        if self.node is None:
            raise Unreachable("The node is down.")
        far = Connection(self.node)
        far.user = person
        self._lines = [*(each for each in self._lines if each.is_open), connection]
        connect_pair(far, connection)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The parts of the real world that are exchanged, for as long as it lasts."""
        shared = committer._shared
        fsync, fdatasync = os.fsync, os.fdatasync

        def committed(descriptor: int) -> None:
            if self._disk.fails_next:
                self._disk.fails_next = False
                raise _PowerCut
            self._disk.synced(descriptor)

        os.fsync, os.fdatasync = self._disk.synced, committed  # type: ignore[assignment]
        uniform = lines.uniform
        lines.uniform = rooms.uniform = self.random.uniform  # type: ignore[attr-defined]
        try:
            yield
        finally:
            os.fsync, os.fdatasync = fsync, fdatasync
            lines.uniform = rooms.uniform = uniform  # type: ignore[attr-defined]
            committer._shared = shared


class SimulatedNode:
    """The service of rooms behind connections that are believed."""

    def __init__(self, data: Path) -> None:
        data.mkdir(exist_ok=True)
        self.connections: list[Connection] = []
        self._store = Store.open(str(data))
        self._rooms = RoomsService(House(self._store, str(data)))
        self._tasks: dict[asyncio.Task[None], None] = {}  # in their order: one seed makes one run
        self._dead = False

    async def start(self) -> None:
        await self._rooms.start()

    async def die(self) -> None:
        self._dead = True
        house = self._rooms._house
        assert house._books is not None
        for task in [*self._tasks, house._books, *house._opening.values()]:
            task.cancel()
        await asyncio.gather(*self._tasks, house._books, return_exceptions=True)
        for room in house._rooms.values():
            room.presence.close()
        self._store.close()

    async def stop(self) -> None:
        """In good order."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._rooms.close()
        self._store.close()

    # --- House of its connections ---

    def session_for(self, connection: Connection, now: float, nonce: bytes) -> Session:
        self.connections.append(connection)
        return Session(Role.NODE, agent="simulated", nonce=nonce, now=now, name="node")

    def on_connected(self, connection: Connection) -> None:
        pass

    def on_event(self, connection: Connection, event: ev.Event) -> None:
        if isinstance(event, ev.ProofOffered):
            connection.person, connection.grants = str(connection.user), Grants.parse("chat")
            connection.session.welcome(Welcome(connection.person, "chat"))

    def on_stream(self, connection: Connection, channel: Channel) -> None:
        if not self._dead:
            task = asyncio.ensure_future(self._serve(connection, channel))
            self._tasks[task] = None
            task.add_done_callback(self._tasks.pop)

    def on_closed(self, connection: Connection, error: object) -> None:
        self.connections.remove(connection)

    async def _serve(self, connection: Connection, channel: Channel) -> None:
        channel.cancel_when_lost(asyncio.current_task(), 0.1)  # type: ignore[arg-type]
        try:
            await self._rooms(channel)
            channel.end()
        except TowlineError as error:
            channel.reset(error)
        finally:
            connection.release(channel)


class SimulatedLine(Line):
    """A line whose connections come from the world."""

    def __init__(self, world: World, name: str, home: str) -> None:
        super().__init__(
            Target("node", (ADDRESS,), "simulated"),
            None,  # type: ignore[arg-type]
            home=home,
            give_up=PATIENCE,
        )
        self._world, self._name = world, name

    async def die(self) -> None:
        """Killed: nothing is finished; what is in the outbox stays there."""
        mailing = self.mailing
        for connection in list(self._connections):
            connection.abort()
        if mailing._task is not None:
            mailing._task.cancel()
            await asyncio.wait([mailing._task])
        if mailing._outbox is not None:
            mailing._outbox.close()

    async def _attempt(self, left: float) -> Connection:
        house = _Client()
        connection = Connection(house)
        self._connections.add(connection)
        house.on_gone = self._connections.discard
        try:
            await self._world.dial(self._name, connection)
            self.welcome = await house.done
        except BaseException:
            self._connections.discard(connection)
            raise
        return connection


class _Client:
    """House of a client's connection."""

    def __init__(self) -> None:
        self.done: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()
        self.on_gone: Callable[[Connection], None] = lambda _: None

    def session_for(self, connection: Connection, now: float, nonce: bytes) -> Session:
        return Session(Role.CLIENT, agent="simulated", nonce=nonce, now=now)

    def on_connected(self, connection: Connection) -> None:
        pass

    def on_event(self, connection: Connection, event: ev.Event) -> None:
        match event:
            case ev.ProofWanted():
                connection.session.prove(Proof("peer"))
            case ev.Welcomed(welcome):
                if not self.done.done():
                    self.done.set_result(welcome)
            case _:
                pass

    def on_stream(self, connection: Connection, channel: Channel) -> None:
        raise AssertionError

    def on_closed(self, connection: Connection, error: object) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionLost())
        self.on_gone(connection)


def simulate(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end in simulated time."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work)
