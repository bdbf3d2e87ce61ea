"""A folder that names from a stranger cannot leave: walked with directory descriptors, never through a symlink.

Used by the server for `--root` and by the client for the folder it downloads into. All later work is on descriptors.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator

from towline.base.errors import (
    Conflict,
    DiskError,
    IsADirectory,
    NoSpace,
    NotADirectory,
    NotFound,
    PathRefused,
    PermissionDenied,
    TowlineError,
)
from towline.base.text import printable

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_COMPONENT_BYTES = 255


class Root:
    """One folder, held open; `close()` (or `with`) lets it go."""

    def __init__(self, path: str) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _file_error(error, path) from None

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)

    def open_file(self, name: str) -> int:
        """A descriptor of the regular file `name`, for reading. The caller closes it."""
        parts = components(name)
        with self._parent(parts) as parent, _speaking_of(name):
            # O_NONBLOCK: a FIFO with nobody at its other end would hold us for ever
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(parts[-1], flags, dir_fd=parent)
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            os.close(descriptor)
            if stat.S_ISDIR(mode):
                raise IsADirectory(f"{printable(name)} is a folder.")
            raise PathRefused(f"{printable(name)} is not a regular file.")
        return descriptor

    def new_part(self, name: str, *, overwrite: bool) -> Part:
        """A part file that can become `name`. Raises Conflict when `name` exists and must not be overwritten."""
        parts = components(name)
        with self._parent(parts) as parent, _speaking_of(name):
            if not overwrite and _exists(parts[-1], parent):
                raise Conflict(f"{printable(name)} exists.")
            return Part(os.dup(parent), parts[-1], overwrite=overwrite)

    def free_bytes(self) -> int:
        """What the disk has room for."""
        room = os.fstatvfs(self._descriptor)
        return room.f_bavail * room.f_frsize

    @contextlib.contextmanager
    def _parent(self, parts: list[str]) -> Iterator[int]:
        descriptor = os.dup(self._descriptor)
        try:
            for part in parts[:-1]:
                with _speaking_of(part):
                    below = os.open(part, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)


class Part:
    """Bytes on their way to a name. They have a name of their own until `publish`, and none after `discard`."""

    def __init__(self, folder: int, final: str, *, overwrite: bool) -> None:
        self._folder = folder
        self._final = final
        self._overwrite = overwrite
        stem = final.encode()[: _COMPONENT_BYTES - 24].decode(errors="ignore")
        self._name = f".{stem}.{secrets.token_hex(6)}.part"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = open(os.open(self._name, flags, 0o644, dir_fd=folder), "wb", buffering=0)  # noqa: SIM115
        except BaseException:
            os.close(folder)
            raise

    def write(self, data: bytes | bytearray) -> None:
        """Append. Raises NoSpace, DiskError."""
        with _speaking_of(self._final):
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]

    def publish(self) -> None:
        """Durable, then under the final name in one step. Raises Conflict when the name has been taken meanwhile."""
        with _speaking_of(self._final):
            os.fsync(self._file.fileno())
            if self._overwrite:
                os.replace(self._name, self._final, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            else:
                self._link()
        self._close()

    def discard(self) -> None:
        """Nothing of it remains. Harmless after `publish`."""
        if self._file.closed:
            return
        with contextlib.suppress(OSError):
            os.unlink(self._name, dir_fd=self._folder)
        self._close()

    def _link(self) -> None:
        try:  # link() refuses an existing name; rename() would replace it
            os.link(self._name, self._final, src_dir_fd=self._folder, dst_dir_fd=self._folder, follow_symlinks=False)
        except FileExistsError:
            raise Conflict(f"{printable(self._final)} exists.") from None
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}:
                raise
            if _exists(self._final, self._folder):  # a file system without links: the next best there is
                raise Conflict(f"{printable(self._final)} exists.") from None
            os.rename(self._name, self._final, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        else:
            os.unlink(self._name, dir_fd=self._folder)

    def _close(self) -> None:
        self._file.close()
        os.close(self._folder)


def components(name: str) -> list[str]:
    """The parts of a relative name. Raises PathRefused, which names the reason; nothing is rewritten."""
    shown = printable(name, limit=80)
    parts = name.split("/")
    for part in parts:
        if part in {"", ".", ".."}:
            raise PathRefused(f"The name {shown!r} is absolute, has an empty part, or has . or .. in it.")
        if "\\" in part or any(ord(char) < 32 or ord(char) == 127 for char in part):
            raise PathRefused(f"The name {shown!r} has a backslash or a control character in it.")
        try:
            size = len(part.encode())
        except UnicodeEncodeError:
            raise PathRefused(f"The name {shown!r} has half a character in it.") from None
        if size > _COMPONENT_BYTES:
            raise PathRefused(f"A part of the name {shown!r} is longer than {_COMPONENT_BYTES} bytes.")
    return parts


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def _speaking_of(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _file_error(error, name) from None


def _file_error(error: OSError, name: str) -> TowlineError:
    shown = printable(name)
    kinds: dict[int | None, tuple[type[TowlineError], str]] = {
        errno.ENOENT: (NotFound, f"{shown} does not exist."),
        errno.ELOOP: (PathRefused, f"{shown} is a symbolic link; links are not followed."),
        errno.ENOTDIR: (NotADirectory, f"{shown} is not a folder, or a symbolic link to one."),
        errno.EISDIR: (IsADirectory, f"{shown} is a folder."),
        errno.EACCES: (PermissionDenied, f"{shown} may not be opened by this user."),
        errno.EPERM: (PermissionDenied, f"{shown} may not be opened by this user."),
        errno.EROFS: (PermissionDenied, f"{shown} is on a read-only file system."),
        errno.ENOSPC: (NoSpace, f"The disk is full; {shown} was not written."),
        errno.EDQUOT: (NoSpace, f"The quota is used up; {shown} was not written."),
        errno.ENAMETOOLONG: (PathRefused, f"{shown} is too long a name."),
    }
    kind, sentence = kinds.get(error.errno, (DiskError, f"{shown}: {error.strerror}."))
    return kind(sentence)
