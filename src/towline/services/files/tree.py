"""A folder that nothing escapes: a share of the node, or the folder that a client's user named.

Every component is walked with a directory descriptor and O_NOFOLLOW (openat(2)), every operation then goes to the
last folder's descriptor and one name. No string is checked and used later, so a folder that somebody swaps for a
symlink meanwhile is refused by the kernel. Blocking; thread-safe but for `close`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple

from towline.base.errors import Conflict, IsADirectory, NotADirectory, PathRefused, ReadOnlyShare
from towline.base.oserrors import disk_error, oserrors
from towline.services.files.disk import (
    FOLDER,
    PATH_ONLY,
    PERMISSIONS,
    kind_of,
    lstat_at,
    open_folder_at,
    rename_noreplace,
    what_other,
)
from towline.services.files.names import is_reserved, quoted, sorted_names, split_path
from towline.services.files.removal import remove_tree

Parts = list[str]  # checked components

_PASS_THROUGH = PATH_ONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Stat(NamedTuple):
    """One entry: name, kind (`file`, `dir`, `link`, `other`), bytes, nanoseconds since 1970, permission bits."""

    name: str
    kind: str
    size: int
    mtime_ns: int
    mode: int


class Root:
    """An open folder. Paths are relative to it, `/`-joined; `""` and `"."` are the folder itself.

    `portable` refuses names that some system cannot keep; `read_only` refuses every change (ReadOnlyShare). All
    methods raise documented errors only: NotFound, PathRefused (a symlink on the way, too), NotADirectory, ….
    """

    __slots__ = ("_fd", "_owned", "portable", "read_only")

    def __init__(self, fd: int, *, read_only: bool = False, portable: bool = True, owned: bool = True) -> None:
        self._fd = fd
        self._owned = owned
        self.read_only = read_only
        self.portable = portable

    @classmethod
    def open(cls, path: str, *, read_only: bool = False, portable: bool = True) -> Root:
        """Open the folder at `path`, the only path that is followed wherever it leads: its owner named it."""
        with oserrors(path):
            fd = os.open(path, PATH_ONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return cls(fd, read_only=read_only, portable=portable)

    def view(self, *, read_only: bool | None = None, portable: bool | None = None) -> Root:
        """The same folder under other rules, on the same descriptor: closing the original ends it."""
        return Root(
            self._fd,
            read_only=self.read_only if read_only is None else read_only,
            portable=self.portable if portable is None else portable,
            owned=False,
        )

    def close(self) -> None:
        """Close it, when no thread uses it any more."""
        fd, self._fd = self._fd, -1
        if fd >= 0 and self._owned:
            os.close(fd)

    def __enter__(self) -> Root:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Root fd={self._fd}{' read-only' if self.read_only else ''}{'' if self.portable else ' any-names'}>"

    # --- looking ---

    def stat(self, path: str) -> Stat:
        """What `path` is; a symlink is itself, not what it points to."""
        parts = self._split(path)
        folder = self._walk(parts[:-1], _PASS_THROUGH)
        try:
            with oserrors(path):
                return stat_of(parts[-1] if parts else "", lstat_at(folder, parts[-1]) if parts else os.fstat(folder))
        finally:
            os.close(folder)

    def list(self, path: str) -> Iterator[Stat]:
        """The entries of a folder, in the order of their bytes, without Towline's own unfinished files.

        Errors come at once, not at the first entry; what vanishes meanwhile is left out.
        """
        return _Listing(self.folder(path), path)

    def folder(self, path: str) -> int:
        """A readable descriptor of the folder at `path`; the caller closes it."""
        return self._walk(self._split(path), FOLDER)

    def open_file(self, path: str) -> tuple[int, os.stat_result]:
        """A descriptor to read a regular file, which the caller closes, and its stat. Never blocks on a fifo."""
        parts = self._named(path)
        folder = self._walk(parts[:-1], _PASS_THROUGH)
        try:
            return open_regular(folder, parts[-1], path)
        finally:
            os.close(folder)

    # --- changing ---

    def parent(self, path: str, *, create: bool = False) -> tuple[int, str]:
        """A readable descriptor of the folder that `path` is in, which the caller closes, and the last name.

        With `create`, missing folders on the way are made (and ReadOnlyShare raised where nothing may change).
        """
        parts = self._named(path)
        if create:
            self.check_writable()
        return self._walk(parts[:-1], FOLDER, create=create), parts[-1]

    def mkdir(self, path: str, parents: bool = False, exist_ok: bool = False) -> bool:
        """Make a folder, durably; True when it is new. Raises Conflict when something is there (or no folder is)."""
        self.check_writable()
        parts = self._split(path)
        if not parts:
            if exist_ok:
                return False
            raise Conflict("The share's root is there already.")
        folder = self._walk(parts[:-1], FOLDER, create=parents)
        try:
            return _mkdir_at(folder, parts[-1], path, exist_ok)
        finally:
            os.close(folder)

    def move(self, source: str, target: str, *, replace: bool = False) -> None:
        """Rename within this root, atomically and durably. An existing target raises Conflict unless `replace`.

        A file never replaces a folder, nor a folder a file or a folder with content; a folder never goes into itself.
        """
        self.check_writable()
        old, new = self._named(source), self._named(target)
        if new[: len(old)] == old and len(new) > len(old):
            raise PathRefused(f"The folder {quoted(source)} cannot be moved into itself.")
        here = self._walk(old[:-1], FOLDER)
        try:
            there = self._walk(new[:-1], FOLDER)
            try:
                _move_at(here, old[-1], there, new[-1], (source, target), replace)
            finally:
                os.close(there)
        finally:
            os.close(here)

    def remove(self, path: str, recursive: bool = False) -> None:
        """Remove a file or symlink; a folder only with `recursive` (IsADirectory), and never the root itself.

        A tree goes by descriptors, from the leaves; symlinks in it are removed, not followed. What was removed before
        an error stays removed.
        """
        self.check_writable()
        parts = self._named(path)
        folder = self._walk(parts[:-1], FOLDER)
        try:
            with oserrors(path):
                if not stat.S_ISDIR(lstat_at(folder, parts[-1]).st_mode):
                    os.unlink(parts[-1], dir_fd=folder)
                elif recursive:
                    remove_tree(folder, parts[-1])
                else:
                    raise IsADirectory(f"{quoted(path)} is a folder; it is removed with --recursive only.")
                os.fsync(folder)
        finally:
            os.close(folder)

    def symlink(self, path: str, target: str, *, mtime_ns: int | None = None, replace: bool = False) -> None:
        """Make a symlink that says `target`, whatever that is: nothing here will follow it. Conflict if taken."""
        self.check_writable()
        folder, name = self.parent(path)
        try:
            with oserrors(path):
                fresh = f".towline-{os.urandom(8).hex()}.tmp"
                os.symlink(target, fresh, dir_fd=folder)
                try:
                    if mtime_ns is not None:
                        os.utime(fresh, ns=(mtime_ns, mtime_ns), dir_fd=folder, follow_symlinks=False)
                    put_in_place(folder, fresh, name, replace=replace)
                except BaseException:
                    os.unlink(fresh, dir_fd=folder)
                    raise
                os.fsync(folder)
        finally:
            os.close(folder)

    def stamp(self, path: str, *, mode: int | None = None, mtime_ns: int | None = None) -> None:
        """Give a folder its final permission bits and time, after its content is in place."""
        self.check_writable()
        fd = self.folder(path)
        try:
            with oserrors(path):
                if mode is not None:
                    os.fchmod(fd, mode & PERMISSIONS)
                if mtime_ns is not None:
                    os.utime(fd, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(fd)

    def check_writable(self) -> None:
        """Raise ReadOnlyShare when nothing here may change."""
        if self.read_only:
            raise ReadOnlyShare

    # --- walking ---

    def _split(self, path: str) -> Parts:
        return split_path(path, portable=self.portable)

    def _named(self, path: str) -> Parts:
        parts = self._split(path)
        if not parts:
            raise PathRefused("The share's root itself cannot be meant here; name something in it.")
        return parts

    def _walk(self, parts: Parts, flags: int, *, create: bool = False) -> int:
        """A descriptor of the folder at `parts`, opened with `flags`; on the way only the right to pass is needed."""
        current = -1
        index = 0
        try:
            if not parts:
                return os.open(".", flags, dir_fd=self._fd)
            for index, part in enumerate(parts):
                here = current if current >= 0 else self._fd
                way = flags if create or index == len(parts) - 1 else _PASS_THROUGH
                below = _open_or_make(here, part, way) if create else open_folder_at(here, part, way)
                if current >= 0:
                    os.close(current)
                current = below
        except OSError as error:
            if current >= 0:
                os.close(current)
            raise disk_error(error, "/".join(parts[: index + 1]) or ".") from error
        return current


def stat_of(name: str, info: os.stat_result) -> Stat:
    """A Stat from what the operating system said."""
    return Stat(name, kind_of(info.st_mode), info.st_size, info.st_mtime_ns, info.st_mode & PERMISSIONS)


def open_regular(folder: int, name: str, path: str, *, looked: bool = False) -> tuple[int, os.stat_result]:
    """Open `name` in `folder` for reading if it is a regular file. `path` is for the sentence of the error.

    `looked`: the caller has seen a regular file there a moment ago.
    """
    with oserrors(path):
        # Looked at first, since opening a device can already do something; and again after, when it can't change.
        if not looked:
            _check_regular(lstat_at(folder, name).st_mode, path)
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            info = os.fstat(fd)
            _check_regular(info.st_mode, path)
        except BaseException:
            os.close(fd)
            raise
        return fd, info


def put_in_place(folder: int, fresh: str, name: str, *, replace: bool) -> None:
    """Rename a finished file within its folder to its final name, atomically. Raises OSError.

    Without `replace` an existing target raises FileExistsError; with it a folder raises IsADirectoryError.
    """
    if replace:
        os.rename(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
    else:
        rename_noreplace(folder, fresh, folder, name)


class _Listing:
    """Names at once, stats one by one: a folder of a million names is not a million Stats in memory."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        with oserrors(path):
            self._names = iter(sorted_names([name for name in os.listdir(fd) if not is_reserved(name)]))
        self._path = path

    def __iter__(self) -> Iterator[Stat]:
        return self

    def __next__(self) -> Stat:
        for name in self._names:
            try:
                return stat_of(name, lstat_at(self._fd, name))
            except FileNotFoundError:
                continue
            except OSError as error:
                self.__del__()
                raise disk_error(error, f"{self._path}/{name}") from error
        self.__del__()
        raise StopIteration

    def __del__(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
            self._names = iter(())


def _check_regular(mode: int, path: str) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectory(f"{quoted(path)}: a file was expected and a folder is there.")
    if stat.S_ISLNK(mode):
        raise PathRefused(f"{quoted(path)} is a symlink, and symlinks are not followed.")
    raise PathRefused(f"{quoted(path)} is {what_other(mode)}, not a file.")


def _open_or_make(folder: int, name: str, flags: int) -> int:
    try:
        return open_folder_at(folder, name, flags)
    except FileNotFoundError:
        try:
            os.mkdir(name, dir_fd=folder)
            _sync(folder)
        except FileExistsError:
            pass  # somebody else was quicker; if it is a folder, it serves
        return open_folder_at(folder, name, flags)


def _sync(folder: int) -> None:
    """fsync of a folder whose descriptor may be good for walking only (O_PATH)."""
    fd = os.open(".", FOLDER, dir_fd=folder)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _mkdir_at(folder: int, name: str, path: str, exist_ok: bool) -> bool:
    with oserrors(path):
        try:
            os.mkdir(name, dir_fd=folder)
        except FileExistsError:
            is_folder = stat.S_ISDIR(lstat_at(folder, name).st_mode)
            if exist_ok and is_folder:
                return False
            if exist_ok:
                raise NotADirectory(f"{quoted(path)}: something that is no folder is there already.")
            raise
        os.fsync(folder)
        return True


def _move_at(here: int, old: str, there: int, new: str, paths: tuple[str, str], replace: bool) -> None:
    with oserrors(paths[0]):
        lstat_at(here, old)  # so that a missing source is named, not the target
    try:
        if replace:
            os.rename(old, new, src_dir_fd=here, dst_dir_fd=there)
        else:
            rename_noreplace(here, old, there, new)
        os.fsync(there)
        os.fsync(here)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise PathRefused(f"The folder {quoted(paths[0])} cannot be moved into itself.")
        raise disk_error(error, paths[1]) from error
