"""The sending half of a transfer: plans, listens to verdicts, and queues work for the lanes.

`planned` keeps the entries until they have their outcome, `outgoing` drives the lanes, `packs` reads small files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator

from towline.base.errors import BadMessage, ConnectionLost, TowlineError
from towline.base.limits import MIB
from towline.protocol.codec import Header
from towline.runtime.lanes import Lane
from towline.services import requests
from towline.services.files.messages import (
    PACK_BYTES,
    PACK_FILES,
    PLAN_BATCH,
    SMALL_FILE,
    Outcome,
    Say,
    decode_rows,
    encode_rows,
    numbers_of,
)
from towline.services.files.outgoing import Begin, Outgoing, Pack, Segment, Work
from towline.services.files.pace import Pace
from towline.services.files.plan import BATCH_BYTES, Entry, Skipped, row_bytes
from towline.services.files.planned import Planned
from towline.services.files.ranges import Ranges
from towline.services.files.sources import Source

# With several lanes a large file is dealt out in pieces of this size, in order.
SEGMENT = 64 * MIB


class Sender:
    """One conversation's sending side. `say` may be called from any thread; all methods block or are quick.

    `after` is the resume position in the plan, `lanes` how many there will be (for dealing out large files), `places`
    how many large files may be begun and without an outcome.
    """

    def __init__(self, source: Source, say: Say, *, after: str | None, lanes: int, pace: Pace, places: int) -> None:
        self._source = source
        self._say = say
        self._pace = pace
        self._segment = SEGMENT if lanes > 1 else 0
        self._walk: Generator[Entry | Skipped, None, None] = source.entries(after)
        # The loop, when it is cancelled, does not wait for a batch or a verdict that a thread works on; `close` does.
        self._walking = threading.Lock()
        self._hearing = threading.Lock()
        self._next_index = 0
        self._planned = Planned(source, say)
        self._outgoing = Outgoing(
            self._planned, source, say, pace, most=places, begin=self._begin, again=self._once_more
        )

    # --- the plan ---

    def next_batch(self, leave_out: Callable[[Entry], bool]) -> tuple[int, list[Entry], list[Skipped]] | None:
        """The next entries with the number of the first; None when the walk is over. Blocking."""
        with self._walking:
            return self._next_batch(leave_out)

    def _next_batch(self, leave_out: Callable[[Entry], bool]) -> tuple[int, list[Entry], list[Skipped]] | None:
        entries: list[Entry] = []
        skipped: list[Skipped] = []
        room = BATCH_BYTES.value // 2
        while len(entries) + len(skipped) < PLAN_BATCH and room > 0 and not self._planned.closing:
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
        self._planned.add(first, entries)
        self._next_index += len(entries)
        return first, entries, skipped

    @property
    def planned(self) -> int:
        """Entries numbered so far."""
        return self._next_index

    @property
    def unresolved(self) -> int:
        """Entries without an outcome."""
        return len(self._planned)

    def entry(self, index: int) -> Entry:
        """A planned entry without an outcome. Raises BadMessage (the number came from the peer)."""
        return self._planned.entry(index)

    def resolve(self, outcomes: list[Outcome]) -> list[tuple[Entry, Outcome]]:
        """The receiver said how these ended; with their entries, those for which it was not known."""
        found = self._planned.resolve(outcomes)
        self._outgoing.stir()
        return found

    def resolve_packed(self, indexes: list[int]) -> list[tuple[Entry, Outcome]]:
        """The receiver said that these arrived as they went out in a pack. Raises BadMessage."""
        return self._planned.resolve_packed(indexes)

    @property
    def sent_bytes(self) -> int:
        """Bytes of files that went out on lanes."""
        return self._outgoing.sent_bytes

    def under_way(self) -> tuple[str, int, int] | None:
        """The large file that was begun first and has no outcome: path, bytes that are out, size (-1: not known)."""
        return self._planned.under_way()

    # --- verdicts; blocking ---

    def on_want(self, body: bytes) -> None:
        """Whole files that the receiver has nothing of."""
        wanted = numbers_of(decode_rows(body))
        self._planned.verdicts(wanted)
        with self._hearing:
            self._outgoing.put(_whole([(index, self._planned.entry(index)) for index in wanted]))

    def on_resume(self, header: Header, body: bytes) -> None:
        """One file with the ranges that are missing."""
        index = requests.number(header, "file")
        self._planned.verdicts([index])
        size = self._planned.entry(index).size
        if size < 0:
            ranges = [(requests.number(header, "start", 0), -1)]
        else:
            ranges = [(a, b) for a, b in Ranges.from_list(decode_rows(body)) if b <= size]
        with self._hearing:
            again = self._planned.opened(index) is not None  # it did not verify; what is open must not wait
            self._outgoing.put([Begin(index, tuple(ranges))], first=again)

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
                    self._planned.verdicts([index])
                    entry = self._planned.entry(index)
                    try:
                        ours = self._source.digest(entry, lambda: self._planned.closing)
                    except ConnectionLost:
                        return
                    except TowlineError as error:
                        self._planned.gone(index, error)
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
        open_file = self._planned.opened(requests.number(header, "file"))
        if open_file is not None:
            open_file.reading.kept(requests.number(header, "upto"))

    # --- lanes ---

    def drive(self, lane: Lane, number: int) -> None:
        """Send over `lane` until the transfer is over or the lane is. Blocking; on a thread of its own."""
        self._outgoing.drive(lane, number)

    def on_lane_over(self, header: Header) -> None:
        """The receiver says how far a lane got; what it missed goes back into the queue."""
        self._outgoing.on_lane_over(header)

    def close(self) -> None:
        """The conversation is over: let lanes and waiting threads go."""
        self._planned.stop()
        self._pace.stop()
        self._outgoing.stop()  # first: a lane that began a stream now would wait for it
        self._source.interrupt()
        self._outgoing.join()
        self._planned.finish()
        with self._walking, self._hearing:
            self._walk.close()
        self._planned.close()

    # --- inside ---

    def _begin(self, work: Begin) -> list[Segment]:
        """Open a large file; the pieces that it travels in."""
        try:
            open_file = self._planned.open(work.file)
            open_file.out = self._planned.entry(work.file).size - sum(end - start for start, end in work.ranges)
            segments = [
                Segment(work.file, a, b, hole)
                for start, end in work.ranges
                for x, y, hole in open_file.reading.pieces(start, end)
                for a, b in self._dealt(x, y, hole)
            ]
        except TowlineError as error:
            self._planned.gone(work.file, error)
            return []
        self._planned.expect(open_file, len(segments))
        if not segments:
            self._planned.finish_soon(work.file, open_file)
        return segments

    def _dealt(self, start: int, end: int, hole: bool) -> list[tuple[int, int]]:
        if hole or end < 0 or not self._segment:
            return [(start, end)]
        return [(at, min(at + self._segment, end)) for at in range(start, end, self._segment)]

    def _once_more(self, lost: list[Work]) -> list[Work]:
        """What must go again of what a lane did not bring to the other side."""
        again: list[Work] = []
        for one in lost:
            if isinstance(one, Pack):
                if files := tuple(index for index, _ in self._planned.still(one.files)):
                    again.append(Pack(files))
            elif (open_file := self._planned.opened(one.file)) is not None:
                # Also an empty one: its END was lost, and it may be the file's last.
                self._planned.expect(open_file, 1)
                again.append(one)
        return again


def _whole(wanted: list[tuple[int, Entry]]) -> list[Pack | Begin]:
    """Whole files as work: small ones in packs, in order, large ones by themselves."""
    work: list[Pack | Begin] = []
    pack: list[int] = []
    room = PACK_BYTES.value
    for index, entry in wanted:
        if not 0 <= entry.size <= SMALL_FILE:
            work.append(Begin(index, ((0, entry.size),)))
            continue
        if pack and (entry.size > room or len(pack) >= PACK_FILES.value):
            work.append(Pack(tuple(pack)))
            pack, room = [], PACK_BYTES.value
        pack.append(index)
        room -= entry.size
    if pack:
        work.append(Pack(tuple(pack)))
    return work
