"""Who may stand at the door: admission of connections that have not proved anything yet.

A stranger costs us a socket and a few KiB until an absolute deadline (the session's). When too many stand there, the
one that has been silent longest goes first, so that a crowd of silent connections never shuts out a real client.
"""

from __future__ import annotations

from collections import OrderedDict

from towline.base.errors import Busy
from towline.base.limits import Limit
from towline.runtime.pump import Connection

UNPROVED_PER_HOST = Limit("unproved_per_host", 1024, "connections", "one address must not fill the hall")
UNPROVED = Limit("unproved", 4096, "connections", "strangers cost a few KiB each until their deadline")
CONNECTIONS = Limit("connections", 20_000, "connections", "each proved connection may open streams and windows")


class Admission:
    """The connections of one node, proved or not."""

    def __init__(self) -> None:
        self._unproved: OrderedDict[Connection, str] = OrderedDict()
        self._per_host: dict[str, int] = {}
        self.proved: set[Connection] = set()

    def arrive(self, connection: Connection) -> None:
        """A new connection; may push out the oldest silent one."""
        host = connection.peer.host
        if self._per_host.get(host, 0) >= UNPROVED_PER_HOST.value:
            self._evict(host)
        elif len(self._unproved) >= UNPROVED.value:
            self._evict(None)
        self._unproved[connection] = host
        self._per_host[host] = self._per_host.get(host, 0) + 1

    def prove(self, connection: Connection) -> None:
        """It has proved who it is. Raises Busy when the house is full."""
        if len(self.proved) >= CONNECTIONS.value:
            raise Busy(f"Limit connections is {CONNECTIONS.value}; the node has that many.", retry_after=30.0)
        self._leave_hall(connection)
        self.proved.add(connection)

    def leave(self, connection: Connection) -> None:
        """It is gone, or has become a lane."""
        self._leave_hall(connection)
        self.proved.discard(connection)

    def everyone(self) -> list[Connection]:
        return [*self._unproved, *self.proved]

    def _leave_hall(self, connection: Connection) -> None:
        host = self._unproved.pop(connection, None)
        if host is not None:
            self._per_host[host] -= 1
            if not self._per_host[host]:
                del self._per_host[host]

    def _evict(self, host: str | None) -> None:
        oldest = next(each for each, at in self._unproved.items() if host is None or at == host)
        self._leave_hall(oldest)
        oldest.close(Busy(retry_after=1.0))
        oldest.abort()
