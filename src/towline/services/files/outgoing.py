"""The sender's lanes: a queue of packs and segments, what went out on which lane, and what has to go again."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from towline.base.errors import ConnectionLost, TowlineError
from towline.base.limits import FRAME_BODY
from towline.protocol.codec import Header
from towline.protocol.table import Kind
from towline.runtime.lanes import Lane
from towline.services import requests
from towline.services.files.messages import Say
from towline.services.files.pace import Pace
from towline.services.files.packs import PacksOut
from towline.services.files.planned import OpenFile, Planned
from towline.services.files.sources import Source

_CHUNK = FRAME_BODY.value


class Pack(NamedTuple):
    """Small files that travel together."""

    files: tuple[int, ...]


class Segment(NamedTuple):
    """A range of one file; `end` -1 means up to wherever the stream ends."""

    file: int
    start: int
    end: int
    hole: bool


class Begin(NamedTuple):
    """A large file that is not open yet, and what of it is to go."""

    file: int
    ranges: tuple[tuple[int, int], ...]


Work: TypeAlias = Pack | Segment


class _Report(NamedTuple):
    """How far the receiver says that a lane got: all before `reached`, but for what `missing` says of the last."""

    reached: int
    missing: object


@dataclass(slots=True)
class _LaneRecord:
    """What went out on one lane and may have to go again."""

    lane: Lane
    sent: dict[int, Work] = field(default_factory=dict)
    enough: int = 256  # so many are kept before it is looked which of them are needed no more
    next: int = 0
    dead: bool = False
    running: bool = True
    report: _Report | None = None


class Outgoing:
    """The lanes of one sender, each driven by a thread of its own, and the queue that feeds them.

    `begin` is to open a file and give its segments, `again` to say what must go once more of what a lane that is over
    did not bring to the other side; both are called from any thread. `most` large files are begun and without an
    outcome at once.
    """

    def __init__(
        self,
        planned: Planned,
        source: Source,
        say: Say,
        pace: Pace,
        *,
        most: int,
        begin: Callable[[Begin], list[Segment]],
        again: Callable[[list[Work]], list[Work]],
    ) -> None:
        self._planned = planned
        self._packs = PacksOut(planned, source, pace, self._count)
        self._say = say
        self._begin = begin
        self._again = again
        self._pace = pace
        self._most = most
        self._queue: deque[Work | Begin] = deque()  # what is of open files stands before all that is not begun
        self._lanes: dict[int, _LaneRecord] = {}
        self._change = threading.Condition()
        self._closing = False
        self._full = False
        self._beginning = 0  # lanes that open a file just now
        self.sent_bytes = 0

    def put(self, work: Sequence[Work | Begin], *, first: bool = False) -> None:
        """Queue it for the next lane that is free. `first`: it is of files that others wait for."""
        with self._change:
            if first:
                self._queue.extendleft(reversed(work))
            else:
                self._queue.extend(work)
            self._change.notify_all()

    def stir(self) -> None:
        """Files have their outcome: others may begin."""
        with self._change:
            if self._may_take():
                self._change.notify_all()

    def drive(self, lane: Lane, number: int) -> None:
        """Send over `lane` until the transfer is over or the lane is. Blocking."""
        record = _LaneRecord(lane)
        with self._change:
            if self._closing:
                return
            self._lanes[number] = record
        buffer = memoryview(b"")  # until there is a range to send
        try:
            while (work := self._take(record)) is not None:
                position = record.next
                record.next += 1
                record.sent[position] = work
                if len(record.sent) > record.enough:
                    self._forget_resolved(record)
                head: Header = {"lane": number, "n": position}
                if isinstance(work, Pack):
                    self._packs.send(lane, head, work.files)
                else:
                    buffer = buffer if len(buffer) else memoryview(bytearray(_CHUNK))
                    self._send_segment(lane, head, work, buffer)
        except TowlineError:
            pass  # the receiver will say how far the lane got
        finally:
            self._lane_stopped(number, record)

    def on_lane_over(self, header: Header) -> None:
        """The receiver says how far a lane got."""
        number = requests.number(header, "lane")
        report = _Report(requests.number(header, "next", 0), header.get("missing"))
        with self._change:
            record = self._lanes.get(number)
            if record is None or record.report is not None:
                return
            record.report = report
            record.dead = True
            self._change.notify_all()
            running = record.running
        if running:
            record.lane.shutdown()
        else:
            self._requeue(number, record, report)

    def stop(self) -> None:
        """End the lanes and admit no more."""
        with self._change:
            self._closing = True
            self._queue.clear()
            records = list(self._lanes.values())
            self._change.notify_all()
        for record in records:
            record.lane.shutdown()

    def join(self) -> None:
        """Wait until no lane is driven any more. Blocks."""
        with self._change:
            self._change.wait_for(lambda: not any(record.running for record in self._lanes.values()))

    # --- inside: one piece of work ---

    def _take(self, record: _LaneRecord) -> Work | None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closing or record.dead or self._may_take())
                if self._closing or record.dead:
                    return None
                work = self._queue.popleft()
                if not isinstance(work, Begin):
                    return work
                self._beginning += 1
            segments = self._begin(work)
            with self._change:
                self._beginning -= 1
            self.put(segments, first=True)

    def _may_take(self) -> bool:
        if not self._queue:
            return False
        work = self._queue[0]
        if not isinstance(work, Begin):
            return True
        begun = self._planned.open_files + self._beginning
        # Once there is no room, not before there is some for several: a lane is not woken for each file.
        self._full = begun >= (max(self._most * 3 // 4, 1) if self._full else self._most)
        return not self._full or self._planned.opened(work.file) is not None

    def _send_segment(self, lane: Lane, head: Header, work: Segment, buffer: memoryview) -> None:
        open_file = self._planned.opened(work.file)
        if open_file is None:
            return  # it got its outcome meanwhile
        head |= {"file": work.file, "from": work.start, "to": work.end}
        at = work.end if work.hole else work.start
        try:
            lane.send(Kind.OPEN, head | {"hole": True} if work.hole else head)
            open_file.out += work.end - work.start if work.hole else 0
            try:
                at = self._send_range(lane, open_file, at, work.end, buffer)
            except ConnectionLost:
                raise
            except TowlineError as error:
                self._planned.gone(work.file, error)
            lane.send(Kind.END, {"at": at})
        finally:
            left = self._planned.leave(open_file)
        if not left:
            self._planned.finish_soon(work.file, open_file)

    def _send_range(self, lane: Lane, open_file: OpenFile, at: int, end: int, buffer: memoryview) -> int:
        """Send [at, end), or up to the end of the stream; how far it got."""
        reading = open_file.reading
        while at < end or end < 0:
            target = buffer if end < 0 else buffer[: min(_CHUNK, end - at)]
            count = reading.read_into(at, target)
            if not count:
                break
            reading.digest.feed(at, target[:count])  # a stream's own thread was quicker: then nothing happens
            self._pace.spend(count)
            lane.send(Kind.DATA, None, target[:count])
            self._count(count)
            open_file.out += count  # for people to look at: two lanes at once may lose a step
            at += count
        return at

    def _count(self, count: int) -> None:
        with self._change:
            self.sent_bytes += count

    # --- inside: the end of a lane ---

    def _lane_stopped(self, number: int, record: _LaneRecord) -> None:
        record.lane.shutdown()
        with self._change:
            record.running = False
            record.dead = True
            report = record.report
            closing = self._closing
            self._change.notify_all()
        if closing:
            return
        if report is not None:
            self._requeue(number, record, report)
        else:
            self._say({"t": "lane-over", "lane": number}, b"")

    def _requeue(self, number: int, record: _LaneRecord, report: _Report) -> None:
        """What the receiver did not get of this lane: all that it did not begin, and the rest of what it began."""
        again = [work for position, work in record.sent.items() if position >= report.reached]
        again += _rest(record.sent.get(report.reached - 1), report.missing)
        with self._change:
            self._lanes.pop(number, None)
        self.put(self._again(again), first=True)

    def _forget_resolved(self, record: _LaneRecord) -> None:
        """What has its outcome need not go again."""
        with self._change:
            record.sent = {
                position: work
                for position, work in record.sent.items()
                if any(file in self._planned for file in (work.files if isinstance(work, Pack) else (work.file,)))
            }
            record.enough = 2 * len(record.sent) + 256


def _rest(begun: Work | None, rows: object) -> list[Work]:
    """What the receiver says did not come of the piece that it began last; never more than went out in it."""
    match begun, rows:
        case Pack(files=files), list():
            named = {row[0] for row in rows if isinstance(row, list) and len(row) == 1 and isinstance(row[0], int)}
            return [Pack(tuple(file for file in files if file in named))]
        case Segment(file=file, start=start, end=end), [[index, int(at), upto]] if [index, upto] == [file, end]:
            if start <= at and (at <= end or end < 0):
                return [Segment(file, at, end, hole=False)]
    return []
