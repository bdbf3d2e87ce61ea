"""rsync's own daemon: plain TCP, no encryption; its whole-file checksum is verified by the receiver."""

from __future__ import annotations

import os

from bench.machine import version_of
from bench.peers.base import HOST, Peer, free_port, wait_for_port, write


class Rsync(Peer):
    """Modules `src` (read-only) and `dst`."""

    name = "rsync daemon"
    programs = ("rsync",)

    def start(self) -> None:
        self.port = free_port()
        owner = f"uid = {os.geteuid()}\ngid = {os.getegid()}\n"
        config = write(
            os.path.join(self.folder, "rsyncd.conf"),
            f"use chroot = no\n{owner}log file = /dev/null\nmax connections = 200\n"
            f"[src]\npath = {self.bench.path('source')}\nread only = yes\n"
            f"[dst]\npath = {self.bench.path('target')}\nread only = no\n",
        )
        argv = ["rsync", "--daemon", "--no-detach", f"--config={config}", f"--port={self.port}", f"--address={HOST}"]
        self._daemon = self.bench.processes.start(argv)
        self.pid = self._daemon.pid
        wait_for_port(self.port, self._daemon)

    def stop(self) -> None:
        self.bench.processes.stop(self._daemon)

    def version(self) -> str:
        return version_of(["rsync", "--version"])

    def command(self, source: str, target: str) -> list[str]:
        """`src/…` and `dst/…` are the daemon's; whole files, as all others send them."""
        return ["rsync", "-rt", "--whole-file", "--inplace", self._place(source), self._place(target)]

    def _place(self, path: str) -> str:
        return path if path.startswith("/") else f"rsync://{HOST}:{self.port}/{path}"
