"""The client's side of a local path: what its user typed becomes a root and a path in it.

The user's own path may be absolute, climb and lead through symlinks: they named it. From there on the root holds, and
what a peer sends is confined in it.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from towline.base.errors import NotFound, PathRefused
from towline.base.oserrors import oserrors
from towline.services.files.disk import what_other
from towline.services.files.names import check_component, quoted
from towline.services.files.tree import Root


class Local(NamedTuple):
    """A local file or folder: the root (the caller closes it), the path in it (`""`: the root itself), and its name.

    `name` is what it is called on the other side unless the user says otherwise. `kind` is `file`, `dir`, or `""`
    when it is not there yet.
    """

    root: Root
    path: str
    name: str
    kind: str


def local_source(path: str, *, portable: bool = True) -> Local:
    """What is to be sent: a file, or a folder with all that is in it. Never written to.

    A symlink that the user named is followed, and lends its name; symlinks below it are not. Raises NotFound,
    PathRefused for a device, fifo or socket and for a name that is not portable, PermissionDenied.
    """
    _check_given(path)
    with oserrors(path):
        mode = os.stat(path).st_mode
        real = os.path.realpath(path)
    stripped = path.rstrip("/")
    last = stripped.rpartition("/")[2]
    name = last if last not in ("", ".", "..") else os.path.basename(real)
    if stat.S_ISDIR(mode):
        return Local(Root.open(path, read_only=True, portable=portable), "", name, "dir")
    if not stat.S_ISREG(mode):
        raise PathRefused(f"{quoted(path)} is {what_other(mode)}, not a file or folder.")
    check_component(name, portable=portable)
    folder, real_name = os.path.split(real)
    # What the name points to may be called anything: only the name that travels has to be portable.
    return Local(Root.open(folder, read_only=True, portable=portable and real_name == name), real_name, name, "file")


def local_target(path: str, source_name: str, *, portable: bool = True) -> Local:
    """Where what is fetched goes, as cp(1) decides it.

    An existing folder, or a path with a trailing slash (its last folder is made when something is written): inside
    it, under `source_name`. Otherwise: under the name that the user gave. Raises NotFound when the folder above is
    not there, PathRefused for a refused name. Nothing is created here.
    """
    _check_given(path)
    if os.path.isdir(path):
        check_component(source_name, portable=portable)
        return _target(Root.open(path, portable=portable), source_name)
    folder, name = os.path.split(path.rstrip("/"))
    check_component(name, portable=portable)
    inside = f"{name}/{source_name}" if path.endswith("/") else name
    if inside != name:
        check_component(source_name, portable=portable)
    try:
        root = Root.open(folder or ".", portable=portable)
    except NotFound:
        raise NotFound(f"There is no local folder {quoted(folder)} to put {quoted(name)} into.")
    return _target(root, inside)


def _target(root: Root, path: str) -> Local:
    """`kind` by what is there now; a hint for choosing, never relied upon when writing."""
    try:
        kind = root.stat(path).kind
    except NotFound:
        kind = ""
    except BaseException:
        root.close()
        raise
    return Local(root, path, path.rpartition("/")[2], kind)


def _check_given(path: str) -> None:
    if not path or "\0" in path:
        raise PathRefused("An empty local path, or one with a NUL byte, names nothing.")
