"""Messages of 100 bytes: round trips one after another, and a pipeline that the server counts."""

from __future__ import annotations

from bench.harness import HIGHER, Bench, Case, Contender, Sample
from bench.peers.base import Helper, Peer
from bench.peers.sockets import Sockets
from bench.peers.towline import TowlineServices
from bench.peers.uvloop_tls import UvloopTls
from bench.peers.websockets import WebSockets
from bench.peers.zeromq import ZeroMQ

SUMMARY = "100-byte messages: round trips and pipelined, client and server in processes of their own"
NOTES = {
    "roundtrips": "one connection, one message under way",
    "pipeline": "one connection; one call for each message, but the raw sockets hand 256 of them to one sendall",
}
PEERS: tuple[tuple[str, type[Peer], str], ...] = (
    ("towline", TowlineServices, "TLS 1.3, session, stream, credit"),
    ("pyzmq (plain)", ZeroMQ, "nobody"),
    ("websockets (plain)", WebSockets, "nobody"),
    ("raw blocking sockets (plain)", Sockets, "nobody"),
    ("bare uvloop TLS, length prefix", UvloopTls, "TLS 1.3"),
)


def run(bench: Bench) -> None:
    helpers: list[tuple[str, Helper, str]] = []
    for name, kind, verifies in PEERS:
        if peer := bench.peer(kind):
            helpers.append((name, peer.client(), verifies))  # type: ignore[attr-defined]
    try:
        _measure(bench, helpers, "roundtrips", "round trips", "round trips/s", bench.scale.count(10_000))
        _measure(bench, helpers, "pipeline", "pipelined", "messages/s", bench.scale.count(100_000))
    finally:
        for _, helper, _ in helpers:
            helper.close()


def _measure(
    bench: Bench, helpers: list[tuple[str, Helper, str]], verb: str, name: str, unit: str, count: int
) -> None:
    def once(helper: Helper) -> Sample:
        return Sample(count / helper.ask(do=verb, count=count)["seconds"])

    contenders = [
        Contender(label, lambda helper=helper: once(helper), verifies)  # type: ignore[misc]
        for label, helper, verifies in helpers
    ]
    bench.measure(Case("messages", name, unit, HIGHER, contenders, NOTES[verb], key=verb))
