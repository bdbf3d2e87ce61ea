"""Small files travel in packs, many in one range: sent whole, verified and published one by one.

A range whose OPEN says `pack`, how many files it has, begins with a table, 44 bytes for each file: its number in the
plan (u64), its size (u32), its BLAKE3 (32 bytes), big-endian. The contents follow in the same order.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from blake3 import blake3

from towline.base.errors import BadMessage, Conflict, ConnectionLost, TowlineError
from towline.base.limits import FRAME_BODY
from towline.protocol.codec import Header
from towline.protocol.table import Kind
from towline.runtime.lanes import Lane, LaneFrame
from towline.services import requests
from towline.services.files.messages import PACK_BYTES, PACK_FILES, SMALL_FILE, Outcome
from towline.services.files.pace import Pace
from towline.services.files.plan import Entry
from towline.services.files.planned import Planned
from towline.services.files.sinks import Sink
from towline.services.files.sources import Source
from towline.services.files.unsettled import FATAL, Unsettled, damaged

_CHUNK = FRAME_BODY.value
_ROW = struct.Struct(">QI32s")
_WRONG = "A pack is longer or shorter than it said."
# Whoever receives lanes holds so much for each; a pack is full when the next file would go beyond PACK_BYTES.
PACK_BUFFER = PACK_FILES.value * _ROW.size + PACK_BYTES.value + SMALL_FILE


class PacksOut:
    """Reads small files and sends them. `count` hears of bytes that went out."""

    def __init__(self, planned: Planned, source: Source, pace: Pace, count: Callable[[int], None]) -> None:
        self._planned = planned
        self._source = source
        self._pace = pace
        self._count = count

    def send(self, lane: Lane, head: Header, files: tuple[int, ...]) -> None:
        """One pack, of those that have no outcome yet. Raises ConnectionLost."""
        digests: dict[int, bytes] = {}
        table: list[bytes] = []
        contents: list[bytes] = []
        with self._source.folders() as folders:
            for index, entry in self._planned.still(files):
                try:
                    content = self._source.small(entry, folders)
                except TowlineError as error:
                    self._planned.gone(index, error)
                    continue
                digests[index] = digest = blake3(content).digest()
                table.append(_ROW.pack(index, len(content), digest))
                contents.append(content)
        self._planned.packed(digests)
        lane.send(Kind.OPEN, head | {"pack": len(contents)})
        size = len(contents) * _ROW.size
        data = memoryview(b"".join(table + contents))
        for at in range(0, len(data), _CHUNK):
            part = data[at : at + _CHUNK]
            self._pace.spend(len(part))
            lane.send(Kind.DATA, None, part)
            self._count(len(part) - max(0, min(size - at, len(part))))
        lane.send(Kind.END, {})


class PacksIn:
    """Receives packs and publishes what is in them."""

    def __init__(self, files: Unsettled, sink: Sink) -> None:
        self._files = files
        self._sink = sink

    def receive(self, lane: Lane, header: Header, buffer: memoryview) -> list[list[int]]:
        """One pack; the files of it that did not come, as rows of a lane's report.

        Raises ConnectionLost when not even the table came.
        """
        count = requests.number(header, "pack")
        if count > PACK_FILES.value:
            raise BadMessage("A pack is larger than the limit pack_files.")
        filled, ended = _fill(lane, buffer)
        at = count * _ROW.size
        if filled < at:
            raise BadMessage(_WRONG) if ended else ConnectionLost("The lane was lost at the beginning of a pack.")
        received = filled - at
        arrived: list[tuple[int, memoryview, bytes]] = []
        missing: list[list[int]] = []
        for index, size, digest in _ROW.iter_unpack(buffer[:at]):
            if size > SMALL_FILE:
                raise BadMessage("A file of a pack is larger than a small file.")
            if at + size <= filled:
                arrived.append((index, buffer[at : at + size], digest))
            else:
                missing.append([index])
            at += size
        if ended and at != filled:
            raise BadMessage(_WRONG)
        useful = sum(len(content) for _, content, _ in arrived)
        self._files.voice.tally.add(received, wasted=received - useful)
        self._publish(arrived)
        return missing

    def _publish(self, arrived: list[tuple[int, memoryview, bytes]]) -> None:
        other: list[Outcome] = []
        batch: list[tuple[Entry, memoryview, bool]] = []
        whole: list[tuple[int, bytes]] = []
        places = self._files.take([(index, len(content)) for index, content, _ in arrived])
        for (index, content, digest), place in zip(arrived, places, strict=True):
            if place is None:
                continue  # it has its outcome
            entry, replace = place
            if blake3(content).digest() == digest:
                batch.append((entry, content, replace))
                whole.append((index, digest))
            else:
                other.append(Outcome(index, len(content), "", error=damaged(entry)))
        settled: list[Outcome] = []
        for (index, digest), one, problem in zip(whole, batch, self._sink.publish_small(batch), strict=True):
            error, note = self._look_again(one, digest.hex()) if isinstance(problem, Conflict) else (problem, "")
            if isinstance(error, FATAL):
                raise error
            if error is None and not note:
                settled.append(Outcome(index, len(one[1]), digest.hex()))
            else:
                other.append(Outcome(index, len(one[1]), digest.hex() if note == "same" else "", note, error))
        self._files.voice.settle(settled, True)
        self._files.voice.settle(other, False)

    def _look_again(self, one: tuple[Entry, memoryview, bool], digest: str) -> tuple[TowlineError | None, str]:
        """Something came to be in its place meanwhile: why it is not published, or why it need not be."""
        entry, content, _ = one
        try:
            verdict = self._files.verdict_now(entry, len(content), digest)
        except TowlineError as error:
            return error, ""
        match verdict:
            case "same":
                return None, "same"
            case "keep":
                return None, "kept"
            case _:
                return self._sink.publish_small([(entry, content, verdict == "send")])[0], ""


def range_frame(lane: Lane) -> LaneFrame | None:
    """The next frame within a range; None when the lane ended. Raises BadMessage."""
    frame = lane.receive()
    if frame is not None and frame.kind not in (Kind.DATA, Kind.END):
        raise BadMessage("A range has DATA and END and nothing else.")
    if frame is not None and frame.size > FRAME_BODY.value:
        raise BadMessage("A frame is larger than the limit frame_body.")
    return frame


def _fill(lane: Lane, buffer: memoryview) -> tuple[int, bool]:
    """Read a pack's bytes until END, or as far as they come: how many, and whether END came."""
    filled, ended = 0, False
    while not ended and (frame := range_frame(lane)) is not None:
        ended = frame.kind is Kind.END
        if filled + frame.size > len(buffer):
            raise BadMessage("A pack is longer than the limit pack_bytes.")
        count = lane.read_body(buffer[filled : filled + frame.size]) if frame.size else 0
        filled += count
        if count < frame.size:
            break
    return filled, ended
