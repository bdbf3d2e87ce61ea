"""The stated end of unfinished files that nobody came back for."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time

from towline.base.errors import TowlineError
from towline.base.oserrors import oserrors
from towline.services.files.disk import lstat_at
from towline.services.files.names import is_partial

EXPIRY_NS = 7 * 86_400 * 10**9  # seven days: a long weekend, a broken laptop, a business trip

PAUSE = 3600.0  # seconds between two looks at one folder: it may hold very many names
REMEMBERED = 1000  # folders
_swept: dict[tuple[int, int], float] = {}
_turn = threading.Lock()


def sweep(dir_fd: int, older_than_ns: int = EXPIRY_NS, *, now_ns: int | None = None) -> list[str]:
    """Remove Towline's unfinished files in one folder that nobody wrote to for `older_than_ns`; their names.

    What another process or a part of this one is using stays, whatever its age. Raises documented errors.
    """
    now = time.time_ns() if now_ns is None else now_ns
    removed: list[str] = []
    with oserrors("."):
        names = {name for name in os.listdir(dir_fd) if is_partial(name)}
        bases = sorted({name.rpartition(".")[0] for name in names})
        for base in bases:
            group = [name for name in (base + ".ranges", base + ".tmp", base + ".part") if name in names]
            if now - _newest(dir_fd, group) > older_than_ns:
                removed += _remove(dir_fd, group)
    return removed


def sweep_now_and_then(dir_fd: int, older_than_ns: int = EXPIRY_NS) -> None:
    """Sweep a folder that something is put into, unless this process did so in the last hour. Never raises."""
    info = os.fstat(dir_fd)
    place, now = (info.st_dev, info.st_ino), time.monotonic()
    with _turn:
        if place in _swept and now - _swept[place] < PAUSE:
            return
        while len(_swept) >= REMEMBERED:
            del _swept[next(iter(_swept))]
        _swept[place] = now
    with contextlib.suppress(TowlineError, OSError):  # it is no reason not to take what comes
        sweep(dir_fd, older_than_ns)


def _newest(dir_fd: int, group: list[str]) -> int:
    times = [0]
    for name in group:
        try:
            info = lstat_at(dir_fd, name)
        except FileNotFoundError:
            continue
        # The change time, too: a small file already has its source's old modification time before it is renamed.
        times.append(max(info.st_mtime_ns, info.st_ctime_ns))
    return max(times)


def _remove(dir_fd: int, group: list[str]) -> list[str]:
    fd = -1
    try:
        if group[-1].endswith(".part"):
            fd = os.open(group[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for name in group:
            os.unlink(name, dir_fd=dir_fd)
    except (FileNotFoundError, BlockingIOError, PermissionError):
        return []  # in use, gone, or not ours to remove: the next sweep looks again
    finally:
        if fd >= 0:
            os.close(fd)
    return group
