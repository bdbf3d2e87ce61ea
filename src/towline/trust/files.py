"""Files and folders that nobody else may read: created narrow, refused when they have become wider.

Every check is made on an open descriptor, so that what was checked is what is used.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

from towline.base.errors import InUse, LaxPermissions
from towline.base.oserrors import oserrors
from towline.base.text import printable

_LOCK_NAME = ".lock"
# A change under the lock is one small file; whoever holds it longer than this is stopped or stuck.
_LOCK_SECONDS = 10.0
_POLL_SECONDS = 0.01


def private_folder(folder: str) -> str:
    """The absolute path of `folder`, created with mode 0700 where it is missing.

    An empty folder of ours is narrowed: nothing secret can have leaked from it yet. Raises LaxPermissions when others
    can use a folder with something in it, or it belongs to somebody else.
    """
    path = os.path.abspath(folder)
    with oserrors(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass  # made before; checked below like any other
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _narrow_empty(descriptor)
            _refuse_lax(os.fstat(descriptor), path, 0o700)
        finally:
            os.close(descriptor)
    return path


def refuse_writable(folder: str) -> None:
    """Raise LaxPermissions when others can write into `folder`: they could put theirs in the place of what is there,
    however narrow that is itself."""
    path = os.path.abspath(folder)
    with oserrors(path):
        mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o022:
        raise LaxPermissions(
            f"{_shown(path)} has mode {mode:04o}, others can write into it; mend it: chmod go-w {_quoted(path)}"
        )


def read_private(path: str) -> bytes | None:
    """The content of a private file, None when there is none.

    Raises LaxPermissions when it is laxer than 0600, belongs to somebody else or is no regular file.
    """
    with oserrors(path):
        try:
            # O_NONBLOCK: opening a FIFO that somebody put there must not hang.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                raise LaxPermissions(f"{_shown(path)} is not a regular file; move it away.")
            _refuse_lax(info, path, 0o600)
            return file.read()


def write_private(path: str, data: bytes) -> None:
    """Replace `path` with `data`, mode 0600, durably and in one step. The caller holds `folder_lock`."""
    fresh = f"{path}.new"
    with oserrors(path):
        try:
            os.unlink(fresh)  # left by a crash; nobody else can be writing it while we hold the lock
        except FileNotFoundError:
            pass
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.rename(fresh, path)
        _sync_folder(os.path.dirname(path))


@contextmanager
def folder_lock(folder: str) -> Iterator[None]:
    """Hold the folder's lock file, so that two processes do not lose each other's change. Raises InUse."""
    path = os.path.join(folder, _LOCK_NAME)
    with oserrors(path):
        # A file and not the folder itself: over NFS flock(2) needs a descriptor that is open for writing.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _wait_for_lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, path: str) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise InUse(f"{_shown(path)} has been held by another process for {_LOCK_SECONDS:.0f} s.")
            time.sleep(_POLL_SECONDS)


def _narrow_empty(folder: int) -> None:
    info = os.fstat(folder)
    lax = stat.S_IMODE(info.st_mode) & 0o077
    # What is in a lax folder was open to others, and a person must know; an empty one had nothing to tell.
    if lax and info.st_uid == os.geteuid() and not os.listdir(folder):
        os.fchmod(folder, 0o700)


def _refuse_lax(info: os.stat_result, path: str, wanted: int) -> None:
    ours = os.geteuid()
    mode = stat.S_IMODE(info.st_mode)
    if info.st_uid != ours:
        mend = f"chown {ours} {_quoted(path)} && chmod {wanted:o} {_quoted(path)}"
        raise LaxPermissions(f"{_shown(path)} belongs to user {info.st_uid}, you are user {ours}; mend it: {mend}")
    if mode & 0o077:
        raise LaxPermissions(
            f"{_shown(path)} has mode {mode:04o}, others can use it; mend it: chmod {wanted:o} {_quoted(path)}"
        )


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _shown(path: str) -> str:
    return printable(path)


def _quoted(path: str) -> str:
    from shlex import quote  # for mistakes only

    return printable(quote(path))
