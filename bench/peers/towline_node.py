"""A program with a node inside and two services of its own: `echo` is there already, `sink` counts."""

from __future__ import annotations

import asyncio
import signal
import sys

from bench.peers.base import say
from towline.node import Node, NodeConfig
from towline.runtime.channel import Channel
from towline.runtime.loops import new_event_loop


async def sink(channel: Channel) -> None:
    """Count messages until the peer has ended its side, then tell how many."""
    count = 0
    async for _ in channel:
        count += 1
    await channel.send(str(count).encode())


async def serve(data: str) -> None:
    node = Node(NodeConfig(data=data, listen="127.0.0.1:0"))
    node.service("sink")(sink)
    await node.start()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, node.request_stop)
    say(address=node.listening.address)
    await node.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))
