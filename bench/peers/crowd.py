"""Many clients of one node in one process: people who write in pipelines, readers who only count what comes.

Neither writes an outbox nor takes a batch apart: the node is measured, and a client in Python would be what
limits it. A reader is a line like any other until it follows the room.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

import towline
from bench.peers.base import say
from bench.peers.loads import Hearing, Reader, raise_descriptors
from towline.client.connect import local_line
from towline.client.line import Line
from towline.client.rooms import Room
from towline.runtime.channel import Channel
from towline.runtime.loops import new_event_loop

Answer = dict[str, Any]
_AT_ONCE = 20  # handshakes
_RECORD = b'"seq":'


class Crowd:
    """The lines of this process. `unix` is the node's socket, by which its owner invites."""

    def __init__(self, folder: str, unix: str) -> None:
        self._folder, self._unix = folder, unix
        self._homes: list[str] = []
        self._lines: list[Line] = []
        self._writers: list[Line] = []
        self._hearing = Hearing()

    async def people(self, count: int, name: str) -> Answer:
        """Let that many people in."""
        async with local_line(self._unix) as owner:
            for number in range(count):
                channel = await owner.channel(
                    {"service": "admin", "op": "invite", "name": f"{name}-{number}", "can": "chat"}
                )
                message = await channel.receive()
                assert message is not None
                channel.end()
                home = os.path.join(self._folder, f"{name}-{number}")
                await towline.join(str(json.loads(message.body)), "home", home=home)
                self._homes.append(home)
        return {"people": count}

    async def writers(self) -> Answer:
        """A line for each of the people."""
        self._writers += await self._connect(len(self._homes))
        return {"writers": len(self._writers)}

    async def write(self, room: str, writers: int, count: int, at_once: int) -> Answer:
        """The first `writers` of them each say `count` messages of 100 bytes, `at_once` of them at a time."""
        rooms = [line.room(room) for line in self._writers[:writers]]
        begun, spent = time.perf_counter(), time.process_time()
        await asyncio.gather(*(_write(each, count, at_once) for each in rooms))
        return {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - spent}

    async def readers(self, room: str, count: int) -> Answer:
        """Join a room with that many lines."""
        for line in await self._connect(count):
            channel = await line.channel({"service": "rooms", "op": "follow", "room": room, "present": True})
            await channel.accepted()
            await channel.receive()  # who is there
            _become_light(channel, self._hearing)
        return {"readers": len(self._hearing.readers)}

    async def expect(self) -> Answer:
        """From now on one record is on its way to everybody."""
        self._hearing.expect()
        return {}

    async def heard_by_all(self) -> Answer:
        """Wait for it; when each got it."""
        return {"times": await self._hearing.times()}

    async def publish(self, room: str) -> Answer:
        """Say one thing; when that was, and when it was acknowledged."""
        at = time.time()
        await _write(self._writers[0].room(room), 1, 1)
        return {"at": at, "kept": time.time()}

    async def _connect(self, count: int) -> list[Line]:
        fresh: list[Line] = []
        while len(fresh) < count:
            homes = [self._homes[number % len(self._homes)] for number in range(len(fresh), count)][:_AT_ONCE]
            lines = [towline.connect("home", home=home, outbox=False) for home in homes]
            fresh += await asyncio.gather(*(line.__aenter__() for line in lines))
        self._lines += fresh
        return fresh


def _become_light(channel: Channel, hearing: Hearing) -> None:
    """From here on its bytes are kept first and looked at later; then pings are answered, credit is returned."""
    connection = channel.connection
    transport: Any = connection.transport
    tls = transport._tls  # noqa: SLF001

    def decrypt(data: bytes) -> bytes:
        tls.feed(data)
        plain = b"".join(tls.decrypt())
        if plain:
            connection.received(plain)
        while channel.receive_nowait() is not None:
            pass
        return plain

    transport._raw.set_protocol(Reader(hearing, decrypt, lambda plain: plain.count(_RECORD)))  # noqa: SLF001


async def _write(room: Room, count: int, at_once: int) -> None:
    """As a program does that has more to say than it waits for."""
    text = "x" * 100
    for said in range(0, count, at_once):
        outcomes = await room.say_all([text] * min(at_once, count - said))
        assert all(isinstance(outcome, int) for outcome in outcomes), outcomes


async def main(folder: str, unix: str) -> None:
    crowd, loop = Crowd(folder, unix), asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        question = json.loads(line)
        try:
            say(**await getattr(crowd, question.pop("do"))(**question))
        except Exception as error:
            if os.environ.get("BENCH_DEBUG"):
                raise
            say(failed=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    raise_descriptors()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main(*sys.argv[1:]))
