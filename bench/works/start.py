"""How soon a command is there: `tow --version`, `tow ls` on a live node, and where the imports go."""

from __future__ import annotations

import re
import sys

from bench.harness import LOWER, Bench, Case, Contender, Sample
from bench.peers.openssh import OpenSSH
from bench.peers.towline import Towline

SUMMARY = "start-up of the command, and which imports it is made of"
SHOWN = 12  # imports in the breakdown


def run(bench: Bench) -> None:
    python = Contender("python -c pass", lambda: _milliseconds(bench, [sys.executable, "-c", "pass"]))
    isolated = Contender("python -I -S -c pass", lambda: _milliseconds(bench, [sys.executable, "-ISc", "pass"]))
    towline, ssh = bench.peer(Towline), bench.peer(OpenSSH)
    if towline is None:
        return
    version = [Contender("towline", lambda: Sample(towline.tow("--version").seconds * 1000)), python, isolated]
    if ssh:
        version.append(Contender("ssh -V", lambda: _milliseconds(bench, ["ssh", "-V"])))
    bench.measure(Case("start", "tow --version", "ms", LOWER, version, key="version"))
    listing = [Contender("towline", lambda: Sample(towline.tow("ls", f"{towline.alias}:").seconds * 1000))]
    if ssh:
        listing.append(Contender("ssh peer ls", lambda: _milliseconds(bench, ssh.ssh("peer", "ls"))))
    bench.measure(Case("start", "tow ls, live node", "ms", LOWER, listing, key="ls"))
    for verb, arguments in (("ls", ["ls", f"{towline.alias}:"]), ("--version", ["--version"])):
        bench.details[f"imports of tow {verb}"] = _imports(bench, towline, arguments)


def _milliseconds(bench: Bench, argv: list[str]) -> Sample:
    return Sample(bench.processes.run(argv).seconds * 1000)


def _imports(bench: Bench, towline: Towline, arguments: list[str]) -> list[tuple[str, float]]:
    """(module, own milliseconds) of the costliest packages, by `python -X importtime` (its own cost included)."""
    script = f"{sys.executable} -X importtime -m towline.cli.main {' '.join(arguments)} 2>&1 >/dev/null"
    done = bench.processes.run(["sh", "-c", script], env=towline.env, output=True)
    packages: dict[str, float] = {}
    for match in re.finditer(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", done.output.decode()):
        name = match[2].split(".")[0]
        packages[name] = packages.get(name, 0.0) + int(match[1]) / 1000
    costly = sorted(packages.items(), key=lambda item: -item[1])[:SHOWN]
    bench.say(f"    imports of tow {arguments[0]}: " + ", ".join(f"{name} {cost:.1f} ms" for name, cost in costly))
    return costly
