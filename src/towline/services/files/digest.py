"""BLAKE3 over whole files, in step with the bytes as they come.

Files are read with pread into buffers, never mapped: a mapped file that somebody truncates kills the reader (SIGBUS).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from blake3 import blake3

from towline.base.errors import ConnectionLost, SourceChanged
from towline.base.limits import MIB
from towline.base.oserrors import oserrors

_STEP = 1 * MIB
_WIDE_STEP = 8 * MIB  # what gives every core a share worth starting it for
_LOOK_STEP = 8 * _WIDE_STEP  # between two looks at whether anybody still wants it


class FileDigest:
    """The digest of one file's bytes from 0 on. Bytes that come in order are hashed in passing, others read later."""

    def __init__(self) -> None:
        self._hash = blake3()
        self._lock = threading.Lock()
        self._position = 0

    @property
    def position(self) -> int:
        """How many bytes from the start are in."""
        return self._position

    def feed(self, offset: int, data: bytes | bytearray | memoryview) -> bool:
        """Hash `data`, which stands at `offset`, if it goes on from `position` now; True if it did.

        Never waits: a lane whose bytes are not next, or that finds another one hashing, goes on with its work.
        """
        end = offset + len(data)
        if not offset <= self._position < end or not self._lock.acquire(blocking=False):
            return False
        try:
            if not offset <= self._position < end:
                return False
            self._hash.update(data if offset == self._position else memoryview(data)[self._position - offset :])
            self._position = end
            return True
        finally:
            self._lock.release()

    def catch_up(self, fd: int, upto: int, stopped: Callable[[], bool] = lambda: False) -> None:
        """Read from `position` to `upto` and hash it. Raises SourceChanged when the file ends before, DiskError, and
        ConnectionLost soon after nobody wants it any more (`stopped`), with what was done kept."""
        with self._lock:
            if not self._position:
                self._hash = _hasher(upto)
            while self._position < upto:
                end = min(self._position + _LOOK_STEP, upto)
                try:
                    self._position = _hash_range(self._hash, fd, self._position, end)
                except BaseException:
                    self._position = 0  # how much of it the hash has taken is not known
                    raise
                if end < upto:
                    _give_up_if(stopped)

    def hexdigest(self) -> str:
        """64 hex digits over [0, position)."""
        with self._lock:
            return self._hash.hexdigest()


def digest_of(fd: int, size: int, stopped: Callable[[], bool] = lambda: False) -> str:
    """64 hex digits over the first `size` bytes of an open file.

    Raises SourceChanged when it is shorter, ConnectionLost soon after nobody wants it any more (`stopped`).
    """
    digest = _hasher(size)
    for at in range(0, size, _LOOK_STEP):
        _give_up_if(stopped)
        _hash_range(digest, fd, at, min(at + _LOOK_STEP, size))
    return digest.hexdigest()


def _give_up_if(stopped: Callable[[], bool]) -> None:
    if stopped():
        raise ConnectionLost("The conversation is over.")


def _hasher(size: int) -> blake3:
    # One core hashes about 5 GB/s; starting the others pays from large buffers on only.
    return blake3(max_threads=blake3.AUTO) if size >= _WIDE_STEP else blake3()


def _hash_range(digest: blake3, fd: int, start: int, end: int) -> int:
    """Hash [start, end), where start may already be past it; the new position."""
    if start >= end:
        return start
    with oserrors("the file's content"):
        step = _WIDE_STEP if end - start >= _WIDE_STEP else _STEP
        buffer = memoryview(bytearray(min(step, end - start)))
        at = start
        while at < end:
            count = os.preadv(fd, [buffer[: min(len(buffer), end - at)]], at)
            if not count:
                raise SourceChanged(f"The file ends at byte {at}; it should have {end}.")
            digest.update(buffer[:count])
            at += count
    return end
