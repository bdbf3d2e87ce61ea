"""The fault proxy: a TCP relay that loses connections on purpose, repeatably.

`FaultProxy` lives in an event loop; `running` hosts one on a thread for blocking tests and scripts. What is done and
when comes from a `FaultScript`; a cut closes all relayed connections at once, as a pulled cable would, and a cut that
is counted in bytes falls exactly after that byte: everything read before it has been handed to the receiver's kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from msgspec.structs import asdict

from towline.base.errors import InUse, TimedOut, TowlineError, Unreachable, UsageError
from towline.lab.faults_link import DOWN, UP, Link, Valve, address_text, parse_address
from towline.lab.faults_script import FaultScript, Step

__all__ = ["FaultProxy", "FaultScript", "FaultStats", "RunningProxy", "new_event_loop", "running"]

Listener = Callable[[str, dict[str, object]], None]
BACKLOG = 1024
SHORTAGE_PAUSE = 0.1  # seconds until we ask again, when the process is out of descriptors
ANSWER_SECONDS = 30.0  # what the proxy's thread is asked takes no time at all; later, something holds its loop up
T = TypeVar("T")


@dataclass(slots=True)
class FaultStats:
    """Totals so far. `bytes_up` flowed from the clients to the target, `bytes_down` back."""

    connections: int = 0
    cuts: int = 0
    stalls: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


class FaultProxy:
    """A relay from `listen` to `to` (both `HOST:PORT`) with the faults of `script`.

    `on_event(name, fields)` hears `listening`, `cut`, `stall`, `refusing`, `accepting`, `changed` and `unreachable`,
    in the loop's thread.
    """

    def __init__(
        self,
        to: str,
        *,
        listen: str = "127.0.0.1:0",
        script: FaultScript | None = None,
        on_event: Listener | None = None,
    ) -> None:
        self.to = parse_address(to)
        self.script = script or FaultScript()
        self.valve = Valve(self.script)
        self.address = ""
        self._listen = parse_address(listen)
        self._on_event = on_event or (lambda name, fields: None)
        self._connections = self._cuts = self._stalls = 0
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._holder: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._refusals = 0
        self._plan = self.script.by_bytes()
        self._due: Step | None = None

    def __repr__(self) -> str:
        return f"<FaultProxy {self.address} -> {address_text(self.to)}, {len(self._links)} live, {self.stats}>"

    @property
    def stats(self) -> FaultStats:
        """A snapshot; may be read from any thread."""
        moved = self.valve.moved
        return FaultStats(self._connections, self._cuts, self._stalls, moved[UP], moved[DOWN])

    @property
    def live(self) -> int:
        """Connections that are being relayed now."""
        return len(self._links)

    async def start(self) -> str:
        """Listen, begin the schedule, return the address `HOST:PORT`. Raises InUse, Unreachable."""
        self._holder = _bound(self._listen)
        self._listen = self._holder.getsockname()[:2]
        self.address = address_text(self._listen)
        self._accept_from_now()
        self.valve.on_due = self._on_due
        self._arm()
        if self.valve.reached():  # a step at position 0 waits for no byte
            self._on_due()
        self._spawn(self._timed())
        self._tell("listening", address=self.address, to=address_text(self.to), schedule=self.script.plan())
        return self.address

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def cut(self) -> int:
        """Close every relayed connection now; bytes on their way are lost. Returns how many there were."""
        self._cuts += 1
        links, self._links = self._links, set()
        for link in links:
            link.close(reset=self.script.reset)
        self._tell("cut", n=self._cuts, at=self.valve.total, connections=len(links))
        if self.script.refuse:
            self._begin_refusal(self.script.refuse)
        await asyncio.sleep(0)  # the closed links' tasks end before anybody looks at the totals
        return len(links)

    async def stall(self, seconds: float) -> None:
        """Keep every connection and move nothing for `seconds`."""
        self._stalls += 1
        self._tell("stall", at=self.valve.total, seconds=seconds)
        with self.valve.held():
            await asyncio.sleep(seconds)

    async def refuse(self, seconds: float) -> None:
        """Refuse new connections (ECONNREFUSED) for `seconds`; live ones go on."""
        self._refuse_from_now(seconds)
        await self._refusing(seconds)

    async def close(self) -> None:
        """Close everything; nothing is left behind."""
        self._stop_accepting()
        if self._holder is not None:
            self._holder.close()
            self._holder = None
        links, self._links = self._links, set()
        for link in links:
            link.close(reset=False)
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept_from_now(self) -> None:
        # A second socket holds the port, so that it is still ours after the listening one was closed to refuse.
        self._listener = _bound(self._listen)
        self._listener.listen(BACKLOG)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _stop_accepting(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self) -> None:
        while self._listener is not None:
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):  # nobody (more) is waiting, or left again
                return
            except OSError:
                self._accept_later(self._listener)
                return
            self._connections += 1
            self._take(client)

    def _accept_later(self, listener: socket.socket) -> None:
        """We are out of descriptors: somebody has to leave first. Whoever waits would wake us without end."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)

        def again() -> None:
            if self._listener is listener:
                loop.add_reader(listener, self._accept)

        loop.call_later(SHORTAGE_PAUSE, again)

    def _take(self, client: socket.socket) -> None:
        # A link from the first moment on: a cut or our end takes those that are being made, too.
        client.setblocking(False)
        try:
            target = socket.socket(socket.AF_INET6 if ":" in self.to[0] else socket.AF_INET, socket.SOCK_STREAM)
        except OSError as error:
            client.close()
            self._tell("unreachable", reason=error.strerror or type(error).__name__)
            return
        target.setblocking(False)
        link = Link(client, target, self.valve)
        self._links.add(link)
        self._spawn(self._relay(link))

    def _begin_refusal(self, seconds: float) -> None:
        self._refuse_from_now(seconds)
        self._spawn(self._refusing(seconds))

    def _refuse_from_now(self, seconds: float) -> None:
        self._refusals += 1
        self._stop_accepting()
        self._tell("refusing", seconds=seconds)

    async def _refusing(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._refusals -= 1
        while not self._refusals and self._holder is not None and self._listener is None:
            try:
                self._accept_from_now()
            except TowlineError:  # out of descriptors, as above
                await asyncio.sleep(SHORTAGE_PAUSE)
            else:
                self._tell("accepting")

    async def _relay(self, link: Link) -> None:
        try:
            await link.connect(self.to)
            await link.relay()
        except OSError as error:
            self._tell("unreachable", reason=type(error).__name__)
            link.close(reset=True)  # the client hears what we heard
        finally:
            link.close(reset=False)
            self._links.discard(link)

    # --- the schedule ---

    def _arm(self) -> None:
        at, self._due = next(self._plan, (None, None))
        self.valve.next_at = at

    def _on_due(self) -> None:
        self.valve.pending = True
        self._spawn(self._perform_due())

    async def _perform_due(self) -> None:
        with self.valve.held():
            try:
                await self.valve.settled(
                    [link.target for link in self._links] + [link.client for link in self._links]
                )
                # A connection may have died with bytes on their way: then the position is not reached yet.
                while self._due is not None and self.valve.reached():
                    step = self._due
                    self._arm()
                    await self._perform(step)
            finally:
                self.valve.pending = False

    async def _timed(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for when, step in self.script.by_seconds():
            await asyncio.sleep(max(0.0, began + when - loop.time()))
            self._spawn(self._perform(step))  # a stall does not put off what is to happen in its midst

    async def _perform(self, step: Step) -> None:
        if step.do == "cut":
            if self.script.max_cuts is None or self._cuts < self.script.max_cuts:
                await self.cut()
        elif step.do == "stall":
            await self.stall(step.seconds)
        elif step.do == "refuse":
            self._begin_refusal(step.seconds)
        else:
            self.valve.change(step)
            self._tell("changed", **asdict(step))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell(self, name: str, **fields: object) -> None:
        self._on_event(name, fields)


class RunningProxy:
    """A `FaultProxy` on a thread of its own, for blocking callers. Made by `running`."""

    def __init__(self, proxy: FaultProxy, loop: asyncio.AbstractEventLoop) -> None:
        self._proxy, self._loop = proxy, loop
        self.address = proxy.address

    def __repr__(self) -> str:
        return f"<RunningProxy of {self._proxy!r}>"

    @property
    def stats(self) -> FaultStats:
        """Totals so far."""
        return self._proxy.stats

    @property
    def live(self) -> int:
        """Connections that are being relayed now."""
        return self._proxy.live

    def cut(self) -> int:
        """See `FaultProxy.cut`. Raises TimedOut."""
        return self._done(self._proxy.cut())

    def stall(self, seconds: float) -> None:
        """Begin a stall; returns at once."""
        self._loop.call_soon_threadsafe(lambda: self._proxy._spawn(self._proxy.stall(seconds)))  # noqa: SLF001  # the same room

    def refuse(self, seconds: float) -> None:
        """Begin to refuse new connections; returns once they are refused. Raises TimedOut."""

        async def begin() -> None:
            self._proxy._begin_refusal(seconds)  # noqa: SLF001  # the same room

        self._done(begin())

    def _done(self, work: Coroutine[None, None, T]) -> T:
        # Bounded: the loop may be busy with a listener that does not return, or be gone by now.
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result(ANSWER_SECONDS)
        except TimeoutError:
            raise TimedOut(f"The fault proxy has not answered within {ANSWER_SECONDS:g} s.") from None


@contextlib.contextmanager
def running(
    to: str,
    *,
    script: FaultScript | None = None,
    listen: str = "127.0.0.1:0",
    on_event: Listener | None = None,
) -> Iterator[RunningProxy]:
    """Run a `FaultProxy` on a thread for the length of a `with` block. Raises what `start` does, and TimedOut."""
    proxy = FaultProxy(to, listen=listen, script=script, on_event=on_event)
    began: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    ended: Future[None] = Future()
    threading.Thread(target=_host, args=(proxy, began, ended), name="fault-proxy", daemon=True).start()
    loop, stop = began.result(ANSWER_SECONDS)
    try:
        yield RunningProxy(proxy, loop)
    finally:
        loop.call_soon_threadsafe(stop.set)
        try:
            ended.result(ANSWER_SECONDS)
        except TimeoutError:
            raise TimedOut(f"The fault proxy has not ended within {ANSWER_SECONDS:g} s.") from None


def _host(
    proxy: FaultProxy, began: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]], ended: Future[None]
) -> None:
    async def serve() -> None:
        stop = asyncio.Event()
        async with proxy:
            began.set_result((asyncio.get_running_loop(), stop))
            await stop.wait()

    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:  # cancels what others have begun on this loop
            runner.run(serve())
    except BaseException as error:  # noqa: BLE001  # raised again in the thread that waits
        (ended if began.done() else began).set_exception(error)
    else:
        ended.set_result(None)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed, otherwise the standard one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _bound(address: tuple[str, int]) -> socket.socket:
    try:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(found[0], socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"Cannot listen on {address_text(address)}: {error.strerror}.")
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setblocking(False)
        bound.bind(found[4])
    except OSError as error:
        bound.close()
        kind = InUse if error.errno == errno.EADDRINUSE else Unreachable
        raise kind(f"Cannot listen on {address_text(address)}: {error.strerror}.")
    return bound
