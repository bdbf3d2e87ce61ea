"""Named shares: what of a node's disk people may see at all."""

from __future__ import annotations

from msgspec import Struct

from towline.base.errors import NoGrant, ReadOnlyShare, UnknownShare
from towline.base.text import printable
from towline.services.files.tree import Root
from towline.trust.grants import Grants


class Share(Struct, frozen=True):
    """A folder under a name."""

    name: str
    path: str
    read_only: bool = False


class Shares:
    """The shares of one node, opened within a person's grants."""

    def __init__(self, shares: tuple[Share, ...]) -> None:
        self._by_name = {share.name: share for share in shares}

    def names(self, grants: Grants) -> list[Share]:
        """Those that a person may read or write."""
        return [s for s in self._by_name.values() if grants.allows("read", s.name) or grants.allows("write", s.name)]

    def open(self, name: str, grants: Grants, *, write: bool, portable: bool = True) -> Root:
        """The share's folder. Raises UnknownShare, NoGrant, ReadOnlyShare.

        A share that a person may neither read nor write is unknown to them.
        """
        share = self._by_name.get(name)
        if share is None or share not in self.names(grants):
            raise UnknownShare(f"The node has no share {printable(name, limit=80)!r} that you may see.")
        verb = "write" if write else "read"
        if not grants.allows(verb, name):
            raise NoGrant(f"You may not {verb} in share {name!r}; ask the node's admin for the grant {verb}={name}.")
        if write and share.read_only:
            raise ReadOnlyShare(f"The share {name!r} is read-only.")
        return Root.open(share.path, read_only=not write, portable=portable)
