"""Towline itself: a node by `tow serve`, a joined client, and a helper that uses the Python API."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from bench.harness import NotThereYet
from bench.peers.base import ROOT, Helper, Peer
from bench.processes import Failed, Finished, descendants, words_of

GRANTS = ("chat,read,write,run", "chat,read,write")


def tow_command() -> list[str]:
    """`tow` of the environment that runs the bench, else the module."""
    script = os.path.join(os.path.dirname(sys.executable), "tow")
    return [script] if os.path.exists(script) else [sys.executable, "-m", "towline.cli.main"]


class Towline(Peer):
    """A node with two shares: `src` (read-only) and `dst`, both in the run's folder."""

    name = "towline"
    alias = "home"

    def start(self) -> None:
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("TOWLINE")}
        self.env["TOWLINE_HOME"] = os.path.join(self.folder, "client")
        self.data = os.path.join(self.folder, "node")
        os.makedirs(self.folder, exist_ok=True)
        for share in ("source", "target"):
            os.makedirs(self.bench.path(share), exist_ok=True)
        self.serving = self._serve()
        self.pid = self.serving.pid
        self.address = self._first_line()
        code = self._invite("bench")
        self.bench.processes.run([*tow_command(), "join", "-", "--as", self.alias], env=self.env, stdin=code)

    def _serve(self) -> subprocess.Popen[bytes]:
        shares = ["--share", f"src={self.bench.path('source')}:ro", "--share", f"dst={self.bench.path('target')}"]
        return self.bench.processes.start(
            [*tow_command(), "serve", "--json", "--data", self.data, "--listen", "127.0.0.1:0", *shares],
            env=self.env,
            stdout=subprocess.PIPE,
        )

    def _first_line(self) -> str:
        assert self.serving.stdout is not None
        line = self.serving.stdout.readline()
        if not line:
            raise Failed("the node did not start")
        said = json.loads(line)
        self.unix = str(said.get("unix", ""))
        return str(said["address"])

    def _invite(self, name: str) -> bytes:
        for grants in GRANTS:
            try:
                return self.tow("invite", name, "--data", self.data, "--can", grants).output
            except Failed:
                if grants == GRANTS[-1]:
                    raise
        raise AssertionError

    def stop(self) -> None:
        self.bench.processes.stop(self.serving)

    def tow(self, *arguments: str, stdin: bytes = b"", output: bool = True, timeout: float = 300.0) -> Finished:
        """Run the command line client."""
        return self.bench.processes.run(
            [*tow_command(), *arguments], env=self.env, output=output, stdin=stdin, timeout=timeout
        )

    def keepers(self) -> list[int]:
        """The process that holds the jobs; it is nobody's child, so it comes to whoever runs the bench."""
        folder = os.path.join(self.data, "jobs").encode()
        return [pid for pid in descendants(os.getpid()) if folder in words_of(pid)]

    def needs_verb(self, verb: str) -> None:
        """Raise NotThereYet when this Towline has no such verb."""
        from towline.cli.main import VERBS

        if verb not in VERBS:
            raise NotThereYet(f"tow {verb}")

    def client(self, person: str = "") -> Helper:
        """A process with an open line; of another person than the usual one when a name is given."""
        env = self.env | {"PYTHONPATH": path()}
        if person:
            env["TOWLINE_HOME"] = os.path.join(self.folder, f"client-{person}")
            code = self._invite(person)
            self.bench.processes.run([*tow_command(), "join", "-", "--as", self.alias], env=env, stdin=code)
        return Helper(self.bench, "bench.peers.towline_client", self.alias, env=env)

    def version(self) -> str:
        from towline import __version__

        return __version__


class TowlineOnDisk(Towline):
    """A node whose data is on a real disk, where an fsync costs something."""

    name = "towline on disk"

    def start(self) -> None:
        self.folder = self.bench.on_disk(self.name.replace(" ", "-"))
        super().start()


class TowlineServices(Towline):
    """A node of our own making (`towline.Node` with `@node.service`), for messages."""

    name = "towline services"

    def _serve(self) -> subprocess.Popen[bytes]:
        return self.bench.processes.start(
            [sys.executable, "-m", "bench.peers.towline_node", self.data],
            cwd=ROOT, env=self.env | {"PYTHONPATH": path()}, stdout=subprocess.PIPE,
        )  # fmt: skip


def path() -> str:
    return os.pathsep.join(entry for entry in sys.path if entry)
