"""asyncssh: an SFTP server and client in Python, each a process of its own.

As a module it is the client's command (`get SOURCE TARGET PORT FOLDER`, `put …`) and the server (`serve FOLDER`).
"""

from __future__ import annotations

import os
import subprocess
import sys

from bench.machine import package_version
from bench.peers.base import ROOT, Peer, free_port, wait_for_port


class AsyncSSH(Peer):
    """`command` is one transfer."""

    name = "asyncssh"
    modules = ("asyncssh",)

    def start(self) -> None:
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        self.port = free_port()
        self._server = self.bench.processes.start(
            [*self._module("serve"), self.folder, str(self.port)], cwd=ROOT, stderr=subprocess.DEVNULL
        )
        self.pid = self._server.pid
        wait_for_port(self.port, self._server)

    def stop(self) -> None:
        self.bench.processes.stop(self._server)

    def version(self) -> str:
        return package_version("asyncssh")

    def command(self, verb: str, source: str, target: str) -> list[str]:
        return [*self._module(verb), self.folder, str(self.port), source, target]

    def live(self) -> subprocess.Popen[bytes]:
        """A process with a connection that is up: `[COMMAND, TIMES]` on a line in, seconds on a line out."""
        return self.bench.processes.start(
            [*self._module("live"), self.folder, str(self.port)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def _module(self, verb: str) -> list[str]:
        return [sys.executable, os.path.join(ROOT, "bench", "peers", "asyncssh_end.py"), verb]
