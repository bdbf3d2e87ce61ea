"""One record, encoded once, to all who follow.

Followers at the end of the log are *live*: what is new is encoded once and the same bytes are queued for each. One
that has more than a little queued is taken off the live list with its position and reads from the journal, a batch at
a time as its credit permits, until it is at the end again. Nobody waits for it, and it costs one batch of memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from towline.base.errors import DiskError, TowlineError
from towline.journal import START, Cursor, Record
from towline.journal.aio import FileLog
from towline.journal.interface import Item
from towline.runtime.channel import Channel
from towline.services.rooms.limits import ROOM_LIVE
from towline.services.rooms.messages import fields_of, gap_line, record_line

BATCH_BYTES = 64 * 1024
BATCH_RECORDS = 500
_CACHED = 32  # batches; a thousand clients that come back after a restart ask for the same one


class Follower:
    """Somebody's position in a room. `channel` is theirs; `cursor` counts while it is not live; only who is `present`
    hears signals."""

    __slots__ = ("catching_up", "channel", "cursor", "person", "present")

    def __init__(self, channel: Channel, cursor: Cursor, person: str, *, present: bool = False) -> None:
        self.channel, self.cursor, self.person, self.present = channel, cursor, person, present
        self.catching_up: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Follower {self.person} {'at ' + str(self.cursor.seq) if self.catching_up else 'live'}>"


class Fanout:
    """The followers of one log. `is_removed` says whether a seq's text is not to be given out."""

    def __init__(self, log: FileLog, is_removed: Callable[[int], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_removed = is_removed
        self._live: dict[Follower, None] = {}
        self._catching: set[Follower] = set()
        self._batches: dict[Cursor, tuple[bytes, Cursor]] = {}
        self._stirred = False
        self.demoted = 0  # how often somebody fell behind
        self._end = log.end  # where all the live ones are
        self._attach(log)

    def __repr__(self) -> str:
        return f"<Fanout live={len(self._live)} behind={len(self._catching)} at {self._end.seq}>"

    def __len__(self) -> int:
        return len(self._live) + len(self._catching)

    @property
    def behind(self) -> int:
        """How many read from the journal just now."""
        return len(self._catching)

    def exchange_log(self, log: FileLog) -> None:
        """Go on with the same log, opened anew (with other options), where everybody is."""
        self._unsubscribe()
        self._attach(log)
        self._batches.clear()
        self.publish()

    def _attach(self, log: FileLog) -> None:
        self.log = log
        self._unsubscribe = log.journal.subscribe(self._stir)

    # --- coming and going ---

    def add(self, follower: Follower) -> None:
        """Serve it from its cursor on."""
        if follower.cursor == START and self.log.floor.seq == 1:
            follower.cursor = self.log.floor  # nothing was ever dropped: the start is a position like any other
        self._read_on(follower)

    def remove(self, follower: Follower) -> None:
        """Serve it no more."""
        self._live.pop(follower, None)
        self._catching.discard(follower)
        if follower.catching_up is not None:
            follower.catching_up.cancel()

    def everyone(self) -> list[Follower]:
        """Live or not."""
        return [*self._live, *self._catching]

    def signal(self, line: bytes, *, besides: str = "") -> None:
        """Something ephemeral to all who are live (but one person); who is behind hears of the present later."""
        for follower in self._live:
            if follower.present and follower.person != besides and follower.channel.stream.queued <= ROOM_LIVE.value:
                self._offer(follower, line)

    def close(self) -> None:
        """No more news from the log."""
        self._unsubscribe()
        for follower in self.everyone():
            self.remove(follower)

    def forget_batches(self) -> None:
        """What was encoded is not true any more."""
        self._batches.clear()

    # --- live ---

    def _stir(self) -> None:
        """From a committer's thread: there is news."""
        if not self._stirred:
            self._stirred = True
            try:
                self._loop.call_soon_threadsafe(self.publish)
            except RuntimeError:
                pass  # the loop has ended

    def publish(self) -> None:
        """Give what is new to all who are live."""
        self._stirred = False
        if not self._live:
            self._end = self.log.end
        while self._end != self.log.end:
            batch = self._batch_from_memory(self._end)
            if batch is None:  # so much at once that memory does not hold it: everybody reads
                for follower in list(self._live):
                    self._fall_behind(follower)
                self._end = self.log.end
                return
            body, after = batch
            for follower in list(self._live):
                if follower.channel.stream.queued > ROOM_LIVE.value or not self._offer(follower, body):
                    self._fall_behind(follower)
            self._end = after

    @staticmethod
    def _offer(follower: Follower, body: bytes) -> bool:
        try:
            follower.channel.send_at_once(body)
        except TowlineError:
            return False  # its own task hears of that, too
        return True

    def _fall_behind(self, follower: Follower) -> None:
        del self._live[follower]
        follower.cursor = self._end
        self.demoted += 1
        self._read_on(follower)

    # --- from the journal ---

    def _read_on(self, follower: Follower) -> None:
        self._catching.add(follower)
        follower.catching_up = self._loop.create_task(self._catch_up(follower))

    async def _catch_up(self, follower: Follower) -> None:
        channel = follower.channel
        try:
            while not self._join_live(follower):
                body, follower.cursor = await self._batch(follower.cursor)
                if body:
                    channel.send_nowait(body)
                    await channel.flush()
        except TowlineError as error:
            channel.reset(error)  # where the stream is over already, that is harmless
        finally:
            self._catching.discard(follower)
            follower.catching_up = None

    def _join_live(self, follower: Follower) -> bool:
        self.publish()
        if follower.cursor != self._end:
            return False
        self._live[follower] = None
        return True

    async def read(
        self, cursor: Cursor, *, limit_bytes: int = BATCH_BYTES, limit_records: int = BATCH_RECORDS
    ) -> Sequence[Item]:
        """Records and gaps, at least one when there is one. The log may be exchanged meanwhile: what the old one
        looked for may be gone, and the new one knows that. Raises CursorFromFuture, DiskError."""
        while True:
            log = self.log
            try:
                return await log.read(cursor, limit_bytes=limit_bytes, limit_records=limit_records)
            except DiskError:
                if log is self.log:
                    raise

    async def _batch(self, cursor: Cursor) -> tuple[bytes, Cursor]:
        ready = self._batch_from_memory(cursor)
        if ready is not None:
            return ready
        items = await self.read(cursor)
        if not items:
            return b"", cursor
        return self._encoded(cursor, items)

    def _batch_from_memory(self, cursor: Cursor) -> tuple[bytes, Cursor] | None:
        known = self._batches.get(cursor)
        if known is not None:
            return known
        items = self.log.journal.read_cached(cursor, limit_bytes=BATCH_BYTES, limit_records=BATCH_RECORDS)
        return self._encoded(cursor, items) if items else None

    def _encoded(self, cursor: Cursor, items: Sequence[Item]) -> tuple[bytes, Cursor]:
        body = encode_items(items, self._is_removed)
        while len(self._batches) >= _CACHED:
            del self._batches[next(iter(self._batches))]
        batch = self._batches[cursor] = body, items[-1].next
        return batch


def encode_items(items: Sequence[Item], is_removed: Callable[[int], bool]) -> bytes:
    """Records and gaps as the body of one message."""
    return b"\n".join(
        record_line(item, removed=is_hidden(item, is_removed)) if isinstance(item, Record) else gap_line(item)
        for item in items
    )


def is_hidden(record: Record, is_removed: Callable[[int], bool]) -> bool:
    """Whether its text is not given out: it was removed itself, or is another text for what was removed."""
    if is_removed(record.seq):
        return True
    if b'"ref":' not in record.payload:  # a quotation mark inside a text is escaped, so this is the field
        return False
    fields = fields_of(record.payload)
    return fields["kind"] == "edit" and is_removed(int(fields["ref"]))
