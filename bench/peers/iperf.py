"""iperf3: what TCP over loopback moves when nobody reads a file, encrypts or checks."""

from __future__ import annotations

import json
import time

from bench.machine import version_of
from bench.peers.base import HOST, Peer, free_port
from bench.processes import Failed


class Iperf(Peer):
    """`rate` is one run in MB/s."""

    name = "iperf3"
    programs = ("iperf3",)

    def start(self) -> None:
        self.port = free_port()
        self._server = self.bench.processes.start(["iperf3", "-s", "-B", HOST, "-p", str(self.port)])
        for _ in range(50):  # asking whether the port is open would be taken for a broken client
            try:
                self.rate(1 << 20)
                return
            except Failed:
                time.sleep(0.05)
        raise Failed("iperf3 does not answer")

    def stop(self) -> None:
        self.bench.processes.stop(self._server)

    def version(self) -> str:
        return version_of(["iperf3", "--version"])

    def rate(self, size: int) -> float:
        argv = ["iperf3", "-c", HOST, "-p", str(self.port), "-n", str(size), "-J"]
        done = self.bench.processes.run(argv, output=True)
        told = json.loads(done.output)
        if "error" in told:
            raise Failed(str(told["error"]))
        return float(told["end"]["sum_received"]["bits_per_second"]) / 8e6
