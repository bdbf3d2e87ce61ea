"""The receiving half of a transfer: looks at what is there, asks for what is missing; what comes is in other rooms.

`incoming` drives the lanes, `packs` takes small files, `unsettled` keeps the files until they have their outcome.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from towline.base.errors import BadMessage, Conflict, ConnectionLost, IsADirectory, TowlineError
from towline.protocol.codec import Header
from towline.runtime.lanes import Lane
from towline.services import requests
from towline.services.files.incoming import Incoming
from towline.services.files.messages import Outcome, decode_rows, encode_rows, index_of, runs
from towline.services.files.names import quoted
from towline.services.files.packs import PacksIn
from towline.services.files.places import Places
from towline.services.files.plan import Entry
from towline.services.files.sinks import Sink
from towline.services.files.tree import Stat
from towline.services.files.unsettled import FATAL, File, Unsettled, Voice, check_asked

OVERWRITE = ("never", "older", "always")


@dataclass(slots=True)
class _Found:
    """What a look at the targets of a batch gives."""

    want: list[int] = field(default_factory=list)
    new: dict[int, Entry] = field(default_factory=dict)  # those that are wanted and not there at all
    have: list[list[object]] = field(default_factory=list)
    settled: list[Outcome] = field(default_factory=list)


class Receiver:
    """One conversation's receiving side. All methods block or are quick and may be called from any thread."""

    def __init__(self, sink: Sink, voice: Voice, places: Places, *, overwrite: str) -> None:
        self._sink = sink
        self._voice = voice
        self._always = overwrite == "always"
        self._files = Unsettled(sink, voice, places, overwrite=overwrite)
        self._lanes = Incoming(self._files, PacksIn(self._files, sink))
        self._folders: list[Entry] = []
        self._looking = threading.Lock()  # at what is there; the loop does not wait for that when it is cancelled

    def under_way(self) -> tuple[str, int, int] | None:
        """The large file that was begun first: path, bytes that are there, size (-1: not known)."""
        return self._files.under_way()

    # --- the plan ---

    def on_plan(self, entries: list[tuple[int, Entry]]) -> None:
        """Look at each entry's target; say what is wanted."""
        with self._looking:
            self._look_at(entries)

    def _look_at(self, entries: list[tuple[int, Entry]]) -> None:
        found = _Found()
        with self._sink.looking() as existing:
            for index, entry in entries:
                if self._files.closing:
                    return
                try:
                    if entry.kind == "file":
                        self._look(index, entry, existing(entry), found)
                    else:
                        found.settled.append(Outcome(index, 0, "", self._make(entry)))
                except ConnectionLost:
                    return  # it was closed
                except TowlineError as error:
                    self._files.drop(index)
                    found.settled.append(Outcome(index, entry.size, "", error=error))
                    if isinstance(error, FATAL):
                        self._voice.abort(error)
                        return
        self._tell(found)

    def _tell(self, found: _Found) -> None:
        self._files.add_wanted(found.new)
        if found.want:
            self._voice.say({"t": "want"}, encode_rows(runs(found.want)))
        for start in range(0, len(found.have), 512):
            self._voice.say({"t": "have"}, encode_rows(found.have[start : start + 512]))
        self._voice.settle(found.settled, False)

    def _make(self, entry: Entry) -> str:
        """A folder or a symlink; the outcome's note."""
        if entry.kind == "dir":
            self._sink.mkdir(entry)
            self._folders.append(entry)
            return ""
        with self._sink.looking() as existing:
            there = existing(entry)
        if there is None:
            try:
                self._sink.symlink(entry, replace=self._always)
            except Conflict:
                there = self._sink.existing(entry)  # it came meanwhile
            else:
                return ""
        return self._replace_by_link(entry, there)

    def _replace_by_link(self, entry: Entry, there: Stat | None) -> str:
        if there is not None and there.kind == "dir":
            raise IsADirectory(f"{quoted(entry.path)} is a folder at the target and a symlink at the source.")
        if there is not None and there.kind == "other":
            raise _not_ours_to_replace(entry)
        if there is not None and self._sink.existing_link(entry) == entry.target:
            return "same"
        match self._files.verdict(entry, there):
            case "conflict":
                raise _conflict(entry)
            case "keep":
                return "kept"
            case _:
                self._sink.symlink(entry, replace=True)
        return ""

    def _look(self, index: int, entry: Entry, there: Stat | None, found: _Found) -> None:
        if there is None and not self._sink.begun(entry):
            found.want.append(index)
            found.new[index] = entry
            return
        file = File(entry, replace=there is not None or self._always)
        self._files.add(index, file)
        if there is not None:
            if there.kind == "dir":
                raise IsADirectory(f"{quoted(entry.path)} is a folder at the target and a file at the source.")
            if there.kind == "other":
                raise _not_ours_to_replace(entry)
            file.otherwise = self._files.verdict(entry, there)
            if there.kind == "file" and _may_be_same(entry, there):
                file.size = there.size
                file.there = self._sink.existing_digest(entry, lambda: self._files.closing)
                found.have.append([index, file.there])
                return
        if file.otherwise == "send":
            self._ask(index, file, found.want)
        else:
            found.settled.append(self._left_alone(index, file))

    def _ask(self, index: int, file: File, want: list[int]) -> None:
        file.asked = True
        if self._sink.begun(file.entry):
            self._files.resume(index, file)
        else:
            want.append(index)

    def _left_alone(self, index: int, file: File) -> Outcome:
        """The target has other content, and that stays."""
        self._files.drop(index)
        if file.otherwise == "keep":
            return Outcome(index, file.entry.size, "", "kept")
        return Outcome(index, file.entry.size, "", error=_conflict(file.entry))

    # --- what the sender says of single files ---

    def on_same(self, body: bytes) -> None:
        """These are there already, with this digest."""
        settled = []
        for row in decode_rows(body):
            match row:
                case [int(index), str(digest)]:
                    known = self._files.find(index_of(index))
                    if known is not None and (not known.there or digest != known.there):
                        raise BadMessage(f"{quoted(known.entry.path)} is not the same at the target.")
                    file = self._files.drop(index)
                    if file is not None:
                        settled.append(Outcome(index, file.size, digest, "same"))
                case _:
                    raise BadMessage("A file that is the same is a number and a digest.")
        self._voice.settle(settled, False)

    def on_differs(self, body: bytes) -> None:
        """These are there with other content."""
        with self._looking:
            self._ask_for(body)

    def _ask_for(self, body: bytes) -> None:
        want: list[int] = []
        settled: list[Outcome] = []
        for row in decode_rows(body):
            index = index_of(row)
            file = self._files.find(index) if not self._files.closing else None
            if file is not None and (not file.there or file.asked):
                raise BadMessage(f"Nobody said that {quoted(file.entry.path)} may be the same at the target.")
            if file is not None and file.otherwise == "send":
                self._ask(index, file, want)
            elif file is not None:
                settled.append(self._left_alone(index, file))
        if want:
            self._voice.say({"t": "want"}, encode_rows(runs(want)))
        self._voice.settle(settled, False)

    def on_gone(self, index: int, error: TowlineError) -> None:
        """The sender cannot give it (any more)."""
        file = self._files.drop(index)
        if file is not None:
            self._voice.settle([Outcome(index, file.entry.size, "", error=error)], False)

    def on_sent(self, header: Header) -> None:
        """All of it is out; this is what the whole must be."""
        index, size = requests.number(header, "file"), requests.number(header, "size")
        file = self._files.find(index)
        if file is not None:
            check_asked(file, size)
            self._files.expect(index, file, requests.text(header, "digest"), size)

    # --- lanes ---

    def drive(self, lane: Lane, number: int) -> None:
        """Receive from `lane` until it ends. Blocking; on a thread of its own."""
        self._lanes.drive(lane, number)

    def on_lane_over(self, number: int) -> None:
        """The sender noticed first that a lane is dead."""
        self._lanes.on_lane_over(number)

    def close(self) -> None:
        """The conversation is over: end the lanes, keep what is unfinished."""
        self._files.stop()
        self._sink.interrupt()
        self._lanes.stop()
        self._lanes.join()
        self._files.finish()
        with self._looking:
            self._files.close()

    def finish(self, top: Entry | None) -> None:
        """Everything has its outcome: folders get their times and bits, and so does the whole, if it is one."""
        self._files.finish()
        self._sink.stamp(self._folders if top is None else [*self._folders, top])


def _may_be_same(entry: Entry, there: Stat) -> bool:
    """Worth a digest. A stream does not tell its size; but what was published from it has its moment as time."""
    return there.size == entry.size or (entry.size < 0 and there.mtime_ns == entry.mtime_ns)


def _not_ours_to_replace(entry: Entry) -> Conflict:
    """A device, a fifo, a socket: something else lives by it, and /dev/null is one."""
    return Conflict(f"{quoted(entry.path)} is neither a file nor a folder at the target; nothing replaces it.")


def _conflict(entry: Entry) -> Conflict:
    return Conflict(
        f"{quoted(entry.path)} exists at the target with other content; choose with --overwrite older|always."
    )
