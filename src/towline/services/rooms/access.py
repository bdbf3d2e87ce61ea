"""Who may see a room. Pure.

- An admin sees every room but the direct rooms of others.
- `chat=lobby,ops` sees those rooms, private or not, and no others, unless an admin invites them in.
- `chat` sees every room that is not private, and the private ones they were invited to or made.
- A direct room is for its two people.
"""

from __future__ import annotations

from towline.base.errors import NoGrant, UnknownRoom
from towline.services.rooms.messages import shown
from towline.services.rooms.names import people_of
from towline.trust.grants import Grants


def may_see(grants: Grants, person: str, room: str, *, private: bool, invited: bool | None) -> bool:
    """`invited`: None when not, else whether by an admin."""
    two = people_of(room)
    if two:
        return person in two and grants.allows("chat")
    listed = grants.restricted("chat")
    if listed is None:
        return not private or invited is not None or grants.allows("admin")
    return room in listed or bool(invited and listed)


def require_seen(grants: Grants, person: str, room: str, *, private: bool, invited: bool | None) -> None:
    """Raise NoGrant, or UnknownRoom for a private room: that it exists is nobody else's business."""
    if not may_see(grants, person, room, private=private, invited=invited):
        raise unseen(grants, room)


def unseen(grants: Grants, room: str) -> UnknownRoom:
    """What is said of a room that is not there, and word for word of a hidden one. Raises NoGrant."""
    hint = ""
    if not people_of(room):
        grants.require("chat", room)
        hint = "; /join makes it"
    return UnknownRoom(f"There is no room '{shown(room)}', or you are not in it{hint}.")


def may_create(grants: Grants, room: str) -> bool:
    """Whether joining a room that is not there makes it."""
    return grants.allows("chat", room) if not people_of(room) else grants.allows("chat")


def require_admin(grants: Grants) -> None:
    """Raise NoGrant unless an admin."""
    if not grants.allows("admin"):
        raise NoGrant("Moderation is for admins; you do not have the grant 'admin' on this node.")
