"""The parents of many files, held open for a while."""

from __future__ import annotations

import os
from types import TracebackType

from towline.services.files.names import check_component
from towline.services.files.tree import Root


class Folders:
    """The parents of many files, a few of them held open: consecutive files of one folder cost one walk.

    Descriptors are borrowed and live until `close` or until `kept` other folders were used. Not thread-safe.
    """

    __slots__ = ("_create", "_kept", "_open", "_root")

    def __init__(self, root: Root, *, create: bool = False, kept: int = 16) -> None:
        self._root = root
        self._create = create
        self._kept = kept
        self._open: dict[str, int] = {}

    def parent(self, path: str) -> tuple[int, str]:
        """Like `Root.parent`, but the descriptor is borrowed."""
        above, _, name = path.rpartition("/")
        fd = self._open.get(above)
        if fd is None or not name:
            fd, name = self._root.parent(path, create=self._create)
            if len(self._open) >= self._kept:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[above] = fd
        else:
            self._open[above] = self._open.pop(above)  # used last, closed last
            check_component(name, portable=self._root.portable)
        return fd, name

    def close(self) -> None:
        """Close all of them."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __enter__(self) -> Folders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
