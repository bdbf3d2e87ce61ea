"""Opening the data file of a part so that it is ours, alone, and no trap that somebody left under its name."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from blake3 import blake3

from towline.base.errors import InUse
from towline.base.ids import encode
from towline.services.files.disk import PATH_ONLY, lstat_at
from towline.services.files.names import RESERVED, quoted, sort_key

_TRIES = 16  # each lost race against another opener or publisher costs one
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def part_name(name: str, owner: str) -> str:
    """What the part of `name` by `owner` is called, without its suffix."""
    text = b"%d:%s:%s" % (len(owner), sort_key(owner), sort_key(name))
    key = blake3(text, derive_key_context="towline v1: name of an unfinished file").digest(16)
    return RESERVED + encode(key)


def open_locked(folder: int, file: str, name: str) -> tuple[int, str | None]:
    """A descriptor of `file`, locked with flock(2), and None; or of a new one, and why the old would not do (or "").

    `name` is for the sentence. Raises InUse, OSError.
    """
    why = ""
    for _ in range(_TRIES):
        created = False
        try:
            fd = os.open(file, _FLAGS, dir_fd=folder)
        except FileNotFoundError:
            try:
                fd = os.open(file, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
            except FileExistsError:
                continue
            created = True
        except PermissionError:
            _make_writable(folder, file)
            continue
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):
                raise
            os.unlink(file, dir_fd=folder)
            why = "its partial file was not one of ours"
            continue
        try:
            if _ours_alone(fd, folder, file, name):
                return fd, why if created else None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        if not created:
            why = _clear(folder, file) or why
    raise InUse(f"{quoted(name)} is being transferred by another process.")


def unlock(fd: int) -> None:
    """Let the next one in now: a child between fork and exec may hold a copy of the descriptor a little longer."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def _ours_alone(fd: int, folder: int, file: str, name: str) -> bool:
    """Lock it; False when it is not a plain file of ours with this one name (any more)."""
    if _foreign(os.fstat(fd)):
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUse(f"{quoted(name)} is being transferred by another process.")
    info = os.fstat(fd)
    if info.st_nlink != 1:
        return False
    try:
        now = lstat_at(folder, file)
    except FileNotFoundError:
        return False
    os.fchmod(fd, 0o600)  # a crash between fchmod and rename left it wider
    return (now.st_dev, now.st_ino) == (info.st_dev, info.st_ino)


def _clear(folder: int, file: str) -> str:
    """Take away what may not be written to; why it may not."""
    try:
        info = lstat_at(folder, file)
        if not _foreign(info) and info.st_nlink == 1:
            return ""  # another process was quicker; the next try meets it
        os.unlink(file, dir_fd=folder)
    except FileNotFoundError:
        return ""
    return "its partial file was not ours alone"


def _foreign(info: os.stat_result) -> bool:
    # A second name means that it was published already (a crash between link and unlink) or is somebody's trap.
    return not stat.S_ISREG(info.st_mode) or info.st_nlink > 1 or info.st_uid != os.geteuid()


def _make_writable(folder: int, file: str) -> None:
    """A crash between fchmod and rename may have left our part read-only. Raises OSError."""
    fd = os.open(file, PATH_ONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        if _foreign(os.fstat(fd)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        os.chmod(f"/proc/self/fd/{fd}", 0o600)  # fchmod refuses an O_PATH descriptor (open(2))
    finally:
        os.close(fd)
