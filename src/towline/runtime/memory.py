"""How the C library keeps freed memory, in processes that are ours alone."""

from __future__ import annotations

import ctypes
import functools

from towline.base.limits import MIB

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc (mallopt(3))
KEPT = 8 * MIB


@functools.cache
def keep_freed_memory() -> None:
    """Keep up to 8 MiB of freed memory for the next buffers; a C library without mallopt(3) stays as it is.

    A buffer of 256 KiB is for glibc large enough to come from the system and go back to it each time, and the faults
    of its pages cost more than all that is done with it: a third of the node's and the client's time while output or
    a file flows. Not for a program that only uses us: how its memory is kept is not ours to say. Done once.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 4 * MIB)
    mallopt(_M_TRIM_THRESHOLD, KEPT)
