"""The websockets library over plain TCP, no compression; uvloop on both sides, as Towline has it."""

from __future__ import annotations

from bench.machine import package_version
from bench.peers.base import Helper, Peer


class WebSockets(Peer):
    """`client()` is a helper process that answers `roundtrips` and `pipeline`."""

    name = "websockets (plain)"
    modules = ("websockets", "uvloop")

    def start(self) -> None:
        self._server = Helper(self.bench, "bench.peers.websockets_end", "serve")
        self._port = self._server.answer()["port"]

    def stop(self) -> None:
        self._server.close()

    def version(self) -> str:
        return package_version("websockets")

    def client(self) -> Helper:
        return Helper(self.bench, "bench.peers.websockets_end", str(self._port))
