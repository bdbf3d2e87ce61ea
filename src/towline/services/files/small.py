"""Many small files at once: each is whole when it gets its name, and a batch shares the waiting for the disk.

Per file: create, write, times and bits, sync, name, close. A file is synced after the whole group was written, so
that a journalling file system commits once for many; each folder is synced once per batch. Until then it has no name
(O_TMPFILE, open(2)), so that nothing lies about when this process is killed; where the file system cannot do that, it
has one of ours, which `sweep` takes away some day.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from towline.base.errors import Conflict, IsADirectory, TowlineError
from towline.base.oserrors import disk_error
from towline.services.files.disk import PERMISSIONS, lstat_at
from towline.services.files.folders import Folders
from towline.services.files.names import RESERVED, quoted
from towline.services.files.tree import Root, put_in_place

_GROUP = 64  # files open at once
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# A file without a name is given one by its entry in /proc; other systems than Linux have neither.
_NAMELESS: int = os.O_WRONLY | getattr(os, "O_TMPFILE", 0) | os.O_CLOEXEC
_CAN_NAME = hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd")
_TOKEN = RESERVED + os.urandom(6).hex()  # two processes in one folder
_COUNTER = itertools.count()

Content = bytes | bytearray | memoryview


class SmallFile(NamedTuple):
    """A whole file in memory: folder descriptor and name as from `Root.parent`, content, permission bits, time."""

    folder: int
    name: str
    content: Content
    mode: int
    mtime_ns: int
    replace: bool


class SmallFiles:
    """`publish_small` by path in a root; missing folders are made. Not thread-safe."""

    def __init__(self, root: Root) -> None:
        root.check_writable()
        self._root = root

    def publish(self, batch: Sequence[tuple[str, Content, int, int, bool]]) -> list[TowlineError | None]:
        """Publish (path, content, mode, mtime_ns, replace); per file None or why not. Durable on return."""
        results: list[TowlineError | None] = [None] * len(batch)
        with Folders(self._root, create=True, kept=_GROUP) as folders:
            for start in range(0, len(batch), _GROUP):
                group: list[SmallFile] = []
                places: list[int] = []
                for place, (path, content, mode, mtime_ns, replace) in enumerate(
                    batch[start : start + _GROUP], start
                ):
                    try:
                        folder, name = folders.parent(path)
                    except TowlineError as error:
                        results[place] = error
                        continue
                    group.append(SmallFile(folder, name, content, mode, mtime_ns, replace))
                    places.append(place)
                for place, result in zip(places, publish_small(group), strict=True):
                    results[place] = result
        return results


def publish_small(
    batch: Sequence[SmallFile | tuple[int, str, Content, int, int, bool]],
) -> list[TowlineError | None]:
    """Write, sync and name each file; per file None, or why it was not published. Durable on return.

    Conflict when the target exists and not `replace`, IsADirectory when it is a folder. One file's error does not
    stop the others; nothing of a failed file stays.
    """
    results: list[TowlineError | None] = [None] * len(batch)
    for start in range(0, len(batch), _GROUP):
        _publish_group(batch[start : start + _GROUP], results, start)
    for folder in {one[0] for one in batch}:
        try:
            os.fsync(folder)
        except OSError as error:
            for place, one in enumerate(batch):
                if one[0] == folder and results[place] is None:
                    results[place] = disk_error(error, one[1])
    return results


def _publish_group(
    group: Sequence[SmallFile | tuple[int, str, Content, int, int, bool]],
    results: list[TowlineError | None],
    start: int,
) -> None:
    written: list[tuple[int, int, str]] = []
    for place, one in enumerate(group, start):
        try:
            fd, fresh = _write(one)
            written.append((place, fd, fresh))
        except OSError as error:
            results[place] = disk_error(error, one[1])
    for place, fd, fresh in written:
        folder, name, _, _, _, replace = group[place - start]
        try:
            _finish(fd, fresh, folder, name, replace=replace)
        except OSError as error:
            results[place] = _refusal(error, folder, name)


def _finish(fd: int, fresh: str, folder: int, name: str, *, replace: bool) -> None:
    """Sync a written file and give it its name; nothing of it stays when that fails. Raises OSError."""
    try:
        try:
            os.fsync(fd)
            if not fresh:
                if not replace:
                    os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=folder)
                    return
                fresh = _fresh()
                os.link(f"/proc/self/fd/{fd}", fresh, dst_dir_fd=folder)
        finally:
            os.close(fd)
        put_in_place(folder, fresh, name, replace=replace)
    except OSError:
        _discard(folder, fresh)
        raise


def _write(one: SmallFile | tuple[int, str, Content, int, int, bool]) -> tuple[int, str]:
    folder, _, content, mode, mtime_ns, _ = one
    fd, fresh = _create(folder)
    try:
        done = os.write(fd, content)
        while done < len(content):
            done += os.write(fd, memoryview(content)[done:])
        os.utime(fd, ns=(mtime_ns, mtime_ns))
        os.fchmod(fd, mode & PERMISSIONS)
    except BaseException:
        os.close(fd)
        _discard(folder, fresh)
        raise
    return fd, fresh


def _create(folder: int) -> tuple[int, str]:
    """A new file, and its name if it needs one."""
    if _CAN_NAME:
        # What fails is not to be had on this file system; or something else is wrong, and the next call says it.
        with contextlib.suppress(OSError):
            return os.open(".", _NAMELESS, 0o600, dir_fd=folder), ""
    fresh = _fresh()
    return os.open(fresh, _CREATE, 0o600, dir_fd=folder), fresh


def _fresh() -> str:
    return f"{_TOKEN}{next(_COUNTER):x}.tmp"


def _refusal(error: OSError, folder: int, name: str) -> TowlineError:
    if isinstance(error, FileExistsError):
        try:
            if stat.S_ISDIR(lstat_at(folder, name).st_mode):
                return IsADirectory(f"{quoted(name)} is a folder; a file does not replace it.")
        except OSError:
            pass  # gone again; it was there when it counted
        return Conflict(f"{quoted(name)} exists already; choose with --overwrite older|always.")
    return disk_error(error, name)


def _discard(folder: int, fresh: str) -> None:
    if not fresh:
        return
    try:
        os.unlink(fresh, dir_fd=folder)
    except OSError:
        pass  # `sweep` takes it later
