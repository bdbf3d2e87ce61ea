"""What the operating system says about a file, as a documented error."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from towline.base.errors import DiskError, NoSpace, PermissionDenied
from towline.base.text import printable


@contextmanager
def documented(path: str) -> Iterator[None]:
    """Turn an OSError inside into the documented error that names `path`."""
    try:
        yield
    except OSError as error:
        sentence = f"{printable(path)}: {error.strerror or error}."
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoSpace(f"There is no room to write {sentence}") from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise PermissionDenied(sentence) from error
        raise DiskError(sentence) from error
