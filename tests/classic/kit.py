"""What the tests of the dialects share: our servers in a thread, naive servers in a thread, `tow` as a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from towline.classic.address import Address, parse_address
from towline.classic.dialects import Over
from towline.classic.server import Server
from towline.classic.talk import Wire, dial

DEADLINE = 20.0


class Events:
    """Events as they come, from any thread, with a way to wait for one."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []
        self._changed = threading.Condition()

    def __call__(self, event: str, /, **fields: Any) -> None:
        with self._changed:
            self.all.append({"event": event, **fields})
            self._changed.notify_all()

    def wait(self, event: str, **fields: Any) -> dict[str, Any]:
        """The first event of that name with those fields, come or to come."""

        def found() -> dict[str, Any] | None:
            for one in self.all:
                if one["event"] == event and all(one.get(key) == value for key, value in fields.items()):
                    return one
            return None

        with self._changed:
            assert self._changed.wait_for(found, DEADLINE), f"no {event} {fields} in {self.all}"
            one = found()
            assert one is not None
            return one

    def named(self, event: str) -> list[dict[str, Any]]:
        with self._changed:
            return [one for one in self.all if one["event"] == event]


class Served:
    """One of our servers, running in a thread."""

    def __init__(self, address: Address, events: Events, loop: asyncio.AbstractEventLoop) -> None:
        self.address = address
        self.events = events
        self.loop = loop

    def connect(self) -> socket.socket:
        """A plain blocking client, as the tutorials have it."""
        family, where = self.address.resolved()
        sock = socket.socket(family, self.address.kind)
        sock.settimeout(DEADLINE)
        sock.connect(where)
        return sock

    def wire(self, timeout: float = DEADLINE) -> Wire:
        return dial(self.address, timeout=timeout, on_event=Events())


@contextlib.contextmanager
def serving(
    make: Callable[[Events], Any],
    over: Over = "tcp",
    where: str = "127.0.0.1:0",
    guard: Any = None,
    errors: int = 0,
) -> Iterator[Served]:
    """Our server for the dialect that `make` gives, until the block ends; it must end cleanly,
    after exactly `errors` events of that name."""
    events = Events()
    ready: list[Any] = []
    told = threading.Event()

    async def main() -> None:
        stop = asyncio.Event()
        server = Server(parse_address(over, where), make(events), on_event=events, guard=guard)
        async with server.running() as address:
            ready.extend([address, asyncio.get_running_loop(), stop])
            told.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    try:
        assert told.wait(DEADLINE)
        yield Served(parse_address(over, ready[0]), events, ready[1])
    finally:
        if ready:
            ready[1].call_soon_threadsafe(ready[2].set)
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert len(events.named("error")) == errors, events.named("error")


@contextlib.contextmanager
def naive_server(handle: Callable[[socket.socket], None], clients: int = 1) -> Iterator[Address]:
    """A tutorial's server: accept, talk, close, one client after the other."""
    problems: list[BaseException] = []
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.settimeout(DEADLINE)
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)

        def loop() -> None:
            try:
                for _ in range(clients):
                    conn, _ = listener.accept()
                    with conn:
                        conn.settimeout(DEADLINE)
                        handle(conn)
            except BaseException as error:
                problems.append(error)

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            yield parse_address("tcp", f"127.0.0.1:{listener.getsockname()[1]}")
        finally:
            thread.join(DEADLINE)
            assert not thread.is_alive()
    assert not problems, problems


@contextlib.contextmanager
def naive_udp_server(answer: Callable[[bytes], bytes | None], datagrams: int) -> Iterator[Address]:
    """A tutorial's UDP server for a number of datagrams."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(DEADLINE)
        sock.bind(("127.0.0.1", 0))

        def loop() -> None:
            for _ in range(datagrams):
                data, where = sock.recvfrom(1024)
                said = answer(data)
                if said is not None:
                    sock.sendto(said, where)

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            yield parse_address("udp", f"127.0.0.1:{sock.getsockname()[1]}")
        finally:
            thread.join(DEADLINE)
            assert not thread.is_alive()


def wire_to(address: Address, timeout: float = DEADLINE) -> Wire:
    return dial(address, timeout=timeout, on_event=Events())


def received(conn: socket.socket, count: int) -> bytes:
    """What a careful tutorial does: loop until `count` bytes are there."""
    data = b""
    while len(data) < count:
        piece = conn.recv(min(1024, count - len(data)))
        assert piece, f"closed after {len(data)} of {count}"
        data += piece
    return data


def int32(count: int) -> bytes:
    return struct.pack("i", count)


def ended(conn: socket.socket) -> bool:
    """Whether the other side closed (either way of closing counts)."""
    try:
        return conn.recv(1) == b""
    except ConnectionResetError:
        return True


def reset(conn: socket.socket) -> None:
    """Vanish: close with a reset, as a killed machine's kernel does."""
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    conn.close()


TOW = [sys.executable, "-m", "towline.cli.main", "classic"]


def tow(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """`tow classic …` as a process, to its end."""
    return subprocess.run([*TOW, *arguments], input=stdin, capture_output=True, timeout=DEADLINE * 2, check=False)


class TowServe:
    """`tow classic serve … --json` as a process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.first = self.event()
        assert self.first["event"] == "listening", self.first
        self.address = str(self.first["address"])

    def event(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the server ended"
        event: dict[str, Any] = json.loads(line)
        assert event["v"] == 1
        return event

    def wait_for(self, name: str) -> dict[str, Any]:
        while (event := self.event())["event"] != name:
            pass
        return event

    def operator(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def connect(self) -> socket.socket:
        if self.address.startswith("/"):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(DEADLINE)
            sock.connect(self.address)
            return sock
        host, _, port = self.address.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), DEADLINE)


@contextlib.contextmanager
def tow_serve(*arguments: str, ends_with: signal.Signals = signal.SIGINT) -> Iterator[TowServe]:
    """A server process for the block; at its end a signal must end it with status 0 and no traceback."""
    process = subprocess.Popen(
        [*TOW, "serve", *arguments, "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        yield TowServe(process)
        process.send_signal(ends_with)
        _, errors = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, errors
        assert b"Traceback" not in errors, errors
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
