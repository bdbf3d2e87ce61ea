"""Memory of a connection that is up and says nothing, in the process that serves it."""

from __future__ import annotations

import os
from functools import partial

from bench.harness import LOWER, Bench, Case, Contender, Sample
from bench.peers.base import Helper
from bench.peers.openssh import OpenSSH
from bench.peers.towline import Towline
from bench.processes import Failed, descendants, proportional_kib, resident_kib

SUMMARY = "resident memory for each idle TLS connection"
SSH_CONNECTIONS = 20
IDLE_ROUNDS = 3  # memory hardly varies


def run(bench: Bench) -> None:
    count = bench.scale.count(500)
    contenders = []
    if bench.peer(Towline):
        contenders.append(Contender("towline", lambda: _towline(bench, count), "key proved, TLS 1.3"))
    if ssh := bench.peer(OpenSSH):
        contenders.append(Contender("sshd", lambda: _sshd(bench, ssh), "key proved"))
    contenders += [
        Contender(f"bare {loop} TLS server", partial(_bare, bench, loop, count), "TLS 1.3")
        for loop in ("uvloop", "asyncio")
    ]
    note = f"{count} connections; a fresh server for each round; sshd: {SSH_CONNECTIONS}, Pss of its processes"
    bench.measure(Case("idle", "idle connection", "KiB", LOWER, contenders, note, rounds=IDLE_ROUNDS, key="idle"))


class _Fresh(Towline):
    """A node that has served nobody yet: freed memory that a process keeps would hide the cost."""

    name = "towline idle"


def _towline(bench: Bench, count: int) -> Sample:
    node = _Fresh(bench)
    os.makedirs(node.folder, exist_ok=True)
    node.folder = bench.fresh("peers", "idle")
    node.start()
    try:
        client = node.client()
        try:
            client.ask(do="idle", count=20)  # modules, keys and tables that the first clients bring in
            before = resident_kib(node.pid)
            client.ask(do="idle", count=count)
            return Sample((resident_kib(node.pid) - before) / count)
        finally:
            client.close()
    finally:
        node.stop()


def _sshd(bench: Bench, ssh: OpenSSH) -> Sample:
    before = set(descendants(ssh.pid))
    clients = [bench.processes.start(ssh.ssh("-N", "-o", "ControlPath=none", "peer")) for _ in range(SSH_CONNECTIONS)]
    try:
        for _ in range(200):
            ours = set(descendants(ssh.pid)) - before
            if len(ours) >= SSH_CONNECTIONS:
                break
            bench.processes.run(["sleep", "0.05"])
        else:
            raise Failed("sshd did not take all connections")
        bench.processes.run(["sleep", "0.5"])  # until all have proved their keys
        ours = set(descendants(ssh.pid)) - before
        return Sample(sum(proportional_kib(pid) for pid in ours) / SSH_CONNECTIONS)
    finally:
        for client in clients:
            bench.processes.stop(client)


def _bare(bench: Bench, loop: str, count: int) -> Sample:
    server = Helper(bench, "bench.peers.bare", "serve", loop, *certificate(bench, "bare"))
    port = server.answer()["port"]
    client = Helper(bench, "bench.peers.bare", "client", str(port))
    try:
        client.ask(count=20)
        before = resident_kib(server.process.pid)
        client.ask(count=count)
        return Sample((resident_kib(server.process.pid) - before) / count)
    finally:
        client.close()
        server.close()


def certificate(bench: Bench, name: str) -> tuple[str, str]:
    """A certificate that nobody checks, and its key: where they are."""
    folder = bench.fresh("peers", name)
    path, key = os.path.join(folder, "certificate.pem"), os.path.join(folder, "key.pem")
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=peer", "-keyout", key, "-out", path]  # fmt: skip
    bench.processes.run(argv)
    return path, key
