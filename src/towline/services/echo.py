"""The smallest service: what comes goes back, message by message. For `tow ping`, benches and first steps."""

from __future__ import annotations

from towline.runtime.channel import Channel


async def echo(channel: Channel) -> None:
    """Answer each message with itself."""
    while (message := await channel.receive()) is not None:
        await channel.send(message.body, message.header)
