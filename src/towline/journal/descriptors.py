"""A bounded set of open files: a node has thousands of journals and, by default, 1,024 descriptors."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator


class Descriptors:
    """Opens files on use and keeps the most recently used ones open. Thread-safe."""

    def __init__(self, limit: int = 128) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._open: OrderedDict[str, list[int]] = OrderedDict()  # path -> [descriptor, users]

    def __repr__(self) -> str:
        return f"<Descriptors {len(self._open)} of {self._limit}>"

    @contextlib.contextmanager
    def use(self, path: str) -> Iterator[int]:
        """The descriptor of an existing file, open for reading and writing at least until the block ends."""
        with self._lock:
            entry = self._open.get(path)
            if entry is None:
                entry = self._open[path] = [os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW), 0]
            self._open.move_to_end(path)
            entry[1] += 1
        try:
            yield entry[0]
        finally:
            with self._lock:
                entry[1] -= 1
                if self._open.get(path) is not entry:  # forgotten while in use: the last user closes
                    if not entry[1]:
                        os.close(entry[0])
                else:
                    self._shrink()

    def forget(self, path: str) -> None:
        """Close the file (when its last user has ended): it was removed or its journal closed."""
        with self._lock:
            entry = self._open.pop(path, None)
            if entry is not None and not entry[1]:
                os.close(entry[0])

    def _shrink(self) -> None:
        if len(self._open) <= self._limit:
            return
        for path, entry in list(self._open.items()):
            if not entry[1]:
                del self._open[path]
                os.close(entry[0])
                if len(self._open) <= self._limit:
                    return


SHARED = Descriptors()
"""One for the process: descriptors are the process's."""
