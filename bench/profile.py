"""Where the time goes: py-spy beside the node and the client while one work is repeated.

`python -m bench profile get|put|roundtrips|pipeline [--seconds N]` prints the functions in which each side spends its
time, native code included, with the share of all samples of all threads that run.
"""

from __future__ import annotations

import collections
import os
import re
import shutil
import sys
import time

from bench.harness import Bench, Scale, remove, tell
from bench.peers.base import Helper
from bench.peers.towline import Towline, TowlineServices
from bench.works.space import BIG, big_file

WORKS = ("get", "put", "roundtrips", "pipeline")
SHOWN = 16
_NAMELESS = re.compile(r"0x[0-9a-f]+")  # most of libc's are copies and waits for the interpreter lock
_LEFT_OUT = ("_worker (concurrent", "epoll_pwait", "[idle]")


def run(what: str, seconds: float) -> int:
    """Profile one work; the tables go to standard output as Markdown."""
    spy = shutil.which("py-spy", path=os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", ""))
    if spy is None:
        tell("py-spy is not installed: python -m pip install py-spy")
        return 1
    bench = Bench(Scale(quick=True, rounds=1), tell)
    try:
        towline = bench.peer(TowlineServices if what in {"roundtrips", "pipeline"} else Towline)
        assert towline is not None
        helper = towline.client()
        helper.ask(do="hello")
        big_file(bench)
        _once(bench, helper, what)
        spies = {
            name: bench.processes.start(
                [
                    spy,
                    "record",
                    "--native",
                    "-r",
                    "200",
                    "-d",
                    str(round(seconds)),
                    "-f",
                    "raw",
                    "-o",
                    bench.path(name),
                    "-p",
                    str(pid),
                ]
            )
            for name, pid in (("node", towline.pid), ("client", helper.process.pid))
        }
        end = time.monotonic() + seconds + 1
        while time.monotonic() < end:
            _once(bench, helper, what)
        for name, process in spies.items():
            process.wait()
            print(_table(f"{what}, {name}", bench.path(name)))
    finally:
        bench.close()
    return 0


def _once(bench: Bench, helper: Helper, what: str) -> None:
    target = bench.path("target", "new")
    if what == "get":
        helper.ask(do="gets", jobs=[[f"src/{BIG}", target]])
        remove(target)
    elif what == "put":
        helper.ask(do="put", source=bench.path("source", BIG), remote="dst/new")
        remove(target)
    else:
        helper.ask(do=what, count=2000 if what == "roundtrips" else 50_000)


def _table(title: str, path: str) -> str:
    own: collections.Counter[str] = collections.Counter()
    below: collections.Counter[str] = collections.Counter()
    total = 0
    with open(path) as file:
        for line in file:
            stack, _, count = line.rpartition(" ")
            frames = [_NAMELESS.sub("no symbol in", frame.rsplit(":", 1)[0]) for frame in stack.split(";")]
            if any(word in frames[-1] for word in _LEFT_OUT):
                continue
            total += int(count)
            own[frames[-1]] += int(count)
            for frame in set(frames):
                below[frame] += int(count)
    ours = [(name, count) for name, count in below.most_common() if "(towline/" in name]
    lines = [f"**{title}**: {total} samples that were not idle", "", "| own | function | with all below | of ours |",
             "|--:|---|--:|---|"]  # fmt: skip
    for (name, count), (mine, under) in zip(own.most_common(SHOWN), ours[:SHOWN], strict=False):
        lines.append(f"| {count / total:.1%} | `{name}` | {under / total:.1%} | `{mine}` |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """`python -m bench profile WHAT…`."""
    seconds = 4.0
    if "--seconds" in arguments:
        at = arguments.index("--seconds")
        seconds = float(arguments[at + 1])
        arguments = arguments[:at] + arguments[at + 2 :]
    unknown = [word for word in arguments if word not in WORKS]
    if unknown:
        tell(f"there is no profile of {unknown[0]!r}; there are {', '.join(WORKS)}")
        return 2
    return max(run(what, seconds) for what in arguments or WORKS)
