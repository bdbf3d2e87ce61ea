"""1 GiB and 10,000 × 4 KiB, get and put: whole commands, from their start to their end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

from bench.harness import HIGHER, Bench, Case, Contender, Sample, remove
from bench.peers.asyncssh import AsyncSSH
from bench.peers.base import Peer
from bench.peers.nginx import Nginx
from bench.peers.openssh import OpenSSH
from bench.peers.pumps import Pump
from bench.peers.rsync import Rsync
from bench.peers.towline import Towline
from bench.processes import Failed, cpu_seconds, descendants, resident_kib
from bench.works.space import BIG, TREE, big_file, same_bytes, small_tree, touch_memory

SUMMARY = "1 GiB and 10,000 × 4 KiB, get and put, /dev/shm to /dev/shm"
BLAKE3 = "BLAKE3 of each file, by both ends; fsync, rename"
MAC = "nobody beyond the cipher's own tag"
CHECKSUM = "whole-file checksum, by the receiver (no encryption)"

# seconds, processor seconds and largest resident set (KiB) of the client, and what else was told
Outcome = tuple[float, float, int, dict[str, float]]


def run(bench: Bench) -> None:
    os.makedirs(bench.path("target"), exist_ok=True)
    big, tree = big_file(bench), small_tree(bench)
    touch_memory(bench, 2 * bench.scale.bulk)
    for verb in ("get", "put"):
        _large(bench, verb, big)
    for verb in ("get", "put"):
        _small(bench, verb, tree)


def _large(bench: Bench, verb: str, big: str) -> None:
    size = os.path.getsize(big) / 1e6
    target = bench.path("target", "new")
    work = Transfer(bench, big, target, size)
    contenders = []
    if towline := bench.peer(Towline):
        contenders.append(work.contender("towline", towline, towline_command(towline, verb, BIG, target), BLAKE3))
    if ssh := bench.peer(OpenSSH):
        ends = (f"peer:{big}", target) if verb == "get" else (big, f"peer:{target}")
        contenders.append(work.contender("scp (aes128-gcm)", ssh, ssh.scp(*ends), MAC))
    if (nginx := bench.peer(Nginx)) and verb == "get":
        contenders.append(work.contender("nginx https + curl", nginx, nginx.get(BIG, target), MAC))
    if asyncssh := bench.peer(AsyncSSH):
        contenders.append(work.contender("asyncssh", asyncssh, asyncssh.command(verb, big, target), MAC))
    if rsync := bench.peer(Rsync):
        ends = (f"src/{BIG}", target) if verb == "get" else (big, "dst/new")
        contenders.append(work.contender("rsync daemon (plain)", rsync, rsync.command(*ends), CHECKSUM))
    if pump := bench.peer(Pump):
        plain, hashed = (pump.command(verb, big, target, hashed=on) for on in (False, True))
        contenders.append(work.contender("bare TLS pump", pump, plain, MAC))
        contenders.append(work.contender("bare TLS pump + BLAKE3", pump, hashed, "BLAKE3, by both ends"))
    name = "64 MiB" if bench.scale.quick else "1 GiB"
    bench.measure(Case("files", f"{name} {verb}", "MB/s", HIGHER, contenders, key=f"large {verb}"))


def _small(bench: Bench, verb: str, tree: str) -> None:
    target = bench.path("target", "new")
    work = Transfer(bench, tree, target, bench.scale.files)
    contenders = []
    if towline := bench.peer(Towline):
        contenders.append(work.contender("towline", towline, towline_command(towline, verb, TREE, target), BLAKE3))
    if ssh := bench.peer(OpenSSH):
        ends = (f"peer:{tree}", target) if verb == "get" else (tree, f"peer:{target}")
        contenders.append(work.contender("scp -r (aes128-gcm)", ssh, ssh.scp("-r", *ends), MAC))
        contenders.append(work.contender("tar through ssh", ssh, _tar(ssh, verb, tree, target), MAC))
    if rsync := bench.peer(Rsync):
        ends = (f"src/{TREE}/", target + "/") if verb == "get" else (tree + "/", "dst/new/")
        contenders.append(work.contender("rsync daemon (plain)", rsync, rsync.command(*ends), CHECKSUM))
    bench.measure(
        Case("files", f"{bench.scale.files:,} × 4 KiB {verb}", "files/s", HIGHER, contenders, key=f"small {verb}")
    )


def towline_command(towline: Towline, verb: str, name: str, target: str) -> Callable[[], Outcome]:
    """`tow get` or `tow put` with events, so that the transfer's own seconds are known beside the command's."""
    remote = f"{towline.alias}:src/{name}" if verb == "get" else f"{towline.alias}:dst/{os.path.basename(target)}"
    ends = (remote, target) if verb == "get" else (towline.bench.path("source", name), remote)

    def command() -> Outcome:
        done = towline.tow(verb, "--json", *ends)
        told = json.loads(done.output.strip().split(b"\n")[-1])
        return done.seconds, done.cpu, done.resident, {"inside s": float(told["seconds"])}

    return command


class Transfer:
    """One transfer as a contender does it: a new target each time, checked once for every contender."""

    def __init__(self, bench: Bench, source: str, target: str, amount: float) -> None:
        self._bench = bench
        self._source = source
        self._target = target
        self._amount = amount
        self._checked: set[str] = set()

    def contender(
        self, name: str, peer: Peer, command: list[str] | Callable[[], Outcome], verifies: str
    ) -> Contender:
        return Contender(name, lambda: self._once(name, peer, command), verifies, lambda: remove(self._target))

    def _once(self, name: str, peer: Peer, command: list[str] | Callable[[], Outcome]) -> Sample:
        pid: int = peer.pid  # type: ignore[attr-defined]
        before, children = cpu_seconds(pid), len(descendants(pid))
        if callable(command):
            seconds, client_cpu, resident, extras = command()
        else:
            done = self._bench.processes.run(command)
            seconds, client_cpu, resident, extras = done.seconds, done.cpu, done.resident, {}
        deadline = time.monotonic() + 1
        while len(descendants(pid)) > children and time.monotonic() < deadline:
            time.sleep(0.01)  # a server's child that has not been reaped yet would not be counted
        server_cpu = cpu_seconds(pid) - before
        if name not in self._checked:
            self._checked.add(name)
            if not same_bytes(self._source, self._target):
                raise Failed("the target differs from the source")
        extras = {"server CPU s": server_cpu, "client CPU s": client_cpu, **extras}
        if callable(command):
            extras["client MiB"] = resident / 1024
            extras["node MiB"] = resident_kib(pid, "VmHWM") / 1024
        return Sample(self._amount / seconds, extras)


def _tar(ssh: OpenSSH, verb: str, tree: str, target: str) -> list[str]:
    far = " ".join(ssh.ssh("peer"))
    if verb == "get":
        script = f"mkdir {target} && {far} 'tar cf - -C {tree} .' | tar xf - -C {target}"
    else:
        script = f"tar cf - -C {tree} . | {far} 'mkdir {target} && tar xf - -C {target}'"
    return ["sh", "-c", script]
