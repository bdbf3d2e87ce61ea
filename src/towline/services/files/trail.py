"""The way down from one folder: a stack of open folders that never leaves it and holds few descriptors.

A tree may be deeper than a process may have files open. Only the lowest folders stay open; coming back up to a closed
one walks down again from the base and compares device and inode, since `..` of a moved folder leads elsewhere.
"""

from __future__ import annotations

import errno
import os
from types import TracebackType

from towline.services.files.disk import open_folder_at

KEPT = 32  # open folders per trail, besides the base


class Trail:
    """A stack of folders, each inside the one before, below a base that the trail owns. Not thread-safe.

    All methods raise OSError; the caller knows the path to name.
    """

    __slots__ = ("_base", "_fds", "_idents", "_names")

    def __init__(self, base: int) -> None:
        self._base = base
        self._names: list[str] = []
        self._fds: list[int] = []  # -1: closed to save descriptors
        self._idents: list[tuple[int, int]] = []

    @property
    def depth(self) -> int:
        """How many folders below the base the trail is."""
        return len(self._names)

    @property
    def top(self) -> int:
        """The descriptor of the lowest folder (borrowed). ESTALE when it is not where it was."""
        if not self._fds:
            return self._base
        if self._fds[-1] < 0:
            self._reopen()
        return self._fds[-1]

    def push(self, name: str) -> os.stat_result:
        """Go down into `name`, which is a folder and no symlink; its stat."""
        fd = open_folder_at(self.top, name)
        info = os.fstat(fd)
        self._names.append(name)
        self._fds.append(fd)
        self._idents.append((info.st_dev, info.st_ino))
        spare = len(self._fds) - 1 - KEPT
        if spare >= 0 and self._fds[spare] >= 0:
            os.close(self._fds[spare])
            self._fds[spare] = -1
        return info

    def pop(self) -> str:
        """Leave the lowest folder; its name."""
        fd = self._fds.pop()
        if fd >= 0:
            os.close(fd)
        self._idents.pop()
        return self._names.pop()

    def close(self) -> None:
        """Close everything, the base too."""
        while self._fds:
            self.pop()
        if self._base >= 0:
            os.close(self._base)
            self._base = -1

    def __enter__(self) -> Trail:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _reopen(self) -> None:
        """Open the lowest KEPT folders again, from the base down."""
        fresh: list[int] = []
        try:
            for name, ident in zip(self._names, self._idents, strict=True):
                fresh.append(open_folder_at(fresh[-1] if fresh else self._base, name))
                info = os.fstat(fresh[-1])
                if (info.st_dev, info.st_ino) != ident:
                    raise OSError(errno.ESTALE, "a folder was moved while it was being read")
                if len(fresh) > KEPT:
                    os.close(fresh.pop(0))
        except BaseException:
            for fd in fresh:
                os.close(fd)
            raise
        self._fds[-len(fresh) :] = fresh
