"""Towline: files, commands and chat between machines over one framed protocol.

    async with towline.connect("home") as line: ...          # a client; `towline.sync.connect` is the same, blocking
    async with towline.Node("/srv/towline") as node: ...     # a server inside your own program

Importing this costs next to nothing: a name is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.base.version import __version__

if TYPE_CHECKING:
    from towline import sync
    from towline.base.errors import TowlineError
    from towline.client.connect import connect
    from towline.client.joining import join
    from towline.client.line import Connected, Line, LineEvent, Reconnecting
    from towline.client.transfer import Options
    from towline.node.config import NodeConfig
    from towline.node.node import Node
    from towline.protocol.table import Class
    from towline.runtime.channel import Channel, Message
    from towline.services.files.shares import Share

__all__ = [
    "Channel",
    "Class",
    "Connected",
    "Line",
    "LineEvent",
    "Message",
    "Node",
    "NodeConfig",
    "Options",
    "Reconnecting",
    "Share",
    "TowlineError",
    "__version__",
    "connect",
    "join",
    "sync",
]

_HOMES = {
    "Channel": "towline.runtime.channel",
    "Class": "towline.protocol.table",
    "Connected": "towline.client.line",
    "Line": "towline.client.line",
    "LineEvent": "towline.client.line",
    "Message": "towline.runtime.channel",
    "Node": "towline.node.node",
    "NodeConfig": "towline.node.config",
    "Options": "towline.client.transfer",
    "Reconnecting": "towline.client.line",
    "Share": "towline.services.files.shares",
    "TowlineError": "towline.base.errors",
    "connect": "towline.client.connect",
    "join": "towline.client.joining",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "sync":
        return import_module("towline.sync")
    if name not in _HOMES:
        raise AttributeError(f"module 'towline' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
