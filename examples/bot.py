"""A bot: it sits in a room and answers those who greet it. The bot itself is the ten lines of `bot`.

    python examples/bot.py ALIAS [ROOM]

`since` is where it begins: None is now, 0 is everything that is kept, a cursor is where it was last time.
"""

from __future__ import annotations

import asyncio
import sys

import towline


async def bot(alias: str, name: str, home: str | None = None) -> None:
    async with towline.connect(alias, home=home) as line:
        room = line.room(name)
        async for message in room.follow(since=None):
            if message.kind == "message" and message.text.lower().startswith("hello bot"):
                await room.say(f"Hello, {message.sender}!", id=f"answer-{message.seq}")
            elif message.text == "bot, go home":
                return


if __name__ == "__main__":
    asyncio.run(bot(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "lobby"))
