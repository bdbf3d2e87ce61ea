"""The sending half of a transfer: plans, listens to verdicts, and feeds the lanes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from blake3 import blake3

from towline.base.errors import BadMessage, ConnectionLost, TowlineError
from towline.base.limits import FRAME_BODY, MIB
from towline.protocol.codec import Header
from towline.protocol.table import Kind
from towline.runtime.lanes import Lane
from towline.services import requests
from towline.services.files.messages import (
    PACK_BYTES,
    PACK_FILES,
    PLAN_BATCH,
    SMALL_FILE,
    Say,
    decode_rows,
    encode_rows,
    fail_header,
    index_of,
)
from towline.services.files.pace import Pace
from towline.services.files.plan import BATCH_BYTES, Entry, Skipped, row_bytes
from towline.services.files.ranges import Ranges
from towline.services.files.sources import Reading, Source

_CHUNK = FRAME_BODY.value
# With several lanes a large file is dealt out in pieces of this size, in order.
SEGMENT = 64 * MIB
_VERDICTS = 4  # for one entry: it may be the same, it is wanted, and once more if it did not verify


class Pack(NamedTuple):
    """Small files that travel together."""

    files: tuple[int, ...]


class Segment(NamedTuple):
    """A range of one file; `end` -1 means up to wherever the stream ends."""

    file: int
    start: int
    end: int
    hole: bool


Work: TypeAlias = Pack | Segment


@dataclass(slots=True)
class _LaneRecord:
    """What went out on one lane and may have to go again."""

    lane: Lane
    sent: dict[int, Work] = field(default_factory=dict)
    enough: int = 256  # so many are kept before it is looked which of them are needed no more
    next: int = 0
    dead: bool = False
    running: bool = True
    report: Header | None = None


@dataclass(slots=True)
class _OpenFile:
    reading: Reading
    waiting: int = 0  # segments that are queued or on a lane


class Sender:
    """One conversation's sending side. `say` may be called from any thread; all methods block or are quick.

    `after` is the resume position in the plan, `lanes` how many there will be (for dealing out large files).
    """

    def __init__(self, source: Source, say: Say, *, after: str | None, lanes: int, pace: Pace) -> None:
        self._source = source
        self._say = say
        self._pace = pace
        self._segment = SEGMENT if lanes > 1 else 0
        self._walk: Generator[Entry | Skipped, None, None] = source.entries(after)
        # The loop, when it is cancelled, does not wait for a batch or a verdict that a thread works on; `close` does.
        self._walking = threading.Lock()
        self._hearing = threading.Lock()
        self._next_index = 0
        self._entries: dict[int, Entry] = {}  # planned, no outcome yet
        self._verdicts: dict[int, int] = {}
        self._files: dict[int, _OpenFile] = {}
        self._queue: deque[Work] = deque()
        self._lanes: dict[int, _LaneRecord] = {}
        self._change = threading.Condition()
        self._closing = False
        self._finisher = ThreadPoolExecutor(1, "towline-digest")
        self.sent_bytes = 0

    # --- the plan ---

    def next_batch(self, leave_out: Callable[[Entry], bool]) -> tuple[int, list[Entry], list[Skipped]] | None:
        """The next entries with the number of the first; None when the walk is over. Blocking."""
        with self._walking:
            return self._next_batch(leave_out)

    def _next_batch(self, leave_out: Callable[[Entry], bool]) -> tuple[int, list[Entry], list[Skipped]] | None:
        entries: list[Entry] = []
        skipped: list[Skipped] = []
        room = BATCH_BYTES.value // 2
        while len(entries) + len(skipped) < PLAN_BATCH and room > 0 and not self._closing:
            one = next(self._walk, None)
            if one is None:
                break
            if isinstance(one, Entry) and leave_out(one):
                continue
            room -= row_bytes(one)
            if isinstance(one, Skipped):
                skipped.append(one)
            else:
                entries.append(one)
        if not entries and not skipped:
            return None
        first = self._next_index
        with self._change:
            self._entries.update(enumerate(entries, first))
        self._next_index += len(entries)
        return first, entries, skipped

    @property
    def planned(self) -> int:
        """Entries numbered so far."""
        return self._next_index

    @property
    def unresolved(self) -> int:
        """Entries without an outcome."""
        return len(self._entries)

    def entry(self, index: int) -> Entry:
        """A planned entry without an outcome. Raises BadMessage (the number came from the peer)."""
        entry = self._entries.get(index)
        if entry is None:
            raise BadMessage(f"Entry {index} was not planned or has its outcome.")
        return entry

    def resolve(self, index: int) -> Entry | None:
        """The receiver said how the entry ended; None when that was known."""
        with self._change:
            open_file = self._files.pop(index, None)
            entry = self._entries.pop(index, None)
            self._verdicts.pop(index, None)
        if open_file is not None:
            open_file.reading.close()
        return entry

    # --- verdicts; blocking ---

    def on_want(self, body: bytes) -> None:
        """Whole files that the receiver has nothing of."""
        wanted = [self._verdict(index_of(row)) for row in decode_rows(body)]
        with self._hearing:
            self._enqueue(wanted)

    def on_resume(self, header: Header, body: bytes) -> None:
        """One file with the ranges that are missing."""
        index = self._verdict(requests.number(header, "file"))
        size = self.entry(index).size
        if size < 0:
            ranges = [(requests.number(header, "start", 0), -1)]
        else:
            ranges = [(a, b) for a, b in Ranges.from_list(decode_rows(body)) if b <= size]
        with self._hearing:
            self._add_segments(index, ranges)

    def on_have(self, body: bytes) -> None:
        """Files that the receiver has in the same size: ours or not is told by the digest."""
        with self._hearing:
            self._compare(decode_rows(body))

    def _compare(self, rows: list[object]) -> None:
        same: list[list[object]] = []
        differs: list[int] = []
        for row in rows:
            match row:
                case [int(index), str(theirs)]:
                    entry = self.entry(self._verdict(index))
                    try:
                        ours = self._source.digest(entry, lambda: self._closing)
                    except ConnectionLost:
                        return
                    except TowlineError as error:
                        self._gone(index, error)
                        continue
                    if ours == theirs:
                        same.append([index, ours])
                    else:
                        differs.append(index)
                case _:
                    raise BadMessage("A file that the receiver has is a number and a digest.")
        if same:
            self._say({"t": "same"}, encode_rows(same))
        if differs:
            self._say({"t": "differs"}, encode_rows(differs))

    def on_kept(self, header: Header) -> None:
        """The receiver has the file durably up to there."""
        open_file = self._files.get(requests.number(header, "file"))
        if open_file is not None:
            open_file.reading.kept(requests.number(header, "upto"))

    # --- lanes ---

    def drive(self, lane: Lane, number: int) -> None:
        """Send over `lane` until the transfer is over or the lane is. Blocking; on a thread of its own."""
        record = _LaneRecord(lane)
        with self._change:
            if self._closing:
                return
            self._lanes[number] = record
        buffer = memoryview(bytearray(_CHUNK))
        try:
            while (work := self._take(record)) is not None:
                position = record.next
                record.next += 1
                record.sent[position] = work
                if len(record.sent) > record.enough:
                    self._forget_resolved(record)
                head: Header = {"lane": number, "n": position}
                if isinstance(work, Pack):
                    self._send_pack(lane, head, work)
                else:
                    self._send_segment(lane, head, work, buffer)
        except TowlineError:
            pass  # the receiver will say how far the lane got
        finally:
            self._lane_stopped(number, record)

    def on_lane_over(self, header: Header) -> None:
        """The receiver says how far a lane got; what it missed goes back into the queue."""
        number = requests.number(header, "lane")
        with self._change:
            record = self._lanes.get(number)
            if record is None or record.report is not None:
                return
            record.report = header
            record.dead = True
            self._change.notify_all()
            running = record.running
        if running:
            record.lane.shutdown()
        else:
            self._requeue(number, record)

    def close(self) -> None:
        """The conversation is over: let lanes and waiting threads go."""
        with self._change:
            self._closing = True
            self._queue.clear()
            records = list(self._lanes.values())
            self._change.notify_all()
        self._pace.stop()
        self._source.interrupt()
        for record in records:
            record.lane.shutdown()
        with self._change:
            self._change.wait_for(lambda: not any(r.running for r in self._lanes.values()))
        self._finisher.shutdown(wait=True)
        with self._walking, self._hearing:
            self._walk.close()
        for open_file in self._files.values():
            open_file.reading.close()
        self._files.clear()

    # --- inside ---

    def _verdict(self, index: int) -> int:
        """Count what the receiver says of an entry: what it makes us do has an end."""
        count = self._verdicts.get(index, 0) + 1
        if count > _VERDICTS:
            raise BadMessage(f"Entry {index} was asked for {count} times.")
        with self._change:
            if index in self._entries:
                self._verdicts[index] = count
        return index

    def _enqueue(self, wanted: list[int]) -> None:
        """Queue whole files: small ones in packs, in order, large ones by themselves."""
        pack: list[int] = []
        room = PACK_BYTES.value
        for index in wanted:
            size = self.entry(index).size
            if not 0 <= size <= SMALL_FILE:
                self._add_segments(index, [(0, size)])
                continue
            if pack and (size > room or len(pack) >= PACK_FILES.value):
                self._put(Pack(tuple(pack)))
                pack, room = [], PACK_BYTES.value
            pack.append(index)
            room -= size
        if pack:
            self._put(Pack(tuple(pack)))

    def _put(self, work: Work) -> None:
        with self._change:
            self._queue.append(work)
            self._change.notify_all()

    def _add_segments(self, index: int, ranges: list[tuple[int, int]]) -> None:
        try:
            open_file = self._open(index)
            segments = [
                Segment(index, a, b, hole)
                for start, end in ranges
                for x, y, hole in open_file.reading.pieces(start, end)
                for a, b in self._dealt(x, y, hole)
            ]
        except TowlineError as error:
            self._gone(index, error)
            return
        with self._change:
            open_file.waiting += len(segments)
            self._queue.extend(segments)
            self._change.notify_all()
        if not segments:
            self._finish_soon(index, open_file)

    def _dealt(self, start: int, end: int, hole: bool) -> list[tuple[int, int]]:
        if hole or end < 0 or not self._segment:
            return [(start, end)]
        return [(at, min(at + self._segment, end)) for at in range(start, end, self._segment)]

    def _open(self, index: int) -> _OpenFile:
        with self._change:
            open_file = self._files.get(index)
        if open_file is None:
            open_file = _OpenFile(self._source.open(self.entry(index)))
            with self._change:
                self._files[index] = open_file
        return open_file

    def _take(self, record: _LaneRecord) -> Work | None:
        with self._change:
            self._change.wait_for(lambda: self._queue or self._closing or record.dead)
            if self._closing or record.dead:
                return None
            return self._queue.popleft()

    def _send_pack(self, lane: Lane, head: Header, pack: Pack) -> None:
        rows: list[list[object]] = []
        contents: list[bytes] = []
        with self._source.folders() as folders:
            for index in pack.files:
                entry = self._entries.get(index)
                if entry is None:
                    continue  # it got its outcome meanwhile
                try:
                    content = self._source.small(entry, folders)
                except TowlineError as error:
                    self._gone(index, error)
                    continue
                rows.append([index, len(content), blake3(content).hexdigest()])
                contents.append(content)
        lane.send(Kind.OPEN, head | {"pack": rows})
        data = memoryview(b"".join(contents))
        for at in range(0, len(data), _CHUNK):
            part = data[at : at + _CHUNK]
            self._pace.spend(len(part))
            lane.send(Kind.DATA, None, part)
            self._count(len(part))
        lane.send(Kind.END, {})

    def _send_segment(self, lane: Lane, head: Header, work: Segment, buffer: memoryview) -> None:
        with self._change:
            open_file = self._files.get(work.file)
        if open_file is None:
            return  # it got its outcome meanwhile
        head |= {"file": work.file, "from": work.start, "to": work.end}
        lane.send(Kind.OPEN, head | {"hole": True} if work.hole else head)
        at = work.end if work.hole else work.start
        try:
            at = self._send_range(lane, open_file.reading, at, work.end, buffer)
        except TowlineError as error:
            if isinstance(error, ConnectionLost):
                self._leave(open_file)
                raise
            self._gone(work.file, error)
        lane.send(Kind.END, {"at": at})
        if not self._leave(open_file):
            self._finish_soon(work.file, open_file)

    def _send_range(self, lane: Lane, reading: Reading, at: int, end: int, buffer: memoryview) -> int:
        """Send [at, end), or up to the end of the stream; how far it got."""
        while at < end or end < 0:
            target = buffer if end < 0 else buffer[: min(_CHUNK, end - at)]
            count = reading.read_into(at, target)
            if not count:
                break
            reading.digest.feed(at, target[:count])  # a stream's own thread was quicker: then nothing happens
            self._pace.spend(count)
            lane.send(Kind.DATA, None, target[:count])
            self._count(count)
            at += count
        return at

    def _leave(self, open_file: _OpenFile) -> int:
        """One segment is off the queue; how many more the file has there."""
        with self._change:
            open_file.waiting -= 1
            return open_file.waiting

    def _count(self, count: int) -> None:
        with self._change:
            self.sent_bytes += count

    def _finish_soon(self, index: int, open_file: _OpenFile) -> None:
        with self._change:
            if not self._closing:
                self._finisher.submit(self._finish, index, open_file)

    def _finish(self, index: int, open_file: _OpenFile) -> None:
        """All that was asked for is out: say what the whole must be, if the source is still what it was."""
        try:
            digest, size = open_file.reading.finish()
        except TowlineError as error:
            self._gone(index, error)
            return
        self._say({"t": "sent", "file": index, "digest": digest, "size": size}, b"")

    def _gone(self, index: int, error: TowlineError) -> None:
        self._say(fail_header(index, error, "gone"), b"")

    def _lane_stopped(self, number: int, record: _LaneRecord) -> None:
        record.lane.shutdown()
        with self._change:
            record.running = False
            record.dead = True
            reported = record.report is not None
            closing = self._closing
            self._change.notify_all()
        if closing:
            return
        if reported:
            self._requeue(number, record)
        else:
            self._say({"t": "lane-over", "lane": number}, b"")

    def _requeue(self, number: int, record: _LaneRecord) -> None:
        with self._hearing:
            if not self._closing:
                self._send_again(number, record)

    def _send_again(self, number: int, record: _LaneRecord) -> None:
        """What the receiver did not get of this lane: all behind `next`, and the listed rest of what it began."""
        report = record.report or {}
        reached = requests.number(report, "next", 0)
        again = [work for position, work in record.sent.items() if position >= reached]
        missing = report.get("missing")
        for row in missing if isinstance(missing, list) else []:
            match row:
                case [int(index)]:
                    again.append(Pack((index,)))
                case [int(index), int(start), int(end)]:
                    again.append(Segment(index, start, end, hole=False))
        with self._change:
            self._lanes.pop(number, None)
        small = [index for work in again if isinstance(work, Pack) for index in work.files if index in self._entries]
        self._enqueue(small)
        for work in again:
            if isinstance(work, Segment):
                self._put_again(work)

    def _forget_resolved(self, record: _LaneRecord) -> None:
        """What has its outcome need not go again."""
        with self._change:
            record.sent = {
                position: work
                for position, work in record.sent.items()
                if any(file in self._entries for file in (work.files if isinstance(work, Pack) else (work.file,)))
            }
            record.enough = 2 * len(record.sent) + 256

    def _put_again(self, work: Segment) -> None:
        with self._change:
            open_file = self._files.get(work.file)
            if open_file is not None and work.start != work.end:
                open_file.waiting += 1
                self._queue.append(work)
                self._change.notify_all()
