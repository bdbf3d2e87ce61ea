"""One node per data folder, held by flock(2): the kernel lets go of it however the process ends.

A second lock is held for a moment by whoever has to know whether a node runs and acts upon it: a verb that
administers a stopped node, a node that starts. Without it two such verbs would take each other for the node.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from towline.base.errors import InUse
from towline.base.oserrors import oserrors
from towline.base.text import printable

LOCK_FILE = "node.lock"
TURN_FILE = "turn.lock"
_TRIES = 200
_POLL_SECONDS = 0.005
_TURN_SECONDS = 10.0  # what is done in a turn takes some milliseconds, on a machine that is not overloaded


class DataLock:
    """Held from its making until `release` (or the end of a `with`). Raises InUse, naming the pid of the holder."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(os.path.abspath(folder), LOCK_FILE)
        self._descriptor: int | None = None
        self.acquire()

    def acquire(self) -> None:
        """Take the lock again after `release`; does nothing while it is held."""
        if self._descriptor is not None:
            return
        with oserrors(self._path):
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                _take(descriptor, self._path)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
            except BaseException:
                os.close(descriptor)
                raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go; calling it again does nothing. The file stays: removing it would let two nodes hold two files."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.ftruncate(descriptor, 0)
            os.close(descriptor)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


@contextmanager
def turn(folder: str) -> Iterator[None]:
    """Nobody else starts or administers the stopped node of this folder meanwhile. Waits; raises InUse after 10 s."""
    path = os.path.join(folder, TURN_FILE)
    with oserrors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + _TURN_SECONDS
        while not _flock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise InUse(f"Another command is at work on the node in {printable(folder)} and does not end.")
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def lock_for_node(folder: str) -> DataLock:
    """The lock of a node that starts: it waits for whoever administers the stopped one, not for another node."""
    with turn(folder):
        return DataLock(folder)


def is_running(folder: str) -> bool:
    """Whether a node holds the folder just now."""
    path = os.path.join(folder, LOCK_FILE)
    with oserrors(path):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return False
    try:
        return not _flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: str) -> None:
    for _ in range(_TRIES):
        if _flock(descriptor, fcntl.LOCK_EX):
            return
        # In the way is a node, or `is_running` of another process, which looks by a shared lock for a moment.
        if not _flock(descriptor, fcntl.LOCK_SH):
            break
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        time.sleep(_POLL_SECONDS)
    pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
    holder = f" (process {printable(pid)})" if pid else ""
    raise InUse(f"A node is running on {printable(os.path.dirname(path))} already{holder}.")


def _flock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
