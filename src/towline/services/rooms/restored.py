"""Whether the data folder is still the one that was written to, or a copy that was put in its place.

A copy has the same contents but not the same birth: inode and birth time (statx(2)) of the database file are noted
inside the database. A restored folder does not fit its note, and every log in it begins a new epoch, because readers
may have seen more than the copy holds. A folder that was only moved to another disk begins one, too; that costs each
reader one gap with nothing in it.
"""

from __future__ import annotations

import ctypes
import os
import sys

from towline.base.oserrors import oserrors

_AT_FDCWD = -100
_STATX_BTIME = 0x800
_SIZE = 256  # struct statx
_BTIME_AT = 0x50  # stx_btime: s64 seconds, u32 nanoseconds (linux/stat.h)


def birth_of(path: str) -> str:
    """What tells a file from a copy of it; without birth times (an old kernel) the inode alone. Raises NotFound."""
    with oserrors(path):
        inode = os.stat(path).st_ino
    return f"{inode}:{_birth_time(path)}"


def _birth_time(path: str) -> int:
    """Nanoseconds since 1970; 0 where the file system does not say."""
    try:
        statx = ctypes.CDLL(None, use_errno=True).statx
    except (OSError, AttributeError):
        return 0
    buffer = ctypes.create_string_buffer(_SIZE)
    if statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, buffer) != 0:
        return 0
    raw = buffer.raw
    if not int.from_bytes(raw[:4], sys.byteorder) & _STATX_BTIME:
        return 0
    seconds = int.from_bytes(raw[_BTIME_AT : _BTIME_AT + 8], sys.byteorder, signed=True)
    return seconds * 1_000_000_000 + int.from_bytes(raw[_BTIME_AT + 8 : _BTIME_AT + 12], sys.byteorder)
