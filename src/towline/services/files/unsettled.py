"""The receiver's files without an outcome, and the end of each: verified, published, told."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from towline.base.errors import (
    BadMessage,
    Conflict,
    DiskError,
    InternalError,
    LimitExceeded,
    NoSpace,
    StreamClosed,
    Superseded,
    TowlineError,
    VerificationFailed,
)
from towline.protocol.codec import Header
from towline.services.files.messages import Outcome, Say, encode_rows
from towline.services.files.names import quoted
from towline.services.files.places import OPEN_FILES, Places
from towline.services.files.plan import Entry
from towline.services.files.sinks import Sink, Writing
from towline.services.files.tree import Stat

# Outcomes, and whether they are all of files that arrived in a pack as they were sent.
Settle: TypeAlias = Callable[[list[Outcome], bool], None]
log = logging.getLogger("towline.files")
# What ends a whole transfer instead of one file: the next file would meet it too.
FATAL = (NoSpace, DiskError)


@dataclass(slots=True)
class File:
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


class Tally:
    """Bytes of files that arrived on lanes, and those among them that had to be thrown away. Thread-safe."""

    __slots__ = ("_turn", "received", "wasted")

    def __init__(self) -> None:
        self.received = 0
        self.wasted = 0
        self._turn = threading.Lock()

    def add(self, received: int = 0, wasted: int = 0) -> None:
        with self._turn:
            self.received += received
            self.wasted += wasted

    @property
    def counts(self) -> list[int]:
        """As they are told: received, wasted."""
        with self._turn:
            return [self.received, self.wasted]


class Voice(NamedTuple):
    """What a receiver has to tell, and to whom; from any thread.

    `say` goes to the sender. `settle` hears of each entry's outcome, once, when it is durable; `abort` of an error
    that ends everything. `tally` counts what came.
    """

    say: Say
    settle: Settle
    abort: Callable[[TowlineError], None]
    tally: Tally


class Unsettled:
    """Files by their number in the plan. Thread-safe.

    A small file that is wanted whole has no `File` until something more is to be kept of it; most never get one.
    `overwrite` also tells what becomes of what has come to be in a file's place meanwhile.
    """

    def __init__(self, sink: Sink, voice: Voice, places: Places, *, overwrite: str) -> None:
        self.voice = voice
        self._places = places
        self._sink = sink
        self._overwrite = overwrite
        self._replace = overwrite == "always"
        self._files: dict[int, File | Entry] = {}
        self._turn = threading.Lock()
        self._open = 0
        self._begun: deque[tuple[int, File]] = deque()  # unfinished files whose turn has not come
        self._resumed: set[int] = set()
        self._closing = False
        self._finisher = ThreadPoolExecutor(1, "towline-publish")

    @property
    def closing(self) -> bool:
        """The conversation is over: what is unfinished stays so."""
        return self._closing

    def verdict(self, entry: Entry, there: Stat | None) -> str:
        """What to do when the target has other content: `send`, `keep` or `conflict`."""
        if there is not None and there.kind == "other":
            return "conflict"  # a device or a fifo; nothing replaces it
        if self._overwrite == "older":
            return "send" if there is None or there.mtime_ns < entry.mtime_ns else "keep"
        return "send" if self._overwrite == "always" else "conflict"

    def verdict_now(self, entry: Entry, size: int, digest: str) -> str:
        """The same for a file in whose place something has come to be since that was looked at; or `same`."""
        there = self._sink.existing(entry)
        alike = there is not None and there.kind == "file" and there.size == size
        if alike and self._sink.existing_digest(entry, lambda: self._closing) == digest:
            return "same"
        return self.verdict(entry, there)

    def add(self, index: int, file: File) -> None:
        with self._turn:
            self._files[index] = file

    def add_wanted(self, entries: dict[int, Entry]) -> None:
        """Files that are not there at all and are asked for."""
        with self._turn:
            self._files.update(entries)

    def find(self, index: int) -> File | None:
        """None when it has its outcome, or was never planned."""
        with self._turn:
            return self._find(index)

    def drop(self, index: int) -> File | None:
        """Forget a file that has its outcome; what is unfinished of it stays on disk."""
        with self._turn:
            file = self._find(index)
            if file is not None:
                del self._files[index]
                file.over = True
        if file is not None:
            self._left(index, file)
        return file

    def take(self, arrived: list[tuple[int, int]]) -> list[tuple[Entry, bool] | None]:
        """Like `drop` for small files that arrived whole, as (number, size): their entries, and whether they replace
        something; None for what has its outcome. Raises BadMessage for what nobody asked for."""
        with self._turn:
            for index, size in arrived:
                file = self._files.get(index)
                if isinstance(file, File):
                    check_asked(file, size)
                elif file is not None and file.size != size:
                    raise BadMessage(f"{quoted(file.path)} was not asked for in that size.")
            taken = [self._files.pop(index, None) for index, _ in arrived]
        places: list[tuple[Entry, bool] | None] = []
        for (index, _), file in zip(arrived, taken, strict=True):
            if isinstance(file, File):
                file.over = True
                self._left(index, file)
                places.append((file.entry, file.replace))
            else:
                places.append(None if file is None else (file, self._replace))
        return places

    def open(self, file: File) -> Writing:
        """To write to it; the same for all lanes. Raises StreamClosed when it has its outcome, LimitExceeded."""
        with self._turn:
            if file.over or (file.writing is None and self._closing):
                raise StreamClosed("The file has its outcome.")
            if file.writing is None:
                if self._open >= self._places.all:
                    raise LimitExceeded(f"More than {self._open} files are begun at once (limit {OPEN_FILES.name}).")
                file.writing = self._sink.open(file.entry)
                self._open += 1
            return file.writing

    def under_way(self) -> tuple[str, int, int] | None:
        """The large file that was begun first: path, bytes that are there, size (-1: not known)."""
        with self._turn:
            for file in self._files.values():
                if isinstance(file, File) and file.writing is not None and not file.over:
                    return file.entry.path, file.writing.ranges.covered, file.entry.size
        return None

    def resume(self, index: int, file: File) -> None:
        """Say what is there of an unfinished file, as soon as not too many are open for that."""
        with self._turn:
            self._begun.append((index, file))
            self._resume_more()

    def fail(self, index: int, error: TowlineError) -> None:
        """This one did not work out; the others go on."""
        if self._closing:
            return  # it has to do with the end of the conversation, not with the file
        file = self.drop(index)
        if file is not None:
            self.voice.settle([Outcome(index, file.entry.size, "", error=error)], False)

    def expect(self, index: int, file: File, digest: str, size: int) -> None:
        """The sender says what the whole must be."""
        with self._turn:
            file.digest, file.size = digest, size
        self.finish_if_whole(index, file)

    def finish_if_whole(self, index: int, file: File) -> None:
        """Verify and publish it, on a thread beside the lanes, once all of it is there and its digest known."""
        with self._turn:
            if file.digest is None or file.finishing or file.over or self._closing:
                return
            if file.writing is None:
                if file.size:
                    return
            elif file.writing.ranges.missing(file.size):
                return
            file.finishing = True
            self._finisher.submit(self._guarded, self._finish, index, file)

    def finish(self) -> None:
        """Wait until what is whole is published. Blocks."""
        self._finisher.shutdown(wait=True)

    def stop(self) -> None:
        """Begin nothing new."""
        with self._turn:
            self._closing = True

    def close(self) -> None:
        """Keep what is unfinished. After `stop`, when nobody writes any more."""
        for file in self._files.values():
            if isinstance(file, File) and file.writing is not None:
                file.writing.close()
        self._files.clear()

    def _resume_more(self) -> None:
        """In turn."""
        while self._begun and len(self._resumed) < self._places.resumed and not self._closing:
            index, file = self._begun.popleft()
            if not file.over:
                self._resumed.add(index)
                self._finisher.submit(self._guarded, self._resume, index, file)

    def _guarded(self, act: Callable[[int, File], None], index: int, file: File) -> None:
        try:
            act(index, file)
        except Exception:  # nobody looks at what a pool's thread raised, and the sender would wait for ever
            log.exception("a bug ended a file")
            self.fail(index, InternalError("A bug ended this file; the log where it was received has the details."))

    def _resume(self, index: int, file: File) -> None:
        try:
            writing = self.open(file)
        except (Superseded, *FATAL) as error:
            self.voice.abort(error)
            return
        except TowlineError as error:
            self.fail(index, error)
            return
        if writing.restarted_because:
            self.voice.say({"t": "restarted", "file": index, "reason": writing.restarted_because}, b"")
        ranges = writing.ranges
        header: Header = {"t": "resume", "file": index, "start": ranges.contiguous(), "covered": ranges.covered}
        missing = ranges.missing(file.entry.size) if file.entry.size >= 0 else []
        self.voice.say(header, encode_rows(missing))

    def _left(self, index: int, file: File, *, published: bool = False) -> None:
        """It has its outcome: close it, and let others have its place."""
        if file.writing is not None and not published:
            file.writing.close()
        with self._turn:
            self._open -= file.writing is not None
            self._resumed.discard(index)
            self._resume_more()

    def _find(self, index: int) -> File | None:
        file = self._files.get(index)
        if isinstance(file, Entry):
            self._files[index] = file = File(file, replace=self._replace, asked=True)
        return file

    def _finish(self, index: int, file: File) -> None:
        try:
            writing = self.open(file)
            digest = writing.digest(file.size, lambda: self._closing)
            if digest != file.digest:
                self._distrust(index, file, writing)
                return
            note = self._publish(file, writing, digest)
        except (Superseded, *FATAL) as error:
            self.voice.abort(error)
        except TowlineError as error:
            self.fail(index, error)
        else:
            with self._turn:
                file.over = True
                mine = self._files.pop(index, None) is file
            if mine:
                self._left(index, file, published=True)
            self.voice.settle([Outcome(index, file.size, "" if note == "kept" else digest, note)], False)

    def _publish(self, file: File, writing: Writing, digest: str) -> str:
        """The outcome's note: empty, or `same` or `kept` when what came meanwhile stays."""
        try:
            writing.publish(file.entry, file.size, replace=file.replace)
        except Conflict:
            match self.verdict_now(file.entry, file.size, digest):
                case "conflict":
                    raise
                case "send":
                    writing.publish(file.entry, file.size, replace=True)
                case verdict:
                    writing.abandon()
                    return "kept" if verdict == "keep" else verdict
        return ""

    def _distrust(self, index: int, file: File, writing: Writing) -> None:
        """The whole is not what was sent: something was wrong with what was kept. Once more, from nothing."""
        writing.distrust()
        if file.retried or file.entry.size < 0 or not writing.ranges.missing(file.size):
            self.fail(index, damaged(file.entry))
            return
        self.voice.tally.add(wasted=file.size)
        with self._turn:
            file.retried, file.finishing, file.digest = True, False, None
        self.voice.say({"t": "resume", "file": index, "start": 0, "covered": 0}, encode_rows([[0, file.size]]))


def check_asked(file: File, size: int) -> None:
    """Raises BadMessage when nobody asked for so many bytes of it."""
    if not file.asked or (file.entry.size >= 0 and size != file.entry.size):
        raise BadMessage(f"{quoted(file.entry.path)} was not asked for, or not in that size.")


def damaged(entry: Entry) -> VerificationFailed:
    return VerificationFailed(f"{quoted(entry.path)} did not arrive as it was sent; nothing was published.")
