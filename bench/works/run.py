"""Commands: over a connection that is up, from a fresh start, and a command that prints much."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import IO

from bench.harness import HIGHER, LOWER, MIB, Bench, Case, Contender, NotThereYet, Sample
from bench.peers.asyncssh import AsyncSSH
from bench.peers.base import Helper
from bench.peers.openssh import OpenSSH
from bench.peers.pumps import OutputPump
from bench.peers.towline import Towline, TowlineOnDisk, tow_command
from bench.processes import Failed, Finished, cpu_seconds, descendants, resident_kib
from bench.works.space import big_file, touch_memory

SUMMARY = "`true` on a live connection and from a fresh start; 1 GiB of output"
TRUE = ["/bin/true"]


def run(bench: Bench) -> None:
    towline, on_disk, ssh = bench.peer(Towline), bench.peer(TowlineOnDisk), bench.peer(OpenSSH)
    _live(bench, towline, on_disk, ssh)
    _fresh(bench, towline, ssh)
    _output(bench, towline, on_disk, ssh)
    if towline:
        _stall(bench, towline)
        _many(bench, towline)


def _live(bench: Bench, towline: Towline | None, on_disk: Towline | None, ssh: OpenSSH | None) -> None:
    times = bench.scale.count(100)
    contenders, helpers = [], []
    for node, verifies in (
        (towline, "start and exit status kept by the node"),
        (on_disk, "the same, on a disk that is waited for"),
    ):
        if node:
            helper = node.client()
            helpers.append(helper)
            contenders.append(Contender(node.name, partial(_ask_live, helper, times), verifies))
    if ssh:
        shared = ssh.shared()
        bench.processes.run(ssh.ssh("peer", "true", config=shared))
        few = max(times // 5, 3)

        def over_master() -> Sample:
            begun = time.perf_counter()
            for _ in range(few):
                bench.processes.run(ssh.ssh("peer", "true", config=shared))
            return Sample((time.perf_counter() - begun) / few * 1000)

        contenders.append(Contender("ssh over a ControlMaster", over_master))

    if asyncssh := bench.peer(AsyncSSH):
        process = asyncssh.live()

        def over_asyncssh() -> Sample:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps([TRUE[0], times]).encode() + b"\n")
            process.stdin.flush()
            return Sample(float(process.stdout.readline()) / times * 1000)

        contenders.append(Contender("asyncssh", over_asyncssh))

    def local() -> Sample:
        begun = time.perf_counter()
        for _ in range(times):
            subprocess.run(TRUE, capture_output=True, check=True)
        return Sample((time.perf_counter() - begun) / times * 1000)

    contenders.append(Contender("local subprocess.run", local))
    bench.measure(Case("run", "true, live connection", "ms", LOWER, contenders, key="live"))
    for helper in helpers:
        helper.close()
    if asyncssh:
        bench.processes.stop(process)
    if ssh:
        bench.processes.run(ssh.ssh("-O", "exit", "peer", config=shared), ok=(0, 255))


def _ask_live(helper: Helper, times: int) -> Sample:
    answer = helper.ask(do="run", argv=TRUE, times=times)
    if "absent" in answer:
        raise NotThereYet(answer["absent"])
    return Sample(answer["seconds"] / times * 1000)


def _fresh(bench: Bench, towline: Towline | None, ssh: OpenSSH | None) -> None:
    contenders = []
    if towline:

        def tow_run() -> Sample:
            towline.needs_verb("run")
            return Sample(towline.tow("run", towline.alias, "--", *TRUE).seconds * 1000)

        contenders.append(Contender("towline", tow_run, "exit status kept by the node"))
    if ssh:
        contenders.append(
            Contender("ssh", lambda: Sample(bench.processes.run(ssh.ssh("peer", "true")).seconds * 1000))
        )
    bench.measure(Case("run", "true, fresh start", "ms", LOWER, contenders, key="fresh"))


def _output(bench: Bench, towline: Towline | None, on_disk: Towline | None, ssh: OpenSSH | None) -> None:
    os.makedirs(bench.path("target"), exist_ok=True)
    size, words = bench.scale.bulk, ["cat", big_file(bench)]
    touch_memory(bench, size)
    contenders, helper = [], None

    def add(
        name: str,
        command: Callable[[], Finished],
        servers: Callable[[], list[int]],
        verifies: str,
        before: Callable[[], None] | None = None,
    ) -> None:
        contenders.append(Contender(name, lambda: _printed(size, command, servers), verifies, before))

    def add_node(node: Towline, verifies: str, before: Callable[[], None] | None = None) -> None:
        def tow_run() -> Finished:
            node.needs_verb("run")
            return node.tow("run", node.alias, "--", *words, output=False)

        add(node.name, tow_run, lambda: [node.pid, *node.keepers()], verifies, before)

    if towline:
        helper = towline.client()
        add_node(towline, "kept in files until it is forgotten", partial(_forget_all, helper))
    if on_disk:
        add_node(on_disk, "the same on a disk; the node makes room when it must")
    if ssh:
        add("ssh (aes128-gcm)", lambda: bench.processes.run(ssh.ssh("peer", *words)), lambda: [ssh.pid], "")
    if pump := bench.peer(OutputPump):
        for name, how, verifies in (
            ("bare: pipe, TLS, pipe", "plain", ""),
            ("bare, kept", "kept", "kept in a file, the same each time"),
            ("bare, kept apart", "apart", "kept by another process, in a new file"),
        ):
            add(name, partial(bench.processes.run, pump.printing(words, how)), lambda: [pump.pid], verifies)
    name = "64 MiB" if bench.scale.quick else "1 GiB"
    try:
        bench.measure(Case("run", f"{name} of output", "MB/s", HIGHER, contenders, key="output"))
    except Failed as error:
        bench.leave_out("run: output", str(error))
    if helper:
        helper.close()


def _forget_all(helper: Helper) -> None:
    """The last output, as the last target of a file goes."""
    helper.ask(do="forget_all")


def _printed(size: int, command: Callable[[], Finished], servers: Callable[[], list[int]]) -> Sample:
    """One command; the processor time of each process of the serving side, the command itself included."""
    before = {pid: cpu_seconds(pid) for pid in servers()}
    children = sum(len(descendants(pid)) for pid in before)
    done = command()
    deadline = time.monotonic() + 1
    while sum(len(descendants(pid)) for pid in before) > children and time.monotonic() < deadline:
        time.sleep(0.01)  # a server's child that has not been reaped yet would not be counted
    used = [cpu_seconds(pid) - before.get(pid, 0.0) for pid in servers()]
    extras = {"server CPU s": sum(used), "client CPU s": done.cpu}
    if len(used) > 1:
        extras["of it the node's"] = used[0]
    return Sample(size / 1e6 / done.seconds, extras)


def _stall(bench: Bench, towline: Towline) -> None:
    """The longest echo over a second connection while output flows: so long stood the node's loop still, at most."""
    helper = towline.client()

    def echoes() -> Sample:
        words = ["run", towline.alias, "--", "head", "-c", str(64 << 30), "/dev/zero"]
        flood = bench.processes.start([*tow_command(), *words], env=towline.env, stdout=subprocess.PIPE)
        assert flood.stdout is not None
        with open(os.devnull, "wb") as nothing:
            flowing = threading.Thread(target=_pour, args=(flood.stdout, nothing), daemon=True)
            flood.stdout.read(MIB)
            flowing.start()
            try:
                answer = helper.ask(do="beats", count=bench.scale.count(500), pause=0.002)
            finally:
                flood.kill()
                flowing.join()
                bench.processes.stop(flood)
                _forget_all(helper)  # nobody will read it, and it counts against this person's share
        return Sample(answer["worst"], {"p50 ms": answer["p50"], "p99 ms": answer["p99"]})

    note = "echoes each 2 ms over another connection while a command prints as fast as it is read"
    contenders = [Contender("towline", echoes)]
    bench.measure(Case("run", "longest echo beside flowing output", "ms", LOWER, contenders, note, key="stall"))
    helper.close()


def _many(bench: Bench, towline: Towline) -> None:
    """200 commands at once on one line."""
    helper = towline.client()
    count = bench.scale.count(200)

    def all_at_once() -> Sample:
        with open(f"/proc/{towline.pid}/clear_refs", "w") as file:
            file.write("5")  # VmHWM begins anew (proc_pid_clear_refs(5))
        answer = helper.ask(do="run_many", count=count, size=MIB)
        return Sample(answer["seconds"], {"node MiB": resident_kib(towline.pid, "VmHWM") / 1024})

    contenders = [Contender("towline", all_at_once, "every byte, by the bench")]
    name = f"{count} commands at once, 1 MiB of output each"
    bench.measure(Case("run", name, "s", LOWER, contenders, "all over one line", key="many"))
    helper.close()


def _pour(source: IO[bytes], target: IO[bytes]) -> None:
    while data := source.read1(MIB):  # type: ignore[attr-defined]
        target.write(data)
