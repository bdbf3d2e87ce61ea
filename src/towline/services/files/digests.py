"""Digests in progress, kept across the cuts of a transfer: a resumed file is not hashed from its start again."""

from __future__ import annotations

import threading
from collections import OrderedDict

from towline.services.files.digest import FileDigest

_KEPT = 64


class DigestCache:
    """The last few unfinished digests by what they are of: (path, size, mtime_ns). Only ever a saving of time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int, int], FileDigest] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, path: str, size: int, mtime_ns: int, limit: int) -> FileDigest:
        """The digest so far, handed over; a new one when there is none or it went beyond `limit` bytes."""
        with self._lock:
            digest = self._kept.pop((path, size, mtime_ns), None)
        return digest if digest is not None and digest.position <= limit else FileDigest()

    def keep(self, path: str, size: int, mtime_ns: int, digest: FileDigest) -> None:
        """Hand it back unfinished."""
        with self._lock:
            self._kept[path, size, mtime_ns] = digest
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
