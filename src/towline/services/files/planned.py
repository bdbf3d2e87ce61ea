"""The sender's entries without an outcome, and the large files among them that are open."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from towline.base.errors import BadMessage, InternalError, StreamClosed, TowlineError
from towline.services.files.messages import Outcome, Say, fail_header
from towline.services.files.names import quoted
from towline.services.files.plan import Entry
from towline.services.files.sources import Reading, Source

log = logging.getLogger("towline.files")
_VERDICTS = 4  # for one entry: it may be the same, it is wanted, and once more if it did not verify


@dataclass(slots=True)
class OpenFile:
    """A large file on its way. `waiting` segments are queued or on a lane; `out` bytes were there or are out."""

    reading: Reading
    waiting: int = 0
    out: int = 0


class Planned:
    """Entries by their number in the plan. Thread-safe."""

    def __init__(self, source: Source, say: Say) -> None:
        self._source = source
        self._say = say
        self._entries: dict[int, Entry] = {}
        self._verdicts: dict[int, int] = {}
        self._open: dict[int, OpenFile] = {}
        self._packed: dict[int, bytes] = {}  # digests of what went out in packs
        self._turn = threading.Lock()
        self._closing = False
        self._finisher = ThreadPoolExecutor(1, "towline-digest")

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, index: int) -> bool:
        return index in self._entries

    @property
    def closing(self) -> bool:
        """The conversation is over."""
        return self._closing

    def add(self, first: int, entries: list[Entry]) -> None:
        """Entries with the numbers from `first` on."""
        with self._turn:
            self._entries.update(enumerate(entries, first))

    def entry(self, index: int) -> Entry:
        """Raises BadMessage when there is none (the number came from the peer)."""
        entry = self._entries.get(index)
        if entry is None:
            raise BadMessage(f"Entry {index} was not planned or has its outcome.")
        return entry

    def still(self, indexes: Sequence[int]) -> list[tuple[int, Entry]]:
        """Those of these that have no outcome yet."""
        found = ((index, self._entries.get(index)) for index in indexes)
        return [(index, entry) for index, entry in found if entry is not None]

    def verdicts(self, indexes: Iterable[int]) -> None:
        """Count what the receiver says of entries: what it makes us do has an end. Raises BadMessage."""
        with self._turn:
            for index in indexes:
                count = self._verdicts.get(index, 0) + 1
                if count > _VERDICTS:
                    raise BadMessage(f"Entry {index} was asked for {count} times.")
                if index in self._entries:
                    self._verdicts[index] = count

    def packed(self, digests: dict[int, bytes]) -> None:
        """These files go out in a pack."""
        with self._turn:
            self._packed.update(digests)

    def resolve(self, outcomes: list[Outcome]) -> list[tuple[Entry, Outcome]]:
        """Entries that have their outcome now; not those that had it before."""
        found = []
        for outcome in outcomes:
            with self._turn:
                open_file = self._open.pop(outcome.entry, None)
                entry = self._entries.pop(outcome.entry, None)
                self._verdicts.pop(outcome.entry, None)
                self._packed.pop(outcome.entry, None)
            if open_file is not None:
                open_file.reading.close()
            if entry is not None:
                found.append((entry, outcome))
        return found

    def resolve_packed(self, indexes: list[int]) -> list[tuple[Entry, Outcome]]:
        """These files arrived as they went out in a pack. Raises BadMessage when one did not go out."""
        found = []
        with self._turn:
            for index in indexes:
                entry = self._entries.pop(index, None)
                if entry is None:
                    continue
                digest = self._packed.pop(index, None)
                if digest is None:
                    raise BadMessage(f"{quoted(entry.path)} was not sent and cannot have arrived.")
                self._verdicts.pop(index, None)
                found.append((entry, Outcome(index, entry.size, digest.hex())))
        return found

    def gone(self, index: int, error: TowlineError) -> None:
        """Tell the receiver that it cannot be had (any more)."""
        self._say(fail_header(index, error, "gone"), b"")

    # --- large files ---

    @property
    def open_files(self) -> int:
        """How many are open: begun, and without an outcome."""
        return len(self._open)

    def under_way(self) -> tuple[str, int, int] | None:
        """The one that was begun first: path, bytes that are out, size (-1: not known)."""
        with self._turn:
            for index, open_file in self._open.items():
                entry = self._entries.get(index)
                if entry is not None:
                    return entry.path, open_file.out, entry.size
        return None

    def opened(self, index: int) -> OpenFile | None:
        """None when it was not opened, or has its outcome."""
        with self._turn:
            return self._open.get(index)

    def open(self, index: int) -> OpenFile:
        """Raises what opening raises, and StreamClosed when it got its outcome meanwhile. From any thread."""
        open_file = self.opened(index)
        if open_file is not None:
            return open_file
        reading = self._source.open(self.entry(index))
        with self._turn:
            if index in self._entries:
                open_file = self._open.setdefault(index, OpenFile(reading))
        if open_file is None or open_file.reading is not reading:
            reading.close()  # it got its outcome, or another lane was quicker
        if open_file is None:
            raise StreamClosed("The file has its outcome.")
        return open_file

    def expect(self, open_file: OpenFile, segments: int) -> None:
        """So many more segments of it will be queued."""
        with self._turn:
            open_file.waiting += segments

    def leave(self, open_file: OpenFile) -> int:
        """One segment is off the queue; how many more the file has there."""
        with self._turn:
            open_file.waiting -= 1
            return open_file.waiting

    def finish_soon(self, index: int, open_file: OpenFile) -> None:
        """All that was asked for is out: say what the whole must be, if the source is still what it was."""
        with self._turn:
            if not self._closing:
                self._finisher.submit(self._finish, index, open_file)

    def _finish(self, index: int, open_file: OpenFile) -> None:
        try:
            digest, size = open_file.reading.finish(lambda: self._closing)
        except TowlineError as error:
            if not self._closing:
                self.gone(index, error)
            return
        except Exception:  # nobody looks at what a pool's thread raised, and the receiver would wait for ever
            log.exception("a bug ended the digest of a file")
            self.gone(index, InternalError("A bug ended this file; the log where it was sent from has the details."))
            return
        self._say({"t": "sent", "file": index, "digest": digest, "size": size}, b"")

    # --- the end ---

    def stop(self) -> None:
        """Begin nothing new."""
        with self._turn:
            self._closing = True

    def finish(self) -> None:
        """After `stop`: wait for what was begun. Blocks."""
        self._finisher.shutdown(wait=True)

    def close(self) -> None:
        """After `finish`: close what is open."""
        for open_file in self._open.values():
            open_file.reading.close()
        self._open.clear()
