"""The nodes that a client knows: alias, address and the pinned certificate; and groups of aliases."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, replace

from towline.base.errors import Conflict, DiskError, UnknownAlias, UsageError
from towline.base.names import checked_alias
from towline.base.oserrors import oserrors
from towline.base.text import printable
from towline.trust.files import folder_lock, private_folder, read_private, write_private

NODES_FILE = "nodes.json"
CONFIG_FILE = "config.toml"
_FORMAT = 1


class Node(Struct, frozen=True, kw_only=True):
    """A node as this client knows it.

    `address` is `host:port`, `[v6]:port` or `unix:/path`; `addresses` are all to be tried, in order. `fingerprint`
    is the pinned certificate (lower-case hex SHA-256); `joined` is in seconds since 1970.
    """

    alias: str
    address: str
    fingerprint: str
    name: str
    joined: float = 0.0
    addresses: tuple[str, ...] = ()


_Known = dict[str, Node]


class KnownNodes:
    """`nodes.json` and the groups of `config.toml` in a client's folder. Each call reads the files anew."""

    def __init__(self, home: str) -> None:
        self._home = os.path.abspath(home)
        self._path = os.path.join(self._home, NODES_FILE)
        self._config = os.path.join(self._home, CONFIG_FILE)

    def add(self, node: Node, *, replace: bool = False) -> Node:
        """Keep `node`; the one with the same alias gives way if it has the same fingerprint or `replace` is set.

        Raises Conflict when the alias stands for another node, UsageError for a bad alias or address.
        """
        fresh = _checked(node)

        def change(known: _Known) -> Node:
            if not replace:
                _refuse_other(known, fresh)
            known[fresh.alias] = fresh
            return fresh

        return self._changed(change)

    def check(self, node: Node) -> Node:
        """What `add` would keep or refuse, without keeping it: to be asked before an invite is used up for it."""
        fresh = _checked(node)
        _refuse_other(self._read(), fresh)
        return fresh

    def find(self, alias: str) -> Node:
        """The node with that alias. Raises UnknownAlias, naming close ones."""
        return _found(self._read(), alias)

    def all(self) -> list[Node]:
        """All known nodes, by alias."""
        return sorted(self._read().values(), key=lambda node: node.alias)

    def set_address(self, alias: str, address: str) -> Node:
        """Point `alias` elsewhere; the pin stays, and no other address is tried any more."""
        checked = checked_address(address)

        def change(known: _Known) -> Node:
            moved = replace(_found(known, alias), address=checked, addresses=(checked,))
            known[moved.alias] = moved
            return moved

        return self._changed(change)

    def forget(self, alias: str) -> Node:
        """Drop the node, its pin with it; returns what was known. Raises UnknownAlias."""
        return self._changed(lambda known: known.pop(_found(known, alias).alias))

    def groups(self) -> dict[str, list[str]]:
        """The table [groups] of `config.toml`: name -> aliases. Raises UsageError, naming the file."""
        import tomllib  # only the commands that name a group read this file

        with oserrors(self._config):
            try:
                with open(self._config, "rb") as file:
                    content = tomllib.load(file)
            except FileNotFoundError:
                return {}
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise UsageError(f"{printable(self._config)} is not TOML: {printable(str(error))}.")
        groups = content.get("groups", {})
        if not isinstance(groups, dict):
            raise self._bad_groups("[groups] is a table")
        return {name: self._members(name, members) for name, members in groups.items()}

    def group(self, name: str) -> list[str]:
        """The aliases of a group, named with or without `@`. Raises UnknownAlias, naming close ones."""
        groups, wanted = self.groups(), name.removeprefix("@")
        if wanted not in groups:
            raise UnknownAlias(
                f"There is no group '{printable('@' + wanted, limit=80)}' in {printable(self._config)}."
                + _suggestion(wanted, groups, "@")
            )
        return groups[wanted]

    def expand(self, targets: str) -> list[str]:
        """`a,b,@web` as aliases, each once, in order; each is a known node. Raises UnknownAlias or UsageError."""
        words = [word.strip() for word in targets.split(",")]
        if not all(words):
            raise UsageError(f"'{printable(targets, limit=80)}' has an empty name between its commas.")
        aliases = [alias for word in words for alias in (self.group(word) if word.startswith("@") else [word])]
        known = self._read()
        return list(dict.fromkeys(_found(known, alias).alias for alias in aliases))

    def _changed(self, change: Callable[[_Known], Node]) -> Node:
        private_folder(self._home)
        with folder_lock(self._home):
            known = self._read()
            result = change(known)
            nodes = [asdict(known[alias]) for alias in sorted(known)]
            text = json.dumps({"v": _FORMAT, "nodes": nodes}, indent=1)
            write_private(self._path, text.encode() + b"\n")
        return result

    def _read(self) -> _Known:
        raw = read_private(self._path)
        if raw is None:
            return {}
        try:
            content = json.loads(raw)
            if content["v"] != _FORMAT:
                raise Conflict(f"{printable(self._path)} was written by a newer Towline; update this one.")
            nodes = [_parsed(entry) for entry in content["nodes"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError):
            raise DiskError(
                f"{printable(self._path)} is damaged; restore it from a backup, or move it away and join again."
            )
        return {node.alias: node for node in nodes}

    def _members(self, name: str, members: object) -> list[str]:
        if not isinstance(members, list) or not all(isinstance(alias, str) for alias in members):
            raise self._bad_groups(f"the group '{printable(name, limit=80)}' is a list of aliases in quotes")
        return [checked_alias(alias) for alias in members]

    def _bad_groups(self, wanted: str) -> UsageError:
        return UsageError(f"{printable(self._config)} cannot be used: {wanted}.")


def checked_address(text: str) -> str:
    """`text` when it has the form of an address: `host:port`, `[v6]:port` or `unix:/path`. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if text.startswith("unix:"):
        good = text.startswith("unix:/")
    else:
        bare = not host.startswith("[") and ":" not in host
        bracketed = host.startswith("[") and host.endswith("]") and ":" in host
        number = int(port) if port.isascii() and port.isdecimal() and len(port) <= 5 else 0
        good = (
            bool(host and colon)
            and not any(char.isspace() for char in host)
            and (bare or bracketed)
            and 1 <= number <= 65535
        )
    if not good or printable(text) != text:
        raise UsageError(f"'{printable(text, limit=80)}' is no address; write HOST:PORT, [IPv6]:PORT or unix:/PATH.")
    return text


def _checked(node: Node) -> Node:
    address = checked_address(node.address)
    addresses = tuple(checked_address(other) for other in node.addresses) or (address,)
    fingerprint = node.fingerprint.lower()
    if len(fingerprint) != 64 or not set(fingerprint) <= set("0123456789abcdef"):
        raise UsageError(f"'{printable(node.fingerprint, limit=80)}' is no fingerprint: 64 hex digits are.")
    return replace(
        node, alias=checked_alias(node.alias), fingerprint=fingerprint, address=address, addresses=addresses
    )


def _refuse_other(known: _Known, fresh: Node) -> None:
    old = known.get(fresh.alias)
    if old is not None and old.fingerprint != fresh.fingerprint:
        raise Conflict(
            f"The alias {fresh.alias!r} stands for another node (fingerprint {old.fingerprint}, the new one has "
            f"{fresh.fingerprint}). Choose another alias, or forget it first: tow nodes forget {fresh.alias}"
        )


def _parsed(entry: dict[str, Any]) -> Node:
    known = {name: entry[name] for name in ("alias", "address", "fingerprint", "name")}
    if not all(isinstance(value, str) for value in known.values()):
        raise TypeError("a node's fields are text")
    addresses = tuple(str(other) for other in entry["addresses"])
    return _checked(Node(**known, joined=float(entry["joined"]), addresses=addresses))


def _found(known: _Known, alias: str) -> Node:
    node = known.get(alias)
    if node is None:
        node = known.get(checked_alias(alias))  # the same letters in another Unicode form
    if node is None:
        raise UnknownAlias(
            f"No node with the alias '{printable(alias, limit=80)}' is known here."
            + _suggestion(alias, known)
            + " `tow nodes` lists them, `tow join` adds one."
        )
    return node


def _suggestion(word: str, known: Iterable[str], mark: str = "") -> str:
    from difflib import get_close_matches  # for mistakes only

    close = get_close_matches(word, known, n=3)
    return f" Did you mean {', '.join(repr(mark + name) for name in close)}?" if close else ""
