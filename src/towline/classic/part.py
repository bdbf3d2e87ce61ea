"""A file on its way to a name in a confined folder: under a name of Towline's own until it is whole and verified.

These dialects cannot resume, so a part that did not come to its end is worth nothing and goes at once.
"""

from __future__ import annotations

import contextlib
import os
import re

from towline.base.errors import Conflict, NoSpace, PathRefused
from towline.base.oserrors import oserrors
from towline.base.quantity import format_size
from towline.services.files.disk import lstat_at
from towline.services.files.names import RESERVED, quoted
from towline.services.files.tree import Root, put_in_place

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Part:
    """Bytes that become `name` below `root` by `publish`, or nothing by `discard`. Blocks on the disk.

    Raises Conflict when `name` exists and not `replace`, and what `Root.parent` raises for a name.
    """

    def __init__(self, root: Root, name: str, *, replace: bool) -> None:
        self._name = name
        self._replace = replace
        self._folder, self._final = root.parent(name)
        try:
            if _CONTROL.search(self._final):  # who lists the folder has a terminal
                raise PathRefused(f"The name {quoted(name)} is refused: it contains a control character.")
            with oserrors(name):
                if not replace and _exists(self._folder, self._final):
                    raise _taken(name)
                self._fresh = f"{RESERVED}{os.urandom(8).hex()}.tmp"
                self._fd = os.open(self._fresh, _CREATE, 0o666, dir_fd=self._folder)
        except BaseException:
            os.close(self._folder)
            raise

    def make_room(self, size: int) -> None:
        """Raises NoSpace where the disk has no room for `size` bytes."""
        room = os.fstatvfs(self._fd)
        if size > room.f_bavail * room.f_frsize:
            raise NoSpace(f"There is no room for the {format_size(size)} of {quoted(self._name)}.")

    def write(self, data: bytes | bytearray) -> None:
        """Append. Raises NoSpace, DiskError."""
        with oserrors(self._name):
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]

    def publish(self) -> None:
        """Durable, then under its name in one step. Raises Conflict when the name has been taken meanwhile."""
        with oserrors(self._name):
            os.fsync(self._fd)
            try:
                put_in_place(self._folder, self._fresh, self._final, replace=self._replace)
            except FileExistsError:
                raise _taken(self._name) from None
            self._close()
            os.fsync(self._folder)

    def discard(self) -> None:
        """Nothing of it remains. Harmless after `publish`, which has left nothing to discard."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self._fresh, dir_fd=self._folder)
            self._close()
        folder, self._folder = self._folder, -1
        if folder >= 0:
            os.close(folder)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)


def _exists(folder: int, name: str) -> bool:
    try:
        lstat_at(folder, name)
    except FileNotFoundError:
        return False
    return True


def _taken(name: str) -> Conflict:
    return Conflict(f"{quoted(name)} exists.")
