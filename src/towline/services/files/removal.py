"""Removing a tree by descriptors: from the leaves, following nothing, whatever is swapped meanwhile."""

from __future__ import annotations

import errno
import os
import stat

from towline.base.oserrors import disk_error
from towline.services.files.disk import lstat_at
from towline.services.files.trail import Trail

_RMDIR_TRIES = 3  # a folder that somebody fills while it is removed


def remove_tree(folder: int, name: str) -> None:
    """Remove the folder `name` with all that is in it, links as links. Raises OSError, DiskError."""
    with Trail(os.dup(folder)) as trail:
        trail.push(name)
        pending = [os.listdir(trail.top)]
        tries = _RMDIR_TRIES
        while pending:
            if pending[-1]:
                child = pending[-1].pop()
                try:
                    os.unlink(child, dir_fd=trail.top)
                except FileNotFoundError:
                    pass
                except (
                    IsADirectoryError,
                    PermissionError,
                ) as error:  # unlink(2) of a folder: EISDIR, POSIX says EPERM
                    if not stat.S_ISDIR(lstat_at(trail.top, child).st_mode):
                        raise disk_error(error, child) from error
                    trail.push(child)
                    pending.append(os.listdir(trail.top))
                continue
            emptied = trail.pop()
            pending.pop()
            try:
                os.rmdir(emptied, dir_fd=trail.top)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY or tries == 0:
                    raise
                tries -= 1
                trail.push(emptied)
                pending.append(os.listdir(trail.top))
