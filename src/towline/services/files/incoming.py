"""The receiver's lanes: ranges of large files are written where they belong, packs go to their own room."""

from __future__ import annotations

import threading
import time

from towline.base.errors import BadMessage, ConnectionLost, Superseded, TowlineError
from towline.base.limits import MIB
from towline.protocol.codec import Header
from towline.protocol.table import Kind
from towline.runtime.lanes import Lane, LaneFrame
from towline.services import requests
from towline.services.files.names import quoted
from towline.services.files.packs import PACK_BUFFER, PacksIn, range_frame
from towline.services.files.sinks import Writing
from towline.services.files.unsettled import FATAL, File, Unsettled

# A large file's ranges are made durable, and acknowledged, after this much or this long.
_CHECKPOINT_BYTES = 32 * MIB
_CHECKPOINT_SECONDS = 1.0
_MOST_OVER = 1024  # lanes that never got here and need not come any more
# A sender of a stream holds what is not acknowledged in memory and stops when that is full: well before that.
_STREAM_CHECKPOINT_BYTES = 8 * MIB


class Incoming:
    """The lanes of one receiver, each driven by a thread of its own."""

    def __init__(self, files: Unsettled, packs: PacksIn) -> None:
        self._files = files
        self._packs = packs
        self._voice = files.voice
        self._lanes: dict[int, Lane] = {}
        self._over: set[int] = set()  # lanes that the sender says are dead
        self._change = threading.Condition()
        self._closing = False

    def drive(self, lane: Lane, number: int) -> None:
        """Receive from `lane` until it ends. Blocking."""
        with self._change:
            if self._closing or number in self._over:
                return
            self._lanes[number] = lane
        reached = 0
        missing: list[list[int]] = []
        buffer = memoryview(bytearray(PACK_BUFFER))
        try:
            while not missing and (frame := lane.receive()) is not None:
                if frame.kind is not Kind.OPEN:
                    raise BadMessage("A range begins with OPEN.")
                reached = requests.number(frame.header, "n")
                missing = self._receive(lane, frame, buffer)
                reached += 1
        except FATAL as error:
            self._voice.abort(error)
        except ConnectionLost:
            pass  # the lane is over; the report says how far it got
        except TowlineError as error:
            self._voice.abort(error)
        finally:
            lane.shutdown()
            self._report(number, reached, missing)

    def on_lane_over(self, number: int) -> None:
        """The sender noticed first that a lane is dead."""
        with self._change:
            lane = self._lanes.get(number)
            if lane is None:
                self._over.add(number)
            if len(self._over) > _MOST_OVER:
                raise BadMessage(f"More than {_MOST_OVER} lanes never got here.")
        if lane is not None:
            lane.shutdown()  # its thread reports how far it got
        else:
            self._report(number, 0, [])  # it never got here; or it did, and what was reported did not get there

    def stop(self) -> None:
        """End the lanes and admit no more."""
        with self._change:
            self._closing = True
            lanes = list(self._lanes.values())
        for lane in lanes:
            lane.shutdown()

    def join(self) -> None:
        """Wait until no lane is driven any more. Blocks."""
        with self._change:
            self._change.wait_for(lambda: not self._lanes)

    # --- inside: one range ---

    def _receive(self, lane: Lane, frame: LaneFrame, buffer: memoryview) -> list[list[int]]:
        """One range; what of it did not come, as rows of a lane's report."""
        if "pack" in frame.header:
            return self._packs.receive(lane, frame.header, buffer)
        index = requests.number(frame.header, "file")
        start = requests.number(frame.header, "from")
        end = requests.number(frame.header, "to", least=-1)
        file = self._files.find(index)
        if file is None:
            return self._discard_range(lane, buffer)
        if (end < 0) != (file.entry.size < 0) or end > file.entry.size >= 0 or (end >= 0 and start > end):
            raise BadMessage(f"The range {start} to {end} does not lie in {quoted(file.entry.path)}.")
        if not file.asked:
            raise BadMessage(f"{quoted(file.entry.path)} was not asked for.")
        try:
            writing = self._files.open(file)
            if requests.flag(frame.header, "hole"):
                writing.write_zeros(start, end - start)
                start = end
            reached, ended = self._receive_range(lane, index, file, writing, start, end, buffer)
        except (Superseded, BadMessage, *FATAL):
            raise
        except TowlineError as error:
            if isinstance(error, ConnectionLost):
                raise
            self._files.fail(index, error)
            return self._discard_range(lane, buffer)
        self._files.finish_if_whole(index, file)
        return [] if ended else [[index, reached, end]]

    def _receive_range(
        self, lane: Lane, index: int, file: File, writing: Writing, at: int, end: int, buffer: memoryview
    ) -> tuple[int, bool]:
        """Write what comes until END: how far it got, and whether END came."""
        while True:
            frame = range_frame(lane)
            if frame is None:
                return at, False
            if frame.kind is Kind.END:
                return at, True
            if 0 <= end < at + frame.size:
                raise BadMessage("A range is longer than it said.")
            count = lane.read_body(buffer[: frame.size])
            writing.write(at, buffer[:count])
            at += count
            self._voice.tally.add(count)
            file.unsynced += count
            self._checkpoint_if_due(index, file, writing)
            if count < frame.size:
                return at, False

    def _checkpoint_if_due(self, index: int, file: File, writing: Writing) -> None:
        now = time.monotonic()
        file.synced_at = file.synced_at or now
        enough = _CHECKPOINT_BYTES if file.entry.size >= 0 else _STREAM_CHECKPOINT_BYTES
        if file.unsynced < enough and now - file.synced_at < _CHECKPOINT_SECONDS:
            return
        file.unsynced, file.synced_at = 0, now
        durable = writing.checkpoint()
        tally = self._voice.tally.counts
        self._voice.say({"t": "kept", "file": index, "upto": durable.contiguous(), "tally": tally}, b"")

    def _discard_range(self, lane: Lane, buffer: memoryview) -> list[list[int]]:
        """A range of a file that has its outcome: read past it."""
        while (frame := range_frame(lane)) is not None and frame.kind is not Kind.END:
            count = lane.read_body(buffer[: frame.size])
            self._voice.tally.add(count, wasted=count)
            if count < frame.size:
                break
        return []

    def _report(self, number: int, reached: int, missing: list[list[int]]) -> None:
        with self._change:
            self._lanes.pop(number, None)
            self._change.notify_all()
            closing = self._closing
        if not closing:
            tally = self._voice.tally.counts
            header: Header = {"t": "lane-over", "lane": number, "next": reached, "missing": missing, "tally": tally}
            self._voice.say(header, b"")
