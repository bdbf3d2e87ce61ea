"""1 GiB through a proxy that cuts everything about every 20 MiB: goodput, what is sent again, how soon it goes on."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import threading
import time
from typing import Any

from bench.harness import HIGHER, LOWER, Bench, Case, Contender, Sample, remove
from bench.peers.towline import Towline, tow_command
from bench.processes import Failed
from bench.works.space import BIG, big_file, same_bytes, touch_memory

SUMMARY = "goodput with a cut every 20 MiB, what is re-sent, time from a cut to the first new byte"
EVERY = "20MiB"


def run(bench: Bench) -> None:
    towline = bench.peer(Towline)
    if towline is None:
        return
    os.makedirs(bench.path("target"), exist_ok=True)
    big_file(bench)
    touch_memory(bench, bench.scale.bulk)
    seen: dict[bool, list[dict[str, float]]] = {True: [], False: []}  # with cuts, without
    target = bench.path("target", "cut")

    def once(every: str | None) -> Sample:
        extras = _download(bench, towline, every, target)
        seen[every is not None].append(extras)
        return Sample(extras.pop("MB/s"), extras)

    def clean() -> None:
        for name in os.listdir(bench.path("target")):
            remove(bench.path("target", name))

    contenders = [
        Contender("towline", lambda: once(EVERY), "BLAKE3, by both ends", clean),
        Contender("towline, no cuts, same proxy", lambda: once(None), "BLAKE3, by both ends", clean),
    ]
    size = "64 MiB" if bench.scale.quick else "1 GiB"
    note = "`beyond the file`: all bytes towards the client, those of TLS and frames, too, less the file's"
    bench.measure(Case("cuts", f"{size}, a cut every 20 MiB", "MB/s", HIGHER, contenders, note, key="goodput"))
    _derived(bench, "resent %", "bytes sent again: on the wire, beyond those without cuts", "%", [
        max(with_cuts["beyond the file %"] - without["beyond the file %"], 0.0)
        for with_cuts, without in zip(seen[True], seen[False], strict=False)
    ])  # fmt: skip
    waits = [extras["cut to first byte ms"] for extras in seen[True] if "cut to first byte ms" in extras]
    _derived(bench, "cut to first byte ms", "from a cut to the first new byte, the worst of each round", "ms", waits)


def _derived(bench: Bench, key: str, title: str, unit: str, values: list[float]) -> None:
    """A row from what was seen on the way; `values` begins with the warm-up's."""
    if len(values) > 1:
        turns = iter(values)
        contender = Contender("towline", lambda: Sample(next(turns)))
        bench.measure(Case("cuts", title, unit, LOWER, [contender], rounds=len(values) - 1, key=key))


def _download(bench: Bench, towline: Towline, every: str | None, target: str) -> dict[str, float]:
    proxy = _Proxy(bench, towline, every)
    try:
        towline.tow("nodes", "set", towline.alias, "--address", proxy.address)
        begun = time.monotonic()
        done = towline.tow("get", "--json", f"{towline.alias}:src/{BIG}", target)
        told = [json.loads(line) for line in done.output.splitlines()]
        end = told[-1]
        if end["event"] != "done" or end["failed"]:
            raise Failed(f"the transfer did not end well: {end}")
        if not same_bytes(bench.path("source", BIG), target):
            raise Failed("the target differs from the source")
        extras = {
            "MB/s": end["bytes"] / 1e6 / done.seconds,
            "cuts": float(end["cuts"]),
            "resent %": 100 * end["resent_bytes"] / end["bytes"],
            "beyond the file %": 100 * proxy.finish() / end["bytes"] - 100,
        }
        waits = [wait for wait in proxy.waits if wait < time.monotonic() - begun]
        if waits:
            extras |= {"cut to first byte ms": 1000 * max(waits), "median ms": 1000 * statistics.median(waits)}
        return extras
    finally:
        proxy.close()
        towline.tow("nodes", "set", towline.alias, "--address", towline.address)


class _Proxy:
    """`tow lab faults` before the node. A relay of our own behind it would cost; so it is watched: the growth of the
    target's bytes on disk after each cut is the first new byte."""

    def __init__(self, bench: Bench, towline: Towline, every: str | None) -> None:
        self._bench = bench
        cuts = ["--cut-every", every, "--seed", "7"] if every else []
        self._process = bench.processes.start(
            [*tow_command(), "lab", "faults", "--listen", "127.0.0.1:0", "--to", towline.address, *cuts, "--json"],
            env=towline.env, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.address = str(self._event()["address"])
        self.waits: list[float] = []
        self._down = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _event(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else {}

    def _watch(self) -> None:
        folder = self._bench.path("target")
        while event := self._event():
            if event["event"] == "cut":
                self._await_growth(folder, time.monotonic())
            elif event["event"] == "done":
                self._down = int(event["bytes_down"])

    def _await_growth(self, folder: str, cut: float) -> None:
        """Data in flight at the cut still lands for a few milliseconds; that does not count as new."""
        time.sleep(0.01)
        held = _held(folder)
        while time.monotonic() - cut < 5:
            if _held(folder) > held:
                self.waits.append(time.monotonic() - cut)
                return
            time.sleep(0.002)

    def finish(self) -> int:
        """End it; the bytes that went towards the client, TLS and frames included."""
        self._process.terminate()
        self._thread.join(5)
        return self._down

    def close(self) -> None:
        self.finish()
        self._bench.processes.stop(self._process)


def _held(folder: str) -> int:
    """Bytes on disk below the target folder."""
    total = 0
    for name in os.listdir(folder):
        try:
            total += os.stat(os.path.join(folder, name)).st_blocks
        except FileNotFoundError:
            pass  # it was published under its own name meanwhile
    return total
