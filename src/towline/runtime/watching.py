"""A seat for one onlooker: whoever takes it sees what every connection of this process says, in plain.

The lab's tap sits here. The seat is empty unless somebody asked; an empty one costs a comparison for each read and
write. An onlooker must neither block nor raise, and is called from the loop's thread and from those of lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from towline.base.errors import TowlineError
from towline.protocol.codec import Buffer, Header
from towline.protocol.table import Kind

if TYPE_CHECKING:
    from towline.runtime.pump import Connection


class Watcher(Protocol):
    """What an onlooker is told. `ours`: this process sent it."""

    def on_bytes(self, connection: Connection, ours: bool, buffers: Sequence[Buffer]) -> None:
        """Plain bytes of a connection, in order."""

    def on_lane_frame(self, lane: object, ours: bool, kind: Kind, header: Header | None, size: int) -> None:
        """A frame of a lane, with the size of its body."""

    def on_over(self, connection: Connection, error: TowlineError | None) -> None:
        """The connection has ended, or was lost."""


watcher: Watcher | None = None


def watch(who: Watcher | None) -> None:
    """Take the seat, or leave it with None."""
    global watcher
    watcher = who
