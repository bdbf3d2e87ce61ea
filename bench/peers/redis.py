"""Redis: PUBLISH to subscribers, and XADD to a stream with an fsync for each (`appendfsync always`). Plain TCP."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from typing import Any

from bench.machine import version_of
from bench.peers.base import HOST, Helper, Peer, answer_questions, free_port, wait_for_port, write
from bench.peers.loads import PAYLOAD


class Redis(Peer):
    """`client()` is a helper process that answers `fanout` and `append`."""

    name = "redis (plain)"
    programs = ("redis-server",)

    def start(self) -> None:
        self.port = free_port()
        self.folder = self.bench.on_disk("redis")
        config = write(
            os.path.join(self.folder, "redis.conf"),
            f'bind {HOST}\nport {self.port}\ndir {self.folder}\nappendonly yes\nappendfsync always\nsave ""\n'
            "daemonize no\n",
        )
        self._server = self.bench.processes.start(["redis-server", config])
        wait_for_port(self.port, self._server)

    def stop(self) -> None:
        self.bench.processes.stop(self._server)

    def version(self) -> str:
        return version_of(["redis-server", "--version"])

    def client(self) -> Helper:
        return Helper(self.bench, "bench.peers.redis", str(self.port))


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def client(port: str) -> None:
    def dial() -> socket.socket:
        connection = socket.create_connection((HOST, int(port)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    talk = dial()
    words = talk.makefile("rb")

    def handle(question: dict[str, Any]) -> dict[str, Any]:
        count = question["count"]
        if question["do"] == "append":
            begun = time.perf_counter()
            for _ in range(count):
                talk.sendall(command(b"XADD", b"room", b"*", b"text", PAYLOAD))
                words.readline()
                words.readline()
            return {"seconds": time.perf_counter() - begun}
        listeners = [dial() for _ in range(question["followers"])]
        message = b"*3\r\n$7\r\nmessage\r\n$4\r\nroom\r\n$100\r\n" + PAYLOAD + b"\r\n"
        threads = [threading.Thread(target=_listen, args=(each, len(message) * count)) for each in listeners]
        for each in listeners:
            each.sendall(command(b"SUBSCRIBE", b"room"))
            _exactly(each, len(b"*3\r\n$9\r\nsubscribe\r\n$4\r\nroom\r\n:1\r\n"))
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for _ in range(count):
            talk.sendall(command(b"PUBLISH", b"room", PAYLOAD))
            words.readline()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - begun
        for each in listeners:
            each.close()
        return {"seconds": seconds}

    answer_questions(handle)


def _listen(connection: socket.socket, size: int) -> None:
    _exactly(connection, size)


def _exactly(connection: socket.socket, size: int) -> None:
    while size:
        data = connection.recv(min(size, 65536))
        if not data:
            raise ConnectionError("the other side has closed")
        size -= len(data)


if __name__ == "__main__":
    client(sys.argv[1])
