"""From the outbox to the node, in order, over as many connections as it takes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Callable
from typing import Any

from towline.base.errors import (
    ConnectionLost,
    PeerError,
    TooFast,
    TowlineError,
    Unreachable,
    error_from_wire,
)
from towline.base.text import printable
from towline.client.outbox import Outbox, Unsent
from towline.client.reach import Reach
from towline.journal import Cursor
from towline.protocol.table import Class
from towline.runtime.channel import Channel
from towline.runtime.pump import Connection

_TOGETHER = 16 * 1024  # bytes of messages from which on the next ones go in a body of their own
_PAUSE = 0.2  # seconds before a node that refused the stream is asked again


class Mailing:
    """The outgoing messages of one line. `on_refused(message, error)` hears of refusals that nobody waits for."""

    def __init__(self, line: Reach, on_refused: Callable[[Unsent, TowlineError], None]) -> None:
        self._line = line
        self._on_refused = on_refused
        self._outbox: Outbox | None = None
        self._fresh: list[Unsent] = []  # not on disk yet
        self._unacked: dict[str, Unsent] = {}  # on disk, in order
        self._unsent: deque[str] = deque()  # of those, not sent on this connection
        self._answered: list[Unsent] = []  # to be taken from the disk
        self._waiters: dict[str, asyncio.Future[Cursor]] = {}
        self._task: asyncio.Task[None] | None = None
        self._pulse = asyncio.Event()  # set, and replaced, at every change
        self._loaded = False
        self._error: TowlineError | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Mailing {len(self._unacked) + len(self._fresh)} pending>"

    @property
    def pending(self) -> int:
        """Messages without an answer."""
        return len(self._unacked) + len(self._fresh)

    def say(self, message: Unsent) -> asyncio.Future[Cursor]:
        """Put a message on its way; the future is its position, once the node has it on its disk."""
        if self._closed:
            raise ConnectionLost("The line was closed.")
        waiter: asyncio.Future[Cursor] = asyncio.get_running_loop().create_future()
        waiter.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._waiters[message.id] = waiter
        self._fresh.append(message)
        self.start()
        return waiter

    def start(self) -> None:
        """Send what is in the outbox, and what comes."""
        self._stir()
        if self._task is None and not self._closed:
            self._error = None
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(self._over)

    async def wait_sent(self) -> None:
        """Until nothing is pending. Raises Unreachable when given up."""
        while self.pending or not self._loaded:
            pulse = self._pulse
            if self._task is None:
                if self._error is not None:
                    raise self._error
                return
            await pulse.wait()

    async def close(self) -> None:
        """Stop; what is not acknowledged stays in the outbox."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._fresh and self._outbox is None:
            self._outbox = await asyncio.to_thread(self._open)
        outbox, self._outbox = self._outbox, None
        if outbox is not None:
            await self._keep(outbox, list(self._fresh))
            await asyncio.to_thread(_remove, outbox, self._answered)
            await asyncio.to_thread(outbox.close)
        self._fail(ConnectionLost("The line was closed; the message stays in the outbox."))

    # --- the course of it ---

    def _stir(self) -> None:
        """Something has changed: wake everybody who waits. Take the pulse first, then look, then wait."""
        pulse, self._pulse = self._pulse, asyncio.Event()
        pulse.set()

    def _over(self, task: asyncio.Task[None]) -> None:
        self._task, self._loaded = None, False
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, TowlineError):
            self._error = error
            self._fail(type(error)(f"{error.sentence} What was said stays in the outbox until the node takes it."))
        elif error is not None:
            self._fail(PeerError(str(error)))

    def _fail(self, error: TowlineError) -> None:
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters.values():
            if not waiter.done():
                waiter.set_exception(error)
        self._unacked.clear()
        self._fresh.clear()
        self._stir()

    async def _run(self) -> None:
        if self._outbox is None:
            self._outbox = await asyncio.to_thread(self._open)
        self._unacked = {each.id: each for each in await asyncio.to_thread(self._outbox.pending)}
        self._loaded = True
        self._stir()
        writing = asyncio.create_task(self._write(self._outbox))
        try:
            while True:
                pulse = self._pulse
                if self._unacked:
                    await self._mail()
                else:
                    await pulse.wait()
        finally:
            writing.cancel()
            await asyncio.wait([writing])
            await self._keep(self._outbox, list(self._fresh))  # said in the last moment

    def _open(self) -> Outbox:
        return Outbox(self._line.home, self._line.target.fingerprint or self._line.target.alias)

    async def _write(self, outbox: Outbox) -> None:
        """To the disk and from it, many together."""
        while True:
            pulse = self._pulse
            fresh, answered = list(self._fresh), list(self._answered)
            if answered:  # kept until they are gone: `close` may come in between
                await asyncio.to_thread(_remove, outbox, answered)
                del self._answered[: len(answered)]
            if fresh:
                if await self._keep(outbox, fresh):
                    for message in fresh:
                        self._unacked[message.id] = message
                        self._unsent.append(message.id)
                del self._fresh[: len(fresh)]
                self._stir()
            if not fresh and not answered:
                await pulse.wait()

    async def _keep(self, outbox: Outbox, fresh: list[Unsent]) -> bool:
        """Put them on the disk, which keeps none twice; False when it does not take them: who waits hears that."""
        if not fresh:
            return True
        try:
            await asyncio.to_thread(outbox.add, fresh)
        except TowlineError as error:
            for message in fresh:
                waiter = self._waiters.pop(message.id, None)
                if waiter is not None and not waiter.done():
                    waiter.set_exception(error)
            return False
        return True

    async def _mail(self) -> None:
        """One conversation, until the connection or the stream is over."""
        connection = await self._line.connection()
        try:
            await self._converse(connection)
        except TooFast as error:
            await asyncio.sleep(error.retry_after or _PAUSE)
        except TowlineError as error:
            if not error.retryable:
                raise
            if connection.is_open and not connection.session.going_away:
                await asyncio.sleep(error.retry_after or _PAUSE)

    async def _converse(self, connection: Connection) -> None:
        channel = connection.open({"service": "rooms", "op": "say"}, Class.CHAT)
        self._unsent = deque(self._unacked)
        sending = asyncio.create_task(self._send(channel))
        try:
            await channel.accepted()
            while (message := await channel.receive()) is not None:
                self._hear(message.body)
            raise Unreachable("The node ended the stream of messages.")
        finally:
            sending.cancel()
            await asyncio.wait([sending])
            channel.reset()

    async def _send(self, channel: Channel) -> None:
        try:
            while True:
                pulse = self._pulse
                while self._unsent:
                    if together := self._together():
                        await channel.send(together)
                await pulse.wait()
        except TowlineError:
            pass  # the reading side hears it, too

    def _together(self) -> bytes:
        """The next messages, a line each: what was said at once costs one frame at either end."""
        lines: list[bytes] = []
        size = 0
        while self._unsent and size < _TOGETHER:
            message = self._unacked.get(self._unsent.popleft())
            if message is not None:
                lines.append(message.body)
                size += len(message.body)
        return b"\n".join(lines)

    # --- answers ---

    def _hear(self, body: bytes) -> None:
        for line in body.split(b"\n"):
            try:
                self._answer(json.loads(line))
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):  # int(Infinity), [[[[…
                raise PeerError("The node's acknowledgement cannot be understood.") from None
        self._stir()

    def _answer(self, fields: dict[str, Any]) -> None:
        message = self._unacked.pop(str(fields["id"]), None)
        waiter = self._waiters.pop(str(fields["id"]), None)
        if message is None:
            return
        self._answered.append(message)
        if "error" not in fields:
            if waiter is not None and not waiter.done():
                waiter.set_result(Cursor(int(fields["epoch"]), int(fields["seq"])))
            return
        sentence = printable(str(fields["sentence"]), limit=1000)
        error = error_from_wire(int(fields["error"]), sentence, bool(fields["retryable"]))
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)
        else:
            self._on_refused(message, error)


def _remove(outbox: Outbox, answered: list[Unsent]) -> None:
    """What our disk does not let go of now is said again at the next start, and is the same message for the node."""
    with contextlib.suppress(TowlineError):
        outbox.remove(answered)
