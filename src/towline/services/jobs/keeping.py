"""The node's end of the keeper: find the one that is there, or start one; ask it, tell it, notice its death."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

from towline.base.errors import ConnectionLost, InternalError, TimedOut, TowlineError, error_from_wire
from towline.base.oserrors import oserrors
from towline.base.quantity import format_duration
from towline.base.text import printable
from towline.protocol.codec import Header
from towline.runtime.descriptors import STARTED_WITH
from towline.runtime.threads import to_the_end
from towline.services.jobs.link import SOCKET_NAME, VERSION, Link, Orders
from towline.services.jobs.messages import surroundings
from towline.transports.unix import short_path

START_SECONDS = 15.0
ANSWER_SECONDS = 10.0
TRIES = 3
Rows = list[Header]


class Keeping:
    """`hear` gets what the keeper tells by itself; `lost` is called when it is gone though nobody closed it."""

    def __init__(self, folder: str, spool: int, hear: Callable[[Header], None], lost: Callable[[], None]) -> None:
        self.folder = folder
        self.spool = spool
        self.elsewhere = 0  # bytes on disk of finished jobs
        self._counting = threading.Lock()
        self._hear, self._lost = hear, lost
        self.orders: Orders | None = None  # there while the keeper is
        self._link: Link | None = None
        self._turn = asyncio.Lock()
        self._asked: dict[int, asyncio.Future[tuple[Header, bytes]]] = {}
        self._number = 0
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<Keeping {self.folder} {self._link!r}>"

    @property
    def is_up(self) -> bool:
        """Whether there is a keeper and we talk to it."""
        return self._link is not None

    async def adopt(self) -> Rows | None:
        """Take over the keeper that is there, and the jobs it holds; None when there is none."""
        try:
            sock = await self._connected()
        except OSError:
            return None
        _, link = await self._loop.create_unix_connection(lambda: Link(self._on_message, self._on_gone), sock=sock)
        if link.peer_uid != os.getuid():
            link.close()
            return None
        self._link = link
        try:
            header: Header = {"t": "hello", "spool": self.spool, "elsewhere": self.elsewhere}
            answer, body = await self.ask(header, json.dumps(surroundings()).encode())
            if answer.get("v") != VERSION:
                raise InternalError("The jobs of this node are held by another version of Towline.")
            sock = await self._connected()
        except ConnectionLost:
            return None  # it was just about to end
        except (TowlineError, OSError) as error:
            self._link = None  # it does not know us, or is another version; or we cannot tell it what to start
            link.close()
            if isinstance(error, TowlineError):
                raise
            return None
        if link is not self._link:
            sock.close()  # … and has
            return None
        sock.setblocking(True)
        self.orders = Orders(sock, str(answer["token"]))
        rows: Rows = json.loads(body)
        return rows

    async def _connected(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            with short_path(os.path.join(self.folder, SOCKET_NAME)) as short:
                await self._loop.sock_connect(sock, short)
        except BaseException:
            sock.close()
            raise
        return sock

    async def ready(self) -> Orders:
        """See to it that there is a keeper; the way to have it start commands. Raises DiskError, InternalError."""
        if self.orders is not None:
            return self.orders
        async with self._turn:
            for _ in range(TRIES):
                if self.orders is None and await self.adopt() is None:
                    await to_the_end(self._launch)  # not twice at once, whoever leaves meanwhile
                if self.orders is not None:
                    return self.orders
            if await self.adopt() is None or self.orders is None:
                raise InternalError("The process that holds jobs could not be started; its log is jobs/keeper.log.")
            return self.orders

    async def ask(self, header: Header, body: bytes = b"") -> tuple[Header, bytes]:
        """A request and its answer. Raises what the keeper refuses with, ConnectionLost, and TimedOut: it is stopped,
        or its disk is, and what was asked for may be done yet."""
        if self._link is None:
            raise ConnectionLost("The process that holds the jobs is gone.")
        self._number += 1
        number = self._number
        answer: asyncio.Future[tuple[Header, bytes]] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self._link.say({**header, "r": number}, body)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await answer
        except TimeoutError:
            raise TimedOut("The process that holds jobs does not answer.") from None
        finally:
            self._asked.pop(number, None)

    async def stalled(self) -> frozenset[str]:
        """The jobs whose commands wait for room in the spools."""
        try:
            _, body = await self.ask({"t": "stalled"})
        except (ConnectionLost, TimedOut):
            return frozenset()  # no keeper, no jobs; or it cannot say, and the rest of the list is known
        return frozenset(json.loads(body or b"[]"))

    def count_elsewhere(self, change: int) -> None:
        """So many bytes of finished jobs came to what is on disk, or (below 0) went. From any thread."""
        with self._counting:
            self.elsewhere = max(self.elsewhere + change, 0)

    def tell_elsewhere(self, change: int) -> None:
        """The same, where the keeper does not know of it. By how much, not how much it is: the keeper has counted
        what ended a moment ago, and we may not have heard of that."""
        self.count_elsewhere(change)
        self._loop.call_soon_threadsafe(self.tell, {"t": "elsewhere", "change": change})

    def tell(self, header: Header, body: bytes = b"") -> None:
        """Something that needs no answer; lost when there is no keeper."""
        if self._link is not None:
            self._link.say(header, body)

    def close(self) -> None:
        """Leave it alone with its jobs."""
        link, self._link = self._link, None
        if link is not None:
            link.close()
        self._fail_all()
        self._close_orders()

    def _on_message(self, link: Link, header: Header, body: bytes) -> None:
        number = header.get("r")
        if number is None:
            if link is self._link:
                self._hear(header)
            return
        answer = self._asked.get(number) if isinstance(number, int) else None
        if answer is None or answer.done():
            return
        code = header.get("code")
        if header.get("t") == "error" and isinstance(code, int):
            answer.set_exception(error_from_wire(code, printable(str(header.get("message", ""))), retryable=False))
        else:
            answer.set_result((header, body))

    def _on_gone(self, link: Link) -> None:
        if link is not self._link:
            return
        self._link = None
        self._fail_all()
        self._close_orders()
        self._lost()

    def _close_orders(self) -> None:
        orders, self.orders = self.orders, None
        if orders is not None:
            orders.close()

    def _fail_all(self) -> None:
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(ConnectionLost("The process that holds the jobs is gone."))

    def _launch(self) -> None:
        """Start a keeper and wait until it listens, not for ever. It is nobody's child, so that nobody must reap it.
        Blocking."""
        with oserrors(self.folder):
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            path = os.path.join(self.folder, "keeper.log")
            log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            ready, theirs = os.pipe()
        try:
            with subprocess.Popen(
                [sys.executable, "-m", "towline.services.jobs.keeper", self.folder, str(theirs), str(STARTED_WITH)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs,),
                start_new_session=True,
            ) as process:
                os.close(theirs)
                theirs = -1
                try:
                    _await(ready)  # a byte, or the end when it could not start
                finally:
                    process.kill()  # it has ended, or hangs before it is nobody's child
        except OSError as error:
            raise InternalError(f"The process that holds jobs could not be started: {error.strerror or error}.")
        finally:
            for descriptor in (log, ready, theirs):
                if descriptor >= 0:
                    os.close(descriptor)


def _await(descriptor: int) -> None:
    """Wait until there is something to read, or the end. Raises TimeoutError, which is an OSError."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(START_SECONDS * 1000):
        raise TimeoutError(errno.ETIMEDOUT, f"it was not ready within {format_duration(START_SECONDS)}")
