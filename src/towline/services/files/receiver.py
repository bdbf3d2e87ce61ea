"""The receiving half of a transfer: looks at what is there, asks for what is missing, verifies, publishes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from blake3 import blake3

from towline.base.errors import (
    BadMessage,
    Conflict,
    ConnectionLost,
    DiskError,
    IsADirectory,
    NoSpace,
    StreamClosed,
    Superseded,
    TowlineError,
    VerificationFailed,
)
from towline.base.limits import FRAME_BODY, MIB
from towline.protocol.codec import Header
from towline.protocol.table import Kind
from towline.runtime.lanes import Lane, LaneFrame
from towline.services import requests
from towline.services.files.messages import (
    PACK_BYTES,
    PACK_FILES,
    SMALL_FILE,
    Outcome,
    Say,
    decode_rows,
    encode_rows,
    index_of,
)
from towline.services.files.names import quoted
from towline.services.files.plan import Entry
from towline.services.files.sinks import Sink, Writing
from towline.services.files.tree import Stat

# A large file's ranges are made durable, and acknowledged, after this much or this long.
_CHECKPOINT_BYTES = 32 * MIB
_CHECKPOINT_SECONDS = 1.0
# A sender of a stream holds what is not acknowledged in memory and stops when that is full: well before that.
_STREAM_CHECKPOINT_BYTES = 8 * MIB
# What ends a whole transfer instead of one file: the next file would meet it too.
_FATAL = (NoSpace, DiskError)
OVERWRITE = ("never", "older", "always")


@dataclass(slots=True)
class _File:
    """A file of the plan without an outcome."""

    entry: Entry
    replace: bool
    asked: bool = False  # for its content; what nobody asked for is not written
    there: str = ""  # the digest of what the target is now, when that may be the same
    otherwise: str = "send"  # what to do when the target turns out to have other content
    writing: Writing | None = None
    digest: str | None = None  # what the sender says the whole must be
    size: int = -1
    finishing: bool = False
    over: bool = False  # it has its outcome; a lane may still hold on to it
    retried: bool = False
    unsynced: int = 0
    synced_at: float = 0.0


@dataclass(slots=True)
class Tally:
    """Bytes of files that arrived on lanes, and those among them that had to be thrown away."""

    received: int = 0
    wasted: int = 0


class Receiver:
    """One conversation's receiving side. All methods block or are quick and may be called from any thread.

    `settle` hears of each entry's outcome, once, when it is durable; `abort` of an error that ends everything.
    """

    def __init__(
        self,
        sink: Sink,
        say: Say,
        settle: Callable[[list[Outcome]], None],
        abort: Callable[[TowlineError], None],
        *,
        overwrite: str,
        tally: Tally,
    ) -> None:
        self._sink = sink
        self._say = say
        self._settle = settle
        self._abort = abort
        self._overwrite = overwrite
        self._tally = tally
        self._files: dict[int, _File] = {}
        self._folders: list[Entry] = []
        self._lanes: dict[int, Lane] = {}
        self._over: set[int] = set()  # lanes that the sender says are dead
        self._change = threading.Condition()
        self._looking = threading.Lock()  # at what is there; the loop does not wait for that when it is cancelled
        self._closing = False
        self._finisher = ThreadPoolExecutor(1, "towline-publish")
        self.resumed = 0  # bytes that were there already

    # --- the plan ---

    def on_plan(self, entries: list[tuple[int, Entry]]) -> None:
        """Look at each entry's target; say what is wanted."""
        with self._looking:
            self._look_at(entries)

    def _look_at(self, entries: list[tuple[int, Entry]]) -> None:
        want: list[int] = []
        have: list[list[object]] = []
        settled: list[Outcome] = []
        for index, entry in entries:
            if self._closing:
                return
            try:
                if entry.kind == "file":
                    self._look(index, entry, want, have, settled)
                else:
                    settled.append(Outcome(index, 0, "", self._make(entry)))
            except ConnectionLost:
                return  # it was closed
            except TowlineError as error:
                self._drop(index)
                settled.append(Outcome(index, entry.size, "", error=error))
                if isinstance(error, _FATAL):
                    self._abort(error)
                    return
        if want:
            self._say({"t": "want"}, encode_rows(want))
        for start in range(0, len(have), 512):
            self._say({"t": "have"}, encode_rows(have[start : start + 512]))
        if settled:
            self._settle(settled)

    def _make(self, entry: Entry) -> str:
        """A folder or a symlink; the outcome's note."""
        if entry.kind == "dir":
            self._sink.mkdir(entry)
            self._folders.append(entry)
            return ""
        there = self._sink.existing(entry)
        if there is not None and there.kind == "dir":
            raise IsADirectory(f"{quoted(entry.path)} is a folder at the target and a symlink at the source.")
        if there is None:
            self._sink.symlink(entry, replace=False)
        elif self._sink.existing_link(entry) != entry.target:
            match self._verdict(entry, there):
                case "conflict":
                    raise _conflict(entry)
                case "keep":
                    return "kept"
                case _:
                    self._sink.symlink(entry, replace=True)
        else:
            return "same"
        return ""

    def _look(
        self, index: int, entry: Entry, want: list[int], have: list[list[object]], settled: list[Outcome]
    ) -> None:
        there = self._sink.existing(entry)
        file = _File(entry, replace=there is not None)
        self._files[index] = file
        if there is not None:
            if there.kind == "dir":
                raise IsADirectory(f"{quoted(entry.path)} is a folder at the target and a file at the source.")
            file.otherwise = self._verdict(entry, there)
            if there.kind == "file" and _may_be_same(entry, there):
                file.size = there.size
                file.there = self._sink.existing_digest(entry, lambda: self._closing)
                have.append([index, file.there])
                return
        if file.otherwise == "send":
            self._ask(index, file, want)
        else:
            settled.append(self._left_alone(index, file))

    def _ask(self, index: int, file: _File, want: list[int]) -> None:
        file.asked = True
        if self._sink.begun(file.entry):
            self._resume(index, file)
        else:
            want.append(index)

    def _left_alone(self, index: int, file: _File) -> Outcome:
        """The target has other content, and that stays."""
        self._drop(index)
        if file.otherwise == "keep":
            return Outcome(index, file.entry.size, "", "kept")
        return Outcome(index, file.entry.size, "", error=_conflict(file.entry))

    def _verdict(self, entry: Entry, there: Stat) -> str:
        """What to do when the target has other content."""
        if self._overwrite == "always":
            return "send"
        if self._overwrite == "older":
            return "send" if there.mtime_ns < entry.mtime_ns else "keep"
        return "conflict"

    def _resume(self, index: int, file: _File) -> None:
        writing = self._open(file)
        if writing.restarted_because:
            self._say({"t": "restarted", "file": index, "reason": writing.restarted_because}, b"")
        ranges = writing.ranges
        self.resumed += ranges.covered
        header: Header = {"t": "resume", "file": index, "start": ranges.contiguous(), "covered": ranges.covered}
        missing = ranges.missing(file.entry.size) if file.entry.size >= 0 else []
        self._say(header, encode_rows(missing))

    # --- what the sender says of single files ---

    def on_same(self, body: bytes) -> None:
        """These are there already, with this digest."""
        settled = []
        for row in decode_rows(body):
            match row:
                case [int(index), str(digest)]:
                    with self._change:
                        known = self._files.get(index_of(index))
                    if known is not None and digest != known.there:
                        raise BadMessage(f"{quoted(known.entry.path)} is not the same at the target.")
                    file = self._drop(index)
                    if file is not None:
                        settled.append(Outcome(index, file.size, digest, "same"))
                case _:
                    raise BadMessage("A file that is the same is a number and a digest.")
        self._settle(settled)

    def on_differs(self, body: bytes) -> None:
        """These are there with other content."""
        with self._looking:
            self._ask_for(body)

    def _ask_for(self, body: bytes) -> None:
        want: list[int] = []
        settled: list[Outcome] = []
        for row in decode_rows(body):
            index = index_of(row)
            with self._change:
                file = self._files.get(index) if not self._closing else None
            if file is not None and (not file.there or file.asked):
                raise BadMessage(f"Nobody said that {quoted(file.entry.path)} may be the same at the target.")
            if file is not None and file.otherwise == "send":
                self._ask(index, file, want)
            elif file is not None:
                settled.append(self._left_alone(index, file))
        if want:
            self._say({"t": "want"}, encode_rows(want))
        self._settle(settled)

    def on_gone(self, index: int, error: TowlineError) -> None:
        """The sender cannot give it (any more)."""
        file = self._drop(index)
        if file is not None:
            self._settle([Outcome(index, file.entry.size, "", error=error)])

    def on_sent(self, header: Header) -> None:
        """All of it is out; this is what the whole must be."""
        with self._change:
            file = self._files.get(requests.number(header, "file"))
            if file is None:
                return
            size = requests.number(header, "size")
            if not file.asked or (file.entry.size >= 0 and size != file.entry.size):
                raise BadMessage(f"{quoted(file.entry.path)} was not asked for, or not in that size.")
            file.digest, file.size = requests.text(header, "digest"), size
        self._finish_if_whole(requests.number(header, "file"), file)

    # --- lanes ---

    def drive(self, lane: Lane, number: int) -> None:
        """Receive from `lane` until it ends. Blocking; on a thread of its own."""
        with self._change:
            if self._closing or number in self._over:
                return
            self._lanes[number] = lane
        reached = 0
        missing: list[list[int]] = []
        buffer = memoryview(bytearray(PACK_BYTES.value + SMALL_FILE))
        try:
            while not missing and (frame := lane.receive()) is not None:
                if frame.kind is not Kind.OPEN:
                    raise BadMessage("A range begins with OPEN.")
                reached = requests.number(frame.header, "n")
                missing = self._receive(lane, frame, buffer)
                reached += 1
        except _FATAL as error:
            self._abort(error)
        except ConnectionLost:
            pass  # the lane is over; the report says how far it got
        except TowlineError as error:
            self._abort(error)
        finally:
            lane.shutdown()
            self._report(number, reached, missing)

    def on_lane_over(self, number: int) -> None:
        """The sender noticed first that a lane is dead."""
        with self._change:
            lane = self._lanes.get(number)
            self._over.add(number)
        if lane is not None:
            lane.shutdown()  # its thread reports how far it got
        else:
            self._report(number, 0, [])  # it never got here; or it did, and what was reported did not get there

    def close(self) -> None:
        """The conversation is over: end the lanes, keep what is unfinished."""
        with self._change:
            self._closing = True
            lanes = list(self._lanes.values())
        self._sink.interrupt()
        for lane in lanes:
            lane.shutdown()
        with self._change:
            self._change.wait_for(lambda: not self._lanes)
        self._finisher.shutdown(wait=True)
        with self._looking:
            for file in self._files.values():
                if file.writing is not None:
                    file.writing.close()
            self._files.clear()

    def finish(self, top: Entry | None) -> None:
        """Everything has its outcome: folders get their times and bits, and so does the whole, if it is one."""
        self._finisher.shutdown(wait=True)
        self._sink.stamp(self._folders if top is None else [*self._folders, top])

    # --- inside: one range ---

    def _receive(self, lane: Lane, frame: LaneFrame, buffer: memoryview) -> list[list[int]]:
        """One range; what of it did not come, as rows of a lane's report."""
        if "pack" in frame.header:
            return self._receive_pack(lane, frame.header, buffer)
        index = requests.number(frame.header, "file")
        start = requests.number(frame.header, "from")
        end = requests.number(frame.header, "to", least=-1)
        with self._change:
            file = self._files.get(index)
        if file is None:
            return self._discard_range(lane, buffer)
        if (end < 0) != (file.entry.size < 0) or end > file.entry.size >= 0 or (end >= 0 and start > end):
            raise BadMessage(f"The range {start} to {end} does not lie in {quoted(file.entry.path)}.")
        if not file.asked:
            raise BadMessage(f"{quoted(file.entry.path)} was not asked for.")
        try:
            writing = self._open(file)
            if requests.flag(frame.header, "hole"):
                writing.write_zeros(start, end - start)
                start = end
            reached, ended = self._receive_range(lane, index, file, writing, start, end, buffer)
        except (Superseded, BadMessage, *_FATAL):
            raise
        except TowlineError as error:
            if isinstance(error, ConnectionLost):
                raise
            self._fail(index, error)
            return self._discard_range(lane, buffer)
        self._finish_if_whole(index, file)
        return [] if ended else [[index, reached, end]]

    def _receive_range(
        self, lane: Lane, index: int, file: _File, writing: Writing, at: int, end: int, buffer: memoryview
    ) -> tuple[int, bool]:
        """Write what comes until END: how far it got, and whether END came."""
        while True:
            frame = self._next(lane)
            if frame is None:
                return at, False
            if frame.kind is Kind.END:
                return at, True
            if 0 <= end < at + frame.size:
                raise BadMessage("A range is longer than it said.")
            count = lane.read_body(buffer[: frame.size])
            writing.write(at, buffer[:count])
            at += count
            with self._change:
                self._tally.received += count
            file.unsynced += count
            self._checkpoint_if_due(index, file, writing)
            if count < frame.size:
                return at, False

    def _checkpoint_if_due(self, index: int, file: _File, writing: Writing) -> None:
        now = time.monotonic()
        file.synced_at = file.synced_at or now
        enough = _CHECKPOINT_BYTES if file.entry.size >= 0 else _STREAM_CHECKPOINT_BYTES
        if file.unsynced < enough and now - file.synced_at < _CHECKPOINT_SECONDS:
            return
        file.unsynced, file.synced_at = 0, now
        durable = writing.checkpoint()
        tally = [self._tally.received, self._tally.wasted]
        self._say({"t": "kept", "file": index, "upto": durable.contiguous(), "tally": tally}, b"")

    def _receive_pack(self, lane: Lane, header: Header, buffer: memoryview) -> list[list[int]]:
        rows = _pack_rows(header.get("pack"))
        if sum(size for _, size, _ in rows) > len(buffer) or len(rows) > PACK_FILES.value:
            raise BadMessage("A pack is larger than the limit pack_bytes or pack_files.")
        filled, ended = 0, False
        while not ended and (frame := self._next(lane)) is not None:
            ended = frame.kind is Kind.END
            if filled + frame.size > len(buffer):
                raise BadMessage("A pack is longer than it said.")
            count = lane.read_body(buffer[filled : filled + frame.size]) if frame.size else 0
            filled += count
            if count < frame.size:
                break
        at, arrived, missing = 0, [], []
        for index, size, digest in rows:
            if at + size <= filled:
                arrived.append((index, buffer[at : at + size], digest))
            else:
                missing.append([index])
            at += size
        useful = sum(len(content) for _, content, _ in arrived)
        with self._change:
            self._tally.received += filled
            self._tally.wasted += filled - useful
        self._publish_pack(arrived)
        return missing

    def _publish_pack(self, arrived: list[tuple[int, memoryview, str]]) -> None:
        settled: list[Outcome] = []
        batch: list[tuple[Entry, memoryview, bool]] = []
        indexes: list[tuple[int, str]] = []
        for index, content, digest in arrived:
            with self._change:
                known = self._files.get(index)
            if known is not None and (not known.asked or known.entry.size != len(content)):
                raise BadMessage(f"{quoted(known.entry.path)} was not asked for, or not in that size.")
            file = self._drop(index)
            if file is None:
                continue
            if blake3(content).hexdigest() != digest:
                settled.append(Outcome(index, len(content), "", error=_damaged(file.entry)))
                continue
            batch.append((file.entry, content, file.replace))
            indexes.append((index, digest))
        for (index, digest), (entry, _, _), error in zip(
            indexes, batch, self._sink.publish_small(batch), strict=True
        ):
            settled.append(Outcome(index, entry.size, digest if error is None else "", error=error))
            if isinstance(error, _FATAL):
                raise error
        self._settle(settled)

    def _discard_range(self, lane: Lane, buffer: memoryview) -> list[list[int]]:
        """A range of a file that has its outcome: read past it."""
        while (frame := self._next(lane)) is not None and frame.kind is not Kind.END:
            count = lane.read_body(buffer[: frame.size])
            with self._change:
                self._tally.received += count
                self._tally.wasted += count
            if count < frame.size:
                break
        return []

    @staticmethod
    def _next(lane: Lane) -> LaneFrame | None:
        frame = lane.receive()
        if frame is not None and frame.kind not in (Kind.DATA, Kind.END):
            raise BadMessage("A range has DATA and END and nothing else.")
        if frame is not None and frame.size > FRAME_BODY.value:
            raise BadMessage("A frame is larger than the limit frame_body.")
        return frame

    def _open(self, file: _File) -> Writing:
        with self._change:
            if file.over or (file.writing is None and self._closing):
                raise StreamClosed("The file has its outcome.")
            if file.writing is None:
                file.writing = self._sink.open(file.entry)
            return file.writing

    # --- inside: the end of a file ---

    def _finish_if_whole(self, index: int, file: _File) -> None:
        with self._change:
            if file.digest is None or file.finishing or file.over or self._closing:
                return
            if file.writing is None:
                if file.size:
                    return
            elif file.writing.ranges.missing(file.size):
                return
            file.finishing = True
            self._finisher.submit(self._finish, index, file)

    def _finish(self, index: int, file: _File) -> None:
        """Verify and publish; on a thread of its own, beside the lanes."""
        try:
            writing = self._open(file)
            digest = writing.digest(file.size)
            if digest != file.digest:
                self._distrust(index, file, writing)
                return
            writing.publish(file.entry, file.size, replace=file.replace)
        except (Superseded, *_FATAL) as error:
            self._abort(error)
        except TowlineError as error:
            self._fail(index, error)
        else:
            with self._change:
                self._files.pop(index, None)
                file.over = True
            self._settle([Outcome(index, file.size, digest)])

    def _distrust(self, index: int, file: _File, writing: Writing) -> None:
        """The whole is not what was sent: something was wrong with what was kept. Once more, from nothing."""
        writing.distrust()
        if file.retried or file.entry.size < 0 or not writing.ranges.missing(file.size):
            self._fail(index, _damaged(file.entry))
            return
        with self._change:
            self._tally.wasted += file.size
            file.retried, file.finishing, file.digest = True, False, None
        self._say({"t": "resume", "file": index, "start": 0, "covered": 0}, encode_rows([[0, file.size]]))

    def _fail(self, index: int, error: TowlineError) -> None:
        if self._closing:
            return  # it has to do with the end of the conversation, not with the file
        file = self._drop(index)
        if file is not None:
            self._settle([Outcome(index, file.entry.size, "", error=error)])

    def _drop(self, index: int) -> _File | None:
        """Forget a file that has its outcome; what is unfinished of it stays on disk."""
        with self._change:
            file = self._files.pop(index, None)
            if file is not None:
                file.over = True
        if file is not None and file.writing is not None:
            file.writing.close()
        return file

    def _report(self, number: int, reached: int, missing: list[list[int]]) -> None:
        with self._change:
            self._lanes.pop(number, None)
            self._change.notify_all()
            closing = self._closing
            tally = [self._tally.received, self._tally.wasted]
        if not closing:
            header: Header = {"t": "lane-over", "lane": number, "next": reached, "missing": missing, "tally": tally}
            self._say(header, b"")


def _pack_rows(value: object) -> list[tuple[int, int, str]]:
    rows: list[tuple[int, int, str]] = []
    for row in value if isinstance(value, list) else []:
        match row:
            case [int(index), int(size), str(digest)] if size >= 0:
                rows.append((index_of(index), size, digest))
            case _:
                raise BadMessage("A file of a pack is a number, a size and a digest.")
    return rows


def _may_be_same(entry: Entry, there: Stat) -> bool:
    """Worth a digest. A stream does not tell its size; but what was published from it has its moment as time."""
    return there.size == entry.size or (entry.size < 0 and there.mtime_ns == entry.mtime_ns)


def _conflict(entry: Entry) -> Conflict:
    return Conflict(
        f"{quoted(entry.path)} exists at the target with other content; choose with --overwrite older|always."
    )


def _damaged(entry: Entry) -> VerificationFailed:
    return VerificationFailed(f"{quoted(entry.path)} did not arrive as it was sent; nothing was published.")
