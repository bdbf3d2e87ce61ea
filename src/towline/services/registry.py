"""What a service is, and the table of those that a node offers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from towline.base.errors import UnknownService
from towline.base.text import printable
from towline.runtime.channel import Channel

Handler: TypeAlias = Callable[[Channel], Awaitable[None]]


class Registry:
    """Services by name. A handler accepts the channel itself, unless `auto_accept` says to do it before."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def add(self, name: str, handler: Handler, *, auto_accept: bool = False) -> None:
        if name in self._handlers:
            raise ValueError(f"service {name!r} exists already")
        self._handlers[name] = _accepting(handler) if auto_accept else handler

    def find(self, name: str) -> Handler:
        """The handler. Raises UnknownService."""
        handler = self._handlers.get(name)
        if handler is None:
            raise UnknownService(f"The node does not offer the service {printable(name, limit=80)!r}.")
        return handler


def _accepting(handler: Handler) -> Handler:
    async def accept_first(channel: Channel) -> None:
        channel.accept()
        await handler(channel)

    return accept_first
