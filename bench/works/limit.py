"""How close to the machine: the bare pump, plain TCP, and a local copy beside Towline's get."""

from __future__ import annotations

import os

from bench.harness import HIGHER, Bench, Case, Contender, Sample, remove
from bench.peers.iperf import Iperf
from bench.peers.pumps import Pump
from bench.peers.towline import Towline
from bench.works.files import BLAKE3, MAC, Transfer, towline_command
from bench.works.space import BIG, big_file, touch_memory

SUMMARY = "the raw pump, iperf3 and cp: how close Towline is to what the machine can do"


def run(bench: Bench) -> None:
    os.makedirs(bench.path("target"), exist_ok=True)
    big, target = big_file(bench), bench.path("target", "new")
    touch_memory(bench, 2 * bench.scale.bulk)
    size = os.path.getsize(big)
    work = Transfer(bench, big, target, size / 1e6)
    contenders = []
    if towline := bench.peer(Towline):
        contenders.append(work.contender("towline", towline, towline_command(towline, "get", BIG, target), BLAKE3))
    if pump := bench.peer(Pump):
        contenders.append(work.contender("bare TLS pump", pump, pump.command("get", big, target), MAC))
    if iperf := bench.peer(Iperf):
        contenders.append(Contender("iperf3 (plain TCP, no file)", lambda: Sample(iperf.rate(size)), "nobody"))

    def copy() -> Sample:
        return Sample(size / 1e6 / bench.processes.run(["cp", big, target]).seconds)

    def remove_target() -> None:
        remove(target)

    contenders.append(Contender("cp (no network)", copy, "nobody", remove_target))
    contenders.append(Contender("b3sum in Python (read and hash)", lambda: _hash(bench, big), "BLAKE3"))
    bench.measure(
        Case("limit", "1 GiB" if not bench.scale.quick else "64 MiB", "MB/s", HIGHER, contenders, key="limit")
    )


def _hash(bench: Bench, path: str) -> Sample:
    """What BLAKE3 on one core costs, in this process."""
    import time

    from blake3 import blake3

    begun = time.perf_counter()
    digest = blake3()
    with open(path, "rb", buffering=0) as file:
        buffer = memoryview(bytearray(1 << 18))
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    digest.digest()
    return Sample(os.path.getsize(path) / 1e6 / (time.perf_counter() - begun))
