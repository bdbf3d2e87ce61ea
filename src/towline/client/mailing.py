"""From the outbox to the node, in order, over as many connections as it takes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from towline.base.errors import (
    ConnectionLost,
    IdReused,
    PeerError,
    TooFast,
    TowlineError,
    Unreachable,
    UsageError,
    error_from_wire,
)
from towline.base.text import printable
from towline.client.outbox import Outbox, Unsent
from towline.client.parcel import Outcome, Parcel, unheard
from towline.client.reach import Reach
from towline.journal import Cursor
from towline.protocol.table import Class
from towline.runtime.channel import Channel
from towline.runtime.pump import Connection
from towline.services.rooms.messages import parse_answers

_TOGETHER = 16 * 1024  # bytes of messages from which on the next ones go in a body of their own
_PAUSE = 0.2  # seconds before a node that refused the stream is asked again
_WAITS = "Another message with that id waits for its answer; this one is not kept. Give it an id of its own."


class Mailing:
    """The outgoing messages of one line. `on_refused(message, error)` hears of refusals that nobody waits for.

    With `keep` what is said is in the outbox, on our disk, before it is sent and until it is answered.
    """

    def __init__(self, line: Reach, on_refused: Callable[[Unsent, TowlineError], None], *, keep: bool) -> None:
        self._line = line
        self._on_refused = on_refused
        self._keeps = keep
        self._outbox: Outbox | None = None
        self._fresh: list[Parcel] = []  # not on disk yet
        self._unacked: dict[str, Parcel] = {}  # to be sent or sent, in order, by the ids that have no answer
        self._unsent: deque[Parcel] = deque()  # of those, not sent on this connection
        self._answered: list[Unsent] = []  # to be taken from the disk
        self._task: asyncio.Task[None] | None = None
        self._pulse = asyncio.Event()  # set, and replaced, at every change
        self._loaded = False
        self._error: TowlineError | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Mailing {self.pending} pending>"

    @property
    def pending(self) -> int:
        """Messages without an answer."""
        return len(self._unacked) + sum(len(each.ids) for each in self._fresh)

    def say(self, parcel: Parcel) -> None:
        """Put messages on their way; they are told what becomes of them. Raises ConnectionLost."""
        if self._closed:
            raise ConnectionLost("The line was closed.")
        if self._keeps:
            self._fresh.append(parcel)
        else:
            self._admit(parcel)
        self.start()

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
        """Stop; what is not acknowledged stays in the outbox, if it is kept."""
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
        stays = "the message stays in the outbox" if self._keeps else "whether the node has the message is not known"
        self._fail(ConnectionLost(f"The line was closed; {stays}."))

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
            stays = " What was said stays in the outbox until the node takes it." if self._keeps else ""
            self._fail(type(error)(error.sentence + stays))
        elif error is not None:
            self._fail(PeerError(str(error)))

    def _fail(self, error: TowlineError) -> None:
        parcels = [*dict.fromkeys(self._unacked.values()), *self._fresh]
        self._unacked.clear()
        self._fresh.clear()
        for parcel in parcels:
            parcel.told(error)
        self._stir()

    async def _run(self) -> None:
        if not self._keeps:
            self._loaded = True
            await self._deliver()
        if self._outbox is None:
            self._outbox = await asyncio.to_thread(self._open)
        self._unacked = {}
        for each in await asyncio.to_thread(self._outbox.pending):
            self._unacked[each.id] = Parcel(each.room, [each.id], each.body, unheard)
        self._loaded = True
        self._stir()
        writing = asyncio.create_task(self._write(self._outbox))
        try:
            await self._deliver()
        finally:
            writing.cancel()
            await asyncio.wait([writing])
            await self._keep(self._outbox, list(self._fresh))  # said in the last moment

    async def _deliver(self) -> NoReturn:
        while True:
            pulse = self._pulse
            if self._unacked:
                await self._mail()
            else:
                await pulse.wait()

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
                for parcel in await self._keep(outbox, fresh):
                    self._admit(parcel)
                del self._fresh[: len(fresh)]
                self._stir()
            if not fresh and not answered:
                await pulse.wait()

    def _admit(self, parcel: Parcel) -> None:
        """From now on it may be sent."""
        for id_ in parcel.waiting:
            if (other := self._unacked.get(id_)) is None:
                continue
            if other.body_of(id_) != parcel.body_of(id_):
                parcel.answer(id_, IdReused(_WAITS))
                continue
            other.answer(id_, UsageError("The id was used again before there was an answer."))
            if other.answered:
                other.told(other.outcomes)
        if parcel.answered:
            parcel.told(parcel.outcomes)
            return
        self._unacked.update(dict.fromkeys(parcel.waiting, parcel))
        self._unsent.append(parcel)

    async def _keep(self, outbox: Outbox, fresh: list[Parcel]) -> list[Parcel]:
        """Put them on the disk, which keeps none twice; those that may be sent. Who waits for another hears why."""
        if not fresh:
            return []
        try:
            said = [message for parcel in fresh for message in parcel.messages()]
            taken = set(await asyncio.to_thread(outbox.add, said))
        except TowlineError as error:
            for parcel in fresh:
                parcel.told(error)
            return []
        if taken:
            for parcel in fresh:
                self._refuse(parcel, taken)
        return [parcel for parcel in fresh if not parcel.answered]

    @staticmethod
    def _refuse(parcel: Parcel, taken: set[Unsent]) -> None:
        for message in parcel.messages():
            if message in taken:
                parcel.answer(message.id, IdReused(_WAITS))
        if parcel.answered:
            parcel.told(parcel.outcomes)

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
        self._unsent = deque(dict.fromkeys(self._unacked.values()))
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
        bodies: list[bytes] = []
        size = 0
        while self._unsent and size < _TOGETHER:
            parcel = self._unsent.popleft()
            if not parcel.answered:
                bodies.append(parcel.rest())
                size += len(bodies[-1])
        return b"\n".join(bodies)

    # --- answers ---

    def _hear(self, body: bytes) -> None:
        for answer in parse_answers(body):
            if answer.id is not None:
                if (parcel := self._unacked.get(answer.id)) is not None:
                    sentence = printable(answer.sentence, limit=1000)
                    self._settle(parcel, answer.id, error_from_wire(answer.error, sentence, answer.retryable))
            else:
                self._hear_kept(answer.epoch, answer.seq, answer.ids)
        self._stir()

    def _hear_kept(self, epoch: int, seq: int, ids: list[str]) -> None:
        at = 0
        while at < len(ids):
            parcel = self._unacked.get(ids[at])
            if parcel is None:
                at += 1
            elif parcel.untouched and ids[at : at + len(parcel.ids)] == parcel.ids:
                parcel.keep_all(epoch, seq + at)
                for id_ in parcel.ids:
                    self._unacked.pop(id_, None)
                self._tell(parcel)
                at += len(parcel.ids)
            else:
                self._settle(parcel, ids[at], Cursor(epoch, seq + at))
                at += 1

    def _settle(self, parcel: Parcel, id_: str, outcome: Outcome) -> None:
        """One message has its answer."""
        del self._unacked[id_]
        parcel.answer(id_, outcome)
        if parcel.answered:
            self._tell(parcel)

    def _tell(self, parcel: Parcel) -> None:
        outcomes = parcel.outcomes
        heard = parcel.told(outcomes)
        if self._keeps:
            self._answered += parcel.messages()
        if not heard:
            for message, outcome in zip(parcel.messages(), outcomes, strict=True):
                if isinstance(outcome, TowlineError):
                    self._on_refused(message, outcome)


def _remove(outbox: Outbox, answered: list[Unsent]) -> None:
    """What our disk does not let go of now is said again at the next start, and is the same message for the node."""
    with contextlib.suppress(TowlineError):
        outbox.remove(answered)
