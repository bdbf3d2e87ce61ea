"""A service of your own, inside your own program, and a client that uses it.

    python examples/upper.py

The service gets one `channel` for each stream that a client opens: whole messages in, whole messages out. Everything
else (TLS, keys, invites, credit, keepalive, reconnects) is the node's.
"""

from __future__ import annotations

import asyncio
import tempfile

import towline


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        node = towline.Node(towline.NodeConfig(f"{folder}/node", listen="127.0.0.1:0"))

        @node.service("upper")
        async def upper(channel: towline.Channel) -> None:
            async for message in channel:
                await channel.send(message.upper())

        async with node:
            print(f"the node listens on {node.listening.address}")
            home = f"{folder}/client"
            await towline.join(await node.invite("ann"), "home", home=home)
            async with towline.connect("home", home=home) as line:
                channel = await line.channel({"service": "upper"}, towline.Class.INTERACTIVE)
                for word in (b"every", b"message", b"has", b"a", b"boundary"):
                    await channel.send(word)
                channel.end()
                async for answer in channel:
                    print(answer.decode())


if __name__ == "__main__":
    asyncio.run(main())
