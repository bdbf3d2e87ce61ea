"""Many clients at once: 1, 4, 16 and 64 downloads of 1 GiB together; total rate, fairness, the node's CPU."""

from __future__ import annotations

import os
import statistics
import threading
import time
from functools import partial

from bench.harness import HIGHER, Bench, Case, Contender, Sample, remove
from bench.peers.base import Helper
from bench.peers.nginx import Nginx
from bench.peers.towline import Towline
from bench.processes import Failed, cpu_seconds
from bench.works.space import big_file, touch_memory

SUMMARY = "1, 4, 16, 64 clients downloading at once: total rate, fairness, node CPU per GB"
CLIENTS = (1, 4, 16, 64)
PROCESSES = 4  # that hold the clients


def run(bench: Bench) -> None:
    os.makedirs(bench.path("target"), exist_ok=True)
    touch_memory(bench, 2 * bench.scale.bulk)
    towline, nginx = bench.peer(Towline), bench.peer(Nginx)
    for clients in CLIENTS:
        _clients(bench, clients, towline, nginx)


def _clients(bench: Bench, clients: int, towline: Towline | None, nginx: Nginx | None) -> None:
    size = bench.scale.bulk // clients
    name = f"part-{clients}"
    big_file(bench, name, size)
    contenders: list[Contender] = []
    helpers: list[Helper] = []

    def clean() -> None:
        for each in os.listdir(bench.path("target")):
            remove(bench.path("target", each))

    if towline:
        helpers = [towline.client() for _ in range(min(PROCESSES, clients))]
        for number, helper in enumerate(helpers):
            helper.ask(do="idle", count=len(range(number, clients, len(helpers))))
        work = partial(_towline, bench, towline, helpers, clients, name, size)
        contenders.append(Contender("towline", work, "BLAKE3 of each file, by both ends", clean))
    if nginx:
        work = partial(_curl, bench, nginx, clients, name, size)
        contenders.append(Contender("nginx https + curl", work, "nobody beyond the cipher's own tag", clean))
    note = "towline: connected clients in up to 4 processes; curl: a process for each, its start included"
    bench.measure(Case("scale", f"{clients} at once", "MB/s", HIGHER, contenders, note))
    for helper in helpers:
        helper.close()
    remove(bench.path("source", name))


def _towline(bench: Bench, towline: Towline, helpers: list[Helper], clients: int, name: str, size: int) -> Sample:
    jobs = [[f"src/{name}", bench.path("target", str(number))] for number in range(clients)]
    before, begun = cpu_seconds(towline.pid), time.perf_counter()
    answers: list[list[float]] = []
    problems: list[Exception] = []

    def ask(helper: Helper, part: list[list[str]]) -> None:
        try:
            answers.append(helper.ask(do="gets", jobs=part)["seconds"])
        except Exception as error:
            problems.append(error)

    threads = [
        threading.Thread(target=ask, args=(helper, jobs[number :: len(helpers)]))
        for number, helper in enumerate(helpers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise Failed(str(problems[0]))
    seconds = time.perf_counter() - begun
    extras = _fairness([each for part in answers for each in part])
    extras["node CPU s/GB"] = (cpu_seconds(towline.pid) - before) / (size * clients / 1e9)
    return Sample(size * clients / 1e6 / seconds, extras)


def _curl(bench: Bench, nginx: Nginx, clients: int, name: str, size: int) -> Sample:
    before, begun = cpu_seconds(nginx.pid), time.perf_counter()
    started = [bench.processes.start(nginx.get(name, bench.path("target", str(number)))) for number in range(clients)]
    ends: list[float] = []
    for process in started:
        if process.wait():
            raise Failed(f"curl ended with {process.returncode}")
        ends.append(os.stat(bench.path("target", str(started.index(process)))).st_mtime)
    seconds = time.perf_counter() - begun
    first = time.time() - seconds
    for process in started:
        bench.processes.stop(process)
    extras = _fairness([end - first for end in ends])
    extras["node CPU s/GB"] = (cpu_seconds(nginx.pid) - before) / (size * clients / 1e9)
    return Sample(size * clients / 1e6 / seconds, extras)


def _fairness(seconds: list[float]) -> dict[str, float]:
    """The slowest and the fastest client's rate, as parts of the mean rate."""
    rates = [1 / max(each, 1e-6) for each in seconds]
    mean = statistics.mean(rates)
    return {"slowest / mean": min(rates) / mean, "fastest / mean": max(rates) / mean}
