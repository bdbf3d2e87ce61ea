"""What a node is told when it starts."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass

from msgspec import Struct

from towline.base.errors import NotFound, UsageError
from towline.base.limits import HANDSHAKE_SECONDS
from towline.base.oserrors import oserrors
from towline.base.text import printable
from towline.services.files.shares import Share
from towline.services.jobs.messages import SPOOL, SPOOL_PER_JOB
from towline.services.rooms.limits import GRACE_SECONDS, ROOM_BURST, ROOM_RATE

DEFAULT_LISTEN = "127.0.0.1:7440"
DRAIN_SECONDS = 10.0
ORPHAN_SECONDS = 30.0
_SHARE_NAME = re.compile(r"[\w.-]{1,64}")


class NodeConfig(Struct, frozen=True):
    """`data` holds keys, database and journals; `listen` is HOST:PORT or None; `unix` a socket's path.

    Without shares there is one, `files`, inside the data folder. In seconds: `drain` is how long work may go on after
    SIGTERM, `handshake` how long a stranger may take to prove a key, `orphan` how long a handler may go on after its
    stream was reset or lost, if it has not noticed by then. In bytes: `spool` and `spool_per_job` are how much output
    of commands is kept.
    `room_rate` (messages a second, after `room_burst` at once) is how fast one person may write in rooms; who comes
    back within `room_grace` seconds has not left them.
    """

    data: str
    listen: str | None = DEFAULT_LISTEN
    unix: str | None = None
    shares: tuple[Share, ...] = ()
    name: str | None = None
    drain: float = DRAIN_SECONDS
    handshake: float = HANDSHAKE_SECONDS.value
    orphan: float = ORPHAN_SECONDS
    spool: int = SPOOL.value
    spool_per_job: int = SPOOL_PER_JOB.value
    room_rate: float = ROOM_RATE.value
    room_burst: float = ROOM_BURST.value
    room_grace: float = GRACE_SECONDS

    def __post_init__(self) -> None:
        """Raises UsageError for two shares of one name: either could be the one that is meant."""
        names = [share.name for share in self.shares]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UsageError(f"The share {printable(twice[0])!r} is given twice; each needs a name of its own.")

    @property
    def keys_folder(self) -> str:
        return os.path.join(self.data, "keys")

    @property
    def unix_path(self) -> str:
        return self.unix or default_unix_path(self.data)


def default_unix_path(data: str) -> str:
    """Where a node with this data folder listens for people on the same machine."""
    return os.path.join(os.path.abspath(data), "run", "tow.sock")


def parse_share(text: str) -> Share:
    """`NAME=DIR` or `NAME=DIR:ro`. Raises UsageError, NotFound."""
    name, equals, path = text.partition("=")
    read_only = False
    if path.endswith((":ro", ":rw")):
        read_only = path.endswith(":ro")
        path = path[:-3]
    if not equals or not _SHARE_NAME.fullmatch(name) or not path:
        raise UsageError(f"{text!r} is not NAME=DIR or NAME=DIR:ro (letters, digits, '.', '-' and '_' in the name).")
    full = os.path.abspath(os.path.expanduser(path))
    if not os.path.isdir(full):
        raise NotFound(f"The folder {full} of share {name!r} does not exist.")
    return Share(name, full, read_only)


def own_share(data: str) -> Share:
    """The share of a node that was given none: `files`, in its data folder; made where it is missing."""
    path = os.path.join(os.path.abspath(data), "files")
    with oserrors(path):
        os.makedirs(path, mode=0o700, exist_ok=True)
    return Share("files", path)


def default_name() -> str:
    """A node's name until it is given one: the host's, as far as an alias may have its letters."""
    return re.sub(r"[^\w.-]", "-", socket.gethostname().split(".")[0])[:64] or "node"


@dataclass(slots=True)
class Listening:
    """Where a running node can be reached: HOST:PORT, and the path of the Unix socket."""

    address: str | None = None
    unix: str | None = None
