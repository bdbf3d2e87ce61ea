"""A program with a line to the node; it does what the bench asks and tells how long it took (seconds)."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bench.peers.base import say
from bench.peers.loads import PAYLOAD, Beats
from towline.base.errors import Conflict
from towline.client.connect import connect
from towline.client.line import Line
from towline.client.transfer import Options
from towline.protocol.table import Class
from towline.runtime.loops import new_event_loop

Answer = dict[str, Any]


class Client:
    """One line, opened at the first question, and what can be asked of it."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.lines: list[Line] = []
        self.rooms: dict[str, Any] = {}
        self._following: list[asyncio.Task[None]] = []

    async def line(self) -> Line:
        if not self.lines:
            self.lines.append(await connect(self.alias).__aenter__())
        return self.lines[0]

    async def hello(self) -> Answer:
        await self.line()
        return {"up": True}

    async def roundtrips(self, count: int) -> Answer:
        channel = await (await self.line()).channel({"service": "echo"}, Class.INTERACTIVE)
        await channel.accepted()
        for _ in range(100):
            await _echo(channel)
        begun = time.perf_counter()
        for _ in range(count):
            await _echo(channel)
        seconds = time.perf_counter() - begun
        channel.end()
        return {"seconds": seconds}

    async def pipeline(self, count: int) -> Answer:
        channel = await (await self.line()).channel({"service": "sink"}, Class.INTERACTIVE)
        await channel.accepted()
        send = channel.send
        begun = time.perf_counter()
        for _ in range(count):
            await send(PAYLOAD)
        channel.end()
        message = await channel.receive()
        assert message is not None
        assert int(message.body) == count
        return {"seconds": time.perf_counter() - begun}

    async def beats(self, count: int, pause: float, bulk: Answer | None = None) -> Answer:
        """Echo one byte each `pause` seconds; with `bulk` (remote, target) a transfer goes on over the same line."""
        line = await self.line()
        channel = await line.channel({"service": "echo"}, Class.INTERACTIVE)
        await channel.accepted()
        answer = await self._beat(lambda: _echo(channel), count, pause, bulk)
        channel.end()
        return answer

    async def keys(self, count: int, pause: float, bulk: Answer | None = None) -> Answer:
        """The same with a key that is pressed in a terminal on the node, which shows it."""
        line = await self.line()
        job = await line.start(["cat"], size=(24, 80))
        shown = aiter(job.output())

        async def press() -> None:
            await job.write(b"x")
            await anext(shown)

        answer = await self._beat(press, count, pause, bulk)
        await job.signal("KILL")
        await job.wait()
        await job.close()
        return answer

    async def _beat(
        self, beat: Callable[[], Awaitable[None]], count: int, pause: float, bulk: Answer | None
    ) -> Answer:
        load = asyncio.create_task(self._load(await self.line(), bulk)) if bulk else None
        beats = Beats()
        for _ in range(5):  # the first ones open the way
            await beat()
        for _ in range(count):
            begun = time.perf_counter()
            await beat()
            beats.add(time.perf_counter() - begun)
            await asyncio.sleep(pause)
        moved = 0
        if load is not None:
            load.cancel()
            moved = (await asyncio.gather(load, return_exceptions=True))[0] or 0  # type: ignore[assignment]
        return beats.answer() | {"rounds": moved if isinstance(moved, int) else 0}

    async def _load(self, line: Line, bulk: Answer) -> int:
        while True:
            await line.get(bulk["remote"], bulk["target"], options=Options(overwrite="always", lanes=bulk["lanes"]))
            os.unlink(bulk["target"])

    async def chat_beats(self, count: int, pause: float) -> Answer:
        """Say something each `pause` seconds; how long until the node has it durably."""
        room = await self.room("bench")
        beats = Beats()
        for number in range(count):
            begun = time.perf_counter()
            await room.say(f"beat {number}")
            beats.add(time.perf_counter() - begun)
            await asyncio.sleep(pause)
        return beats.answer()

    async def say(self, count: int, room: str, at_once: int = 1) -> Answer:
        """Say `count` messages, `at_once` of them under way; each is durable when its call returns."""
        target = await self.room(room)
        left = iter(range(count))

        async def one_after_another() -> None:
            for number in left:
                await target.say(f"{number:08d}" + "x" * 92)

        begun = time.perf_counter()
        await asyncio.gather(*(one_after_another() for _ in range(at_once)))
        return {"seconds": time.perf_counter() - begun}

    async def room(self, name: str) -> Any:
        """A room that we are in; made where there is none."""
        if name not in self.rooms:
            self.rooms[name] = (await self.line()).room(name)
            await self.rooms[name].join()
        return self.rooms[name]

    async def follow(self, room: str, count: int, followers: int) -> Answer:
        """Follow a room `followers` times over lines of their own until each has seen `count` new messages."""
        await self.room(room)
        lines = [await connect(self.alias).__aenter__() for _ in range(followers)]
        ready = [asyncio.Event() for _ in lines]
        self._following = [
            asyncio.create_task(_follow(line, room, count, event)) for line, event in zip(lines, ready, strict=True)
        ]
        self.lines += lines
        for event in ready:
            await event.wait()
        return {"following": followers}

    async def followed(self) -> Answer:
        """Wait until all have seen all."""
        async with asyncio.timeout(60):
            await asyncio.gather(*self._following)
        return {"at": time.time()}

    async def run(self, argv: list[str], times: int = 1) -> Answer:
        line = await self.line()
        begun = time.perf_counter()
        for _ in range(times):
            result = await line.run(argv)  # type: ignore[attr-defined]
            assert result.status == 0
        return {"seconds": time.perf_counter() - begun}

    async def run_many(self, count: int, size: int) -> Answer:
        """So many commands at once on one line, each printing `size` bytes of its own."""
        line = await self.line()

        async def one(number: int) -> None:
            result = await line.run(["sh", "-c", f"yes {number:07} | head -c {size}"])
            assert result.stdout == f"{number:07}\n".encode() * (size // 8), number

        begun = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(count)))
        return {"seconds": time.perf_counter() - begun}

    async def forget_all(self) -> Answer:
        """End and forget all jobs of this person."""
        line = await self.line()
        for row in await line.jobs():
            job = line.job(row["job"])
            await job.signal("KILL")
            while True:
                try:
                    await job.forget()
                    break
                except Conflict:
                    await asyncio.sleep(0.05)
        return {}

    async def idle(self, count: int) -> Answer:
        """Open `count` lines more and leave them alone."""
        for _ in range(0, count, 20):
            self.lines += await asyncio.gather(*(connect(self.alias).__aenter__() for _ in range(min(20, count))))
        return {"lines": len(self.lines)}

    async def gets(self, jobs: list[list[str]]) -> Answer:
        """Download (remote, target) pairs at once, each over the line of its number; seconds of each."""
        while len(self.lines) < len(jobs):
            self.lines.append(await connect(self.alias).__aenter__())
        if not jobs:
            return {"seconds": []}
        begun = time.perf_counter()

        async def one(line: Line, remote: str, target: str) -> float:
            await line.get(remote, target)
            return time.perf_counter() - begun

        work = [one(line, remote, target) for line, (remote, target) in zip(self.lines, jobs, strict=False)]
        return {"seconds": await asyncio.gather(*work)}

    async def put(self, source: str, remote: str) -> Answer:
        line = await self.line()
        begun = time.perf_counter()
        await line.put(source, remote)
        return {"seconds": time.perf_counter() - begun}

    async def close(self) -> None:
        await asyncio.gather(*(line.close() for line in self.lines))


async def _echo(channel: Any) -> None:
    await channel.send(PAYLOAD)
    await channel.receive()


async def _follow(line: Line, room: str, count: int, ready: asyncio.Event) -> None:
    seen = 0
    async for _ in line.room(room).follow(present=False, on_open=lambda _: ready.set()):
        seen += 1
        if seen == count:
            return


async def main(alias: str) -> None:
    client = Client(alias)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        question = json.loads(line)
        verb: Callable[..., Awaitable[Answer]] = getattr(client, question.pop("do"))
        try:
            say(**await verb(**question))
        except AttributeError as error:
            say(absent=str(error))
        except Exception as error:
            if os.environ.get("BENCH_DEBUG"):
                raise
            say(failed=f"{type(error).__name__}: {error}")
    await client.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main(sys.argv[1]))
