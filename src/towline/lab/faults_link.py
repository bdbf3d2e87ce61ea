"""One relayed connection of the fault proxy, and the valve that all of them pass.

The valve counts: a pump asks how much it may read, so that no read crosses the next scheduled position, and nothing
is read while the valve is held (a stall, or a step being performed).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence

from towline.base.errors import UsageError
from towline.base.limits import KIB, MIB
from towline.lab.faults_script import FaultScript, Step

UP, DOWN = 0, 1
READ_SIZE = 256 * KIB
SETTLE_SECONDS = 1.0  # how long a byte-counted step waits for the bytes before it; a stuck receiver holds up no cut
DELAY_LINE_BYTES = 16 * MIB  # in flight per direction under --delay: 160 MB/s at 100 ms, and a bound on memory
THROTTLE_SLICE = 0.02  # seconds' worth of bytes a throttled read may take, so that the rate is smooth


class Valve:
    """Counts and gates the bytes of all connections of one proxy."""

    def __init__(self, script: FaultScript) -> None:
        self.moved = [0, 0]
        self.next_at: int | None = None
        self.pending = False  # a step is due and not yet performed
        self.on_due: Callable[[], None] = lambda: None
        self.throttle, self.delay = script.throttle, script.delay
        self.dribble, self.dribble_bytes = script.dribble, script.dribble_bytes
        self._in_flight = 0
        self._holds = 0
        self._open = asyncio.Event()
        self._open.set()
        self._landed = asyncio.Event()
        self._free_at = 0.0

    @property
    def total(self) -> int:
        """Bytes forwarded, both ways."""
        return self.moved[UP] + self.moved[DOWN]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is read while any holder is inside."""
        self._holds += 1
        self._open.clear()
        try:
            yield
        finally:
            self._holds -= 1
            if not self._holds:
                self._open.set()

    async def opened(self) -> None:
        """Wait until reading is allowed."""
        while not self._open.is_set():
            await self._open.wait()

    def is_open(self) -> bool:
        """True when reading is allowed now."""
        return not self._holds

    def room(self, moved: int) -> int:
        """How much may be read now by a direction that has moved `moved` bytes so far; 0: wait, a step is due."""
        room = READ_SIZE
        if self.next_at is not None:
            room = min(room, self.next_at - self.total - self._in_flight)
            if room <= 0:
                return 0
        if self.dribble or moved < self.dribble_bytes:
            return 1
        if self.throttle:
            room = max(1, min(room, int(self.throttle * THROTTLE_SLICE)))
        return room

    def took(self, count: int) -> None:
        """`count` bytes were read and are on their way."""
        self._in_flight += count
        if self.next_at is not None and self.total + self._in_flight >= self.next_at and not self.pending:
            self.on_due()
            self._open.clear()  # the due step's task holds the valve from its first turn on

    def forwarded(self, count: int, direction: int) -> None:
        """`count` bytes were handed to the receiver's side."""
        self.moved[direction] += count
        self.lost(count)

    def lost(self, count: int) -> None:
        """`count` bytes are no longer on their way."""
        self._in_flight -= count
        if not self._in_flight:
            self._landed.set()

    def reached(self) -> bool:
        """True when the next scheduled position is reached (or no longer reachable in time: see `settled`)."""
        return self.next_at is not None and self.total + self._in_flight >= self.next_at

    async def settled(self, sockets: Sequence[socket.socket]) -> None:
        """Wait until all bytes read are in the receivers' kernels, at most SETTLE_SECONDS (plus the delay line)."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SETTLE_SECONDS + self.delay
        while self._in_flight and loop.time() < deadline:
            self._landed.clear()
            with contextlib.suppress(TimeoutError):
                # Not wait_for: a cancellation that meets the landing is lost in it, and close() waits for a stall.
                async with asyncio.timeout_at(deadline):
                    await self._landed.wait()
        while any(map(_unsent, sockets)) and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # the kernel has no event for an empty send queue

    async def paced(self, count: int) -> None:
        """Wait as long as `count` bytes take at the throttled rate, shared by all connections."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now) + count / self.throttle
        await asyncio.sleep(self._free_at - now)

    def change(self, step: Step) -> None:
        """Perform a scripted change; a delay applies to connections that are made from now on."""
        if step.do == "throttle":
            self.throttle = step.amount
        elif step.do == "delay":
            self.delay = step.seconds
        else:
            self.dribble, self.dribble_bytes = not step.amount, step.amount


class Link:
    """A client's connection and ours to the target."""

    def __init__(self, client: socket.socket, target: socket.socket, valve: Valve) -> None:
        self.client, self.target = client, target
        self._valve = valve
        self._closed = False
        self._tasks: list[asyncio.Future[None]] = []

    async def connect(self, to: tuple[str, int]) -> None:
        """Reach the target, unless `close` is quicker. Raises OSError."""
        for end in (self.client, self.target):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self._closed:
            await self._together(asyncio.get_running_loop().sock_connect(self.target, to))

    async def relay(self) -> None:
        """Both ways until both ended, one side broke, or `close` was called."""
        if self._closed:
            return
        up, down = self._pump(self.client, self.target, UP), self._pump(self.target, self.client, DOWN)
        try:
            await self._together(up, down)
        except OSError:
            self.close(reset=True)  # one side was reset: the other hears the same

    async def _together(self, *parts: Coroutine[None, None, None]) -> None:
        """All parts to their end, or none goes on. `close` ends them, too, and that is no error."""
        self._tasks = [asyncio.ensure_future(part) for part in parts]
        try:
            await asyncio.gather(*self._tasks)
        except (OSError, asyncio.CancelledError):
            if not self._closed:
                raise
        finally:
            await _over(self._tasks)

    def close(self, *, reset: bool) -> None:
        """Close both ends now."""
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            task.cancel()
        loop = asyncio.get_running_loop()
        for end in (self.client, self.target):
            loop.remove_reader(end)
            loop.remove_writer(end)
            if reset:  # linger 0: close sends RST and drops what was not sent (socket(7))
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                with contextlib.suppress(OSError):  # not connected, or the peer was quicker
                    end.shutdown(socket.SHUT_RDWR)
            end.close()

    async def _pump(self, source: socket.socket, target: socket.socket, direction: int) -> None:
        if self._valve.delay:
            await self._pump_delayed(source, target, direction)
            return
        valve = self._valve
        buffer = memoryview(bytearray(READ_SIZE))
        moved = 0
        while (count := await self._read(source, buffer, moved)) > 0:
            await self._write(target, buffer[:count], direction)
            moved += count
            if valve.throttle:
                await valve.paced(count)
            else:
                await asyncio.sleep(0)  # neither recv nor send waited, perhaps: let the others have a turn
        target.shutdown(socket.SHUT_WR)

    async def _pump_delayed(self, source: socket.socket, target: socket.socket, direction: int) -> None:
        """The same with a delay line between reading and writing, so that delay costs latency and not throughput."""
        loop = asyncio.get_running_loop()
        line: deque[tuple[float, bytes]] = deque()
        stirred = asyncio.Event()
        waiting = 0
        over = False  # nobody delivers any more

        async def deliver() -> None:
            nonlocal waiting, over
            try:
                while True:
                    while not line:
                        stirred.clear()
                        await stirred.wait()
                    due, data = line[0]
                    await asyncio.sleep(max(0.0, due - loop.time()))
                    if not data:
                        target.shutdown(socket.SHUT_WR)
                        return
                    line.popleft()
                    await self._write(target, memoryview(data), direction)
                    waiting -= len(data)
                    stirred.set()
            finally:
                over = True
                self._valve.lost(sum(len(data) for _, data in line))

        async def collect() -> None:
            nonlocal waiting
            buffer = memoryview(bytearray(READ_SIZE))
            moved, count = 0, 1
            while count:
                while waiting >= DELAY_LINE_BYTES:
                    stirred.clear()
                    await stirred.wait()
                count = await self._read(source, buffer, moved)
                if over:
                    self._valve.lost(count)
                    return
                waiting += count
                moved += count
                line.append((loop.time() + self._valve.delay, bytes(buffer[:count])))
                stirred.set()
                if count and self._valve.throttle:
                    await self._valve.paced(count)

        halves = [asyncio.ensure_future(deliver()), asyncio.ensure_future(collect())]
        self._tasks.extend(halves)  # so that closing the link ends both
        await asyncio.gather(*halves)

    async def _read(self, source: socket.socket, buffer: memoryview, moved: int) -> int:
        # Not loop.sock_recv_into: how much may be read is decided at the moment of reading, not of waiting.
        valve = self._valve
        while True:
            if not valve.is_open() or valve.pending:
                await _turn(valve)
                continue
            room = valve.room(moved)
            if not room:  # others have read up to the position; its step is performed once they delivered
                await _turn(valve)
                continue
            try:
                count = source.recv_into(buffer, room)
            except BlockingIOError:
                await _ready(source, write=False)
                continue
            if count:
                valve.took(count)
            return count

    async def _write(self, target: socket.socket, data: memoryview, direction: int) -> None:
        sent = 0
        try:
            while sent < len(data):
                try:
                    count = target.send(data[sent:])
                except BlockingIOError:
                    await _ready(target, write=True)
                    continue
                sent += count
                self._valve.forwarded(count, direction)
        finally:
            if sent < len(data):
                self._valve.lost(len(data) - sent)


async def _over(tasks: Sequence[asyncio.Future[None]]) -> None:
    """Cancel what is not over yet, and wait until it is: it gives back what it had taken from the valve."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _turn(valve: Valve) -> None:
    await asyncio.sleep(0)
    await valve.opened()


async def _ready(end: socket.socket, *, write: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def done() -> None:
        if not ready.done():
            ready.set_result(None)

    (loop.add_writer if write else loop.add_reader)(end, done)
    try:
        await ready
    finally:
        if end.fileno() >= 0:
            (loop.remove_writer if write else loop.remove_reader)(end)


def _unsent(end: socket.socket) -> int:
    """Bytes in our send queue that the peer's kernel has not acknowledged (SIOCOUTQ, tcp(7))."""
    if end.fileno() < 0:
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(end, termios.TIOCOUTQ, bytes(4)), "little", signed=True)
    except OSError:
        return 0


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` or `[V6]:PORT`. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise UsageError(f"{text!r} is not an address; write HOST:PORT, for example 127.0.0.1:7440.")
    try:
        host.encode("idna")  # what every look-up does first
    except UnicodeError:
        raise UsageError(f"{host!r} cannot be the name of a host.") from None
    return host.strip("[]"), int(port)


def address_text(address: tuple[str, int]) -> str:
    """The inverse of `parse_address`."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
