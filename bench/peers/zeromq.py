"""pyzmq over plain TCP: REQ/REP for round trips, DEALER/ROUTER for a pipeline. Nothing is encrypted."""

from __future__ import annotations

import sys
import time
from typing import Any

from bench.machine import package_version
from bench.peers.base import HOST, Helper, Peer, answer_questions, say
from bench.peers.loads import PAYLOAD


class ZeroMQ(Peer):
    """`client()` is a helper process that answers `roundtrips` and `pipeline`."""

    name = "pyzmq (plain)"
    modules = ("zmq",)

    def start(self) -> None:
        self._server = Helper(self.bench, "bench.peers.zeromq", "serve")
        self._ports = self._server.answer()

    def stop(self) -> None:
        self._server.close()

    def version(self) -> str:
        return package_version("pyzmq")

    def client(self) -> Helper:
        return Helper(self.bench, "bench.peers.zeromq", str(self._ports["reply"]), str(self._ports["router"]))


def serve() -> None:
    """Echo on one port, count on the other and tell the count when asked (an empty message)."""
    import zmq

    context = zmq.Context()
    reply, router = context.socket(zmq.REP), context.socket(zmq.ROUTER)
    router.set_hwm(100_000)
    say(reply=reply.bind_to_random_port(f"tcp://{HOST}"), router=router.bind_to_random_port(f"tcp://{HOST}"))
    poller = zmq.Poller()
    poller.register(reply, zmq.POLLIN)
    poller.register(router, zmq.POLLIN)
    count = 0
    while True:
        for socket, _ in poller.poll():
            try:
                while True:
                    if socket is reply:
                        reply.send(reply.recv(zmq.NOBLOCK))
                    else:
                        sender, body = router.recv_multipart(zmq.NOBLOCK)
                        if body:
                            count += 1
                        else:
                            router.send_multipart([sender, b"%d" % count])
                            count = 0
            except zmq.Again:
                pass


def client(reply_port: str, router_port: str) -> None:
    import zmq

    context = zmq.Context()
    request, dealer = context.socket(zmq.REQ), context.socket(zmq.DEALER)
    dealer.set_hwm(100_000)
    request.connect(f"tcp://{HOST}:{reply_port}")
    dealer.connect(f"tcp://{HOST}:{router_port}")

    def handle(question: dict[str, Any]) -> dict[str, Any]:
        count = question["count"]
        if question["do"] == "roundtrips":
            for _ in range(100):
                request.send(PAYLOAD)
                request.recv()
            begun = time.perf_counter()
            for _ in range(count):
                request.send(PAYLOAD)
                request.recv()
            return {"seconds": time.perf_counter() - begun}
        begun = time.perf_counter()
        send = dealer.send
        for _ in range(count):
            send(PAYLOAD)
        send(b"")
        assert int(dealer.recv()) == count
        return {"seconds": time.perf_counter() - begun}

    answer_questions(handle)


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else client(*sys.argv[1:])
