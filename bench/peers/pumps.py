"""The bare pumps as peers; `pump.py` (files) and `outpump.py` (a command's output) are what runs."""

from __future__ import annotations

import os
import platform
import ssl
import sys

from bench.peers import outpump, pump
from bench.peers.base import HOST, Peer, free_port, wait_for_port


class Pump(Peer):
    """`command` is one transfer."""

    name = "bare TLS pump"
    programs = ("openssl",)
    script = pump.__file__

    def start(self) -> None:
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        self._key, self._certificate = (os.path.join(self.folder, name) for name in ("key.pem", "certificate.pem"))
        argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                "2", "-subj", "/CN=peer", "-addext", f"subjectAltName=IP:{HOST}", "-keyout", self._key, "-out",
                self._certificate]  # fmt: skip
        self.bench.processes.run(argv)
        self.port = free_port()
        self._server = self.bench.processes.start(self._script())
        self.pid = self._server.pid
        wait_for_port(self.port, self._server)

    def stop(self) -> None:
        self.bench.processes.stop(self._server)

    def version(self) -> str:
        return f"Python {platform.python_version()}, {ssl.OPENSSL_VERSION}"

    def command(self, verb: str, source: str, target: str, *, hashed: bool = False) -> list[str]:
        return [*self._script(), verb, "hashed" if hashed else "plain", source, target]

    def _script(self) -> list[str]:
        return [sys.executable, os.path.abspath(self.script), self._certificate, self._key, str(self.port)]


class OutputPump(Pump):
    """`printing` is one command whose output is moved; `how` it is kept: `plain` (not at all), `kept`, `apart`."""

    name = "bare output pump"
    script = outpump.__file__

    def printing(self, words: list[str], how: str) -> list[str]:
        return [*self._script(), how, self.folder, *words]
