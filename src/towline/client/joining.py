"""From an invite to an alias."""

from __future__ import annotations

import time

from towline.client.attempt import Credentials
from towline.client.line import Line
from towline.client.reach import Target
from towline.trust.home import client_home
from towline.trust.invites import decode_code
from towline.trust.keys import Identity
from towline.trust.pins import KnownNodes, Node


async def join(code: str, alias: str | None = None, *, home: str | None = None, give_up: float | None = None) -> Node:
    """Redeem an invite with this client's key and remember the node. Joining again with the same key is harmless.

    Raises BadInvite, Conflict (the alias is taken by another node), WrongPin, Unreachable, UsageError.
    """
    folder = home or client_home()
    invite = decode_code(code)
    known = KnownNodes(folder)
    node = Node(
        alias=alias or invite.name,
        address=invite.addresses[0],
        addresses=invite.addresses,
        fingerprint=invite.fingerprint,
        name=invite.name,
        joined=time.time(),
    )
    known.check(node)  # before the invite is used up
    credentials = Credentials(Identity.load_or_create(folder), invite.secret)
    line = Line(Target(node.alias, invite.addresses, invite.fingerprint), credentials, home=folder, give_up=give_up)
    async with line:
        return known.add(node)
