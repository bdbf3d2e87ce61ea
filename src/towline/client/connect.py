"""From an alias to a line."""

from __future__ import annotations

import os
from collections.abc import Callable

from towline.base.errors import UsageError
from towline.client.attempt import Credentials
from towline.client.line import Line, LineEvent
from towline.client.reach import Target
from towline.trust.home import client_home
from towline.trust.keys import Identity
from towline.trust.pins import KnownNodes


def connect(
    alias: str,
    *,
    home: str | None = None,
    give_up: float | None = None,
    on_event: Callable[[LineEvent], None] | None = None,
    outbox: bool = True,
) -> Line:
    """A line to the node known as `alias`: `async with towline.connect("home") as line: …`.

    `home` is the client's state folder (default: TOWLINE_HOME or ~/.towline). `give_up`: seconds, see `Line`.
    `outbox`: what is said in rooms is on our disk until the node has it, so that it is sent even if we are killed. A
    program that has it elsewhere, and says it again with the same ids, does without: False.
    Raises UnknownAlias, LaxPermissions.
    """
    folder = home or client_home()
    node = KnownNodes(folder).find(alias)
    target = Target(node.alias, node.addresses or (node.address,), node.fingerprint)
    credentials = Credentials(Identity.load_or_create(folder))
    return Line(target, credentials, home=folder, give_up=give_up, on_event=on_event, outbox=outbox)


def local_line(unix_path: str, *, give_up: float | None = None) -> Line:
    """A line to a node of our own user through its Unix socket; the kernel vouches for us and we are its admin."""
    return Line(Target("this node", (f"unix:{unix_path}",), ""), Credentials(None), give_up=give_up)


def split_remote(text: str) -> tuple[str, str, str] | None:
    """`ALIAS:SHARE/PATH` as (alias, share, path); None for a local path. Raises UsageError.

    As with scp, a path that has a slash before its first colon, or starts with one, is local; `./a:b` names a local
    file with a colon.
    """
    alias, colon, rest = text.partition(":")
    if not colon or "/" in alias or not alias or os.path.isabs(text):
        return None
    share, _, path = rest.partition("/")
    if not share and path:
        raise UsageError(f"{text!r} names no share; write ALIAS:SHARE/PATH.")
    return alias, share, path
