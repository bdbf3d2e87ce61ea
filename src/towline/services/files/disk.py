"""What is asked of the operating system in more than one place: kinds of entries, opening folders, a rename that does
not clobber. These raise OSError; only documented errors leave this room, through `towline.base.oserrors`.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from typing import TYPE_CHECKING

# Loaded with the first rename: a client that only looks does without.
if TYPE_CHECKING:
    import ctypes

PATH_ONLY = getattr(os, "O_PATH", os.O_RDONLY)  # enough to walk through a folder that may not be listed
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PERMISSIONS = 0o777  # setuid, setgid and sticky bits are never taken over from a peer
# Nanoseconds from 1970, both ways: what a time_t can say. A clock that was wrong leaves years that no 64 bits of
# nanoseconds hold (they end in 2262), and file systems keep them.
FARTHEST_NS = (2**63 - 1) * 10**9


def kind_of(mode: int) -> str:
    """`file`, `dir`, `link` or `other` for an st_mode."""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "dir"
    return "link" if stat.S_ISLNK(mode) else "other"


def what_other(mode: int) -> str:
    """What an entry is that is neither file, folder nor symlink, in a person's words."""
    for is_it, word in ((stat.S_ISFIFO, "a fifo"), (stat.S_ISSOCK, "a socket")):
        if is_it(mode):
            return word
    return "a device"


def lstat_at(folder: int, name: str) -> os.stat_result:
    """stat of an entry itself. Raises OSError."""
    return os.stat(name, dir_fd=folder, follow_symlinks=False)


def open_folder_at(folder: int, name: str, flags: int = FOLDER) -> int:
    """A descriptor of the folder `name`, which is no symlink. Raises OSError (ELOOP for a symlink)."""
    try:
        return os.open(name, flags, dir_fd=folder)
    except NotADirectoryError:
        # Linux says ENOTDIR for a symlink, too. The second look only chooses the sentence.
        if stat.S_ISLNK(lstat_at(folder, name).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
        raise


def rename_noreplace(source: int, name: str, target: int, new_name: str) -> None:
    """Rename between two folders given by descriptor; an existing target stays (FileExistsError). Raises OSError.

    renameat2(2) with RENAME_NOREPLACE; where kernel or file system lack it: link and unlink for a file, and for a
    folder an empty one of ours as the placeholder that rename(2) may replace.
    """
    renameat2 = _renameat2()
    if renameat2 is not None:
        if renameat2(source, os.fsencode(name), target, os.fsencode(new_name), 1) == 0:
            return
        number = _errno()
        if number not in (errno.ENOSYS, errno.EINVAL):
            raise OSError(number, os.strerror(number))
    if not stat.S_ISDIR(lstat_at(source, name).st_mode):
        os.link(name, new_name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        os.unlink(name, dir_fd=source)
        return
    os.mkdir(new_name, 0o700, dir_fd=target)
    try:
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
    except OSError:
        os.rmdir(new_name, dir_fd=target)
        raise


@functools.cache
def _renameat2() -> ctypes._FuncPointer | None:
    import ctypes

    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    function.restype = ctypes.c_int
    return function


def _errno() -> int:
    from ctypes import get_errno

    return get_errno()
