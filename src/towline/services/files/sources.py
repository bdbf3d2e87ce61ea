"""What a sender reads: a tree on disk, or a stream that can be read only once."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import Protocol

from towline.base.errors import ConnectionLost, NotFound, SourceChanged, TowlineError
from towline.base.limits import KIB, MIB
from towline.base.oserrors import oserrors
from towline.services.files.digest import FileDigest, digest_of
from towline.services.files.digests import DigestCache
from towline.services.files.folders import Folders
from towline.services.files.names import quoted
from towline.services.files.plan import Entry, Skipped, position, totals, walk
from towline.services.files.tree import Root, Stat, open_regular

_AHEAD = 16_384  # entries of a walk that are kept between counting and sending
_HOLE = 64 * KIB  # a smaller hole is not worth a range of its own: its zeros are sent
_STREAM_STEP = 256 * KIB
_STREAM_WINDOW = 64 * MIB  # of standard input: kept until the other side has it durably


class Reading(Protocol):
    """One file that is being sent, shared by the lanes that send parts of it."""

    digest: FileDigest

    def read_into(self, offset: int, target: memoryview) -> int:
        """Bytes at `offset`; 0 at the end."""

    def pieces(self, start: int, end: int) -> list[tuple[int, int, bool]]:
        """[start, end) as (start, end, is a hole)."""

    def finish(self, stopped: Callable[[], bool]) -> tuple[str, int]:
        """Digest and size of the whole. Raises SourceChanged when it is not what it was, ConnectionLost soon after it
        is `stopped`."""

    def kept(self, upto: int) -> None:
        """The other side has all before `upto` durably."""

    def close(self) -> None: ...


class Source(Protocol):
    """Where a sender's entries come from: a `file` or a `dir`. Not thread-safe but for `open` and `digest`.

    `top` is what the whole is, when it is something on disk.
    """

    kind: str

    @property
    def top(self) -> Stat | None: ...

    def totals(self) -> tuple[int, int]:
        """Files and bytes, -1 where they cannot be known. Blocking; before `entries`.

        Raises ConnectionLost soon after it was interrupted.
        """

    def entries(self, after: str | None) -> Generator[Entry | Skipped, None, None]: ...

    def open(self, entry: Entry) -> Reading: ...

    def small(self, entry: Entry, folders: Folders) -> bytes:
        """The content of a small file, as planned. Raises SourceChanged, NotFound, …."""

    def digest(self, entry: Entry, stopped: Callable[[], bool]) -> str:
        """The digest of the whole file as it is on disk. Raises ConnectionLost soon after it is `stopped`."""

    def folders(self) -> Folders: ...

    def interrupt(self) -> None:
        """From any thread: whoever waits in `read_into`, or counts, gives up; the conversation is over."""

    def close(self) -> None: ...


class TreeSource:
    """A file or a folder in a root, which belongs to the source from now on."""

    def __init__(self, root: Root, path: str, *, links: str, digests: DigestCache) -> None:
        self._root = root
        self._path = path.removesuffix("/")
        self._links = links
        self._digests = digests
        self._ahead: deque[Entry | Skipped] = deque()
        self._walk: Generator[Entry | Skipped, None, None] | None = None
        self._interrupted = False
        try:
            self.top = root.stat(path)
        except BaseException:
            root.close()
            raise
        self.kind = self.top.kind

    def totals(self) -> tuple[int, int]:
        """The beginning of the walk that counts is kept for `entries`: most trees are walked once."""
        self._walk = walk(self._root, self._path, links=self._links)
        self._ahead.extend(self._while_wanted(islice(self._walk, _AHEAD)))
        files, size = totals(self._ahead)
        if len(self._ahead) == _AHEAD:
            # Behind the last entry: what is skipped may have a name that is no position.
            last = next((one.path for one in reversed(self._ahead) if isinstance(one, Entry)), None)
            rest = totals(self._while_wanted(walk(self._root, self._path, links=self._links, after=last)))
            files, size = files + rest[0], size + rest[1]
        return files, size

    def _while_wanted(self, entries: Iterable[Entry | Skipped]) -> Iterator[Entry | Skipped]:
        for one in entries:
            if self._interrupted:
                raise ConnectionLost("The conversation is over.")
            yield one

    def entries(self, after: str | None) -> Generator[Entry | Skipped, None, None]:
        begun, self._walk = self._walk, None
        if after is None and begun is not None:
            while self._ahead:
                yield self._ahead.popleft()
            yield from begun
            return
        yield from walk(self._root, self._path, links=self._links, after=after)
        if after is not None and self.kind == "dir":
            yield from self._folders_before(position(after))

    def _folders_before(self, end: list[bytes]) -> Generator[Entry, None, None]:
        """The folders that came before a cut, once more: the receiver may have ended before it had set their times
        and bits. They come last, so that what is missing does not wait for this walk."""
        for entry in walk(self._root, self._path, links="skip"):
            at = position(entry.path)
            if at > end:
                return
            if isinstance(entry, Entry) and entry.kind == "dir":
                yield entry

    def open(self, entry: Entry) -> Reading:
        fd, info = self._root.open_file(self._full(entry.path))
        try:
            _check_pin(info, entry)
        except BaseException:
            os.close(fd)
            raise
        digest = self._digests.take(entry.path, entry.size, entry.mtime_ns, entry.size)
        return _FileReading(fd, info, entry, digest, self._digests)

    def small(self, entry: Entry, folders: Folders) -> bytes:
        full = self._full(entry.path)
        folder, name = folders.parent(full)
        fd, info = open_regular(folder, name, full, looked=True)  # the walk did
        try:
            _check_pin(info, entry)
            with oserrors(full):
                content = os.read(fd, entry.size + 1)
            if len(content) != entry.size:
                raise SourceChanged(f"{quoted(entry.path)} changed while it was being read.")
            return content
        finally:
            os.close(fd)

    def digest(self, entry: Entry, stopped: Callable[[], bool]) -> str:
        fd, info = self._root.open_file(self._full(entry.path))
        try:
            _check_pin(info, entry)
            return digest_of(fd, entry.size, stopped)
        finally:
            os.close(fd)

    def folders(self) -> Folders:
        return Folders(self._root)

    def interrupt(self) -> None:
        self._interrupted = True  # whoever counts hears of it; a read from disk is never long

    def close(self) -> None:
        self._root.close()

    def _full(self, path: str) -> str:
        if self.kind != "dir":
            return self._path
        return f"{self._path}/{path}" if self._path not in ("", ".") else path


class _FileReading:
    """An open file; `pread` needs no lock."""

    def __init__(self, fd: int, info: os.stat_result, entry: Entry, digest: FileDigest, digests: DigestCache) -> None:
        self._fd = fd
        self._info = info
        self._entry = entry
        self._digests = digests
        self._turn = threading.Lock()
        self.digest = digest

    def read_into(self, offset: int, target: memoryview) -> int:
        with oserrors(self._entry.path):
            return os.preadv(self._fd, [target], offset)

    def pieces(self, start: int, end: int) -> list[tuple[int, int, bool]]:
        if self._info.st_blocks * 512 >= self._info.st_size:
            return [(start, end, False)]  # nothing is sparse about it
        found: list[tuple[int, int, bool]] = []
        at = start
        while at < end:
            data = min(_seek(self._fd, at, os.SEEK_DATA, end), end)
            if data - at >= _HOLE:
                found.append((at, data, True))
                at = data
            after = min(_seek(self._fd, data, os.SEEK_HOLE, end), end) if data < end else end
            if after > at and found and not found[-1][2]:
                found[-1] = (found[-1][0], after, False)
            elif after > at:
                found.append((at, after, False))
            at = after
        return found

    def finish(self, stopped: Callable[[], bool]) -> tuple[str, int]:
        with oserrors(self._entry.path):
            self.digest.catch_up(self._fd, self._entry.size, stopped)
            info = os.fstat(self._fd)
        _check_pin(info, self._entry)
        if info.st_ino != self._info.st_ino or (info.st_ctime_ns != self._info.st_ctime_ns and info.st_nlink):
            raise SourceChanged(f"{quoted(self._entry.path)} changed while it was being sent.")
        return self.digest.hexdigest(), self._entry.size

    def kept(self, upto: int) -> None:
        """A file can be read again; nothing has to be kept."""

    def close(self) -> None:
        with self._turn:
            if self._fd >= 0:
                self._digests.keep(self._entry.path, self._entry.size, self._entry.mtime_ns, self.digest)
                os.close(self._fd)
                self._fd = -1


class StreamSource:
    """Standard input, or any descriptor that is read once: one entry of unknown size.

    What the other side has not got durably is kept here, up to 64 MiB, and sent again after a cut. `close` only ends
    a conversation's use of it.
    """

    kind = "file"
    top: Stat | None = None

    def __init__(self, fd: int, name: str, mtime_ns: int) -> None:
        self._entry = Entry(name, "file", -1, mtime_ns, 0o644)
        self._reading = _StreamReading(fd)

    def totals(self) -> tuple[int, int]:
        return 1, -1

    def entries(self, after: str | None) -> Generator[Entry | Skipped, None, None]:
        if after is None:
            yield self._entry

    def open(self, entry: Entry) -> Reading:
        self._reading.go_on()
        return self._reading

    def small(self, entry: Entry, folders: Folders) -> bytes:
        raise NotFound  # a stream's size is not known, so it never travels in a pack

    def digest(self, entry: Entry, stopped: Callable[[], bool]) -> str:
        return self._reading.whole_digest()

    def folders(self) -> Folders:
        raise NotFound

    def interrupt(self) -> None:
        self._reading.pause()

    def close(self) -> None:
        """The stream goes on in the next conversation."""


class _StreamReading:
    """A thread reads the stream, so that a lane that waits for it can be called off."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._chunks: deque[bytes] = deque()
        self._start = 0  # offset of the first kept byte
        self._end = 0  # offset up to which the stream was read
        self._over = False
        self._error: TowlineError | None = None
        self._paused = False
        self._reader: threading.Thread | None = None
        self._change = threading.Condition()
        self.digest = FileDigest()

    def go_on(self) -> None:
        with self._change:
            self._paused = False
            if self._reader is None:
                self._reader = threading.Thread(target=self._read, name="towline-stdin", daemon=True)
                self._reader.start()

    def pause(self) -> None:
        with self._change:
            self._paused = True
            self._change.notify_all()

    def read_into(self, offset: int, target: memoryview) -> int:
        with self._change:
            self._change.wait_for(lambda: offset < self._end or self._over or self._error or self._paused)
            if self._paused:
                raise ConnectionLost("The conversation is over.")
            if offset < self._start:
                raise SourceChanged("What the other side lost of standard input is no longer kept; begin anew.")
            if offset >= self._end and self._error is not None:
                raise self._error
            return self._copy(offset, target) if offset < self._end else 0

    def _copy(self, offset: int, target: memoryview) -> int:
        at = self._start
        for chunk in self._chunks:
            if offset < at + len(chunk):
                part = chunk[offset - at : offset - at + len(target)]
                target[: len(part)] = part
                return len(part)
            at += len(chunk)
        raise AssertionError("an offset within the kept bytes has a chunk")

    def _read(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._end - self._start < _STREAM_WINDOW)
            try:
                with oserrors("standard input"):
                    data = os.read(self._fd, _STREAM_STEP)
            except TowlineError as error:
                self._stop(error)
                return
            if not data:
                self._stop(None)
                return
            self.digest.feed(self._end, data)
            with self._change:
                self._chunks.append(data)
                self._end += len(data)
                self._change.notify_all()

    def _stop(self, error: TowlineError | None) -> None:
        with self._change:
            self._over, self._error = error is None, error
            self._change.notify_all()

    def pieces(self, start: int, end: int) -> list[tuple[int, int, bool]]:
        return [(start, end, False)]

    def finish(self, stopped: Callable[[], bool]) -> tuple[str, int]:
        return self.digest.hexdigest(), self._end

    def whole_digest(self) -> str:
        """Of the whole, once its end was read; until then nothing is the same as it."""
        with self._change:
            return self.digest.hexdigest() if self._over else ""

    def kept(self, upto: int) -> None:
        with self._change:
            while self._chunks and self._start + len(self._chunks[0]) <= upto:
                self._start += len(self._chunks.popleft())
            self._change.notify_all()

    def close(self) -> None:
        """Between two conversations the stream goes on."""


def _check_pin(info: os.stat_result, entry: Entry) -> None:
    if info.st_size != entry.size or info.st_mtime_ns != entry.mtime_ns:
        raise SourceChanged(f"{quoted(entry.path)} changed while it was being transferred; run the command again.")


def _seek(fd: int, at: int, how: int, otherwise: int) -> int:
    try:
        return os.lseek(fd, at, how)
    except OSError:  # ENXIO: no data behind `at`; or a file system that does not know holes
        return otherwise if how == os.SEEK_DATA else max(at, otherwise)
