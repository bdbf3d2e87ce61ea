"""Raw blocking sockets with a length prefix of 4 bytes: no encryption, no streams, no credit; the floor."""

from __future__ import annotations

import platform
import socket
import struct
import sys
import threading
import time
from typing import Any

from bench.peers.base import HOST, Helper, Peer, answer_questions, say
from bench.peers.loads import PAYLOAD

_PREFIX = struct.Struct(">I")
_BATCH = 256  # messages that the pipeline hands to one sendall, as a buffered writer would


class Sockets(Peer):
    """`client()` is a helper process that answers `roundtrips` and `pipeline`."""

    name = "raw blocking sockets (plain)"

    def start(self) -> None:
        self._server = Helper(self.bench, "bench.peers.sockets", "serve")
        self._port = self._server.answer()["port"]

    def stop(self) -> None:
        self._server.close()

    def version(self) -> str:
        return f"Python {platform.python_version()}"

    def client(self) -> Helper:
        return Helper(self.bench, "bench.peers.sockets", str(self._port))


def serve() -> None:
    with socket.create_server((HOST, 0)) as listener:
        say(port=listener.getsockname()[1])
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    """The first byte says what for: `e` echoes each message, `s` counts until an empty one."""
    echo, count, held = connection.recv(1) == b"e", 0, b""
    while data := connection.recv(65536):
        held += data
        at = 0
        while len(held) - at >= 4:
            (size,) = _PREFIX.unpack_from(held, at)
            if len(held) - at - 4 < size:
                break
            body = held[at + 4 : at + 4 + size]
            at += 4 + size
            if echo:
                connection.sendall(_PREFIX.pack(size) + body)
            elif size:
                count += 1
            else:
                connection.sendall(struct.pack(">Q", count))
                count = 0
        held = held[at:]


def client(port: str) -> None:
    def dial(kind: bytes) -> socket.socket:
        connection = socket.create_connection((HOST, int(port)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(kind)
        return connection

    echo, sink = dial(b"e"), dial(b"s")
    framed = _PREFIX.pack(len(PAYLOAD)) + PAYLOAD

    def roundtrips(count: int) -> None:
        for _ in range(count):
            echo.sendall(_PREFIX.pack(len(PAYLOAD)) + PAYLOAD)
            _exactly(echo, _PREFIX.unpack(_exactly(echo, 4))[0])

    def handle(question: dict[str, Any]) -> dict[str, Any]:
        count = question["count"]
        if question["do"] == "roundtrips":
            roundtrips(100)
            begun = time.perf_counter()
            roundtrips(count)
            return {"seconds": time.perf_counter() - begun}
        begun = time.perf_counter()
        for sent in range(0, count, _BATCH):
            sink.sendall(b"".join([framed] * min(_BATCH, count - sent)))
        sink.sendall(_PREFIX.pack(0))
        assert struct.unpack(">Q", _exactly(sink, 8))[0] == count
        return {"seconds": time.perf_counter() - begun}

    answer_questions(handle)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = connection.recv(size)
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionError("the other side has closed")
        data += more
    return data


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else client(sys.argv[1])
