"""What a receiver writes to, and the usual one: a tree on disk. The other one is `streamsink`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from towline.base.errors import NotFound, TowlineError
from towline.base.oserrors import oserrors
from towline.services.files.digest import FileDigest, digest_of
from towline.services.files.digests import DigestCache
from towline.services.files.disk import lstat_at
from towline.services.files.folders import Folders
from towline.services.files.messages import SMALL_FILE
from towline.services.files.part import Part, Pin, SmallFiles, part_name
from towline.services.files.plan import Entry
from towline.services.files.ranges import Ranges
from towline.services.files.small import Content
from towline.services.files.tree import Root, Stat, stat_of

_FRESH = 64


class Writing(Protocol):
    """One file that is being received, shared by the lanes that bring parts of it."""

    restarted_because: str | None

    @property
    def ranges(self) -> Ranges: ...

    def write(self, offset: int, data: memoryview) -> None: ...

    def write_zeros(self, offset: int, length: int) -> None: ...

    def checkpoint(self) -> Ranges:
        """Make durable what is there; what that is."""

    def digest(self, size: int, stopped: Callable[[], bool]) -> str:
        """Of the whole, once all of it is there. Raises ConnectionLost soon after it is `stopped`."""

    def publish(self, entry: Entry, size: int, *, replace: bool) -> None: ...

    def distrust(self) -> None:
        """What is there did not verify: nothing of it counts any more."""

    def abandon(self) -> None:
        """It is not needed: what stands in its place stays."""

    def close(self) -> None:
        """Keep what is there for another time."""


class Sink(Protocol):
    """Where a receiver's entries go."""

    def looking(self) -> AbstractContextManager[Callable[[Entry], Stat | None]]:
        """For a while: what is there under an entry's name; nothing is looked up in folders that were just made."""

    def existing(self, entry: Entry) -> Stat | None:
        """What is there now under its name."""

    def existing_digest(self, entry: Entry, stopped: Callable[[], bool]) -> str:
        """Raises ConnectionLost soon after it is `stopped`."""

    def existing_link(self, entry: Entry) -> str | None:
        """What the symlink there says; None when there is something else."""

    def begun(self, entry: Entry) -> bool:
        """Whether an unfinished part of it may be there."""

    def open(self, entry: Entry) -> Writing: ...

    def publish_small(self, batch: Sequence[tuple[Entry, Content, bool]]) -> list[TowlineError | None]: ...

    def mkdir(self, entry: Entry) -> None: ...

    def symlink(self, entry: Entry, *, replace: bool) -> None: ...

    def stamp(self, folders: Iterable[Entry]) -> None:
        """Times and bits of folders, once all is in them; inner ones first."""

    def interrupt(self) -> None:
        """The conversation is over: whoever waits in `write` for a reader gets ConnectionLost."""

    def close(self) -> None: ...


class OpenParts:
    """The parts that this process writes, so that a newer writer can fence an older one out at once."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, int, str], Part] = {}
        self._turns = tuple(threading.Lock() for _ in range(64))  # two who open one part do so in turn

    def open(self, folder: int, name: str, *, owner: str, pin: Pin, mode: int) -> Part:
        """Like `Part.open`; whoever of this process had it is fenced."""
        info = os.fstat(folder)
        key = (info.st_dev, info.st_ino, part_name(name, owner))
        with self._turns[hash(key) % len(self._turns)]:
            older = self._parts.pop(key, None)
            if older is not None:
                older.fence()
            part = Part.open(folder, name, owner=owner, pin=pin, mode_hint=mode)
            self._parts[key] = part
        return part

    def forget(self, part: Part) -> None:
        for key, value in list(self._parts.items()):
            if value is part:
                self._parts.pop(key, None)


class TreeSink:
    """A file or a folder in a root, which belongs to the sink from now on. `owner` separates people's parts."""

    def __init__(
        self, root: Root, path: str, *, kind: str, owner: str, parts: OpenParts, digests: DigestCache
    ) -> None:
        self._root = root
        self._path = path.removesuffix("/")
        self._kind = kind
        self._owner = owner
        self._parts = parts
        self._digests = digests
        self._small = SmallFiles(root)
        # The last few folders that were made for this transfer. Nothing is in them that did not come with it; if
        # somebody else was quicker after all, publishing refuses to replace it, but where that was asked for.
        self._fresh: set[str] = set()

    @contextmanager
    def looking(self) -> Iterator[Callable[[Entry], Stat | None]]:
        with Folders(self._root) as folders:

            def existing(entry: Entry) -> Stat | None:
                fresh = entry.path.rpartition("/")[0] in self._fresh
                return None if fresh else self._look(entry, folders)

            yield existing

    def existing(self, entry: Entry) -> Stat | None:
        with Folders(self._root) as folders:
            return self._look(entry, folders)

    def _look(self, entry: Entry, folders: Folders) -> Stat | None:
        full = self._full(entry)
        try:
            folder, name = folders.parent(full)
            with oserrors(full):
                return stat_of(name, lstat_at(folder, name))
        except NotFound:
            return None

    def existing_digest(self, entry: Entry, stopped: Callable[[], bool]) -> str:
        fd, info = self._root.open_file(self._full(entry))
        try:
            return digest_of(fd, info.st_size, stopped)
        finally:
            os.close(fd)

    def existing_link(self, entry: Entry) -> str | None:
        folder, name = self._root.parent(self._full(entry))
        try:
            return os.readlink(name, dir_fd=folder)
        except OSError:  # EINVAL: no symlink; or gone again
            return None
        finally:
            os.close(folder)

    def begun(self, entry: Entry) -> bool:
        if 0 <= entry.size <= SMALL_FILE:
            return False  # it travels whole
        try:
            folder, name = self._root.parent(self._full(entry))
        except NotFound:
            return False
        try:
            os.stat(part_name(name, self._owner) + ".part", dir_fd=folder, follow_symlinks=False)
        except OSError:
            return False
        else:
            return True
        finally:
            os.close(folder)

    def open(self, entry: Entry) -> Writing:
        folder, name = self._root.parent(self._full(entry), create=True)
        try:
            pin = Pin(entry.size, entry.mtime_ns, "")
            part = self._parts.open(folder, name, owner=self._owner, pin=pin, mode=entry.mode)
        finally:
            os.close(folder)
        digest = self._digests.take(entry.path, entry.size, entry.mtime_ns, part.ranges.contiguous())
        try:
            part.check_room()
        except TowlineError:
            part.close()
            self._parts.forget(part)
            raise
        return _PartWriting(part, entry, digest, self._digests, self._parts)

    def publish_small(self, batch: Sequence[tuple[Entry, Content, bool]]) -> list[TowlineError | None]:
        return self._small.publish([(self._full(e), content, e.mode, e.mtime_ns, rep) for e, content, rep in batch])

    def mkdir(self, entry: Entry) -> None:
        full = self._full(entry)
        if self._root.mkdir(full, parents=True, exist_ok=True):
            if len(self._fresh) >= _FRESH:
                self._fresh.clear()
            self._fresh.add(entry.path)
        elif entry.mode & 0o700 != 0o700:
            self._open_up(full)

    def _open_up(self, path: str) -> None:
        """A folder that its owner must not write to is filled before it gets its bits; so, too, the second time."""
        try:
            mode = self._root.stat(path).mode
            if mode & 0o700 != 0o700:
                self._root.stamp(path, mode=mode | 0o700)
        except TowlineError:
            pass  # not ours; whether it can be filled will be seen

    def symlink(self, entry: Entry, *, replace: bool) -> None:
        self._root.symlink(self._full(entry), entry.target, mtime_ns=entry.mtime_ns, replace=replace)

    def stamp(self, folders: Iterable[Entry]) -> None:
        for entry in sorted(folders, key=lambda e: e.path.count("/") + bool(e.path), reverse=True):
            try:
                self._root.stamp(self._full(entry), mode=entry.mode, mtime_ns=entry.mtime_ns)
            except TowlineError:
                pass  # it was moved or removed since; nothing of the transfer is lost with its date

    def interrupt(self) -> None:
        """A disk does not make wait for ever."""

    def close(self) -> None:
        self._root.close()

    def _full(self, entry: Entry) -> str:
        if self._kind != "dir" or not entry.path:
            return self._path
        return f"{self._path}/{entry.path}" if self._path not in ("", ".") else entry.path


class _PartWriting:
    """A part with the digest that follows its bytes."""

    def __init__(self, part: Part, entry: Entry, digest: FileDigest, digests: DigestCache, parts: OpenParts) -> None:
        self._part = part
        self._entry = entry
        self._digest = digest
        self._digests = digests
        self._parts = parts
        self.restarted_because = part.restarted_because

    @property
    def ranges(self) -> Ranges:
        return self._part.ranges

    def write(self, offset: int, data: memoryview) -> None:
        self._part.write(offset, data)
        self._digest.feed(offset, data)

    def write_zeros(self, offset: int, length: int) -> None:
        self._part.write_zeros(offset, length)

    def checkpoint(self) -> Ranges:
        return self._part.checkpoint()

    def digest(self, size: int, stopped: Callable[[], bool]) -> str:
        with self._part.reading() as fd:
            self._digest.catch_up(fd, size, stopped)
        return self._digest.hexdigest()

    def publish(self, entry: Entry, size: int, *, replace: bool) -> None:
        self._part.publish(final_size=size, replace=replace, mode=entry.mode, mtime_ns=entry.mtime_ns)
        self._parts.forget(self._part)

    def distrust(self) -> None:
        """What is there did not verify: nothing of it counts any more."""
        self._part.invalidate([(0, max(self._part.ranges.end, 1))])
        self._digest = FileDigest()

    def abandon(self) -> None:
        self._part.abandon()
        self._parts.forget(self._part)

    def close(self) -> None:
        self._digests.keep(self._entry.path, self._entry.size, self._entry.mtime_ns, self._digest)
        self._part.close()
        self._parts.forget(self._part)
