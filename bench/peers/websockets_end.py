"""Both ends of the websockets peer: `serve`, or a client of the given port."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from bench.peers.base import HOST, say
from bench.peers.loads import PAYLOAD


async def server() -> None:
    async def handle(connection: ServerConnection) -> None:
        """A text message asks for the count of what came since; the path `/echo` answers each message."""
        assert connection.request is not None
        echo, count = connection.request.path == "/echo", 0
        async for message in connection:
            if echo:
                await connection.send(message)
            elif isinstance(message, str):
                await connection.send(str(count))
                count = 0
            else:
                count += 1

    async with serve(handle, HOST, 0, compression=None) as listening:
        say(port=next(iter(listening.sockets)).getsockname()[1])
        await asyncio.get_running_loop().create_future()


async def client(port: str) -> None:
    loop = asyncio.get_running_loop()
    base = f"ws://{HOST}:{port}"
    async with connect(f"{base}/echo", compression=None) as echo, connect(f"{base}/sink", compression=None) as sink:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            question = json.loads(line)
            if question["do"] == "roundtrips":
                for _ in range(100):
                    await echo.send(PAYLOAD)
                    await echo.recv()
                begun = time.perf_counter()
                for _ in range(question["count"]):
                    await echo.send(PAYLOAD)
                    await echo.recv()
            else:
                begun = time.perf_counter()
                for _ in range(question["count"]):
                    await sink.send(PAYLOAD)
                await sink.send("count?")
                assert int(await sink.recv()) == question["count"]
            say(seconds=time.perf_counter() - begun)


if __name__ == "__main__":
    uvloop.run(server() if sys.argv[1] == "serve" else client(sys.argv[1]))
