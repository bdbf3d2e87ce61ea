"""What the operating system says about a file, as a documented error. One table for the whole house."""

from __future__ import annotations

import errno
from types import TracebackType

from towline.base.errors import (
    Conflict,
    DiskError,
    IsADirectory,
    LimitExceeded,
    NoSpace,
    NotADirectory,
    NotFound,
    PathRefused,
    PermissionDenied,
    ReadOnlyShare,
    TowlineError,
)
from towline.base.text import printable

_ERRORS: dict[int, tuple[type[TowlineError], str]] = {
    errno.ENOENT: (NotFound, "there is nothing with that name"),
    errno.EACCES: (PermissionDenied, "the operating system does not permit that"),
    errno.EPERM: (PermissionDenied, "the operating system does not permit that"),
    errno.ENOSPC: (NoSpace, "the disk is full; make room and run the command again, it goes on where it stopped"),
    errno.EDQUOT: (NoSpace, "the disk quota is used up; make room and run the command again, it goes on"),
    errno.ENOTDIR: (NotADirectory, "a folder was expected and something else is there"),
    errno.EISDIR: (IsADirectory, "a file was expected and a folder is there"),
    errno.EEXIST: (Conflict, "something with that name exists already"),
    errno.ENOTEMPTY: (Conflict, "the folder is not empty"),
    errno.ENAMETOOLONG: (PathRefused, "the name is longer than the file system takes"),
    errno.EILSEQ: (PathRefused, "the file system does not take that name"),
    errno.ELOOP: (PathRefused, "a symlink is in the way, and symlinks are not followed"),
    errno.EROFS: (ReadOnlyShare, "the file system is mounted read-only"),
    errno.EMFILE: (LimitExceeded, "this process has as many files open as it may"),
    errno.ENFILE: (LimitExceeded, "this machine has as many files open as it may"),
}


def disk_error(error: OSError, path: str) -> TowlineError:
    """The documented error that `error` stands for, naming `path`."""
    known = _ERRORS.get(error.errno or 0)
    if known is None:
        return DiskError(f'"{printable(path)}": the disk reported: {error.strerror or type(error).__name__}.')
    kind, words = known
    return kind(f'"{printable(path)}": {words}.')


class oserrors:  # noqa: N801  # reads as a statement: with oserrors(path):
    """Context manager: an OSError inside becomes a documented error that names `path`."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise disk_error(error, self._path) from error
