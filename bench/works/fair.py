"""How long a keystroke waits while a large file goes by: a key each 10 ms, shown by a terminal on the other side."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable

from bench.harness import LOWER, MIB, Bench, Case, Contender, NotThereYet, Sample, remove
from bench.peers.base import Helper
from bench.peers.loads import Beats
from bench.peers.openssh import OpenSSH
from bench.peers.towline import Towline, tow_command
from bench.processes import Failed
from bench.works.space import BIG, big_file, touch_memory

SUMMARY = "keystroke and chat p99 while a bulk transfer runs"
PAUSE = 0.01


def run(bench: Bench) -> None:
    os.makedirs(bench.path("target"), exist_ok=True)
    big_file(bench)
    touch_memory(bench, bench.scale.bulk)
    beats = bench.scale.count(200)
    contenders: list[Contender] = []
    helper = None
    if towline := bench.peer(Towline):
        helper = towline.client()
        bulk = _Bulk(bench, towline)
        contenders += [
            Contender("towline", lambda: bulk.beside(lambda: _ask(helper, do="keys", count=beats, pause=PAUSE))),
            Contender("towline, transfer on the same line", lambda: _same(bench, helper, beats, None)),
            Contender("towline, transfer on the same connection", lambda: _same(bench, helper, beats, 0)),
            Contender("towline, no transfer", lambda: _ask(helper, do="keys", count=beats, pause=PAUSE)),
        ]
    if ssh := bench.peer(OpenSSH):
        contenders += [
            Contender("ssh and scp over one ControlMaster", lambda: _ssh(bench, ssh, beats, load=True)),
            Contender("ssh, no transfer", lambda: _ssh(bench, ssh, beats, load=False)),
        ]
    note = "the transfer is a `get` that is begun again and again; `towline`: by another process, as with `tow get`"
    bench.measure(Case("fair", "keystroke p99 under a transfer", "ms", LOWER, contenders, note, key="keys"))
    if towline and helper:
        chat = [
            Contender("towline", lambda: bulk.beside(lambda: _ask(helper, do="chat_beats", count=beats, pause=PAUSE)))
        ]
        bench.measure(Case("fair", "chat p99 under a transfer (durable)", "ms", LOWER, chat, key="chat"))
        helper.close()


def _ask(helper: Helper, **question: object) -> Sample:
    answer = helper.ask(**question)
    if "absent" in answer:
        raise NotThereYet(answer["absent"])
    return Sample(answer["p99"], {"p50 ms": answer["p50"], "worst ms": answer["worst"]})


def _same(bench: Bench, helper: Helper, beats: int, lanes: int | None) -> Sample:
    target = bench.path("target", "beside")
    bulk = {"remote": f"src/{BIG}", "target": target, "lanes": lanes}
    sample = _ask(helper, do="keys", count=beats, pause=PAUSE, bulk=bulk)
    for name in os.listdir(bench.path("target")):
        remove(bench.path("target", name))
    return sample


class _Bulk:
    """`tow get` in a process of its own, again and again."""

    def __init__(self, bench: Bench, towline: Towline) -> None:
        self._bench, self._towline = bench, towline

    def beside(self, work: Callable[[], Sample]) -> Sample:
        """Do `work` while it goes on."""
        target = self._bench.path("target", "beside")
        get = " ".join([*tow_command(), "get", "--quiet", f"{self._towline.alias}:src/{BIG}", target])
        script = f"while :; do {get}; rm -f {target}; done"
        load = self._bench.processes.start(["sh", "-c", script], env=self._towline.env)
        try:
            _wait_for_growth(self._bench.path("target"))
            return work()
        finally:
            self._bench.processes.stop(load)
            for name in os.listdir(self._bench.path("target")):
                remove(self._bench.path("target", name))


def _ssh(bench: Bench, ssh: OpenSSH, beats: int, *, load: bool) -> Sample:
    """A terminal on the other side shows the key; scp shares the connection."""
    config = ssh.shared()
    bench.processes.run(ssh.ssh("peer", "true", config=config))
    target = bench.path("target", "beside")
    copying = None
    if load:
        scp = " ".join(
            ["scp", "-q", "-F", os.path.join(ssh.folder, config), f"peer:{bench.path('source', BIG)}", target]
        )
        copying = bench.processes.start(["sh", "-c", f"while :; do {scp}; rm -f {target}; done"])
    typing = bench.processes.start(
        ssh.ssh("-tt", "peer", "cat", config=config), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    times = Beats()
    try:
        if load:
            _wait_for_growth(bench.path("target"))
        assert typing.stdin is not None
        assert typing.stdout is not None
        for _ in range(5):  # the first one waits for the start of ssh
            os.write(typing.stdin.fileno(), b"x")
            os.read(typing.stdout.fileno(), 1)
        for _ in range(beats):
            begun = time.perf_counter()
            os.write(typing.stdin.fileno(), b"x")
            os.read(typing.stdout.fileno(), 1)
            times.add(time.perf_counter() - begun)
            time.sleep(PAUSE)
    finally:
        for process in (typing, copying):
            if process is not None:
                bench.processes.stop(process)
        bench.processes.run(ssh.ssh("-O", "exit", "peer", config=config), ok=(0, 255))
        remove(target)
    answer = times.answer()
    return Sample(answer["p99"], {"p50 ms": answer["p50"], "worst ms": answer["worst"]})


def _wait_for_growth(folder: str) -> None:
    """Until the transfer has begun to write."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if any(_blocks(os.path.join(folder, name)) > MIB for name in os.listdir(folder)):
            return
        time.sleep(0.01)
    raise Failed("the transfer beside it did not begin")


def _blocks(path: str) -> int:
    try:
        return os.stat(path).st_blocks * 512
    except FileNotFoundError:
        return 0
