"""Small files travel in packs, many in one range: sent whole, verified and published one by one."""

from __future__ import annotations

from collections.abc import Callable

from blake3 import blake3

from towline.base.errors import BadMessage, TowlineError
from towline.base.limits import FRAME_BODY
from towline.protocol.codec import Header
from towline.protocol.table import Kind
from towline.runtime.lanes import Lane, LaneFrame
from towline.services.files.messages import PACK_FILES, Outcome, index_of
from towline.services.files.pace import Pace
from towline.services.files.plan import Entry
from towline.services.files.sinks import Sink
from towline.services.files.sources import Source
from towline.services.files.unsettled import FATAL, Unsettled, check_asked, damaged

_CHUNK = FRAME_BODY.value


class PacksOut:
    """Reads small files and sends them. `gone` hears of those that cannot be had, `count` of bytes that went out."""

    def __init__(
        self, source: Source, pace: Pace, gone: Callable[[int, TowlineError], None], count: Callable[[int], None]
    ) -> None:
        self._source = source
        self._pace = pace
        self._gone = gone
        self._count = count

    def send(self, lane: Lane, head: Header, files: list[tuple[int, Entry]]) -> None:
        """One pack. Raises ConnectionLost."""
        rows: list[list[object]] = []
        contents: list[bytes] = []
        with self._source.folders() as folders:
            for index, entry in files:
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


class PacksIn:
    """Receives packs and publishes what is in them."""

    def __init__(self, files: Unsettled, sink: Sink) -> None:
        self._files = files
        self._sink = sink

    def receive(self, lane: Lane, header: Header, buffer: memoryview) -> list[list[int]]:
        """One pack; the files of it that did not come, as rows of a lane's report."""
        rows = _rows(header.get("pack"))
        if sum(size for _, size, _ in rows) > len(buffer) or len(rows) > PACK_FILES.value:
            raise BadMessage("A pack is larger than the limit pack_bytes or pack_files.")
        filled = _fill(lane, buffer)
        at, arrived, missing = 0, [], []
        for index, size, digest in rows:
            if at + size <= filled:
                arrived.append((index, buffer[at : at + size], digest))
            else:
                missing.append([index])
            at += size
        useful = sum(len(content) for _, content, _ in arrived)
        self._files.tally.add(filled, wasted=filled - useful)
        self._publish(arrived)
        return missing

    def _publish(self, arrived: list[tuple[int, memoryview, str]]) -> None:
        settled: list[Outcome] = []
        batch: list[tuple[Entry, memoryview, bool]] = []
        indexes: list[tuple[int, str]] = []
        for index, content, digest in arrived:
            known = self._files.find(index)
            if known is not None:
                check_asked(known, len(content))
            file = self._files.drop(index)
            if file is None:
                continue
            if blake3(content).hexdigest() != digest:
                settled.append(Outcome(index, len(content), "", error=damaged(file.entry)))
                continue
            batch.append((file.entry, content, file.replace))
            indexes.append((index, digest))
        for (index, digest), (entry, _, _), error in zip(
            indexes, batch, self._sink.publish_small(batch), strict=True
        ):
            settled.append(Outcome(index, entry.size, digest if error is None else "", error=error))
            if isinstance(error, FATAL):
                raise error
        self._files.settle(settled)


def range_frame(lane: Lane) -> LaneFrame | None:
    """The next frame within a range; None when the lane ended. Raises BadMessage."""
    frame = lane.receive()
    if frame is not None and frame.kind not in (Kind.DATA, Kind.END):
        raise BadMessage("A range has DATA and END and nothing else.")
    if frame is not None and frame.size > FRAME_BODY.value:
        raise BadMessage("A frame is larger than the limit frame_body.")
    return frame


def _fill(lane: Lane, buffer: memoryview) -> int:
    """Read a pack's bytes until END, or as far as they come: how many."""
    filled, ended = 0, False
    while not ended and (frame := range_frame(lane)) is not None:
        ended = frame.kind is Kind.END
        if filled + frame.size > len(buffer):
            raise BadMessage("A pack is longer than it said.")
        count = lane.read_body(buffer[filled : filled + frame.size]) if frame.size else 0
        filled += count
        if count < frame.size:
            break
    return filled


def _rows(value: object) -> list[tuple[int, int, str]]:
    rows: list[tuple[int, int, str]] = []
    for row in value if isinstance(value, list) else []:
        match row:
            case [int(index), int(size), str(digest)] if size >= 0:
                rows.append((index_of(index), size, digest))
            case _:
                raise BadMessage("A file of a pack is a number, a size and a digest.")
    return rows
