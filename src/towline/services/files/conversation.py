"""The talk of a transfer on the event loop: messages to and from the sender or receiver, which work on threads.

On threads of their own: a look at what is there may read a whole large file, and the loop's shared ones are for short
calls, such as the check of who wants in.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Container, Coroutine, Sequence
from typing import Any, TypeAlias

from towline.base.errors import BadMessage, ConnectionLost, LimitExceeded, TowlineError
from towline.base.limits import KIB, MIB, Limit
from towline.protocol.codec import Header
from towline.runtime.channel import Channel, Message
from towline.runtime.threads import in_thread
from towline.services import requests
from towline.services.files.messages import (
    PLAN_BATCH,
    PLAN_WINDOW,
    Outcome,
    decode_outcomes,
    encode_outcomes,
    fail_header,
    failure,
    numbers_of,
    runs,
)
from towline.services.files.plan import Entry, Skipped, decode_batch, decode_skipped, encode_batch, encode_skipped
from towline.services.files.receiver import Receiver
from towline.services.files.sender import Sender

UNREAD = Limit("unread", 64 * MIB, "bytes", "what a peer makes us say of its transfer; an honest one reads it")
_MESSAGE = 1 * KIB  # what a message holds beside its body
# Hears of outcomes with their entries.
Settled: TypeAlias = Callable[[list[tuple[Entry, Outcome]]], None]
# What the other side says beside the transfer itself: a ticket, a tally, a file that was begun anew.
Aside: TypeAlias = Callable[[Header], Awaitable[None]]


class Talk:
    """A transfer's stream. `say` and `abort` may be called from any thread."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._loop = asyncio.get_running_loop()
        self._outbox: deque[tuple[Header, bytes]] = deque()
        self._unread = 0  # bytes in there
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._aborted: asyncio.Future[None] = self._loop.create_future()

    def say(self, header: Header, body: bytes = b"") -> None:
        """Queue a message."""
        self._from_thread(self._put, header, body)

    def abort(self, error: TowlineError) -> None:
        """End the conversation with `error`."""
        self._from_thread(self._set_aborted, error)

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Have the loop call `function`, in order with what was said. What it raises ends the conversation."""
        self._from_thread(self._call, function, *args)

    async def run(self, *work: Coroutine[Any, Any, None], beside: Sequence[Coroutine[Any, Any, None]] = ()) -> None:
        """Send what is said while `work` goes on; ends when all of it has ended, or with the first error.

        `beside` goes on with it and is cancelled at the end.
        """
        tasks = [asyncio.ensure_future(each) for each in work]
        helpers = [asyncio.ensure_future(each) for each in (self._send_out(), *beside)]
        waiting: set[asyncio.Future[None]] = {*tasks, *helpers, self._aborted}
        try:
            while not all(task.done() for task in tasks):
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if self._aborted.done():
                    self._aborted.result()  # first: that the other side leaves may be its echo
                for each in done:
                    each.result()
                waiting -= done
        finally:
            for task in (*tasks, *helpers):
                task.cancel()
            await asyncio.gather(*tasks, *helpers, return_exceptions=True)

    async def drained(self) -> None:
        """Wait until all that was said so far is with the channel."""
        while self._outbox:
            self._emptied.clear()
            await self._emptied.wait()

    async def _send_out(self) -> None:
        while True:
            await self._filled.wait()
            while self._outbox:
                header, body = self._outbox[0]
                await self.channel.send(body, header)
                self._outbox.popleft()
                self._unread -= _MESSAGE + len(body)
            self._filled.clear()
            self._emptied.set()

    def _put(self, header: Header, body: bytes) -> None:
        self._outbox.append((header, body))
        self._unread += _MESSAGE + len(body)
        self._filled.set()
        if self._unread > UNREAD.value:
            self._set_aborted(LimitExceeded(f"The other side of the transfer reads nothing (limit {UNREAD.name})."))

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        try:
            function(*args)
        except Exception as error:  # noqa: BLE001  # bugs of the program that listens, too: it must not wait for ever
            self._set_aborted(error)

    def _set_aborted(self, error: Exception) -> None:
        if not self._aborted.done():
            self._aborted.set_exception(error)
            self._aborted.exception()  # it may come when nobody waits any more

    def _from_thread(self, function: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            pass  # the loop is closed, and the conversation with it


class SendingSide:
    """Runs a sender. `settled` hears of outcomes with their entries, `skipped` of what is not taken along."""

    def __init__(
        self,
        talk: Talk,
        sender: Sender,
        *,
        settled: Settled,
        skipped: Callable[[Skipped], None],
        aside: Aside,
        leave_out: Callable[[Entry], bool] = lambda _: False,
    ) -> None:
        self._talk = talk
        self._sender = sender
        self._settled = settled
        self._skipped = skipped
        self._aside = aside
        self._leave_out = leave_out
        self._resolved = asyncio.Event()
        self._all_planned = False

    async def plan(self) -> None:
        """Send the plan, a window of batches ahead of the outcomes."""
        channel = self._talk.channel
        while True:
            while self._sender.unresolved > PLAN_WINDOW * PLAN_BATCH:
                self._resolved.clear()
                await self._resolved.wait()
            batch = await in_thread(self._sender.next_batch, self._leave_out)
            if batch is None:
                break
            first, entries, skipped = batch
            for one in skipped:
                self._skipped(one)
            if skipped:
                await channel.send(encode_skipped(skipped), {"t": "skipped"})
            if entries:
                await channel.send(encode_batch(entries), {"t": "plan", "first": first})
        self._all_planned = True
        await channel.send(b"", {"t": "planned", "entries": self._sender.planned})

    async def listen(self) -> None:
        """Hear the verdicts and outcomes until the receiver ends its side."""
        while (message := await self._talk.channel.receive()) is not None:
            await self._hear(message)
        if self._sender.unresolved or not self._all_planned:
            raise BadMessage("The receiver ended the transfer before all had its outcome.")

    async def _hear(self, message: Message) -> None:
        sender, header = self._sender, message.header or {}
        match header.get("t"):
            case "want":
                await in_thread(sender.on_want, message.body)
            case "have":
                await in_thread(sender.on_have, message.body)
            case "restarted":
                await self._aside(header | {"path": sender.entry(requests.number(header, "file")).path})
            case "resume":
                await self._aside(header | {"path": sender.entry(requests.number(header, "file")).path})
                await in_thread(sender.on_resume, header, message.body)
            case "kept":
                await self._aside(header)
                sender.on_kept(header)
            case "lane-over":
                await self._aside(header)
                await in_thread(sender.on_lane_over, header)
            case "done":
                if "packed" in header:
                    self._settle(sender.resolve_packed(numbers_of(header["packed"])))
                else:
                    self._settle(sender.resolve(decode_outcomes(message.body)))
            case "fail":
                index, error = failure(header)
                self._settle(sender.resolve([Outcome(index, 0, "", error=error)]))
            case _:
                await self._aside(header)

    def _settle(self, ended: list[tuple[Entry, Outcome]]) -> None:
        if ended:
            self._resolved.set()
            self._settled(ended)


class ReceivingSide:
    """Runs a receiver, which is set by `attach` because it needs this side's `settle`."""

    def __init__(
        self,
        talk: Talk,
        *,
        portable: bool,
        settled: Settled,
        skipped: Callable[[Skipped], None],
        aside: Aside,
        already: Container[str] = (),
        links: bool = True,
        top: Entry | None = None,
    ) -> None:
        self._talk = talk
        self._portable = portable
        self._links = links
        self._top = top
        self._settled = settled
        self._skipped = skipped
        self._aside = aside
        self._already = already
        self._entries: dict[int, Entry] = {}
        self._planned: int | None = None
        self._heard = 0
        self._receiver: Receiver | None = None
        self._whole = asyncio.Event()

    def attach(self, receiver: Receiver) -> None:
        self._receiver = receiver

    @property
    def whole(self) -> bool:
        """Every entry of the plan has its outcome."""
        return self._whole.is_set()

    def entry(self, index: int) -> Entry | None:
        """An entry without an outcome."""
        return self._entries.get(index)

    def settle(self, outcomes: list[Outcome], packed: bool) -> None:
        """From any thread: these entries have their outcome.

        `packed`: all are of files that arrived as they went out in a pack.
        """
        if not outcomes:
            return
        good = [outcome for outcome in outcomes if outcome.error is None]
        if packed:
            self._talk.say({"t": "done", "packed": runs(outcome.entry for outcome in outcomes)})
        elif good:
            self._talk.say({"t": "done"}, encode_outcomes(good))
        if len(good) < len(outcomes):
            for outcome in outcomes:
                if outcome.error is not None:
                    self._talk.say(fail_header(outcome.entry, outcome.error))
        self._talk.call(self._note, outcomes)

    async def listen(self) -> None:
        """Hear the plan and what becomes of files, until the sender ends its side."""
        while (message := await self._talk.channel.receive()) is not None:
            await self._hear(message)
        if not self._whole.is_set():
            raise ConnectionLost("The sender ended the transfer before all had its outcome.")

    async def conclude(self, tally: Callable[[], list[int]]) -> None:
        """Once all is settled: folders get their times, and the stream its end."""
        await self._whole.wait()
        assert self._receiver is not None
        await in_thread(self._receiver.finish, self._top)
        await self._talk.drained()
        self._talk.channel.end({"tally": tally()})

    async def _hear(self, message: Message) -> None:
        receiver, header = self._receiver, message.header or {}
        assert receiver is not None
        match header.get("t"):
            case "plan":
                await self._hear_plan(receiver, requests.number(header, "first"), message.body)
            case "planned":
                self._planned = requests.number(header, "entries")
                self._check_whole()
            case "skipped":
                for one in decode_skipped(message.body):
                    self._skipped(one)
            case "same":
                await in_thread(receiver.on_same, message.body)
            case "differs":
                await in_thread(receiver.on_differs, message.body)
            case "sent":
                receiver.on_sent(header)
            case "gone":
                await in_thread(receiver.on_gone, *failure(header))  # what is kept of it is synced
            case "lane-over":
                receiver.on_lane_over(requests.number(header, "lane"))
            case _:
                await self._aside(header)

    async def _hear_plan(self, receiver: Receiver, first: int, body: bytes) -> None:
        entries = decode_batch(body, portable=self._portable)
        ahead = len(self._entries) > (PLAN_WINDOW + 2) * PLAN_BATCH * 2
        if first != self._heard or ahead or self._planned is not None:
            raise BadMessage(
                "The plan is out of order, further ahead than the limit allows, or goes on after its end."
            )
        self._heard += len(entries)
        fresh: list[tuple[int, Entry]] = []
        for index, entry in enumerate(entries, first):
            if entry.kind == "link" and not self._links:
                raise BadMessage("The plan has symlinks, and nobody asked for them.")
            self._entries[index] = entry
            if entry.kind != "dir" and entry.path in self._already:
                self.settle([Outcome(index, max(entry.size, 0), "", "same")], False)
            else:
                fresh.append((index, entry))
        await in_thread(receiver.on_plan, fresh)

    def _note(self, outcomes: list[Outcome]) -> None:
        found = ((self._entries.pop(outcome.entry, None), outcome) for outcome in outcomes)
        self._settled([(entry, outcome) for entry, outcome in found if entry is not None])
        self._check_whole()

    def _check_whole(self) -> None:
        if self._planned is not None and self._heard >= self._planned and not self._entries:
            self._whole.set()
